// The core for cooperative matrices with its workgroup memory in single elements, from which alone Metal loads
// matrices. There w is in rows of columns: a thread of Metal's has two neighbouring columns of a matrix.
#import cores/gemm_coop

const TILE_LANES: u32 = 1u;
override W_CHANNEL: u32 = TILE_COLUMNS + 8u;
const W_COLUMN: u32 = 1u;
override W_TILE_LEN: u32 = STEP * W_CHANNEL;

var<workgroup> x_tile: array<f16, X_TILE_LEN>;
var<workgroup> w_tile: array<f16, W_TILE_LEN>;
var<workgroup> stage: array<f32, STAGE_LEN>;

fn put_x(at: u32, v: x_vector) {
    for (var i = 0u; i < 4u; i++) {
        x_tile[at + i] = v[0][i];
        x_tile[at + 4u + i] = v[1][i];
    }
}

fn put_w(at: u32, v: mat4x2h) {
    let columns = transpose(v);
    for (var i = 0u; i < 4u; i++) {
        w_tile[at + i * W_CHANNEL] = columns[0][i];
        w_tile[at + i * W_CHANNEL + 1u] = columns[1][i];
    }
}

fn piece_b(at: u32) -> MatrixB {
    return coopLoadT<MatrixB>(&w_tile[at], W_CHANNEL);
}

fn staged(i: u32) -> vec4f {
    return vec4f(stage[4u * i], stage[4u * i + 1u], stage[4u * i + 2u], stage[4u * i + 3u]);
}
