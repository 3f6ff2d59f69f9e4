// y[b, t, h, :] = sum_s w_ts v[b, s, h, :], w_ts = softmax over s of scale * q[b, t, h, :] . k[b, s, h, :].
//
// A workgroup takes 32 queries of one head and passes over the keys in tiles, with a running softmax: `top` is the largest
// score so far, and sums that were made with a smaller one are scaled down as it grows. Workgroups along x share out the
// queries, along y the heads of all batch entries, along z the channels of wide heads; there each makes the scores anew.
#import core

struct Params {
    queries: u32,
    keys: u32,
    heads: u32,
    head_vectors: u32, // channels of a head, in vectors of four
    scale: f32,
}

@group(0) @binding(0) var<storage, read> q: array<elem4>; // [batch, queries, heads, head_vectors]
@group(0) @binding(1) var<storage, read> k: array<elem4>; // [batch, keys, heads, head_vectors]
@group(0) @binding(2) var<storage, read> v: array<elem4>; // [batch, keys, heads, head_vectors]
@group(0) @binding(3) var<storage, read_write> y: array<elem4>; // [batch, queries, heads, head_vectors]
@group(0) @binding(4) var<uniform> params: Params;

override CAUSAL: bool = false; // query t sees the keys 0..t

const TILE: u32 = 32u; // queries of a workgroup
const LOWEST: f32 = -1.0e30; // below any score, and far enough from f32's end to be subtracted from

// One head of a batch entry.
struct Head {
    row: u32, // vectors from one token to the next
    q: u32, // the first token's first vector, in q and y
    k: u32, // in k and v
}

fn head_of(pair: u32) -> Head {
    let row = params.heads * params.head_vectors;
    let first = pair % params.heads * params.head_vectors;
    let batch = pair / params.heads;
    return Head(row, batch * params.queries * row + first, batch * params.keys * row + first);
}
