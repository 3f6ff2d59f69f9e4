// For a core (see `product`): x is a matrix, there is one tap, and all is bound but y, at binding 5.
#import one_w

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
@group(0) @binding(6) var<uniform> params: Params;

alias Place = u32; // the row's first vector
alias Run = u32;

// Rows beyond the last repeat it: what they give is not stored.
fn place_x(row: u32) -> Place {
    return min(row, params.rows - 1u) * params.c4;
}

fn run_x(place: Place, tap: u32) -> Run {
    return place;
}

fn read_x(run: Run, c4: u32) -> x_vector {
    if c4 >= params.c4 {
        return x_vector();
    }
    return x[(run + c4) / VECTOR_FOURS];
}
