// The core of attention for cooperative matrices: products of MATRIX x MATRIX f16 into sums in f32. A subgroup takes
// MATRIX queries, of whose scores and sums it holds matrices, and a workgroup passes over the keys in tiles of KEYS.
// Matrices cannot be reached by element but in memory: scores go to the stage, whose rows the lanes of the subgroup
// share out, and come back as weights. Sums are scaled down in memory too, and seldom: weights are made with a `top`
// that is not the largest score so far but at most GROWTH below it, which costs f16 no bits.
//
// The file that imports this declares the workgroup memory, since the platforms differ in what matrices are loaded
// from:
//     q_tile, kv_tile, p_tile         Q_LEN, KV_LEN and P_LEN elements f16, in units of TILE_LANES
//     stage                           STAGE_LEN elements f32, in the same units
//     put_q(at, v), put_kv, put_p     four elements into a tile
//     staged(at) -> vec4f, put_stage(at, v)

override LANES: u32 = 32u; // threads of a subgroup: a multiple of MATRIX
override KEY_PIECES: u32 = 4u; // matrices of keys in a tile: 2 or 4
override STEP_PIECES: u32 = 3u; // matrices of channels that scores are summed over at once
override STEPS: u32 = 1u; // how often that makes all channels of a head
override GROUP_PIECES: u32 = 3u; // matrices of channels of y that stand side by side: 1..5
override GROUPS: u32 = 1u; // of them that a workgroup computes: 1 or 2
override KV_PIECES: u32 = 3u; // the larger of STEP_PIECES and GROUPS GROUP_PIECES
override STAGE_PIECES: u32 = 4u; // the larger of KEY_PIECES and GROUP_PIECES

const SUBGROUPS: u32 = 4u;
const QUERIES: u32 = SUBGROUPS * MATRIX;
const GROWTH: f32 = 8.0; // weights are at most e^8: far from f16's end
// Derived, and not to be set. They have names because naga 30 fails on an unnamed size before a later override.
override THREADS: u32 = SUBGROUPS * LANES;
override KEYS: u32 = KEY_PIECES * MATRIX;
override STEP4: u32 = STEP_PIECES * MATRIX / 4u;
override GROUP4: u32 = GROUP_PIECES * MATRIX / 4u;
override OUT4: u32 = GROUPS * GROUP4;
// Rows of the tiles are sixteen bytes longer than what they hold, so that the rows of a matrix meet different memory
// banks.
override Q_STRIDE: u32 = STEP_PIECES * MATRIX + 8u;
override KV_STRIDE: u32 = KV_PIECES * MATRIX + 8u;
override P_STRIDE: u32 = KEYS + 8u;
override STAGE_STRIDE: u32 = STAGE_PIECES * MATRIX + 4u;
override Q_LEN: u32 = QUERIES * Q_STRIDE / TILE_LANES;
override KV_LEN: u32 = KEYS * KV_STRIDE / TILE_LANES;
override P_LEN: u32 = QUERIES * P_STRIDE / TILE_LANES;
override STAGE_LEN: u32 = QUERIES * STAGE_STRIDE / TILE_LANES;

var<workgroup> grown: array<u32, SUBGROUPS>; // for each subgroup whether its sums have to be scaled down

// Matrices side by side: they have names and no index, so that they stay in registers.
struct Sums {
    c0: MatrixC,
    c1: MatrixC,
    c2: MatrixC,
    c3: MatrixC,
    c4: MatrixC,
}

// Vectors `first`.. of the workgroup's queries; of the keys from `key` on, or of their values.
fn load_queries(start: u32, query: u32, first: u32, thread: u32) {
    for (var i = thread; i < QUERIES * STEP4; i += THREADS) {
        let token = query + i / STEP4;
        let vector = first + i % STEP4;
        var value = elem4();
        if token < params.queries && vector < params.head_vectors {
            value = q[start + token * params.q_row + vector];
        }
        put_q(i / STEP4 * Q_STRIDE + i % STEP4 * 4u, value);
    }
}

fn load_kv(values: bool, start: u32, key: u32, first: u32, width4: u32, thread: u32) {
    for (var i = thread; i < KEYS * width4; i += THREADS) {
        let token = key + i / width4;
        let vector = first + i % width4;
        let at = start + token * params.kv_row + vector;
        var value = elem4();
        if token < params.keys && vector < params.head_vectors {
            if values {
                value = v[at];
            } else {
                value = k[at];
            }
        }
        put_kv(i / width4 * KV_STRIDE + i % width4 * 4u, value);
    }
}

// Matrices of `rows` of a tile of f16.
fn piece_q(row: u32, channel: u32) -> MatrixA {
    return coopLoadT<MatrixA>(&q_tile[(row * Q_STRIDE + channel) / TILE_LANES], Q_STRIDE / TILE_LANES);
}

fn piece_p(row: u32, key: u32) -> MatrixA {
    return coopLoadT<MatrixA>(&p_tile[(row * P_STRIDE + key) / TILE_LANES], P_STRIDE / TILE_LANES);
}

// Keys are the columns: their channels stand one after the other.
fn piece_k(channel: u32, key: u32) -> MatrixB {
    return coopLoad<MatrixB>(&kv_tile[(key * KV_STRIDE + channel) / TILE_LANES], KV_STRIDE / TILE_LANES);
}

fn piece_v(key: u32, channel: u32) -> MatrixB {
    return coopLoadT<MatrixB>(&kv_tile[(key * KV_STRIDE + channel) / TILE_LANES], KV_STRIDE / TILE_LANES);
}

fn add_scores(sums: Sums, row: u32, channel: u32) -> Sums {
    let a = piece_q(row, channel);
    var next = sums;
    next.c0 = coopMultiplyAdd(a, piece_k(channel, 0u), sums.c0);
    next.c1 = coopMultiplyAdd(a, piece_k(channel, MATRIX), sums.c1);
    if KEY_PIECES > 2u {
        next.c2 = coopMultiplyAdd(a, piece_k(channel, 2u * MATRIX), sums.c2);
        next.c3 = coopMultiplyAdd(a, piece_k(channel, 3u * MATRIX), sums.c3);
    }
    return next;
}

fn add_values(sums: Sums, a: MatrixA, key: u32, channel: u32) -> Sums {
    var next = sums;
    next.c0 = coopMultiplyAdd(a, piece_v(key, channel), sums.c0);
    if GROUP_PIECES > 1u {
        next.c1 = coopMultiplyAdd(a, piece_v(key, channel + MATRIX), sums.c1);
    }
    if GROUP_PIECES > 2u {
        next.c2 = coopMultiplyAdd(a, piece_v(key, channel + 2u * MATRIX), sums.c2);
    }
    if GROUP_PIECES > 3u {
        next.c3 = coopMultiplyAdd(a, piece_v(key, channel + 3u * MATRIX), sums.c3);
    }
    if GROUP_PIECES > 4u {
        next.c4 = coopMultiplyAdd(a, piece_v(key, channel + 4u * MATRIX), sums.c4);
    }
    return next;
}

// Where a matrix of the stage begins.
fn stage_at(row: u32, piece: u32) -> u32 {
    return (row * STAGE_STRIDE + piece * MATRIX) / TILE_LANES;
}

fn stage_scores(sums: Sums, row: u32) {
    let stride = STAGE_STRIDE / TILE_LANES;
    let at0 = stage_at(row, 0u);
    let at1 = stage_at(row, 1u);
    let at2 = stage_at(row, 2u);
    let at3 = stage_at(row, 3u);
    coopStoreT(sums.c0, &stage[at0], stride);
    coopStoreT(sums.c1, &stage[at1], stride);
    if KEY_PIECES > 2u {
        coopStoreT(sums.c2, &stage[at2], stride);
        coopStoreT(sums.c3, &stage[at3], stride);
    }
}

fn stage_values(sums: Sums, row: u32) {
    let stride = STAGE_STRIDE / TILE_LANES;
    let at0 = stage_at(row, 0u);
    let at1 = stage_at(row, 1u);
    let at2 = stage_at(row, 2u);
    let at3 = stage_at(row, 3u);
    let at4 = stage_at(row, 4u);
    coopStoreT(sums.c0, &stage[at0], stride);
    if GROUP_PIECES > 1u {
        coopStoreT(sums.c1, &stage[at1], stride);
    }
    if GROUP_PIECES > 2u {
        coopStoreT(sums.c2, &stage[at2], stride);
    }
    if GROUP_PIECES > 3u {
        coopStoreT(sums.c3, &stage[at3], stride);
    }
    if GROUP_PIECES > 4u {
        coopStoreT(sums.c4, &stage[at4], stride);
    }
}

fn staged_values(row: u32) -> Sums {
    let stride = STAGE_STRIDE / TILE_LANES;
    let at0 = stage_at(row, 0u);
    let at1 = stage_at(row, 1u);
    let at2 = stage_at(row, 2u);
    let at3 = stage_at(row, 3u);
    let at4 = stage_at(row, 4u);
    var sums = Sums();
    sums.c0 = coopLoadT<MatrixC>(&stage[at0], stride);
    if GROUP_PIECES > 1u {
        sums.c1 = coopLoadT<MatrixC>(&stage[at1], stride);
    }
    if GROUP_PIECES > 2u {
        sums.c2 = coopLoadT<MatrixC>(&stage[at2], stride);
    }
    if GROUP_PIECES > 3u {
        sums.c3 = coopLoadT<MatrixC>(&stage[at3], stride);
    }
    if GROUP_PIECES > 4u {
        sums.c4 = coopLoadT<MatrixC>(&stage[at4], stride);
    }
    return sums;
}

// A query, of whose row of the stage a lane has every LANES/MATRIX-th vector from `part` on.
struct Row {
    query: u32,
    at: u32, // in the stage
    p_at: u32,
    part: u32,
    parts: u32,
}

// A row's sums, staged, times `factor`.
fn scale_row(row: Row, factor: f32) {
    for (var i = row.part; i < GROUP4; i += row.parts) {
        put_stage(row.at + 4u * i, staged(row.at + 4u * i) * factor);
    }
}

fn store_row(row: Row, first: u32, column: u32, total: f32) {
    for (var i = row.part; i < GROUP4; i += row.parts) {
        if row.query < params.queries && column + i < params.head_vectors {
            y[first + row.query * y_row() + column + i] = store(staged(row.at + 4u * i) / total);
        }
    }
}

fn visible(query: u32, key: u32) -> vec4<bool> {
    let keys = vec4u(key) + vec4u(0u, 1u, 2u, 3u);
    let seen = (keys <= vec4u(query)) | vec4<bool>(!CAUSAL);
    return seen & (keys < vec4u(params.keys));
}

// Four scores of a row, those of keys that it does not see as low as none is.
fn scores(row: Row, key: u32, i: u32) -> vec4f {
    return select(vec4f(LOWEST), staged(row.at + 4u * i) * params.scale, visible(row.query, key + 4u * i));
}

fn top_of_tile(row: Row, key: u32) -> f32 {
    var tops = vec4f(LOWEST);
    for (var i = row.part; i < KEYS / 4u; i += row.parts) {
        tops = max(tops, scores(row, key, i));
    }
    var top = max(max(tops.x, tops.y), max(tops.z, tops.w));
    for (var other = 1u; other < row.parts; other *= 2u) {
        top = max(top, subgroupShuffleXor(top, other));
    }
    return top;
}

// Turns scores into weights, and returns the sum of this lane's.
fn weigh(row: Row, key: u32, top: f32) -> f32 {
    var total = 0.0;
    for (var i = row.part; i < KEYS / 4u; i += row.parts) {
        // Zero where a score is as low as none is: `top` never is, since every query sees the first key.
        let p = vec4h(exp(scores(row, key, i) - top));
        put_p(row.p_at + 4u * i, p);
        total += dot(vec4f(p), vec4f(1.0));
    }
    return total;
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3u,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    // The driver took subgroups of another size: rows would have no owner, or two. Nothing is stored, which admission
    // finds.
    if lanes != LANES {
        return;
    }
    let head = head_of(id.y);
    let query = (params.first_tile + id.x) * QUERIES;
    let first_row = subgroup * MATRIX; // of the subgroup
    let parts = LANES / MATRIX;
    let lane_row = first_row + lane / parts;
    let row = Row(query + lane_row, lane_row * STAGE_STRIDE, lane_row * P_STRIDE, lane % parts, parts);
    let column = id.z * OUT4;
    let keys = select(params.keys, min(params.keys, query + QUERIES), CAUSAL);

    var top = LOWEST;
    var total = 0.0; // of this lane's keys alone, until the end
    var low = Sums();
    var high = Sums();
    for (var key = 0u; key < keys; key += KEYS) {
        var sums = Sums();
        for (var step = 0u; step < STEPS; step++) {
            if STEPS > 1u || key == 0u {
                load_queries(head.q, query, step * STEP4, thread);
            }
            load_kv(false, head.k, key, step * STEP4, STEP4, thread);
            // The tiles are whole before anyone multiplies, ...
            workgroupBarrier();
            for (var channel = 0u; channel < STEP_PIECES * MATRIX; channel += MATRIX) {
                sums = add_scores(sums, first_row, channel);
            }
            if step + 1u == STEPS {
                stage_scores(sums, first_row);
            }
            // ... and everyone has multiplied before they are overwritten; the scores are whole.
            workgroupBarrier();
        }
        load_kv(true, head.v, key, column, OUT4, thread);
        let tile_top = top_of_tile(row, key);
        // All sums are zero before the first tile: nothing to scale down.
        let grows = tile_top > top + GROWTH && key > 0u;
        let new_top = select(select(top, tile_top, grows), tile_top, key == 0u);
        let shrink = exp(top - new_top);
        top = new_top;
        total = total * shrink + weigh(row, key, top);
        let any = subgroupAny(grows);
        if lane == 0u {
            grown[subgroup] = u32(any);
        }
        // Weights and values are whole before anyone multiplies, ...
        let grown_now = workgroupUniformLoad(&grown);
        if (grown_now[0] | grown_now[1] | grown_now[2] | grown_now[3]) > 0u {
            stage_values(low, first_row);
            workgroupBarrier();
            scale_row(row, shrink);
            workgroupBarrier();
            low = staged_values(first_row);
            if GROUPS > 1u {
                workgroupBarrier();
                stage_values(high, first_row);
                workgroupBarrier();
                scale_row(row, shrink);
                workgroupBarrier();
                high = staged_values(first_row);
            }
        }
        for (var i = 0u; i < KEYS; i += MATRIX) {
            let p = piece_p(first_row, i);
            low = add_values(low, p, i, 0u);
            if GROUPS > 1u {
                high = add_values(high, p, i, 4u * GROUP4);
            }
        }
        // ... and everyone has multiplied before they are overwritten.
        workgroupBarrier();
    }

    for (var other = 1u; other < parts; other *= 2u) {
        total += subgroupShuffleXor(total, other);
    }
    stage_values(low, first_row);
    workgroupBarrier();
    store_row(row, head.y, column, total);
    if GROUPS > 1u {
        workgroupBarrier();
        stage_values(high, first_row);
        workgroupBarrier();
        store_row(row, head.y, column + GROUP4, total);
    }
}
