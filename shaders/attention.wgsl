// y[b, t, h, :] = sum_s w_ts v[b, s, h, :], w_ts = softmax over s of scale * q[b, t, h, :] . k[b, s, h, :].
//
// A workgroup takes 32 queries of one head and passes over the keys in tiles, with a running softmax: `top` is the
// largest score so far, and sums that were made with a smaller one are scaled down as it grows. Workgroups along x
// share out the queries, along y the heads of all batch entries, along z the channels of wide heads; there each makes
// the scores anew.
#import core

struct Params {
    first_tile: u32, // of queries
    queries: u32,
    keys: u32,
    heads: u32,
    head_vectors: u32, // channels of a head, in vectors of four
    q_row: u32, // vectors from one token to the next in q
    kv_row: u32, // in k and v
    k_first: u32, // vectors before k in its input, which may hold q before it
    v_first: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read> q: array<elem4>; // [batch, queries, q_row]
@group(0) @binding(1) var<storage, read> k: array<elem4>; // [batch, keys, kv_row]
@group(0) @binding(2) var<storage, read> v: array<elem4>; // [batch, keys, kv_row]
@group(0) @binding(3) var<storage, read_write> y: array<elem4>; // [batch, queries, heads, head_vectors]
@group(0) @binding(4) var<uniform> params: Params;

override CAUSAL: bool = false; // query t sees the keys 0..t

const TILE: u32 = 32u; // queries of a workgroup
const LOWEST: f32 = -1.0e30; // below any score, and far enough from f32's end to be subtracted from

// One head of a batch entry: the place of the first token's first vector in each array.
struct Head {
    q: u32,
    k: u32,
    v: u32,
    y: u32,
}

fn y_row() -> u32 {
    return params.heads * params.head_vectors;
}

fn head_of(pair: u32) -> Head {
    let first = pair % params.heads * params.head_vectors;
    let batch = pair / params.heads;
    let kv = batch * params.keys * params.kv_row + first;
    let q = batch * params.queries * params.q_row + first;
    return Head(q, kv + params.k_first, kv + params.v_first, batch * params.queries * y_row() + first);
}
