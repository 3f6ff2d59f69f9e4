// y = x: one read and one write of every element. The most bytes a second that a kernel here can hope to move.
#import flat

struct Params {
    vectors: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [vectors]
@group(0) @binding(1) var<storage, read_write> y: array<elem4>; // [vectors]
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(FLAT_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if i < params.vectors {
        y[i] = x[i];
    }
}
