// The core for cooperative matrices with its workgroup memory in vectors of four, which SPIR-V lets matrices be loaded
// from.
#import cores/gemm_coop

const TILE_LANES: u32 = 4u;

var<workgroup> x_tile: array<vec4h, X_TILE_LEN>;
var<workgroup> w_tile: array<vec4h, W_TILE_LEN>;
var<workgroup> stage: array<vec4f, STAGE_LEN>;

fn put_x(at: u32, v: x_vector) {
    x_tile[at / 4u] = v[0];
    x_tile[at / 4u + 1u] = v[1];
}

fn put_w(at: u32, v: w_vector) {
    w_tile[at / 4u] = v[0];
    w_tile[at / 4u + 1u] = v[1];
}

fn staged(i: u32) -> vec4f {
    return stage[i];
}
