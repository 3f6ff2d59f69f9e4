// The core for any device: one tile of y by a workgroup of COLUMN_THREADS x ROW_THREADS threads, each of ROWS rows and
// COLUMNS4 vectors. Steps of 16 channels: the tiles of x and w go into workgroup memory in f32, then every thread
// multiplies from there, while what it loads for the next step is on its way.
//
// A thread's rows are ROW_THREADS apart and its vectors COLUMN_THREADS, so that neighbours read neighbouring memory
// banks. Sums are not indexed by a variable, and loops of a known length are written out: not every compiler unrolls
// them.
#import gemm

override TILE_ROWS: u32 = 64u; // rows of y in a tile: 4 ROWS or 8 ROWS
override ROWS: u32 = 8u; // of a thread: 4 or 8
override COLUMNS4: u32 = 1u; // vectors of y of a thread in each of its rows: 1 or 2
const COLUMN_THREADS: u32 = 16u;
const TILE_C4: u32 = 4u; // vectors of x in a step
const TILE_C: u32 = 4u * TILE_C4;
// A row of the tile of x is one vector longer than it holds, so that the rows that are read together meet different
// memory banks.
const X_STRIDE: u32 = TILE_C4 + 1u;
// Derived, and not to be set. They have names because naga 30 fails on an unnamed size before a later override.
override ROW_THREADS: u32 = TILE_ROWS / ROWS;
override THREADS: u32 = COLUMN_THREADS * ROW_THREADS;
override TILE_N4: u32 = COLUMN_THREADS * COLUMNS4;
override X_TILE_LEN: u32 = TILE_ROWS * X_STRIDE;
override W_TILE_LEN: u32 = TILE_C * TILE_N4;
// From one vector that a thread loads to the next: of x, 1 or 2 of them, all of one row; of w, 2 or 4 in a column.
override X_APART: u32 = 4u * TILE_C4 / ROWS; // vectors
override W_APART: u32 = THREADS / TILE_N4; // channels

var<workgroup> x_tile: array<vec4f, X_TILE_LEN>;
var<workgroup> w_tile: array<vec4f, W_TILE_LEN>;

// What a thread loads in a step, as it is stored.
struct Loads {
    x0: x_vector,
    x1: x_vector,
    w0: w_vector,
    w1: w_vector,
    w2: w_vector,
    w3: w_vector,
}

// The sums of a row; b is used where COLUMNS4 is 2.
struct Row {
    a: vec4f,
    b: vec4f,
}

struct Sums {
    r0: Row,
    r1: Row,
    r2: Row,
    r3: Row,
    r4: Row,
    r5: Row,
    r6: Row,
    r7: Row,
}

// Row `c` of a tap of w, at its column `first`. Behind the last it is repeated: x is zero there.
fn load_w(first: u32, tap: u32, c: u32) -> w_vector {
    let channels = 4u * params.c4;
    return w[first + (tap * channels + min(c, channels - 1u)) * step_w()];
}

fn fetch(run: Run, c4: u32, first: u32, tap: u32, c: u32) -> Loads {
    var loads = Loads();
    loads.x0 = read_x(run, c4);
    if ROWS > 4u {
        loads.x1 = read_x(run, c4 + X_APART);
    }
    loads.w0 = load_w(first, tap, c);
    loads.w1 = load_w(first, tap, c + W_APART);
    if W_APART < 8u {
        loads.w2 = load_w(first, tap, c + 2u * W_APART);
        loads.w3 = load_w(first, tap, c + 3u * W_APART);
    }
    return loads;
}

// Values are widened and masked here and not where they are loaded, so that nobody waits for them earlier.
fn keep(loads: Loads, run: Run, c4: u32, to_x: u32, to_w: u32) {
    x_tile[to_x] = select(vec4f(), load(loads.x0), has_x(run, c4));
    if ROWS > 4u {
        x_tile[to_x + X_APART] = select(vec4f(), load(loads.x1), has_x(run, c4 + X_APART));
    }
    w_tile[to_w] = load_weight(loads.w0);
    w_tile[to_w + THREADS] = load_weight(loads.w1);
    if W_APART < 8u {
        w_tile[to_w + 2u * THREADS] = load_weight(loads.w2);
        w_tile[to_w + 3u * THREADS] = load_weight(loads.w3);
    }
}

fn weights(from_w: u32) -> Weights {
    return Weights(
        w_tile[from_w],
        w_tile[from_w + TILE_N4],
        w_tile[from_w + 2u * TILE_N4],
        w_tile[from_w + 3u * TILE_N4],
    );
}

fn accumulate_row(sums: Row, from_x: u32, a: Weights, b: Weights) -> Row {
    let x = x_tile[from_x];
    if COLUMNS4 > 1u {
        return Row(accumulate(sums.a, x, a), accumulate(sums.b, x, b));
    }
    return Row(accumulate(sums.a, x, a), vec4f());
}

// Four channels of all of a thread's rows and columns.
fn multiply(sums: Sums, from_x: u32, from_w: u32) -> Sums {
    let apart = ROW_THREADS * X_STRIDE;
    let a = weights(from_w);
    var b = Weights();
    if COLUMNS4 > 1u {
        b = weights(from_w + COLUMN_THREADS);
    }
    var next = Sums();
    next.r0 = accumulate_row(sums.r0, from_x, a, b);
    next.r1 = accumulate_row(sums.r1, from_x + apart, a, b);
    next.r2 = accumulate_row(sums.r2, from_x + 2u * apart, a, b);
    next.r3 = accumulate_row(sums.r3, from_x + 3u * apart, a, b);
    if ROWS > 4u {
        next.r4 = accumulate_row(sums.r4, from_x + 4u * apart, a, b);
        next.r5 = accumulate_row(sums.r5, from_x + 5u * apart, a, b);
        next.r6 = accumulate_row(sums.r6, from_x + 6u * apart, a, b);
        next.r7 = accumulate_row(sums.r7, from_x + 7u * apart, a, b);
    }
    return next;
}

fn store_row(sums: Row, row: u32, n4: u32) {
    store_y(sums.a, row, n4);
    if COLUMNS4 > 1u {
        store_y(sums.b, row, n4 + COLUMN_THREADS);
    }
}

@compute @workgroup_size(COLUMN_THREADS, ROW_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_id) local: vec3u,
) {
    let first_row = tile_of(group, groups) * TILE_ROWS;
    let first_n4 = group.x * TILE_N4;
    let thread = local.y * COLUMN_THREADS + local.x;
    // What this thread loads: always of the same row of x, and of the same column of w.
    let x_row = thread / X_APART;
    let x_c4 = thread % X_APART;
    let w_c = thread / TILE_N4;
    let place = place_x(first_row + x_row);
    // Threads beyond the last column repeat it; they store nothing.
    let first = first_w(first_row, min(first_n4 + thread % TILE_N4, params.n4 - 1u));
    let to_x = x_row * X_STRIDE + x_c4;
    let from_x = local.y * X_STRIDE;
    var sums = Sums();
    var tap = 0u;
    var c4 = 0u;
    var run = run_x(place, tap);
    var loads = fetch(run, x_c4, first, tap, w_c);
    while tap < params.taps {
        keep(loads, run, c4 + x_c4, to_x, thread);
        // The tiles are whole before anyone multiplies, ...
        workgroupBarrier();
        c4 += TILE_C4;
        if c4 >= params.c4 {
            c4 = 0u;
            tap++;
            run = run_x(place, tap);
        }
        if tap < params.taps {
            loads = fetch(run, c4 + x_c4, first, tap, 4u * c4 + w_c);
        }
        sums = multiply(sums, from_x, local.x);
        sums = multiply(sums, from_x + 1u, local.x + 4u * TILE_N4);
        sums = multiply(sums, from_x + 2u, local.x + 8u * TILE_N4);
        sums = multiply(sums, from_x + 3u, local.x + 12u * TILE_N4);
        // ... and everyone has multiplied before they are overwritten.
        workgroupBarrier();
    }
    let row = first_row + local.y;
    let n4 = first_n4 + local.x;
    store_row(sums.r0, row, n4);
    store_row(sums.r1, row + ROW_THREADS, n4);
    store_row(sums.r2, row + 2u * ROW_THREADS, n4);
    store_row(sums.r3, row + 3u * ROW_THREADS, n4);
    if ROWS > 4u {
        store_row(sums.r4, row + 4u * ROW_THREADS, n4);
        store_row(sums.r5, row + 5u * ROW_THREADS, n4);
        store_row(sums.r6, row + 6u * ROW_THREADS, n4);
        store_row(sums.r7, row + 7u * ROW_THREADS, n4);
    }
}
