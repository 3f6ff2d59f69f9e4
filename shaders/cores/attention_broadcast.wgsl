// The core of attention for software devices (see `broadcast`): keys in tiles of 8. Each lane has four queries of its
// own, which a vector of four runs over: neither scores nor the softmax meet those of another lane. Lane i loads the
// keys' and values' row i of the tile.
#import broadcast

override HEAD_VECTORS: u32 = 10u; // = params.head_vectors, for the compiler to unroll loops by
override CHUNK_VECTORS: u32 = 10u; // of a head's output in one workgroup, at most 20

// Where this lane's four queries stand: their channel vectors, from the head's first. Queries beyond the last repeat
// it.
fn query_places(head: Head, first: u32) -> vec4u {
    let tokens = vec4u(first) + vec4u(0u, 1u, 2u, 3u);
    return head.q + min(tokens, vec4u(params.queries - 1u)) * params.q_row;
}

// Four channels of four queries, scaled.
fn turned_queries(places: vec4u, c4: u32) -> Weights {
    let m = transpose(mat4x4f(
        load(q[places.x + c4]),
        load(q[places.y + c4]),
        load(q[places.z + c4]),
        load(q[places.w + c4]),
    )) * params.scale;
    return Weights(m[0], m[1], m[2], m[3]);
}

// The scores of the key that they belong to, or LOWEST for the queries that do not see it.
fn hide(scores: vec4f, query: u32, key: u32) -> vec4f {
    let tokens = vec4u(query) + vec4u(0u, 1u, 2u, 3u);
    let seen = (vec4<bool>(!CAUSAL) | (tokens >= vec4u(key))) & vec4<bool>(key < params.keys);
    return select(vec4f(LOWEST), scores, seen);
}

fn hide8(s: Sums, query: u32, key: u32) -> Sums {
    return Sums(
        hide(s.r0, query, key),
        hide(s.r1, query, key + 1u),
        hide(s.r2, query, key + 2u),
        hide(s.r3, query, key + 3u),
        hide(s.r4, query, key + 4u),
        hide(s.r5, query, key + 5u),
        hide(s.r6, query, key + 6u),
        hide(s.r7, query, key + 7u),
    );
}

fn largest(s: Sums) -> vec4f {
    return max(max(max(s.r0, s.r1), max(s.r2, s.r3)), max(max(s.r4, s.r5), max(s.r6, s.r7)));
}

fn exp8(s: Sums, top: vec4f) -> Sums {
    return Sums(
        exp(s.r0 - top),
        exp(s.r1 - top),
        exp(s.r2 - top),
        exp(s.r3 - top),
        exp(s.r4 - top),
        exp(s.r5 - top),
        exp(s.r6 - top),
        exp(s.r7 - top),
    );
}

fn total8(s: Sums) -> vec4f {
    return ((s.r0 + s.r1) + (s.r2 + s.r3)) + ((s.r4 + s.r5) + (s.r6 + s.r7));
}

// Four channels of four queries' output + one key's four channels `value`, weighted by `p`.
fn add_value(out: Weights, p: vec4f, value: vec4f) -> Weights {
    return Weights(
        fma(p, vec4f(value.x), out.k0),
        fma(p, vec4f(value.y), out.k1),
        fma(p, vec4f(value.z), out.k2),
        fma(p, vec4f(value.w), out.k3),
    );
}

// The same for the 8 keys of which each lane holds one's four channels.
fn add_values(out: Weights, p: Sums, value: vec4f) -> Weights {
    var sum = add_value(out, p.r0, subgroupBroadcast(value, 0u));
    sum = add_value(sum, p.r1, subgroupBroadcast(value, 1u));
    sum = add_value(sum, p.r2, subgroupBroadcast(value, 2u));
    sum = add_value(sum, p.r3, subgroupBroadcast(value, 3u));
    sum = add_value(sum, p.r4, subgroupBroadcast(value, 4u));
    sum = add_value(sum, p.r5, subgroupBroadcast(value, 5u));
    sum = add_value(sum, p.r6, subgroupBroadcast(value, 6u));
    return add_value(sum, p.r7, subgroupBroadcast(value, 7u));
}

fn scaled(out: Weights, by: vec4f) -> Weights {
    return Weights(out.k0 * by, out.k1 * by, out.k2 * by, out.k3 * by);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = head_of(id.y);
    let first = (params.first_tile + id.x) * TILE;
    let query = first + 4u * lane;
    let places = query_places(head, query);
    let chunk = id.z * CHUNK_VECTORS;
    // Queries of a head that is not split stay in registers.
    let keep = HEAD_VECTORS == CHUNK_VECTORS;
    var queries: array<Weights, 20>;
    var out: array<Weights, 20>;
    for (var c4 = 0u; c4 < CHUNK_VECTORS; c4++) {
        if keep {
            queries[c4] = turned_queries(places, c4);
        }
    }
    var top = vec4f(LOWEST);
    var total = vec4f(0.0);
    let keys = select(params.keys, min(params.keys, first + TILE), CAUSAL);
    for (var key = 0u; key < keys; key += LANES) {
        // Keys beyond the last repeat it, and no query sees them.
        let token = min(key + lane, params.keys - 1u) * params.kv_row;
        let at = head.k + token;
        var scores = Sums();
        if keep {
            for (var c4 = 0u; c4 < CHUNK_VECTORS; c4++) {
                scores = accumulate8(scores, load(k[at + c4]), queries[c4]);
            }
        } else {
            // By 8 a round: llvmpipe ends a kernel's loops after 65,535 rounds (see `Caps::loop_rounds`).
            for (var first = 0u; first < HEAD_VECTORS; first += 8u) {
                for (var i = 0u; i < 8u; i++) {
                    let c4 = min(first + i, HEAD_VECTORS - 1u);
                    let channels = select(vec4f(0.0), load(k[at + c4]), first + i < HEAD_VECTORS);
                    scores = accumulate8(scores, channels, turned_queries(places, c4));
                }
            }
        }
        scores = hide8(scores, query, key);
        let new_top = max(top, largest(scores));
        let shrink = exp(top - new_top);
        top = new_top;
        // Every query sees the first key, so `top` is a real score, and what is hidden becomes 0.
        let p = exp8(scores, top);
        total = fma(total, shrink, total8(p));
        for (var c4 = 0u; c4 < CHUNK_VECTORS; c4++) {
            // A head's last chunk may be shorter: what is beyond its end is not stored.
            let c = min(chunk + c4, HEAD_VECTORS - 1u);
            out[c4] = add_values(scaled(out[c4], shrink), p, load(v[head.v + token + c]));
        }
    }
    for (var c4 = 0u; c4 < CHUNK_VECTORS; c4++) {
        let part = scaled(out[c4], 1.0 / total);
        let turned = transpose(mat4x4f(part.k0, part.k1, part.k2, part.k3));
        for (var i = 0u; i < 4u; i++) {
            if query + i < params.queries && chunk + c4 < HEAD_VECTORS {
                y[head.y + (query + i) * y_row() + chunk + c4] = store(turned[i]);
            }
        }
    }
}
