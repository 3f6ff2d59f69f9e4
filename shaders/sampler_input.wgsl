// y[r, p] = sum over s of factors[s] * slots[s, p], for every repetition r. One thread per vector of four of y.
#import flat

struct Params {
    vectors: u32, // of y
    vectors_per_slot: u32,
    slots: u32,
}

@group(0) @binding(0) var<storage, read> slots: array<vec4f>; // [slots, pictures, .., channels/4]
@group(0) @binding(1) var<storage, read> factors: array<vec4f>; // [slots/4]
@group(0) @binding(2) var<storage, read_write> y: array<elem4>; // [repetitions * pictures, .., channels/4]
@group(0) @binding(3) var<uniform> params: Params;

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
    let at = i % params.vectors_per_slot;
    var sum = vec4f(0.0);
    for (var s = 0u; s < params.slots; s++) {
        let factor = factors[s / 4u][s % 4u];
        // A slot without a factor may hold infinities.
        if factor != 0.0 {
            sum += factor * slots[s * params.vectors_per_slot + at];
        }
    }
    y[i] = store(sum);
}
