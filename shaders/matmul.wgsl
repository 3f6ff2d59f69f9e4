// y[r, n] = act(sum over k of x[r, k] w[k, n] + bias[n] + row[batch of r, n]) + residual[r, n]
// c4 (of K) and n4 count vectors of four; every row is padded with zeros to whole vectors.
#import core
#import rows
#import store_y

@group(0) @binding(5) var<storage, read_write> y: array<elem4>; // [rows, n4]
