// The most multiply-adds a second, in the arithmetic of `elem4`: 16 independent chains v = a v + b for every vector of
// x, `rounds` times, and y = the mean of the chains. Chain c starts at x + c.
//
// The chains are variables, not an array: a compiler that does not unroll a loop would keep an array in memory. a and b
// are params, so no compiler can fold the chains.
#import flat

struct Params {
    vectors: u32,
    rounds: u32,
    a: f32,
    b: f32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [vectors]
@group(0) @binding(1) var<storage, read_write> y: array<elem4>; // [vectors]
@group(0) @binding(2) var<uniform> params: Params;

const CHAINS: f32 = 16.0;

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
    let a = store(vec4f(params.a));
    let b = store(vec4f(params.b));
    let start = load(x[i]);
    var v0 = store(start + 0.0);
    var v1 = store(start + 1.0);
    var v2 = store(start + 2.0);
    var v3 = store(start + 3.0);
    var v4 = store(start + 4.0);
    var v5 = store(start + 5.0);
    var v6 = store(start + 6.0);
    var v7 = store(start + 7.0);
    var v8 = store(start + 8.0);
    var v9 = store(start + 9.0);
    var v10 = store(start + 10.0);
    var v11 = store(start + 11.0);
    var v12 = store(start + 12.0);
    var v13 = store(start + 13.0);
    var v14 = store(start + 14.0);
    var v15 = store(start + 15.0);
    for (var round = 0u; round < params.rounds; round++) {
        v0 = fma(v0, a, b);
        v1 = fma(v1, a, b);
        v2 = fma(v2, a, b);
        v3 = fma(v3, a, b);
        v4 = fma(v4, a, b);
        v5 = fma(v5, a, b);
        v6 = fma(v6, a, b);
        v7 = fma(v7, a, b);
        v8 = fma(v8, a, b);
        v9 = fma(v9, a, b);
        v10 = fma(v10, a, b);
        v11 = fma(v11, a, b);
        v12 = fma(v12, a, b);
        v13 = fma(v13, a, b);
        v14 = fma(v14, a, b);
        v15 = fma(v15, a, b);
    }
    let sum = load(v0) + load(v1) + load(v2) + load(v3)
        + load(v4) + load(v5) + load(v6) + load(v7)
        + load(v8) + load(v9) + load(v10) + load(v11)
        + load(v12) + load(v13) + load(v14) + load(v15);
    y[i] = store(sum / CHAINS);
}
