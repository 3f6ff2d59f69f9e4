// The most multiply-adds a second, in the arithmetic of `elem4`: 16 independent chains v = a v + b for every vector of
// x, `rounds` times, and y = the mean of the chains. Chain c starts at x + c.
//
// a and b are params, so no compiler can fold the chains; they are independent, so a processor can start one before
// the last is done.
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

const CHAINS: u32 = 16u;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if i >= params.vectors {
        return;
    }
    let a = store(vec4<f32>(params.a));
    let b = store(vec4<f32>(params.b));
    var chains: array<elem4, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) {
        chains[c] = store(load(x[i]) + f32(c));
    }
    for (var round = 0u; round < params.rounds; round++) {
        for (var c = 0u; c < CHAINS; c++) {
            chains[c] = fma(chains[c], a, b);
        }
    }
    var sum = vec4<f32>();
    for (var c = 0u; c < CHAINS; c++) {
        sum += load(chains[c]);
    }
    y[i] = store(sum / f32(CHAINS));
}
