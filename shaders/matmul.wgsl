// y[r, n] = act(sum over k of x[r, k] w[k, n] + bias[n] + row[batch of r, n]) + residual[r, n]
// c4 (of K) and n4 count vectors of four; every row is padded with zeros to whole vectors.
#import core
#import rows
#import store_y

struct Params {
    rows: u32,
    taps: u32, // 1
    c4: u32,
    n4: u32,
    rows_per_batch: u32,
}

@group(0) @binding(0) var<storage, read> x: array<x_vector>; // [rows, c4]
@group(0) @binding(1) var<storage, read> w: array<w_vector>; // [4 c4, n4]
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>; // [n4]
@group(0) @binding(3) var<storage, read> row_bias: array<elem4>; // [batch, n4]
@group(0) @binding(4) var<storage, read> residual: array<elem4>; // [rows, n4]
@group(0) @binding(5) var<storage, read_write> y: array<elem4>; // [rows, n4]
@group(0) @binding(6) var<uniform> params: Params;
