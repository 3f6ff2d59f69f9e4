// y = factor * x, element by element. One thread per vector of four.
#import flat

struct Params {
    vectors: u32, // of x and of y
    factor: f32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [rows, channels/4]
@group(0) @binding(1) var<storage, read_write> y: array<elem4>; // [rows, channels/4]
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(FLAT_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if i < params.vectors {
        y[i] = store(load(x[i]) * params.factor);
    }
}
