// One tile of y [rows, N] = epilogue(x [rows, K] · w [K, N]) by a workgroup of 16 x TILE_ROWS/4 threads, 4 x 4 elements
// each. Steps of 16 along K: the tiles of x and w go into workgroup memory in f32, then every thread multiplies from
// there.
//
// The shader that imports this declares `w`, `y` and `params` (with rows, k4, n4), and says what x is:
//     place_x(row) -> Place          what a thread needs to know of its row, computed once
//     load_x(place, k4) -> vec4<f32> elements 4 k4 .. 4 k4 + 3 of that row; zeros beyond the last row or the last k4
#import epilogue

override TILE_ROWS: u32 = 64u; // rows of y in a tile: 16 or 64
const TILE_K4: u32 = 4u; // vectors of x in a step
const TILE_N4: u32 = 16u; // vectors of y in a row of the tile
// A row of the tile of x is one vector longer than it holds, so that threads that read the same columns of different
// rows meet different memory banks.
const X_STRIDE: u32 = TILE_K4 + 1u;
// Derived, and not to be set. They have names because naga 30 fails on an unnamed size before a later override.
override ROW_THREADS: u32 = TILE_ROWS / 4u;
override X_TILE_LEN: u32 = TILE_ROWS * X_STRIDE;

var<workgroup> x_tile: array<vec4<f32>, X_TILE_LEN>;
var<workgroup> w_tile: array<vec4<f32>, 4u * TILE_K4 * TILE_N4>;

fn load_w(k: u32, n4: u32) -> vec4<f32> {
    if k >= 4u * params.k4 || n4 >= params.n4 {
        return vec4(0.0);
    }
    return load_weight(w[k * params.n4 + n4]);
}

// `sum` + four elements of a row of x times four rows of w.
fn accumulate(sum: vec4<f32>, a: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> vec4<f32> {
    return fma(vec4(a.w), w3, fma(vec4(a.z), w2, fma(vec4(a.y), w1, fma(vec4(a.x), w0, sum))));
}

fn store_y(sum: vec4<f32>, row: u32, n4: u32) {
    if row < params.rows && n4 < params.n4 {
        y[row * params.n4 + n4] = store(epilogue(sum, row, n4));
    }
}

// Workgroups are numbered along N by x, and along the rows by y and z (see `ops::fold_groups`).
fn gemm(group: vec3<u32>, groups: vec3<u32>, local: vec3<u32>) {
    let first_row = (group.z * groups.y + group.y) * TILE_ROWS;
    let first_n4 = group.x * TILE_N4;
    let thread = local.y * TILE_N4 + local.x;
    // There are as many threads as vectors in the tile of x: each loads one, always of the same row.
    let x_row = thread / TILE_K4;
    let x_k4 = thread % TILE_K4;
    let place = place_x(first_row + x_row);
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    for (var k4 = 0u; k4 < params.k4; k4 += TILE_K4) {
        x_tile[x_row * X_STRIDE + x_k4] = load_x(place, k4 + x_k4);
        for (var i = thread; i < 4u * TILE_K4 * TILE_N4; i += TILE_ROWS * TILE_K4) {
            w_tile[i] = load_w(4u * k4 + i / TILE_N4, first_n4 + i % TILE_N4);
        }
        // The tiles are whole before anyone multiplies, ...
        workgroupBarrier();
        for (var q = 0u; q < TILE_K4; q++) {
            let from_w = 4u * q * TILE_N4 + local.x;
            let w0 = w_tile[from_w];
            let w1 = w_tile[from_w + TILE_N4];
            let w2 = w_tile[from_w + 2u * TILE_N4];
            let w3 = w_tile[from_w + 3u * TILE_N4];
            let from_x = 4u * local.y * X_STRIDE + q;
            sum0 = accumulate(sum0, x_tile[from_x], w0, w1, w2, w3);
            sum1 = accumulate(sum1, x_tile[from_x + X_STRIDE], w0, w1, w2, w3);
            sum2 = accumulate(sum2, x_tile[from_x + 2u * X_STRIDE], w0, w1, w2, w3);
            sum3 = accumulate(sum3, x_tile[from_x + 3u * X_STRIDE], w0, w1, w2, w3);
        }
        // ... and everyone has multiplied before they are overwritten.
        workgroupBarrier();
    }
    let row = first_row + 4u * local.y;
    let n4 = first_n4 + local.x;
    store_y(sum0, row, n4);
    store_y(sum1, row + 1u, n4);
    store_y(sum2, row + 2u, n4);
    store_y(sum3, row + 3u, n4);
}
