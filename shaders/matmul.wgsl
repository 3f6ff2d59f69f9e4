// y[r, n] = act(sum over k of x[r, k] w[k, n] + bias[n] + row[batch of r, n]) + residual[r, n]
// k4 and n4 count vectors of four; every row is padded with zeros to whole vectors.
#import gemm

struct Params {
    rows: u32,
    k4: u32,
    n4: u32,
    rows_per_batch: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [rows, k4]
@group(0) @binding(1) var<storage, read> w: array<weight4>; // [4 k4, n4]
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>; // [n4]
@group(0) @binding(3) var<storage, read> row_bias: array<elem4>; // [batch, n4]
@group(0) @binding(4) var<storage, read> residual: array<elem4>; // [rows, n4]
@group(0) @binding(5) var<storage, read_write> y: array<elem4>; // [rows, n4]
@group(0) @binding(6) var<uniform> params: Params;

struct Place {
    inside: bool,
    first: u32, // the row's first vector
}

fn place_x(row: u32) -> Place {
    return Place(row < params.rows, row * params.k4);
}

fn load_x(place: Place, k4: u32) -> vec4<f32> {
    if !place.inside || k4 >= params.k4 {
        return vec4(0.0);
    }
    return load(x[place.first + k4]);
}

@compute @workgroup_size(16, ROW_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    gemm(group, groups, local);
}
