// The core for devices with cooperative matrices: one tile of y by a workgroup of subgroups, each of which multiplies
// matrices of MATRIX x MATRIX f16 into sums in f32. Steps of STEP channels: the tiles of x and w go into workgroup memory
// in f16, sixteen bytes a thread at once, and the next step's are on their way meanwhile. All rows are whole vectors of
// eight: the launch sees to it.
//
// The file that imports this declares the workgroup memory, since the platforms differ in what matrices are loaded from:
//     x_tile, w_tile            X_TILE_LEN and W_TILE_LEN elements f16, in units of TILE_LANES
//     stage                     STAGE_LEN elements f32, in the same units
//     put_x(at, v), put_w(..)   eight elements into a tile
//     staged(i) -> vec4f    vector of four number i of the stage
#import product

alias x_vector = mat2x4h;
alias w_vector = mat2x4h;
const VECTOR_FOURS: u32 = 2u;

override LANES: u32 = 32u; // threads of a subgroup
override ROW_GROUPS: u32 = 2u; // subgroups along the rows of a tile
override COLUMN_GROUPS: u32 = 2u; // along its columns
override K_GROUPS: u32 = 1u; // that share the channels of a step: the parts are added in the end
override ROW_PIECES: u32 = 4u; // matrices of y of a subgroup, along its rows: 1, 2 or 4
override COLUMN_PIECES: u32 = 4u; // along its columns: 1, 2 or 4
override STEP: u32 = 32u; // channels: K_GROUPS MATRIX of them, twice or four times as many
// Derived, and not to be set. They have names because naga 30 fails on an unnamed size before a later override.
override TILE_GROUPS: u32 = ROW_GROUPS * COLUMN_GROUPS;
override K_STEPS: u32 = STEP / (K_GROUPS * MATRIX);
override THREADS: u32 = LANES * K_GROUPS * TILE_GROUPS;
override TILE_ROWS: u32 = ROW_GROUPS * ROW_PIECES * MATRIX;
override TILE_COLUMNS: u32 = COLUMN_GROUPS * COLUMN_PIECES * MATRIX;
// Rows of the tiles are sixteen bytes longer than what they hold, so that the rows of a matrix meet different memory banks.
override X_STRIDE: u32 = STEP + 8u;
override W_STRIDE: u32 = TILE_COLUMNS + 8u;
override X_TILE_LEN: u32 = TILE_ROWS * X_STRIDE / TILE_LANES;
override W_TILE_LEN: u32 = STEP * W_STRIDE / TILE_LANES;
// From a matrix in the tiles to the next: along a row of either, and down the rows of x and of w.
override PIECE: u32 = MATRIX / TILE_LANES;
override X_PIECE_ROWS: u32 = MATRIX * X_STRIDE / TILE_LANES;
override W_PIECE_ROWS: u32 = MATRIX * W_STRIDE / TILE_LANES;
// The stage holds one row of matrices of each subgroup.
override SPAN: u32 = COLUMN_PIECES * MATRIX;
override STAGE_VECTORS: u32 = MATRIX * SPAN / 4u; // vectors of four of a subgroup
override STAGE_LEN: u32 = K_GROUPS * TILE_GROUPS * MATRIX * SPAN / TILE_LANES;

// Vectors of each tile that a thread loads: the threads are a divisor of both.
const MOST_LOADS: u32 = 8u;
override X_LOADS: u32 = TILE_ROWS * STEP / (8u * THREADS);
override W_LOADS: u32 = STEP * TILE_COLUMNS / (8u * THREADS);

// What a thread loads in a step.
struct Loads {
    x: array<x_vector, MOST_LOADS>,
    w: array<w_vector, MOST_LOADS>,
}

// Where a thread stands.
struct Stand {
    thread: u32,
    subgroup: u32,
    first_row: u32, // of the tile
    first_n4: u32,
}

// Matrices of w, and of sums: they have names and no index, so that they stay in registers.
struct Columns {
    c0: MatrixB,
    c1: MatrixB,
    c2: MatrixB,
    c3: MatrixB,
}

struct Sums {
    c0: MatrixC,
    c1: MatrixC,
    c2: MatrixC,
    c3: MatrixC,
}

struct Rows {
    r0: Sums,
    r1: Sums,
    r2: Sums,
    r3: Sums,
}

fn x_row(thread: u32, load: u32) -> u32 {
    return (thread + load * THREADS) / (STEP / 8u);
}

fn w_row(thread: u32, load: u32) -> u32 {
    return (thread + load * THREADS) / (TILE_COLUMNS / 8u);
}

// First column of a thread's vectors: the same in all of its loads.
fn x_column(thread: u32) -> u32 {
    return thread % (STEP / 8u) * 8u;
}

fn w_column(thread: u32) -> u32 {
    return thread % (TILE_COLUMNS / 8u) * 8u;
}

// Row `c` of a tap of w, at a column that it has. Behind the last row it is repeated: x is zero there.
fn read_w(tap: u32, c: u32, n4: u32) -> w_vector {
    let channels = 4u * params.c4;
    return w[((tap * channels + min(c, channels - 1u)) * params.n4 + n4) / VECTOR_FOURS];
}

// This thread's share of both tiles, at channel `c` of a tap. No load has a condition: what x does not have is replaced
// by `keep`, so that nobody waits for them earlier.
fn fetch(loads: ptr<function, Loads>, runs: ptr<function, array<Run, MOST_LOADS>>, at: Stand, tap: u32, c: u32) {
    for (var i = 0u; i < X_LOADS; i++) {
        (*loads).x[i] = read_x((*runs)[i], (c + x_column(at.thread)) / 4u);
    }
    // Threads beyond the last column repeat it: what they give is not stored.
    let n4 = min(at.first_n4 + w_column(at.thread) / 4u, params.n4 - VECTOR_FOURS);
    for (var i = 0u; i < W_LOADS; i++) {
        (*loads).w[i] = read_w(tap, c + w_row(at.thread, i), n4);
    }
}

// What `fetch` loaded, to the tiles.
fn keep(loads: ptr<function, Loads>, runs: ptr<function, array<Run, MOST_LOADS>>, thread: u32, c: u32) {
    for (var i = 0u; i < X_LOADS; i++) {
        let has = has_x((*runs)[i], (c + x_column(thread)) / 4u);
        let v = (*loads).x[i];
        let masked = x_vector(select(vec4h(), v[0], has), select(vec4h(), v[1], has));
        put_x(x_row(thread, i) * X_STRIDE + x_column(thread), masked);
    }
    for (var i = 0u; i < W_LOADS; i++) {
        put_w(w_row(thread, i) * W_STRIDE + w_column(thread), (*loads).w[i]);
    }
}

fn piece_a(at: u32) -> MatrixA {
    return coopLoadT<MatrixA>(&x_tile[at], X_STRIDE / TILE_LANES);
}

fn piece_b(at: u32) -> MatrixB {
    return coopLoadT<MatrixB>(&w_tile[at], W_STRIDE / TILE_LANES);
}

fn load_columns(at: u32) -> Columns {
    var b = Columns();
    b.c0 = piece_b(at);
    if COLUMN_PIECES > 1u {
        b.c1 = piece_b(at + PIECE);
    }
    if COLUMN_PIECES > 2u {
        b.c2 = piece_b(at + 2u * PIECE);
        b.c3 = piece_b(at + 3u * PIECE);
    }
    return b;
}

fn multiply(sums: Sums, a: MatrixA, b: Columns) -> Sums {
    var next = sums;
    next.c0 = coopMultiplyAdd(a, b.c0, sums.c0);
    if COLUMN_PIECES > 1u {
        next.c1 = coopMultiplyAdd(a, b.c1, sums.c1);
    }
    if COLUMN_PIECES > 2u {
        next.c2 = coopMultiplyAdd(a, b.c2, sums.c2);
        next.c3 = coopMultiplyAdd(a, b.c3, sums.c3);
    }
    return next;
}

// MATRIX channels of all of a subgroup's matrices, the first of which stand here in the tiles.
fn multiply_rows(sums: Rows, at_x: u32, at_w: u32) -> Rows {
    let b = load_columns(at_w);
    var next = sums;
    next.r0 = multiply(sums.r0, piece_a(at_x), b);
    if ROW_PIECES > 1u {
        next.r1 = multiply(sums.r1, piece_a(at_x + X_PIECE_ROWS), b);
    }
    if ROW_PIECES > 2u {
        next.r2 = multiply(sums.r2, piece_a(at_x + 2u * X_PIECE_ROWS), b);
        next.r3 = multiply(sums.r3, piece_a(at_x + 3u * X_PIECE_ROWS), b);
    }
    return next;
}

// A row of a subgroup's matrices to its part of the stage.
fn stage_row(sums: Sums, subgroup: u32) {
    let stride = SPAN / TILE_LANES;
    let piece = MATRIX / TILE_LANES;
    let at0 = subgroup * MATRIX * stride;
    coopStoreT(sums.c0, &stage[at0], stride);
    let at1 = at0 + piece;
    let at2 = at1 + piece;
    let at3 = at2 + piece;
    if COLUMN_PIECES > 1u {
        coopStoreT(sums.c1, &stage[at1], stride);
    }
    if COLUMN_PIECES > 2u {
        coopStoreT(sums.c2, &stage[at2], stride);
        coopStoreT(sums.c3, &stage[at3], stride);
    }
}

// From the stage to y: row `row` of the matrices of all subgroups.
fn store_row(row: u32, at: Stand) {
    for (var i = at.thread; i < TILE_GROUPS * STAGE_VECTORS; i += THREADS) {
        var v = staged(i);
        for (var k = 1u; k < K_GROUPS; k++) {
            v += staged(k * TILE_GROUPS * STAGE_VECTORS + i);
        }
        let group = i / STAGE_VECTORS;
        store_y(
            v,
            at.first_row + (group / COLUMN_GROUPS * ROW_PIECES + row) * MATRIX + i % STAGE_VECTORS / (SPAN / 4u),
            at.first_n4 + group % COLUMN_GROUPS * (SPAN / 4u) + i % (SPAN / 4u),
        );
    }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    // The driver took subgroups of another size: what there would be to store is wrong, and admission finds that it is
    // missing.
    if lanes != LANES {
        return;
    }
    let first_row = tile_of(group, groups) * TILE_ROWS;
    let at = Stand(thread, subgroup, first_row, group.x * (TILE_COLUMNS / 4u));
    let group_row = subgroup % TILE_GROUPS / COLUMN_GROUPS * ROW_PIECES * MATRIX;
    let group_column = subgroup % COLUMN_GROUPS * SPAN;
    let group_k = subgroup / TILE_GROUPS * (STEP / K_GROUPS);
    var places: array<Place, MOST_LOADS>;
    var runs: array<Run, MOST_LOADS>;
    for (var i = 0u; i < X_LOADS; i++) {
        places[i] = place_x(first_row + x_row(thread, i));
        runs[i] = run_x(places[i], 0u);
    }
    let at_x = (group_row * X_STRIDE + group_k) / TILE_LANES;
    let at_w = (group_k * W_STRIDE + group_column) / TILE_LANES;
    var sums = Rows();
    var loads = Loads();
    fetch(&loads, &runs, at, 0u, 0u);
    var tap = 0u;
    var c = 0u;
    while tap < params.taps {
        keep(&loads, &runs, thread, c);
        // The tiles are whole before anyone multiplies, ...
        workgroupBarrier();
        c += STEP;
        if c >= 4u * params.c4 {
            c = 0u;
            tap++;
            for (var i = 0u; i < X_LOADS; i++) {
                runs[i] = run_x(places[i], tap);
            }
        }
        if tap < params.taps {
            fetch(&loads, &runs, at, tap, c);
        }
        // Written out, since compilers that leave a loop in place spill the sums around it (NVK 186 registers).
        sums = multiply_rows(sums, at_x, at_w);
        if K_STEPS > 1u {
            sums = multiply_rows(sums, at_x + PIECE, at_w + W_PIECE_ROWS);
        }
        if K_STEPS > 2u {
            sums = multiply_rows(sums, at_x + 2u * PIECE, at_w + 2u * W_PIECE_ROWS);
            sums = multiply_rows(sums, at_x + 3u * PIECE, at_w + 3u * W_PIECE_ROWS);
        }
        // ... and everyone has multiplied before they are overwritten.
        workgroupBarrier();
    }
    // The elements of a matrix can be reached in memory alone.
    for (var row = 0u; row < ROW_PIECES; row++) {
        if row == 0u {
            stage_row(sums.r0, subgroup);
        } else if row == 1u {
            stage_row(sums.r1, subgroup);
        } else if row == 2u {
            stage_row(sums.r2, subgroup);
        } else {
            stage_row(sums.r3, subgroup);
        }
        // The sums of a row are whole before anyone reads them, ...
        workgroupBarrier();
        store_row(row, at);
        // ... and read before they are overwritten.
        workgroupBarrier();
    }
}
