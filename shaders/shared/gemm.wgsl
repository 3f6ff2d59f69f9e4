// What every core of a matrix product shares: y [rows, N] = epilogue(sum over taps and c of x(row, tap, c) w[tap, c]).
//
// The shader declares `w` [taps * 4 c4, n4], `y` [rows, n4] and `params` (with rows, taps, c4, n4; all but rows and taps
// count vectors of four), and says what x is:
//     place_x(row) -> Place        what is to know of a row, computed once
//     run_x(place, tap) -> Run     where that row's c4 vectors of a tap stand, computed once per tap
//     load_x(run, c4) -> vec4<f32> one of them; zeros where x has none
// A core has `main`: how a device's threads share the work.
#import epilogue

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

fn store_y(sum: vec4<f32>, row: u32, n4: u32) {
    if row < params.rows && n4 < params.n4 {
        y[row * params.n4 + n4] = store(epilogue(sum, row, n4));
    }
}
