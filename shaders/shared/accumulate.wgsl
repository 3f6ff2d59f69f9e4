// Four rows of four columns: what four elements of a row are multiplied with.
struct Weights {
    k0: vec4<f32>,
    k1: vec4<f32>,
    k2: vec4<f32>,
    k3: vec4<f32>,
}

// `sum` + four elements of a row times four rows of four columns.
fn accumulate(sum: vec4<f32>, a: vec4<f32>, w: Weights) -> vec4<f32> {
    return fma(vec4(a.w), w.k3, fma(vec4(a.z), w.k2, fma(vec4(a.y), w.k1, fma(vec4(a.x), w.k0, sum))));
}
