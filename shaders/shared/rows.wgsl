// For a core (see `product`): x is a matrix, there is one tap, and all is bound but y, at binding 5.
#import one_w

struct Params {
    first_tile: u32, // of rows
    rows: u32,
    taps: u32, // 1
    c4: u32,
    n4: u32,
    rows_per_batch: u32,
    x_vectors: u32, // of a row of x, if x_tail has its others
}

@group(0) @binding(0) var<storage, read> x: array<x_vector>; // [rows, c4], with JOINED [rows, x_vectors]
@group(0) @binding(1) var<storage, read> w: array<w_vector>; // [4 c4, n4]
@group(0) @binding(2) var<storage, read> bias: array<vec4f>; // [n4]
@group(0) @binding(3) var<storage, read> row_bias: array<elem4>; // [batch, n4]
@group(0) @binding(4) var<storage, read> residual: array<elem4>; // [rows, n4]
@group(0) @binding(6) var<uniform> params: Params;
@group(0) @binding(7) var<storage, read> x_tail: array<x_vector>; // [rows, c4 - x_vectors]

override JOINED: bool = false; // x has the first channels of a row and x_tail the others

struct Place {
    first: u32, // the row's first x_vector in x
    tail: u32, // what to add to the number of one in the row to find it in x_tail
}

alias Run = Place;

// Rows beyond the last repeat it: what they give is not stored.
fn place_x(row: u32) -> Place {
    let last = min(row, params.rows - 1u);
    if JOINED {
        // Below zero in the first row: the sum wraps back around.
        let vectors = params.x_vectors / VECTOR_FOURS;
        return Place(last * vectors, last * (params.c4 / VECTOR_FOURS - vectors) - vectors);
    }
    return Place(last * (params.c4 / VECTOR_FOURS), 0u);
}

fn run_x(place: Place, tap: u32) -> Run {
    return place;
}

fn has_x(run: Run, i: u32) -> bool {
    return i < params.c4 / VECTOR_FOURS;
}

fn read_x(run: Run, i: u32) -> x_vector {
    let at = min(i, params.c4 / VECTOR_FOURS - 1u);
    if JOINED && at >= params.x_vectors / VECTOR_FOURS {
        return x_tail[run.tail + at];
    }
    return x[run.first + at];
}
