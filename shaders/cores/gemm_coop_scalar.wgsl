// The core for cooperative matrices with its workgroup memory in single elements, from which alone Metal loads matrices.
#import cores/gemm_coop

const TILE_LANES: u32 = 1u;

var<workgroup> x_tile: array<f16, X_TILE_LEN>;
var<workgroup> w_tile: array<f16, W_TILE_LEN>;
var<workgroup> stage: array<f32, STAGE_LEN>;

fn put_x(at: u32, v: x_vector) {
    for (var i = 0u; i < 4u; i++) {
        x_tile[at + i] = v[0][i];
        x_tile[at + 4u + i] = v[1][i];
    }
}

fn put_w(at: u32, v: w_vector) {
    for (var i = 0u; i < 4u; i++) {
        w_tile[at + i] = v[0][i];
        w_tile[at + 4u + i] = v[1][i];
    }
}

fn staged(i: u32) -> vec4f {
    return vec4f(stage[4u * i], stage[4u * i + 1u], stage[4u * i + 2u], stage[4u * i + 3u]);
}
