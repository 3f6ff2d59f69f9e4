// m[p, t, n] = sum over c of v[p, t, c] u[p, c, n] (+ before[p, t, n]): 36 products. u stands in panels of 32 columns,
// which a product reads from the first to the last value. Behind each of the 36, in v, u and m, there are zeros.
#import core

override HAS_BEFORE: bool = false;

struct Params {
    first_tile: u32, // of rows
    rows: u32, // of all products together
    taps: u32, // 1
    c4: u32,
    n4: u32, // a multiple of 8
    rows_each: u32, // a multiple of the rows that the core computes at once
}

@group(0) @binding(0) var<storage, read> x: array<x_vector>; // v [36, rows_each c4 + GAP4]
@group(0) @binding(1) var<storage, read> w: array<w_vector>; // u [36, 4 c4 n4 + GAP4]
@group(0) @binding(2) var<storage, read> before: array<elem4>; // [36, rows_each n4 + GAP4]
@group(0) @binding(3) var<storage, read_write> y: array<elem4>; // m [36, rows_each n4 + GAP4]
@group(0) @binding(4) var<uniform> params: Params;

const GAP4: u32 = 8u; // vectors of zeros
const PANEL4: u32 = 8u; // vectors in a row of a panel

alias Place = u32; // the row's first vector
alias Run = u32;

// Rows beyond the last repeat it: what they give is not stored.
fn place_x(row: u32) -> Place {
    let last = min(row, params.rows - 1u);
    return last * params.c4 + last / params.rows_each * GAP4;
}

fn run_x(place: Place, tap: u32) -> Run {
    return place;
}

fn has_x(run: Run, c4: u32) -> bool {
    return c4 < params.c4;
}

fn read_x(run: Run, c4: u32) -> x_vector {
    return x[run + min(c4, params.c4 - 1u)];
}

fn first_w(row: u32, n4: u32) -> u32 {
    let matrix = min(row, params.rows - 1u) / params.rows_each;
    let panel = n4 / PANEL4 * 4u * params.c4 * PANEL4;
    return matrix * (4u * params.c4 * params.n4 + GAP4) + panel + n4 % PANEL4;
}

fn step_w() -> u32 {
    return PANEL4;
}

fn store_y(sum: vec4f, row: u32, n4: u32) {
    if row >= params.rows || n4 >= params.n4 {
        return;
    }
    let i = row * params.n4 + n4 + row / params.rows_each * GAP4;
    var v = sum;
    if HAS_BEFORE {
        v += load(before[i]);
    }
    y[i] = store(v);
    // A row is at least as long as the gap behind the last one.
    if row % params.rows_each == params.rows_each - 1u && n4 < GAP4 {
        y[i + params.n4] = store(vec4f(0.0));
    }
}
