// y[b, i, j, n] = act(sum over u, v, c of x[b, s i + u - top, s j + v - left, c] w[u, v, c, n] + bias[n] + row[b, n])
//                 + residual[b, i, j, n]
// as a matrix product: its row is the output pixel (b, i, j), its taps are (u, v). c4 and n4 count vectors of four;
// every row is padded with zeros to whole vectors.
#import core
#import nearest
#import one_w
#import store_y

override TAPS_X: u32 = 3u; // width of the kernel, at least 1
override UPSAMPLED: bool = false; // x is read as height x width, else it has that size

struct Params {
    first_tile: u32, // of rows
    rows: u32, // batch * output height * out_width
    taps: u32,
    c4: u32,
    n4: u32,
    rows_per_batch: u32, // output height * out_width
    height: u32, // as which x is read
    width: u32,
    out_width: u32,
    stride: u32,
    top: u32, // padding
    left: u32,
    in_height: u32, // of x
    in_width: u32,
    y_scale: f32, // in_height / height
    x_scale: f32, // in_width / width
}

@group(0) @binding(0) var<storage, read> x: array<x_vector>; // [batch, in_height, in_width, c4]
@group(0) @binding(1) var<storage, read> w: array<w_vector>; // [taps * 4 c4, n4]
@group(0) @binding(2) var<storage, read> bias: array<vec4f>; // [n4]
@group(0) @binding(3) var<storage, read> row_bias: array<elem4>; // [batch, n4]
@group(0) @binding(4) var<storage, read> residual: array<elem4>; // [rows, n4]
@group(0) @binding(5) var<storage, read_write> y: array<elem4>; // [rows, n4]
@group(0) @binding(6) var<uniform> params: Params;

struct Place {
    image: u32, // pixels before this batch entry
    // Where the kernel's first tap meets x. Above or left of x it wraps around to a huge number: outside as well.
    row: u32,
    column: u32,
}

// The pixel's first x_vector; OUTSIDE if it is beyond the edges. One word, for it lives in a register through the
// product.
alias Run = u32;
const OUTSIDE: u32 = 0x80000000u; // x has fewer vectors

// Rows beyond the last repeat it: what they give is not stored.
fn place_x(row: u32) -> Place {
    let last = min(row, params.rows - 1u);
    let pixel = last % params.rows_per_batch;
    return Place(
        last / params.rows_per_batch * params.in_height * params.in_width,
        pixel / params.out_width * params.stride - params.top,
        pixel % params.out_width * params.stride - params.left,
    );
}

fn run_x(place: Place, tap: u32) -> Run {
    var row = place.row + tap / TAPS_X;
    var column = place.column + tap % TAPS_X;
    let inside = row < params.height && column < params.width;
    if UPSAMPLED {
        row = nearest(row, params.y_scale, params.in_height);
        column = nearest(column, params.x_scale, params.in_width);
    }
    let pixel = place.image + row * params.in_width + column;
    return select(OUTSIDE, pixel * (params.c4 / VECTOR_FOURS), inside);
}

fn has_x(run: Run, i: u32) -> bool {
    return run < OUTSIDE && i < params.c4 / VECTOR_FOURS;
}

fn read_x(run: Run, i: u32) -> x_vector {
    return x[(run & ~OUTSIDE) + min(i, params.c4 / VECTOR_FOURS - 1u)];
}
