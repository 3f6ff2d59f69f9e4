// y[b, i, j, n] = act((A^T m A)[i % 4, j % 4] + bias[n] + row[b, n]) + residual[b, i, j, n], with m the 6 x 6 values of
// the tile that the pixel is in; one thread per tile and vector of four of n. Pixels beyond y's edges are dropped. The
// tiles that m does not have are those of `before`, or zero.
#import flat
#import epilogue
#import lanes

override HAS_BEFORE: bool = false;

struct Params {
    tiles: u32, // of y
    first: u32, // tile of m
    end: u32, // past the last tile of m
    vectors: u32, // of m at a position
    m_n4: u32,
    n: u32, // columns of y, at most those of m
    n4: u32,
    rows_per_batch: u32, // height * width
    height: u32, // of y
    width: u32,
    down: u32, // tiles in a column and in a row of a picture
    across: u32,
}

@group(0) @binding(0) var<storage, read> m: array<vec4f>; // [36, vectors], of them [end - first, m_n4] in front
@group(0) @binding(1) var<storage, read> before: array<elem4>; // [batch, height, width, n4]
@group(0) @binding(2) var<storage, read> bias: array<vec4f>; // [n4]
@group(0) @binding(3) var<storage, read> row_bias: array<elem4>; // [batch, n4]
@group(0) @binding(4) var<storage, read> residual: array<elem4>; // [batch, height, width, n4]
@group(0) @binding(5) var<storage, read_write> y: array<elem4>; // [batch, height, width, n4]
@group(0) @binding(6) var<uniform> params: Params;

struct Four {
    a: vec4f,
    b: vec4f,
    c: vec4f,
    d: vec4f,
}

const SQRT_2: f32 = 1.4142135623730951;

// A^T times six values (src/ops/winograd/mod.rs).
fn transform(a: vec4f, b: vec4f, c: vec4f, d: vec4f, e: vec4f, f: vec4f) -> Four {
    let inner = b + c;
    let inner_odd = (0.5 * SQRT_2) * (b - c);
    let outer = d + e;
    let outer_odd = SQRT_2 * (d - e);
    return Four(
        a + inner + outer,
        inner_odd + outer_odd,
        fma(vec4f(0.5), inner, 2.0 * outer),
        fma(vec4f(0.5), inner_odd, fma(vec4f(2.0), outer_odd, f)),
    );
}

// Column `j` of a tile whose first vector in m is `first`.
fn column_of(first: u32, j: u32) -> Four {
    return transform(
        m[first + j * params.vectors],
        m[first + (6u + j) * params.vectors],
        m[first + (12u + j) * params.vectors],
        m[first + (18u + j) * params.vectors],
        m[first + (24u + j) * params.vectors],
        m[first + (30u + j) * params.vectors],
    );
}

// The tile's first pixel.
struct Corner {
    image: u32, // pixels before this batch entry
    row: u32,
    column: u32,
}

fn store_pixel(value: vec4f, corner: Corner, i: u32, j: u32, n4: u32) {
    let row = corner.row + i;
    let column = corner.column + j;
    if row < params.height && column < params.width {
        let pixel = corner.image + row * params.width + column;
        y[pixel * params.n4 + n4] = store(epilogue(keep_lanes(value, 4u * n4, params.n), pixel, n4));
    }
}

fn store_row(values: Four, corner: Corner, i: u32, n4: u32) {
    store_pixel(values.a, corner, i, 0u, n4);
    store_pixel(values.b, corner, i, 1u, n4);
    store_pixel(values.c, corner, i, 2u, n4);
    store_pixel(values.d, corner, i, 3u, n4);
}

fn keep(corner: Corner, n4: u32) {
    for (var row = corner.row; row < min(corner.row + 4u, params.height); row++) {
        for (var column = corner.column; column < min(corner.column + 4u, params.width); column++) {
            let at = (corner.image + row * params.width + column) * params.n4 + n4;
            if HAS_BEFORE {
                y[at] = before[at];
            } else {
                y[at] = store(vec4f(0.0));
            }
        }
    }
}

@compute @workgroup_size(FLAT_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if i >= params.tiles * params.n4 {
        return;
    }
    let n4 = i % params.n4;
    let tile = i / params.n4;
    let corner = Corner(
        tile / (params.down * params.across) * params.height * params.width,
        tile / params.across % params.down * 4u,
        tile % params.across * 4u,
    );
    if tile < params.first || tile >= params.end {
        keep(corner, n4);
        return;
    }
    let first = (tile - params.first) * params.m_n4 + n4;
    let k0 = column_of(first, 0u);
    let k1 = column_of(first, 1u);
    let k2 = column_of(first, 2u);
    let k3 = column_of(first, 3u);
    let k4 = column_of(first, 4u);
    let k5 = column_of(first, 5u);
    store_row(transform(k0.a, k1.a, k2.a, k3.a, k4.a, k5.a), corner, 0u, n4);
    store_row(transform(k0.b, k1.b, k2.b, k3.b, k4.b, k5.b), corner, 1u, n4);
    store_row(transform(k0.c, k1.c, k2.c, k3.c, k4.c, k5.c), corner, 2u, n4);
    store_row(transform(k0.d, k1.d, k2.d, k3.d, k4.d, k5.d), corner, 3u, n4);
}
