// v[6 i + j, t, c] = (B^T d B)[i, j] with d the 6 x 6 pixels of x around output tile t; one thread per tile and vector
// of four channels. Pixels beyond x's edges are zero, and so are the tiles past the last and what is behind each of the
// 36.
#import flat
#import nearest
#import winograd

override UPSAMPLED: bool = false; // x is read as height x width, else it has that size

struct Params {
    vectors: u32, // of v at a position
    tiles: u32, // of v
    c4: u32, // of v
    first_tile: u32, // of v, among all
    first_c4: u32, // of v, in x
    x_c4: u32,
    height: u32, // as which x is read
    width: u32,
    down: u32, // tiles in a column and in a row of a picture
    across: u32,
    in_height: u32, // of x
    in_width: u32,
    y_scale: f32, // in_height / height
    x_scale: f32, // in_width / width
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [batch, in_height, in_width, x_c4]
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>; // v [36, vectors], of them [tiles, c4] and zeros
@group(0) @binding(2) var<uniform> params: Params;

// B^T times six values (src/ops/winograd/mod.rs).
fn transform(x: Six) -> Six {
    let outer = fma(vec4f(-2.0), x.c, x.e);
    let outer_odd = fma(vec4f(-SQRT_2), x.b, (0.5 * SQRT_2) * x.d);
    let inner = fma(vec4f(-0.5), x.c, x.e);
    let inner_odd = fma(vec4f(-0.5 * SQRT_2), x.b, SQRT_2 * x.d);
    return Six(
        fma(vec4f(-2.5), x.c, x.a + x.e),
        outer + outer_odd,
        outer - outer_odd,
        inner + inner_odd,
        inner - inner_odd,
        fma(vec4f(-2.5), x.d, x.b + x.f),
    );
}

// The tile's first pixel, which is left and above of it. Beyond x's edge it wraps around to a huge number: outside as
// well.
struct Corner {
    image: u32, // pixels before this batch entry
    row: u32,
    column: u32,
    inside: bool, // there is such a tile
}

fn load_pixel(corner: Corner, i: u32, j: u32, c4: u32) -> vec4f {
    var row = corner.row + i;
    var column = corner.column + j;
    let inside = corner.inside && row < params.height && column < params.width;
    if UPSAMPLED {
        row = nearest(row, params.y_scale, params.in_height);
        column = nearest(column, params.x_scale, params.in_width);
    }
    let pixel = corner.image + row * params.in_width + column;
    let value = load(x[select(0u, pixel * params.x_c4 + c4, inside)]);
    return select(vec4f(0.0), value, inside);
}

fn column_of(corner: Corner, j: u32, c4: u32) -> Six {
    return transform(Six(
        load_pixel(corner, 0u, j, c4),
        load_pixel(corner, 1u, j, c4),
        load_pixel(corner, 2u, j, c4),
        load_pixel(corner, 3u, j, c4),
        load_pixel(corner, 4u, j, c4),
        load_pixel(corner, 5u, j, c4),
    ));
}

@compute @workgroup_size(FLAT_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if i >= params.vectors {
        return;
    }
    let c4 = params.first_c4 + i % params.c4;
    let tile = params.first_tile + i / params.c4;
    let corner = Corner(
        tile / (params.down * params.across) * params.in_height * params.in_width,
        tile / params.across % params.down * 4u - 1u,
        tile % params.across * 4u - 1u,
        i / params.c4 < params.tiles,
    );
    let k0 = column_of(corner, 0u, c4);
    let k1 = column_of(corner, 1u, c4);
    let k2 = column_of(corner, 2u, c4);
    let k3 = column_of(corner, 3u, c4);
    let k4 = column_of(corner, 4u, c4);
    let k5 = column_of(corner, 5u, c4);
    store_row(i, 0u, transform(Six(k0.a, k1.a, k2.a, k3.a, k4.a, k5.a)));
    store_row(i, 1u, transform(Six(k0.b, k1.b, k2.b, k3.b, k4.b, k5.b)));
    store_row(i, 2u, transform(Six(k0.c, k1.c, k2.c, k3.c, k4.c, k5.c)));
    store_row(i, 3u, transform(Six(k0.d, k1.d, k2.d, k3.d, k4.d, k5.d)));
    store_row(i, 4u, transform(Six(k0.e, k1.e, k2.e, k3.e, k4.e, k5.e)));
    store_row(i, 5u, transform(Six(k0.f, k1.f, k2.f, k3.f, k4.f, k5.f)));
}
