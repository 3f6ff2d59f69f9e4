// y[r, i] = p[r, 2i] * gelu(p[r, 2i + 1]), p[r, n] = sum over k of x[r, k] w[k, n] + bias[n]
// c4 (of K) and n4 (of p) count vectors of four: a vector of p makes half a vector of y. Rows of y are whole vectors;
// those of x and w are padded with zeros to whole vectors. What else `epilogue` can add is absent.
#import core
#import rows

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
@group(0) @binding(5) var<storage, read_write> y: array<elem2>; // [rows, n4]
@group(0) @binding(6) var<uniform> params: Params;

fn store_y(sum: vec4<f32>, row: u32, n4: u32) {
    if row < params.rows && n4 < params.n4 {
        let v = epilogue(sum, row, n4);
        y[row * params.n4 + n4] = store2(v.xz * gelu(v).yw);
    }
}
