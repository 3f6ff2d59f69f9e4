// For a core (see `product`): x is a matrix [rows, c4], and there is one tap.
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
