// The core for cooperative matrices with its workgroup memory in single elements, from which alone Metal loads
// matrices.
#import cores/attention_coop

const TILE_LANES: u32 = 1u;

var<workgroup> q_tile: array<f16, Q_LEN>;
var<workgroup> kv_tile: array<f16, KV_LEN>;
var<workgroup> p_tile: array<f16, P_LEN>;
var<workgroup> stage: array<f32, STAGE_LEN>;

fn put_q(at: u32, v: vec4h) {
    for (var i = 0u; i < 4u; i++) {
        q_tile[at + i] = v[i];
    }
}

fn put_kv(at: u32, v: vec4h) {
    for (var i = 0u; i < 4u; i++) {
        kv_tile[at + i] = v[i];
    }
}

fn put_p(at: u32, v: vec4h) {
    for (var i = 0u; i < 4u; i++) {
        p_tile[at + i] = v[i];
    }
}

fn put_stage(at: u32, v: vec4f) {
    for (var i = 0u; i < 4u; i++) {
        stage[at + i] = v[i];
    }
}

fn staged(at: u32) -> vec4f {
    return vec4f(stage[at], stage[at + 1u], stage[at + 2u], stage[at + 3u]);
}
