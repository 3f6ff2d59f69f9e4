// o = x[0] + sum over r of factors[r - 1] * (x[r] - x[r - 1]); y[0] = f[0] * o + sum over s of f[1 + s] * slots[s] with
// the factors f after those, and y[1] = o. One thread per vector of four of o.
#import flat

struct Params {
    vectors: u32, // of o
    slots: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [rows * pictures, .., channels/4]
@group(0) @binding(1) var<storage, read> slots: array<vec4f>; // [slots, pictures, .., channels/4]
@group(0) @binding(2) var<storage, read> factors: array<vec4f>; // [(rows + slots)/4]
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>; // [2, pictures, .., channels/4]
@group(0) @binding(4) var<uniform> params: Params;

override ROWS: u32 = 2u; // of x for each of o, at least 1

fn factor(i: u32) -> f32 {
    return factors[i / 4u][i % 4u];
}

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
    var o = load(x[i]);
    var before = o;
    for (var r = 1u; r < ROWS; r++) {
        let row = load(x[r * params.vectors + i]);
        o += factor(r - 1u) * (row - before);
        before = row;
    }
    var next = factor(ROWS - 1u) * o;
    for (var s = 0u; s < params.slots; s++) {
        let weight = factor(ROWS + s);
        // A slot without a factor may hold infinities.
        if weight != 0.0 {
            next += weight * slots[s * params.vectors + i];
        }
    }
    y[i] = next;
    y[params.vectors + i] = o;
}
