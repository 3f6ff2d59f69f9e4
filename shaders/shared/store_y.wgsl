// How a core keeps four columns of y, at row `row` and vector `n4` of it.
#import epilogue

fn store_y(sum: vec4f, row: u32, n4: u32) {
    if row < params.rows && n4 < params.n4 {
        y[row * params.n4 + n4] = store(epilogue(sum, row, n4));
    }
}
