// y[r, i] = p[r, 2i] * gelu(p[r, 2i + 1]), p[r, n] = sum over k of x[r, k] w[k, n] + bias[n]
// c4 (of K) and n4 (of p) count vectors of four: a vector of p makes half a vector of y. Rows of y are whole vectors;
// those of x and w are padded with zeros to whole vectors. What else `epilogue` can add is absent.
#import core
#import epilogue
#import rows

@group(0) @binding(5) var<storage, read_write> y: array<elem2>; // [rows, n4]

fn store_y(sum: vec4f, row: u32, n4: u32) {
    if row < params.rows && n4 < params.n4 {
        let v = epilogue(sum, row, n4);
        y[row * params.n4 + n4] = store2(v.xz * gelu(v).yw);
    }
}
