// y[k, n] = (q[k, n] - zero) * scales[k / block, n] - minima[k / block, n]: weights out of blocks along k, in which
// they share a scale and perhaps a minimum. With BITS 8, q are bytes and zero is 128. With BITS 4, a byte holds rows 2r
// (its low half) and 2r + 1, and zero is 8, or 0 where there is a minimum. One thread per four bytes.
#import flat

struct Params {
    words: u32, // of q
    n4: u32,
    rows: u32, // of q in a block
}

@group(0) @binding(0) var<storage, read> q: array<u32>; // [rows of q, n4]: four bytes each
@group(0) @binding(1) var<storage, read> scales: array<weight4>; // [blocks, n4]
@group(0) @binding(2) var<storage, read> minima: array<weight4>; // [blocks, n4]
@group(0) @binding(3) var<storage, read_write> y: array<elem4>; // [k, n4]
@group(0) @binding(4) var<uniform> params: Params;

override BITS: u32 = 8u; // 4 or 8
override HAS_MINIMUM: bool = false;

@compute @workgroup_size(FLAT_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if i >= params.words {
        return;
    }
    let row = i / params.n4;
    let column = i % params.n4;
    let block = row / params.rows * params.n4 + column;
    let scale = load_weight(scales[block]);
    let bytes = vec4u(q[i], q[i] >> 8u, q[i] >> 16u, q[i] >> 24u) & vec4u(0xffu);
    var minimum = vec4f(0.0);
    if HAS_MINIMUM {
        minimum = load_weight(minima[block]);
    } else if BITS == 4u {
        minimum = 8.0 * scale;
    }
    if BITS == 8u {
        y[i] = store((vec4f(bytes) - 128.0) * scale - minimum);
        return;
    }
    let low = vec4f(bytes & vec4u(15u));
    let high = vec4f(bytes >> vec4u(4u));
    let first = 2u * row * params.n4 + column;
    y[first] = store(low * scale - minimum);
    y[first + params.n4] = store(high * scale - minimum);
}
