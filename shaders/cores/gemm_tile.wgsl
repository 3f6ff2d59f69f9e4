// The core for any device: one tile of y by a workgroup of 16 x TILE_ROWS/4 threads, 4 x 4 elements each. Steps of 16
// channels: the tiles of x and w go into workgroup memory in f32, then every thread multiplies from there.
#import gemm

override TILE_ROWS: u32 = 64u; // rows of y in a tile: 16 or 64
const TILE_C4: u32 = 4u; // vectors of x in a step
const TILE_N4: u32 = 16u; // vectors of y in a row of the tile
// A row of the tile of x is one vector longer than it holds, so that threads that read the same columns of different
// rows meet different memory banks.
const X_STRIDE: u32 = TILE_C4 + 1u;
// Derived, and not to be set. They have names because naga 30 fails on an unnamed size before a later override.
override ROW_THREADS: u32 = TILE_ROWS / 4u;
override X_TILE_LEN: u32 = TILE_ROWS * X_STRIDE;

var<workgroup> x_tile: array<vec4f, X_TILE_LEN>;
var<workgroup> w_tile: array<vec4f, 4u * TILE_C4 * TILE_N4>;

// Row `c` of a tap of the w of y's row `row`.
fn load_w(row: u32, tap: u32, c: u32, n4: u32) -> vec4f {
    if c >= 4u * params.c4 || n4 >= params.n4 {
        return vec4f(0.0);
    }
    return load_weight(w[first_w(row, n4) + (tap * 4u * params.c4 + c) * step_w()]);
}

@compute @workgroup_size(TILE_N4, ROW_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_id) local: vec3u,
) {
    let first_row = tile_of(group, groups) * TILE_ROWS;
    let first_n4 = group.x * TILE_N4;
    let thread = local.y * TILE_N4 + local.x;
    // There are as many threads as vectors in the tile of x: each loads one, always of the same row.
    let x_row = thread / TILE_C4;
    let x_c4 = thread % TILE_C4;
    let place = place_x(first_row + x_row);
    var sum0 = vec4f(0.0);
    var sum1 = vec4f(0.0);
    var sum2 = vec4f(0.0);
    var sum3 = vec4f(0.0);
    for (var tap = 0u; tap < params.taps; tap++) {
        let run = run_x(place, tap);
        for (var c4 = 0u; c4 < params.c4; c4 += TILE_C4) {
            x_tile[x_row * X_STRIDE + x_c4] = load_x(run, c4 + x_c4);
            for (var i = thread; i < 4u * TILE_C4 * TILE_N4; i += TILE_ROWS * TILE_C4) {
                w_tile[i] = load_w(first_row, tap, 4u * c4 + i / TILE_N4, first_n4 + i % TILE_N4);
            }
            // The tiles are whole before anyone multiplies, ...
            workgroupBarrier();
            for (var q = 0u; q < TILE_C4; q++) {
                let from_w = 4u * q * TILE_N4 + local.x;
                let weights = Weights(
                    w_tile[from_w],
                    w_tile[from_w + TILE_N4],
                    w_tile[from_w + 2u * TILE_N4],
                    w_tile[from_w + 3u * TILE_N4],
                );
                let from_x = 4u * local.y * X_STRIDE + q;
                sum0 = accumulate(sum0, x_tile[from_x], weights);
                sum1 = accumulate(sum1, x_tile[from_x + X_STRIDE], weights);
                sum2 = accumulate(sum2, x_tile[from_x + 2u * X_STRIDE], weights);
                sum3 = accumulate(sum3, x_tile[from_x + 3u * X_STRIDE], weights);
            }
            // ... and everyone has multiplied before they are overwritten.
            workgroupBarrier();
        }
    }
    let row = first_row + 4u * local.y;
    let n4 = first_n4 + local.x;
    store_y(sum0, row, n4);
    store_y(sum1, row + 1u, n4);
    store_y(sum2, row + 2u, n4);
    store_y(sum3, row + 3u, n4);
}
