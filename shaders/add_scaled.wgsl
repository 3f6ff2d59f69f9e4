// y[b, ..] = x[b, ..] + s[b] * r[b, ..], one thread per vector of four.
#import flat

struct Params {
    vectors: u32, // of y
    vectors_per_batch: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [batch, .., channels/4]
@group(0) @binding(1) var<storage, read> r: array<elem4>; // [batch, .., channels/4]
@group(0) @binding(2) var<storage, read> s: array<vec4f>; // [batch], in lane 0
@group(0) @binding(3) var<storage, read_write> y: array<elem4>; // [batch, .., channels/4]
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(FLAT_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if i < params.vectors {
        y[i] = store(load(x[i]) + s[i / params.vectors_per_batch].x * load(r[i]));
    }
}
