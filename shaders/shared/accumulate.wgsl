// Four rows of four columns: what four elements of a row are multiplied with.
struct Weights {
    k0: vec4f,
    k1: vec4f,
    k2: vec4f,
    k3: vec4f,
}

// `sum` + four elements of a row times four rows of four columns.
fn accumulate(sum: vec4f, a: vec4f, w: Weights) -> vec4f {
    return fma(vec4f(a.w), w.k3, fma(vec4f(a.z), w.k2, fma(vec4f(a.y), w.k1, fma(vec4f(a.x), w.k0, sum))));
}
