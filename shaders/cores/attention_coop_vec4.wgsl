// The core for cooperative matrices with its workgroup memory in vectors of four, which SPIR-V lets matrices be loaded
// from.
#import cores/attention_coop

const TILE_LANES: u32 = 4u;

var<workgroup> q_tile: array<vec4h, Q_LEN>;
var<workgroup> kv_tile: array<vec4h, KV_LEN>;
var<workgroup> p_tile: array<vec4h, P_LEN>;
var<workgroup> stage: array<vec4f, STAGE_LEN>;

fn put_q(at: u32, v: vec4h) {
    q_tile[at / 4u] = v;
}

fn put_kv(at: u32, v: vec4h) {
    kv_tile[at / 4u] = v;
}

fn put_p(at: u32, v: vec4h) {
    p_tile[at / 4u] = v;
}

fn put_stage(at: u32, v: vec4f) {
    stage[at / 4u] = v;
}

fn staged(at: u32) -> vec4f {
    return stage[at / 4u];
}
