// How x is read that may be in two parts: with JOINED, x has the first channels of every row and x_tail the others. The
// file that imports this declares both, and `params.x_vectors`, the vectors of a row of x where it is one part.
override JOINED: bool = false;

// Vector `vector` of the `vectors` of row `row`.
fn read_x(row: u32, vector: u32, vectors: u32) -> vec4f {
    if JOINED {
        if vector >= params.x_vectors {
            return load(x_tail[row * (vectors - params.x_vectors) + vector - params.x_vectors]);
        }
        return load(x[row * params.x_vectors + vector]);
    }
    return load(x[row * vectors + vector]);
}
