// The core for devices with cooperative matrices: one tile of y by a workgroup of subgroups, each of which multiplies
// matrices of MATRIX x MATRIX f16 into sums in f32. Steps of STEP channels: the tiles of x and w go into workgroup
// memory in f16, and the next step's are on their way meanwhile. All rows are whole vectors of eight: the launch sees
// to it.
//
// The file that imports this declares the workgroup memory, since the platforms differ in what matrices are loaded
// from:
//     x_tile, w_tile            X_TILE_LEN and W_TILE_LEN elements f16, in units of TILE_LANES
//     W_CHANNEL, W_COLUMN       elements from one channel, or column, of w in its tile to the next
//     stage                     STAGE_LEN elements f32, in the same units
//     put_x(at, v)              a vector of x into its tile
//     put_w(at, v)              four channels of two columns of w into theirs
//     piece_b(at) -> MatrixB    a matrix of w from there
//     staged(i) -> vec4f        vector of four number i of the stage
#import product

alias x_vector = mat2x4h;
alias w_vector = vec2h;
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
// Rows of the tiles are sixteen bytes longer than what they hold, so that the rows of a matrix meet different memory
// banks.
override X_STRIDE: u32 = STEP + 8u;
override X_TILE_LEN: u32 = TILE_ROWS * X_STRIDE / TILE_LANES;
// From a matrix in the tiles to the next: along the channels and the rows of x, and the channels and the columns of w.
override X_PIECE: u32 = MATRIX / TILE_LANES;
override X_PIECE_ROWS: u32 = MATRIX * X_STRIDE / TILE_LANES;
override W_PIECE: u32 = MATRIX * W_CHANNEL / TILE_LANES;
override W_PIECE_COLUMNS: u32 = MATRIX * W_COLUMN / TILE_LANES;
// The stage holds one row of matrices of each subgroup.
override SPAN: u32 = COLUMN_PIECES * MATRIX;
override STAGE_VECTORS: u32 = MATRIX * SPAN / 4u; // vectors of four of a subgroup
override STAGE_LEN: u32 = K_GROUPS * TILE_GROUPS * MATRIX * SPAN / TILE_LANES;

// Times that a thread loads eight elements of a tile. Sizes are powers of two, and the threads divide both tiles.
const MOST_LOADS: u32 = 8u;
override X_LOADS: u32 = TILE_ROWS * STEP / (8u * THREADS);
override W_LOADS: u32 = STEP * TILE_COLUMNS / (8u * THREADS);
// From one load of x to the next, in its tile.
override X_APART: u32 = THREADS / (STEP / 8u) * X_STRIDE / TILE_LANES;
// Sixteen threads load a block of w, of sixteen channels and eight columns: so those that write at once meet different
// memory banks, and read neighbours all the same.
override BLOCKS: u32 = THREADS / 16u; // at once, along the columns first
override BLOCK_COLUMNS: u32 = TILE_COLUMNS / 8u;

// What a thread loads in a step.
struct Loads {
    x: array<x_vector, MOST_LOADS>,
    w: array<mat4x2h, MOST_LOADS>, // four channels of two columns
}

// From where a thread loads, and where it puts that. What does not change in the loop is computed before it, since
// compilers leave it there.
struct Share {
    runs: array<Run, MOST_LOADS>,
    x_vector: u32, // number in the step, the same in all loads
    to_x: u32, // in the tile, at the first load
    columns: array<u32, MOST_LOADS>, // w_vectors of a row of w before each load
    row: u32, // w_vectors of w before the row of the first
    to_w: u32,
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

// First channel and column of a block, in the tile. Those of one below BLOCKS and of a multiple of BLOCKS add up.
fn block_channel(block: u32) -> u32 {
    return block / BLOCK_COLUMNS * 16u;
}

fn block_column(block: u32) -> u32 {
    return block % BLOCK_COLUMNS * 8u;
}

fn in_w_tile(channel: u32, column: u32) -> u32 {
    return (channel * W_CHANNEL + column * W_COLUMN) / TILE_LANES;
}

fn w_step() -> u32 {
    return 2u * params.n4; // w_vectors of a row
}

// Columns of w begin at `first_column` in the tile.
fn share_of(thread: u32, first_column: u32) -> Share {
    var share = Share();
    share.x_vector = thread % (STEP / 8u);
    share.to_x = (x_row(thread, 0u) * X_STRIDE + share.x_vector * 8u) / TILE_LANES;
    let channel = block_channel(thread / 16u) + thread / 4u % 4u * 4u;
    let column = block_column(thread / 16u) + thread % 4u * 2u;
    // Not by `w_step`: Mesa would add the step's channels first, and multiply in the loop.
    share.row = 2u * channel * params.n4;
    share.to_w = in_w_tile(channel, column);
    for (var i = 0u; i < W_LOADS; i++) {
        // Threads beyond the last column repeat it: what they give is not stored.
        share.columns[i] = min((first_column + column + block_column(i * BLOCKS)) / 2u, w_step() - 1u);
    }
    return share;
}

// This thread's share of both tiles, at channel `c` of a tap. No load has a condition: `keep` replaces what x does not
// have, so that nobody waits for them earlier.
fn fetch(loads: ptr<function, Loads>, share: ptr<function, Share>, tap: u32, c: u32) {
    for (var i = 0u; i < X_LOADS; i++) {
        (*loads).x[i] = read_x((*share).runs[i], c / 8u + (*share).x_vector);
    }
    let channels = 4u * params.c4;
    let step = w_step();
    for (var i = 0u; i < W_LOADS; i++) {
        // Behind a tap's last rows they are repeated: x is zero there.
        let row = min((*share).row + (c + block_channel(i * BLOCKS)) * step, (channels - 4u) * step);
        let at = (*share).columns[i] + (row + tap * channels * step);
        (*loads).w[i] = mat4x2h(w[at], w[at + step], w[at + 2u * step], w[at + 3u * step]);
    }
}

// What `fetch` loaded, to the tiles.
fn keep(loads: ptr<function, Loads>, share: ptr<function, Share>, c: u32) {
    for (var i = 0u; i < X_LOADS; i++) {
        let has = has_x((*share).runs[i], c / 8u + (*share).x_vector);
        let v = (*loads).x[i];
        let masked = x_vector(select(vec4h(), v[0], has), select(vec4h(), v[1], has));
        put_x((*share).to_x + i * X_APART, masked);
    }
    for (var i = 0u; i < W_LOADS; i++) {
        let block = i * BLOCKS;
        put_w((*share).to_w + in_w_tile(block_channel(block), block_column(block)), (*loads).w[i]);
    }
}

fn piece_a(at: u32) -> MatrixA {
    return coopLoadT<MatrixA>(&x_tile[at], X_STRIDE / TILE_LANES);
}

fn load_columns(at: u32) -> Columns {
    var b = Columns();
    b.c0 = piece_b(at);
    if COLUMN_PIECES > 1u {
        b.c1 = piece_b(at + W_PIECE_COLUMNS);
    }
    if COLUMN_PIECES > 2u {
        b.c2 = piece_b(at + 2u * W_PIECE_COLUMNS);
        b.c3 = piece_b(at + 3u * W_PIECE_COLUMNS);
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
fn store_row(row: u32, thread: u32, first_row: u32, first_n4: u32) {
    for (var i = thread; i < TILE_GROUPS * STAGE_VECTORS; i += THREADS) {
        var v = staged(i);
        for (var k = 1u; k < K_GROUPS; k++) {
            v += staged(k * TILE_GROUPS * STAGE_VECTORS + i);
        }
        let group = i / STAGE_VECTORS;
        store_y(
            v,
            first_row + (group / COLUMN_GROUPS * ROW_PIECES + row) * MATRIX + i % STAGE_VECTORS / (SPAN / 4u),
            first_n4 + group % COLUMN_GROUPS * (SPAN / 4u) + i % (SPAN / 4u),
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
    var sums = Rows();
    let first_row = tile_of(group, groups) * TILE_ROWS;
    let group_row = subgroup % TILE_GROUPS / COLUMN_GROUPS * ROW_PIECES * MATRIX;
    let group_column = subgroup % COLUMN_GROUPS * SPAN;
    let group_k = subgroup / TILE_GROUPS * (STEP / K_GROUPS);
    var places: array<Place, MOST_LOADS>;
    var share = share_of(thread, group.x * TILE_COLUMNS);
    for (var i = 0u; i < X_LOADS; i++) {
        places[i] = place_x(first_row + x_row(thread, i));
        share.runs[i] = run_x(places[i], 0u);
    }
    let at_x = (group_row * X_STRIDE + group_k) / TILE_LANES;
    let at_w = in_w_tile(group_k, group_column);
    var loads = Loads();
    fetch(&loads, &share, 0u, 0u);
    var tap = 0u;
    var c = 0u;
    while tap < params.taps {
        keep(&loads, &share, c);
        // The tiles are whole before anyone multiplies, ...
        workgroupBarrier();
        c += STEP;
        if c >= 4u * params.c4 {
            c = 0u;
            tap++;
            for (var i = 0u; i < X_LOADS; i++) {
                share.runs[i] = run_x(places[i], tap);
            }
        }
        if tap < params.taps {
            fetch(&loads, &share, tap, c);
        }
        // Written out, since compilers that leave a loop in place spill the sums around it (NVK 186 registers).
        sums = multiply_rows(sums, at_x, at_w);
        if K_STEPS > 1u {
            sums = multiply_rows(sums, at_x + X_PIECE, at_w + W_PIECE);
        }
        if K_STEPS > 2u {
            sums = multiply_rows(sums, at_x + 2u * X_PIECE, at_w + 2u * W_PIECE);
            sums = multiply_rows(sums, at_x + 3u * X_PIECE, at_w + 3u * W_PIECE);
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
        store_row(row, thread, first_row, group.x * (TILE_COLUMNS / 4u));
        // ... and read before they are overwritten.
        workgroupBarrier();
    }
}
