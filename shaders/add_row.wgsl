// y[b, .., n] = x[b, .., n] + row[b, n], one thread per vector of four.
#import flat

struct Params {
    vectors: u32,
    n4: u32, // vectors in a row
    vectors_per_batch: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [batch, .., n4]
@group(0) @binding(1) var<storage, read> row: array<elem4>; // [batch, n4]
@group(0) @binding(2) var<storage, read_write> y: array<elem4>; // [batch, .., n4]
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(FLAT_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if i < params.vectors {
        let of_row = i / params.vectors_per_batch * params.n4 + i % params.n4;
        y[i] = store(load(x[i]) + load(row[of_row]));
    }
}
