// What the cores of a matrix product share that multiply vectors of four in f32.
#import product

alias x_vector = elem4;
alias w_vector = weight4;
const VECTOR_FOURS: u32 = 1u;

// Four rows of w, four columns each: what four elements of a row of x are multiplied with.
struct Weights {
    k0: vec4<f32>,
    k1: vec4<f32>,
    k2: vec4<f32>,
    k3: vec4<f32>,
}

// `sum` + four elements of a row of x times four rows of w.
fn accumulate(sum: vec4<f32>, a: vec4<f32>, w: Weights) -> vec4<f32> {
    return fma(vec4(a.w), w.k3, fma(vec4(a.z), w.k2, fma(vec4(a.y), w.k1, fma(vec4(a.x), w.k0, sum))));
}

fn load_x(run: Run, c4: u32) -> vec4<f32> {
    return load(read_x(run, c4));
}
