// u[6 i + j, c, n] = (G g G^T)[i, j] with g[u, v] = w[u, v, c, n]; one thread per channel and vector of four of n. u
// stands in panels of 32 columns, which a product reads from the first to the last value. The rows of w that are
// padding are zero, and so are those of u, its columns past w's, and what is behind each of the 36.
#import flat
#import winograd

struct Params {
    vectors: u32, // of u at a position
    panel_vectors: u32, // of these in panels
    rows: u32, // channels of u, a multiple of 4
    first: u32, // vector of w at which the first channel begins
    tap: u32, // vectors in a tap of w
    n4: u32, // of w
}

@group(0) @binding(0) var<storage, read> w: array<weight4>; // [9, channels, n4]
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>; // u [36, vectors], of them [panels, rows, 8] and zeros
@group(0) @binding(2) var<uniform> params: Params;

// G times three values (src/ops/winograd/mod.rs).
fn transform(a: vec4f, b: vec4f, c: vec4f) -> Six {
    let low = fma(vec4f(-1.0 / 3.0), c, (-2.0 / 3.0) * a);
    let high = fma(vec4f(1.0 / 3.0), c, (1.0 / 6.0) * a);
    return Six(
        a,
        fma(vec4f(-SQRT_2 / 3.0), b, low),
        fma(vec4f(SQRT_2 / 3.0), b, low),
        fma(vec4f(SQRT_2 / 6.0), b, high),
        fma(vec4f(-SQRT_2 / 6.0), b, high),
        c,
    );
}

// Where this thread's vector of w stands in a tap, if it is one of w's.
struct Source {
    first: u32,
    inside: bool,
}

fn load_w(source: Source, tap: u32) -> vec4f {
    let value = load_weight(w[select(0u, source.first + tap * params.tap, source.inside)]);
    return select(vec4f(0.0), value, source.inside);
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
    // Threads go through four rows of a panel, then to the next panel: both w and u are met in runs.
    let panels = (params.n4 + 7u) / 8u;
    let block = i / 32u;
    let row = block / panels * 4u + i / 8u % 4u;
    let panel = block % panels;
    let n4 = panel * 8u + i % 8u;
    let behind = i >= params.panel_vectors;
    let source = Source(params.first + row * params.n4 + n4, !behind && n4 < params.n4);
    let to = select((panel * params.rows + row) * 8u + i % 8u, i, behind);
    let left = transform(load_w(source, 0u), load_w(source, 3u), load_w(source, 6u));
    let middle = transform(load_w(source, 1u), load_w(source, 4u), load_w(source, 7u));
    let right = transform(load_w(source, 2u), load_w(source, 5u), load_w(source, 8u));
    store_row(to, 0u, transform(left.a, middle.a, right.a));
    store_row(to, 1u, transform(left.b, middle.b, right.b));
    store_row(to, 2u, transform(left.c, middle.c, right.c));
    store_row(to, 3u, transform(left.d, middle.d, right.d));
    store_row(to, 4u, transform(left.e, middle.e, right.e));
    store_row(to, 5u, transform(left.f, middle.f, right.f));
}
