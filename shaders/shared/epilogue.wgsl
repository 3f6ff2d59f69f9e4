// What a product does with each element before it stores it: act(value + bias + row) + residual. The shader that
// imports this declares `bias`, `row_bias`, `residual` and `params`. Operands that are absent are never read.
#import activation

override HAS_BIAS: bool = false;
override HAS_ROW: bool = false; // one row a batch entry
override HAS_RESIDUAL: bool = false;

// Four columns of y, at row `row` and vector `n4` of it. Every operand is zero in its padding, so y is as well.
fn epilogue(value: vec4f, row: u32, n4: u32) -> vec4f {
    var v = value;
    if HAS_BIAS {
        v += bias[n4];
    }
    if HAS_ROW {
        v += load(row_bias[row / params.rows_per_batch * params.n4 + n4]);
    }
    v = activate(v);
    if HAS_RESIDUAL {
        v += load(residual[row * params.n4 + n4]);
    }
    return v;
}
