// The core of attention for any device: keys in tiles of 32. The 8 x 8 threads hold 4 x 4 scores each: thread (tx, ty)
// queries 4ty.. and keys 4tx.., and later the same queries and channels 4tx.. of every 32 of the output. A vector of four
// runs over queries in `q_tile`, `p_tile`, `top` and `total`.

override CHUNKS: u32 = 5u; // of 32 output channels in one workgroup, 1..5

const SIDE: u32 = 8u; // TILE / 4, and threads in a row
const STRIDE: u32 = 9u; // one more than SIDE, so that threads of a column meet different memory banks

var<workgroup> q_tile: array<vec4f, 288>; // [channel][query/4]
var<workgroup> kv_tile: array<vec4f, 288>; // [channel][key/4], then [key][channel/4]
var<workgroup> p_tile: array<vec4f, 288>; // [key][query/4]
var<workgroup> row_part: array<vec4f, 64>; // [query/4][tx]

fn query_vector(first: u32, token: u32, vector: u32) -> vec4f {
    if token >= params.queries || vector >= params.head_vectors {
        return vec4f();
    }
    return load(q[first + token * params.q_row + vector]) * params.scale;
}

fn key_vector(first: u32, token: u32, vector: u32) -> vec4f {
    if token >= params.keys || vector >= params.head_vectors {
        return vec4f();
    }
    return load(k[first + token * params.kv_row + vector]);
}

fn value_vector(first: u32, token: u32, vector: u32) -> vec4f {
    if token >= params.keys || vector >= params.head_vectors {
        return vec4f();
    }
    return load(v[first + token * params.kv_row + vector]);
}

// Column j is a * b[j]. The loops below take four of these a round, so that a device that ends loops after some rounds
// (see `Caps::loop_rounds`) gets through the VAE's 4096 keys of 512 channels.
fn outer(a: vec4f, b: vec4f) -> mat4x4f {
    return mat4x4f(a * b.x, a * b.y, a * b.z, a * b.w);
}

// The scores of this thread's four queries (rows) with its four keys (columns).
fn scores(q_first: u32, k_first: u32, query: u32, key: u32, tx: u32, ty: u32) -> mat4x4f {
    var s = mat4x4f();
    for (var chunk = 0u; chunk < params.head_vectors; chunk += SIDE) {
        // Each thread turns a block of 4 tokens x 4 channels around, so that no vector has two writers.
        let t = query + 4u * ty;
        let u = key + 4u * ty;
        let c = chunk + tx;
        let q_block = transpose(mat4x4f(
            query_vector(q_first, t, c),
            query_vector(q_first, t + 1u, c),
            query_vector(q_first, t + 2u, c),
            query_vector(q_first, t + 3u, c),
        ));
        let k_block = transpose(mat4x4f(
            key_vector(k_first, u, c),
            key_vector(k_first, u + 1u, c),
            key_vector(k_first, u + 2u, c),
            key_vector(k_first, u + 3u, c),
        ));
        let place = 4u * tx * STRIDE + ty;
        q_tile[place] = q_block[0];
        q_tile[place + STRIDE] = q_block[1];
        q_tile[place + 2u * STRIDE] = q_block[2];
        q_tile[place + 3u * STRIDE] = q_block[3];
        kv_tile[place] = k_block[0];
        kv_tile[place + STRIDE] = k_block[1];
        kv_tile[place + 2u * STRIDE] = k_block[2];
        kv_tile[place + 3u * STRIDE] = k_block[3];
        workgroupBarrier();
        let channels = 4u * min(SIDE, params.head_vectors - chunk);
        for (var i = 0u; i < channels; i += 4u) {
            s += outer(q_tile[i * STRIDE + ty], kv_tile[i * STRIDE + tx]);
            s += outer(q_tile[(i + 1u) * STRIDE + ty], kv_tile[(i + 1u) * STRIDE + tx]);
            s += outer(q_tile[(i + 2u) * STRIDE + ty], kv_tile[(i + 2u) * STRIDE + tx]);
            s += outer(q_tile[(i + 3u) * STRIDE + ty], kv_tile[(i + 3u) * STRIDE + tx]);
        }
        // The tiles are about to be overwritten.
        workgroupBarrier();
    }
    return s;
}

// A thread's four queries see this key: it exists, and is not in the future.
fn visible(query: u32, key: u32) -> vec4<bool> {
    let t = vec4u(query) + vec4u(0u, 1u, 2u, 3u);
    let seen = (t >= vec4u(key)) | vec4<bool>(!CAUSAL);
    return seen & vec4<bool>(key < params.keys);
}

@compute @workgroup_size(SIDE, SIDE)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_id) local: vec3u) {
    let tx = local.x;
    let ty = local.y;
    let head = head_of(id.y);
    let query = (params.first_tile + id.x) * TILE;
    let vector = id.z * CHUNKS * SIDE + tx;
    let keys = select(params.keys, min(params.keys, query + TILE), CAUSAL);

    var top = vec4f(LOWEST);
    var total = vec4f(); // of this thread's keys alone, until the end
    var sums: array<vec4f, 20>; // [chunk][query]
    for (var key = 0u; key < keys; key += TILE) {
        var s = scores(head.q, head.k, query, key, tx, ty);
        var tile_top = vec4f(LOWEST);
        for (var j = 0u; j < 4u; j++) {
            s[j] = select(vec4f(LOWEST), s[j], visible(query + 4u * ty, key + 4u * tx + j));
            tile_top = max(tile_top, s[j]);
        }
        row_part[ty * SIDE + tx] = tile_top;
        workgroupBarrier();
        for (var i = 0u; i < SIDE; i++) {
            tile_top = max(tile_top, row_part[ty * SIDE + i]);
        }
        let new_top = max(top, tile_top);
        let shrink = exp(top - new_top);
        top = new_top;
        total *= shrink;
        for (var j = 0u; j < 4u; j++) {
            // Not by exp alone: where a query has seen no key yet, `top` is as low as the masked scores.
            let seen = visible(query + 4u * ty, key + 4u * tx + j);
            let p = select(vec4f(), exp(s[j] - top), seen);
            p_tile[(4u * tx + j) * STRIDE + ty] = p;
            total += p;
        }
        let tile_keys = min(TILE, keys - key);
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            for (var i = 0u; i < 4u; i++) {
                kv_tile[(4u * ty + i) * STRIDE + tx] = value_vector(head.v, key + 4u * ty + i, vector + chunk * SIDE);
            }
            workgroupBarrier();
            var sum = mat4x4f(
                sums[4u * chunk] * shrink.x,
                sums[4u * chunk + 1u] * shrink.y,
                sums[4u * chunk + 2u] * shrink.z,
                sums[4u * chunk + 3u] * shrink.w,
            );
            // Past the last key, up to a multiple of four, p is zero.
            for (var i = 0u; i < tile_keys; i += 4u) {
                sum += outer(kv_tile[i * STRIDE + tx], p_tile[i * STRIDE + ty]);
                sum += outer(kv_tile[(i + 1u) * STRIDE + tx], p_tile[(i + 1u) * STRIDE + ty]);
                sum += outer(kv_tile[(i + 2u) * STRIDE + tx], p_tile[(i + 2u) * STRIDE + ty]);
                sum += outer(kv_tile[(i + 3u) * STRIDE + tx], p_tile[(i + 3u) * STRIDE + ty]);
            }
            sums[4u * chunk] = sum[0];
            sums[4u * chunk + 1u] = sum[1];
            sums[4u * chunk + 2u] = sum[2];
            sums[4u * chunk + 3u] = sum[3];
            // The tiles are about to be overwritten.
            workgroupBarrier();
        }
    }

    row_part[ty * SIDE + tx] = total;
    workgroupBarrier();
    total = vec4f();
    for (var i = 0u; i < SIDE; i++) {
        total += row_part[ty * SIDE + i];
    }
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
        let column = vector + chunk * SIDE;
        for (var i = 0u; i < 4u; i++) {
            let token = query + 4u * ty + i;
            if token < params.queries && column < params.head_vectors {
                y[head.y + token * y_row() + column] = store(sums[4u * chunk + i] / total[i]);
            }
        }
    }
}
