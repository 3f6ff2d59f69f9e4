// y[r, c] = (x[r, c] - mean_r) / sqrt(var_r + eps) * gamma[c] + beta[c], var_r biased. One workgroup per row, which
// reads it three times: for the mean, for the squared distances to it (so that a large mean does no harm), to write.
#import lanes

struct Params {
    rows: u32,
    channels: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [rows, channels/4]
@group(0) @binding(1) var<storage, read> gamma: array<vec4f>; // [channels/4]
@group(0) @binding(2) var<storage, read> beta: array<vec4f>; // [channels/4]
@group(0) @binding(3) var<storage, read_write> y: array<elem4>; // [rows, channels/4]
@group(0) @binding(4) var<uniform> params: Params;

const THREADS: u32 = 64u;

var<workgroup> part: array<f32, THREADS>;

// The sum of the values of all threads, on each of them.
fn sum_of_threads(value: f32, local: u32) -> f32 {
    // What the call before this one returned may still be being read.
    workgroupBarrier();
    part[local] = value;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            part[local] += part[local + half];
        }
    }
    workgroupBarrier();
    return part[0];
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let row_vectors = (params.channels + 3u) / 4u;
    // Workgroups past the last row work on nothing, but do meet at the barriers.
    let row = group.y * groups.x + group.x;
    let end = select(0u, row_vectors, row < params.rows);
    let first = row * row_vectors;

    var sum = vec4f();
    for (var i = local; i < end; i += THREADS) {
        sum += load(x[first + i]);
    }
    let mean = sum_of_threads(dot(sum, vec4f(1.0)), local) / f32(params.channels);

    var squares = 0.0;
    for (var i = local; i < end; i += THREADS) {
        let distance = keep_lanes(load(x[first + i]) - mean, 4u * i, params.channels);
        squares += dot(distance, distance);
    }
    let variance = sum_of_threads(squares, local) / f32(params.channels);

    let factor = inverseSqrt(variance + params.eps);
    for (var i = local; i < end; i += THREADS) {
        // Past the row's end gamma and beta are zero, and so is y.
        y[first + i] = store((load(x[first + i]) - mean) * factor * gamma[i] + beta[i]);
    }
}
