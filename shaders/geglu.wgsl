// y[r, c] = x[r, 2c] * gelu(x[r, 2c + 1]), gelu(g) = g/2 * (1 + erf(g / sqrt(2))). One thread per vector of four of y.
#import flat
#import activation

struct Params {
    vectors: u32, // of y
    channels: u32, // of y: N
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [rows, 2N/4]
@group(0) @binding(1) var<storage, read_write> y: array<elem4>; // [rows, N/4]
@group(0) @binding(2) var<uniform> params: Params;

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
    let y_row = (params.channels + 3u) / 4u;
    let x_row = (params.channels + 1u) / 2u;
    let vector = 2u * (i % y_row);
    let first = i / y_row * x_row + vector;
    let a = load(x[first]);
    // An odd row ends after the first half of y's last vector. Padding is zero, and gives zeros.
    var b = vec4f();
    if vector + 1u < x_row {
        b = load(x[first + 1u]);
    }
    y[i] = store(vec4f(a.xz, b.xz) * gelu(vec4f(a.yw, b.yw)));
}
