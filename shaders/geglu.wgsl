// y[r, c] = x[r, c] * gelu(x[r, N + c]), gelu(g) = g/2 * (1 + erf(g / sqrt(2))). One thread per vector of four of y.
#import flat
#import lanes
#import activation

struct Params {
    vectors: u32, // of y
    channels: u32, // of y: N
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [rows, 2N/4]
@group(0) @binding(1) var<storage, read_write> y: array<elem4>; // [rows, N/4]
@group(0) @binding(2) var<uniform> params: Params;

// N is a multiple of four, so that the gates begin on a whole vector.
override ALIGNED: bool = true;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if (i >= params.vectors) {
        return;
    }
    let y_row = (params.channels + 3u) / 4u;
    let x_row = (2u * params.channels + 3u) / 4u;
    let first = (i / y_row) * x_row;
    let vector = i % y_row;
    var gate = vec4<f32>();
    if (ALIGNED) {
        gate = load(x[first + y_row + vector]);
    } else {
        for (var lane = 0u; lane < 4u; lane++) {
            let c = min(params.channels + 4u * vector + lane, 4u * x_row - 1u);
            gate[lane] = load(x[first + c / 4u])[c % 4u];
        }
    }
    let value = load(x[first + vector]) * gelu(gate);
    y[i] = store(keep_lanes(value, 4u * vector, params.channels));
}
