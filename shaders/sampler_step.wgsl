// o = x, or with GUIDED x[p] + factors[0] * (x[P + p] - x[p]); y[0] = factors[1] * o + sum over s of factors[2 + s] *
// slots[s], and y[1] = o. One thread per vector of four of o.
#import flat

struct Params {
    vectors: u32, // of o
    slots: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [texts * pictures, .., channels/4]
@group(0) @binding(1) var<storage, read> slots: array<vec4f>; // [slots, pictures, .., channels/4]
@group(0) @binding(2) var<storage, read> factors: array<vec4f>; // [(2 + slots)/4]
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>; // [2, pictures, .., channels/4]
@group(0) @binding(4) var<uniform> params: Params;

override GUIDED: bool = true;

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
    if GUIDED {
        o += factors[0].x * (load(x[params.vectors + i]) - o);
    }
    var next = factors[0].y * o;
    for (var s = 0u; s < params.slots; s++) {
        let factor = factors[(s + 2u) / 4u][(s + 2u) % 4u];
        // A slot without a factor may hold infinities.
        if factor != 0.0 {
            next += factor * slots[s * params.vectors + i];
        }
    }
    y[i] = next;
    y[params.vectors + i] = o;
}
