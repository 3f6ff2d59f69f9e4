// The core for cooperative matrices with its workgroup memory in vectors of four, which SPIR-V lets matrices be loaded
// from. There w is in rows of channels, as AMD's matrix units take it: by columns its compiler reads two bytes at once.
#import cores/gemm_coop

const TILE_LANES: u32 = 4u;
const W_CHANNEL: u32 = 1u;
override W_COLUMN: u32 = STEP + 8u;
override W_TILE_LEN: u32 = TILE_COLUMNS * W_COLUMN / TILE_LANES;

var<workgroup> x_tile: array<vec4h, X_TILE_LEN>;
var<workgroup> w_tile: array<vec4h, W_TILE_LEN>;
var<workgroup> stage: array<vec4f, STAGE_LEN>;

fn put_x(at: u32, v: x_vector) {
    x_tile[at] = v[0];
    x_tile[at + 1u] = v[1];
}

fn put_w(at: u32, v: mat4x2h) {
    let columns = transpose(v);
    w_tile[at] = columns[0];
    w_tile[at + W_COLUMN / TILE_LANES] = columns[1];
}

fn piece_b(at: u32) -> MatrixB {
    return coopLoad<MatrixB>(&w_tile[at], W_COLUMN / TILE_LANES);
}

fn staged(i: u32) -> vec4f {
    return stage[i];
}
