// What goes into a Winograd convolution's products. The shader that imports this declares `y` and `params.vectors`: y's
// vectors at each of the 36 positions.
struct Six {
    a: vec4f,
    b: vec4f,
    c: vec4f,
    d: vec4f,
    e: vec4f,
    f: vec4f,
}

const SQRT_2: f32 = 1.4142135623730951;

// Row `i` of a tile's 6 x 6 positions, whose vector of the first is number `to`.
fn store_row(to: u32, i: u32, row: Six) {
    let first = to + 6u * i * params.vectors;
    y[first] = row.a;
    y[first + params.vectors] = row.b;
    y[first + 2u * params.vectors] = row.c;
    y[first + 3u * params.vectors] = row.d;
    y[first + 4u * params.vectors] = row.e;
    y[first + 5u * params.vectors] = row.f;
}
