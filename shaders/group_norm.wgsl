// y[b, p, c] = (x[b, p, c] - mean_bg) / sqrt(var_bg + eps) * gamma[c] + beta[c], then an activation; var biased, group
// g = c / (channels/groups); with HAS_ROW, x + row_bias[b, c] takes the place of x. Each workgroup first puts every
// group's chunks together, then works through one slab.
#import activation
#import joined
#import moments

struct Params {
    vectors: u32, // of x in one batch entry
    channels: u32,
    chunks: u32,
    slab: u32, // vectors that a workgroup writes
    eps: f32,
    x_vectors: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [batch, pixels, channels/4], with JOINED [batch, pixels, x_vectors]
@group(0) @binding(1) var<storage, read> stats: array<vec4f>; // [batch, groups, chunks]: (mean, M2, count, 0)
@group(0) @binding(2) var<storage, read> gamma: array<vec4f>; // [channels/4]
@group(0) @binding(3) var<storage, read> beta: array<vec4f>; // [channels/4]
@group(0) @binding(4) var<storage, read> row_bias: array<elem4>; // [batch, channels/4]
@group(0) @binding(5) var<storage, read_write> y: array<elem4>; // [batch, pixels, channels/4]
@group(0) @binding(6) var<uniform> params: Params;
@group(0) @binding(7) var<storage, read> x_tail: array<elem4>; // [batch, pixels, channels/4 - x_vectors]

override GROUPS: u32 = 32u; // 1..2048
override HAS_ROW: bool = false;

const THREADS: u32 = 256u;

var<workgroup> norms: array<vec2f, GROUPS>; // (mean, 1 / standard deviation)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) local: u32) {
    for (var group = local; group < GROUPS; group += THREADS) {
        var all = vec4f();
        let first = (id.y * GROUPS + group) * params.chunks;
        for (var chunk = 0u; chunk < params.chunks; chunk++) {
            all = merge_moments(all, stats[first + chunk]);
        }
        norms[group] = vec2f(all.x, inverseSqrt(all.y / all.z + params.eps));
    }
    workgroupBarrier();

    let size = params.channels / GROUPS;
    let row_vectors = (params.channels + 3u) / 4u;
    let end = min((id.x + 1u) * params.slab, params.vectors);
    for (var i = id.x * params.slab + local; i < end; i += THREADS) {
        let vector = i % row_vectors;
        // Lanes past the row's end take the last group's norm; gamma and beta are zero there, and so is y.
        let channel = vec4u(4u * vector) + vec4u(0u, 1u, 2u, 3u);
        let group = min(channel / size, vec4u(GROUPS - 1u));
        let n0 = norms[group.x];
        let n1 = norms[group.y];
        let n2 = norms[group.z];
        let n3 = norms[group.w];
        let place = id.y * params.vectors + i;
        var value = read_x(place / row_vectors, vector, row_vectors);
        if HAS_ROW {
            value += load(row_bias[id.y * row_vectors + vector]);
        }
        let centred = value - vec4f(n0.x, n1.x, n2.x, n3.x);
        let v = centred * vec4f(n0.y, n1.y, n2.y, n3.y) * gamma[vector] + beta[vector];
        y[place] = store(activate(v));
    }
}
