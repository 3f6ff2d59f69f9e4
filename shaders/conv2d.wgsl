// y[b, i, j, n] = act(sum over u, v, c of x[b, s i + u - top, s j + v - left, c] w[u, v, c, n] + bias[n] + row[b, n])
//                 + residual[b, i, j, n]
// as a matrix product: its row is the output pixel (b, i, j), its k runs over (u, v, c). c4, k4 and n4 count vectors of
// four; every row is padded with zeros to whole vectors.
#import gemm

override TAPS_X: u32 = 3u; // width of the kernel, at least 1

struct Params {
    rows: u32, // batch * output height * out_width
    k4: u32, // taps * c4
    n4: u32,
    rows_per_batch: u32, // output height * out_width
    height: u32, // of x
    width: u32,
    c4: u32,
    out_width: u32,
    stride: u32,
    top: u32, // padding
    left: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [batch, height, width, c4]
@group(0) @binding(1) var<storage, read> w: array<weight4>; // [4 k4, n4]
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>; // [n4]
@group(0) @binding(3) var<storage, read> row_bias: array<elem4>; // [batch, n4]
@group(0) @binding(4) var<storage, read> residual: array<elem4>; // [rows, n4]
@group(0) @binding(5) var<storage, read_write> y: array<elem4>; // [rows, n4]
@group(0) @binding(6) var<uniform> params: Params;

struct Place {
    inside: bool,
    image: u32, // pixels before this batch entry
    // Where the kernel's first tap meets x. Above or left of x it wraps around to a huge number: outside as well.
    row: u32,
    column: u32,
}

fn place_x(row: u32) -> Place {
    let batch = row / params.rows_per_batch;
    let pixel = row % params.rows_per_batch;
    return Place(
        row < params.rows,
        batch * params.height * params.width,
        pixel / params.out_width * params.stride - params.top,
        pixel % params.out_width * params.stride - params.left,
    );
}

fn load_x(place: Place, k4: u32) -> vec4<f32> {
    let tap = k4 / params.c4;
    let row = place.row + tap / TAPS_X;
    let column = place.column + tap % TAPS_X;
    if !place.inside || k4 >= params.k4 || row >= params.height || column >= params.width {
        return vec4(0.0);
    }
    return load(x[(place.image + row * params.width + column) * params.c4 + k4 % params.c4]);
}

@compute @workgroup_size(16, ROW_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    gemm(group, groups, local);
}
