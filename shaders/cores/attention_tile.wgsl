// The core of attention for any device: keys in tiles of 32, two halves of 8 x 8 threads. Thread (tx, ty) of a half has
// the scores of queries ty, ty + 8, .. with keys tx, tx + 8, .., summed over every second vector of channels. The
// halves exchange them: each then has two of the four queries. Later it sums up the same four queries' channels 4tx..
// of its half of every 64 of the output. Sums have names and no index, so that they stay in registers.

override CHUNKS: u32 = 3u; // of 64 output channels in one workgroup, 1..3
override Q_PARTS: u32 = 1u; // of 32 channels of the queries that are in workgroup memory at once, 1..2

const SIDE: u32 = 8u; // TILE / 4, and threads in a row
const HALF: u32 = 64u; // threads
const THREADS: u32 = 128u;
const PART: u32 = 256u; // vectors: 32 tokens of 32 channels, or 16 of 64
// Derived, and not to be set. It has a name because naga 30 fails on an unnamed size before a later override.
override Q_LEN: u32 = Q_PARTS * PART;

var<workgroup> q_tile: array<vec4f, Q_LEN>; // [part][query][channel/4]
var<workgroup> kv_tile: array<vec4f, PART>; // [key][channel/4]
var<workgroup> p_tile: array<vec2f, 512>; // [key][ty][half]: its two queries

// Where a tile has the vector `column` of a row, so that threads of a row and of a column meet different memory banks.
fn place(row: u32, column: u32) -> u32 {
    return row * SIDE + (column ^ (row % SIDE));
}

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

// A part of the queries' channels, to where it stands in the tile.
fn load_queries(first: u32, query: u32, part: u32, thread: u32) {
    let row = thread / SIDE;
    let vector = part * SIDE + thread % SIDE;
    let at = part % Q_PARTS * PART + place(row, thread % SIDE);
    q_tile[at] = query_vector(first, query + row, vector);
    q_tile[at + PART / 2u] = query_vector(first, query + row + TILE / 2u, vector);
}

// Four tokens' four channels, turned around: vector i has channel i.
fn four_queries(part: u32, ty: u32, column: u32) -> mat4x4f {
    let at = part % Q_PARTS * PART + place(ty, column);
    return transpose(mat4x4f(q_tile[at], q_tile[at + HALF], q_tile[at + 2u * HALF], q_tile[at + 3u * HALF]));
}

fn four_keys(tx: u32, column: u32) -> mat4x4f {
    let at = place(tx, column);
    return transpose(mat4x4f(kv_tile[at], kv_tile[at + HALF], kv_tile[at + 2u * HALF], kv_tile[at + 3u * HALF]));
}

// Column j is a * b[j].
fn outer(a: vec4f, b: vec4f) -> mat4x4f {
    return mat4x4f(a * b.x, a * b.y, a * b.z, a * b.w);
}

// The scores of a thread's four queries (rows) with its four keys (columns), summed over its half of the channels.
fn scores(head: Head, query: u32, key: u32, thread: u32) -> mat4x4f {
    let tx = thread % SIDE;
    let ty = thread / SIDE % SIDE;
    let row = thread / SIDE;
    var s = mat4x4f();
    for (var part = 0u; part * SIDE < params.head_vectors; part++) {
        if params.head_vectors > Q_PARTS * SIDE || key == 0u {
            load_queries(head.q, query, part, thread);
        }
        let at = place(row, tx);
        kv_tile[at] = key_vector(head.k, key + row, part * SIDE + tx);
        kv_tile[at + PART / 2u] = key_vector(head.k, key + row + TILE / 2u, part * SIDE + tx);
        workgroupBarrier();
        let columns = min(SIDE, params.head_vectors - part * SIDE);
        for (var column = thread / HALF; column < columns; column += 2u) {
            let a = four_queries(part, ty, column);
            let b = four_keys(tx, column);
            s += outer(a[0], b[0]);
            s += outer(a[1], b[1]);
            s += outer(a[2], b[2]);
            s += outer(a[3], b[3]);
        }
        // The tiles are about to be overwritten.
        workgroupBarrier();
    }
    return s;
}

// Of a thread's four queries those that belong to a half.
fn pair(four: vec4f, half: u32) -> vec2f {
    return select(four.xy, four.zw, half == 1u);
}

// A half's two queries see this key: it exists, and is not in the future.
fn visible(query: u32, key: u32) -> vec2<bool> {
    let seen = (vec2u(query, query + SIDE) >= vec2u(key)) | vec2<bool>(!CAUSAL);
    return seen & vec2<bool>(key < params.keys);
}

// Both halves' vectors of the place.
fn both(at: u32) -> vec4f {
    return vec4f(p_tile[2u * at], p_tile[2u * at + 1u]);
}

// Adds the tile's values, 16 tokens at a time, of `vector`, the first of 16. Column i of the sums is query i's.
fn add_values(before: mat4x4f, first: u32, key: u32, end: u32, vector: u32, thread: u32) -> mat4x4f {
    let ty = thread / SIDE % SIDE;
    let column = thread % SIDE + thread / HALF * SIDE;
    let row = thread / 16u;
    var sums = before;
    for (var part = key; part < end; part += 16u) {
        kv_tile[thread] = value_vector(first, part + row, vector + thread % 16u);
        kv_tile[thread + PART / 2u] = value_vector(first, part + row + SIDE, vector + thread % 16u);
        // The weights are whole as well.
        workgroupBarrier();
        // By four a round (see `Caps::loop_rounds`): past the last key, up to a multiple of four, weights are zero.
        let first_row = part - key;
        let rows = min(16u, end - part);
        for (var i = 0u; i < rows; i += 4u) {
            sums += outer(kv_tile[i * 16u + column], both(place(first_row + i, ty)));
            sums += outer(kv_tile[i * 16u + 16u + column], both(place(first_row + i + 1u, ty)));
            sums += outer(kv_tile[i * 16u + 32u + column], both(place(first_row + i + 2u, ty)));
            sums += outer(kv_tile[i * 16u + 48u + column], both(place(first_row + i + 3u, ty)));
        }
        // The tiles are about to be overwritten.
        workgroupBarrier();
    }
    return sums;
}

fn scaled(sums: mat4x4f, by: vec4f) -> mat4x4f {
    return mat4x4f(sums[0] * by.x, sums[1] * by.y, sums[2] * by.z, sums[3] * by.w);
}

// A thread's four queries' sums over the 16 vectors from `first` on.
fn store_values(sums: mat4x4f, start: u32, query: u32, vector: u32) {
    for (var i = 0u; i < 4u; i++) {
        let token = query + i * SIDE;
        if token < params.queries && vector < params.head_vectors {
            y[start + token * y_row() + vector] = store(sums[i]);
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) thread: u32) {
    let tx = thread % SIDE;
    let ty = thread / SIDE % SIDE;
    let half = thread / HALF;
    let head = head_of(id.y);
    let query = (params.first_tile + id.x) * TILE;
    let vector = id.z * CHUNKS * 16u;
    let keys = select(params.keys, min(params.keys, query + TILE), CAUSAL);

    var top = vec4f(LOWEST);
    var total = vec2f(); // of this thread's keys alone, until the end
    var sums0 = mat4x4f();
    var sums1 = mat4x4f();
    var sums2 = mat4x4f();
    for (var key = 0u; key < keys; key += TILE) {
        var s = scores(head, query, key, thread);
        for (var j = 0u; j < 4u; j++) {
            p_tile[2u * place(tx + j * SIDE, ty) + 1u - half] = pair(s[j], 1u - half);
        }
        workgroupBarrier();
        var mine = array<vec2f, 4>();
        var tile_top = vec2f(LOWEST);
        for (var j = 0u; j < 4u; j++) {
            let score = pair(s[j], half) + p_tile[2u * place(tx + j * SIDE, ty) + half];
            mine[j] = select(vec2f(LOWEST), score, visible(query + ty + 2u * half * SIDE, key + tx + j * SIDE));
            tile_top = max(tile_top, mine[j]);
        }
        // Nobody else reads this place before.
        p_tile[2u * place(tx, ty) + half] = tile_top;
        workgroupBarrier();
        var new_top = top;
        for (var i = 0u; i < SIDE; i++) {
            new_top = max(new_top, both(place(i, ty)));
        }
        let shrink = exp(top - new_top);
        top = new_top;
        workgroupBarrier();
        total *= pair(shrink, half);
        for (var j = 0u; j < 4u; j++) {
            // Zero where a score is as low as none is: `top` never is, since every query sees the first key.
            let p = exp(mine[j] - pair(top, half));
            p_tile[2u * place(tx + j * SIDE, ty) + half] = p;
            total += p;
        }
        let end = min(key + TILE, keys);
        sums0 = add_values(scaled(sums0, shrink), head.v, key, end, vector, thread);
        if CHUNKS > 1u {
            sums1 = add_values(scaled(sums1, shrink), head.v, key, end, vector + 16u, thread);
        }
        if CHUNKS > 2u {
            sums2 = add_values(scaled(sums2, shrink), head.v, key, end, vector + 32u, thread);
        }
    }

    p_tile[2u * place(tx, ty) + half] = total;
    workgroupBarrier();
    var totals = vec4f();
    for (var i = 0u; i < SIDE; i++) {
        totals += both(place(i, ty));
    }
    let column = vector + tx + half * SIDE;
    store_values(scaled(sums0, 1.0 / totals), head.y, query + ty, column);
    if CHUNKS > 1u {
        store_values(scaled(sums1, 1.0 / totals), head.y, query + ty, column + 16u);
    }
    if CHUNKS > 2u {
        store_values(scaled(sums2, 1.0 / totals), head.y, query + ty, column + 32u);
    }
}
