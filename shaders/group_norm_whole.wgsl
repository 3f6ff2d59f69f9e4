// y[b, p, c] = (x[b, p, c] - mean_bg) / sqrt(var_bg + eps) * gamma[c] + beta[c], then an activation; var biased, group
// g = c / (channels/groups); with HAS_ROW, x + row_bias[b, c] takes the place of x. One workgroup per batch entry and
// span: as few groups as fill whole vectors. It reads them twice. A thread keeps to one column of vectors, whose four
// channels have a norm each.
#import activation
#import joined

struct Params {
    pixels: u32,
    vectors: u32, // in a pixel: channels/4
    width: u32, // vectors of a span in a pixel, at most THREADS
    size: u32, // channels of a group
    eps: f32,
    x_vectors: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [batch, pixels, vectors], with JOINED [batch, pixels, x_vectors]
@group(0) @binding(1) var<storage, read> gamma: array<vec4f>; // [vectors]
@group(0) @binding(2) var<storage, read> beta: array<vec4f>; // [vectors]
@group(0) @binding(3) var<storage, read> row_bias: array<elem4>; // [batch, vectors]
@group(0) @binding(4) var<storage, read_write> y: array<elem4>; // [batch, pixels, vectors]
@group(0) @binding(5) var<uniform> params: Params;
@group(0) @binding(6) var<storage, read> x_tail: array<elem4>; // [batch, pixels, vectors - x_vectors]

override HAS_ROW: bool = false;

const THREADS: u32 = 256u;
const BLOCK: u32 = 4u; // pixels that a thread has under way at a time
const MOST_GROUPS: u32 = 4u; // of a span

// Of the pixels that a thread has seen: for each of its four channels the mean less `base` and the sum of squared
// distances to it, and their number.
var<workgroup> means: array<vec4f, THREADS>;
var<workgroup> squares: array<vec4f, THREADS>;
var<workgroup> counts: array<f32, THREADS>;
var<workgroup> norms: array<vec2f, MOST_GROUPS>; // (mean less `base`, 1 / standard deviation)

// Adds another thread's pixels to a thread's (Chan, Golub and LeVeque 1979).
fn merge(at: u32, other: u32) {
    let count = counts[at] + counts[other];
    let share = counts[other] / max(count, 1.0);
    let distance = means[other] - means[at];
    means[at] += distance * share;
    squares[at] += squares[other] + distance * distance * (counts[at] * share);
    counts[at] = count;
}

// Of a group of the span, whose channels have all been seen in as many pixels.
fn norm(group: u32) -> vec2f {
    let begin = group * params.size;
    let end = begin + params.size;
    var total = 0.0;
    for (var column = begin / 4u; 4u * column < end; column++) {
        total += dot(means[column], inside(column, begin, end));
    }
    let mean = total / f32(params.size);
    var m2 = 0.0;
    for (var column = begin / 4u; 4u * column < end; column++) {
        let distance = means[column] - mean;
        m2 += dot(squares[column] + distance * distance * counts[0], inside(column, begin, end));
    }
    return vec2f(mean, inverseSqrt(m2 / (counts[0] * f32(params.size)) + params.eps));
}

// 1 for the channels of a column that are in [begin, end), else 0.
fn inside(column: u32, begin: u32, end: u32) -> vec4f {
    let channel = vec4u(4u * column) + vec4u(0u, 1u, 2u, 3u);
    return select(vec4f(), vec4f(1.0), (channel >= vec4u(begin)) & (channel < vec4u(end)));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) local: u32) {
    let height = THREADS / params.width;
    let column = local % params.width;
    // Threads beyond the last whole row of columns have no pixels.
    let row = select(params.pixels, local / params.width, local < height * params.width);
    let vector = id.x * params.width + column;
    let first = id.y * params.pixels;
    let last = params.pixels - 1u;
    var offset = vec4f();
    if HAS_ROW {
        offset = load(row_bias[id.y * params.vectors + vector]);
    }

    // Distances to a value of the sample, not the values: to the thread's first for the squares, which are then never
    // much larger than those around the mean, and to the workgroup's first for the means, which a large one would
    // round.
    let base = read_x(first, vector - column, params.vectors).x;
    let shift = read_x(first + min(row, last), vector, params.vectors);
    var count = 0.0;
    var sum = vec4f();
    var sum_of_squares = vec4f();
    for (var pixel = row; pixel < params.pixels; pixel += BLOCK * height) {
        for (var i = 0u; i < BLOCK; i++) {
            let at = pixel + i * height;
            let there = f32(at < params.pixels);
            let distance = (read_x(first + min(at, last), vector, params.vectors) - shift) * there;
            count += there;
            sum += distance;
            sum_of_squares += distance * distance;
        }
    }
    let mean = sum / max(count, 1.0);
    means[local] = shift - base + mean + offset;
    squares[local] = max(sum_of_squares - sum * mean, vec4f());
    counts[local] = count;

    // The lower half of the rows takes in the upper, until the first row has seen all pixels.
    for (var rows = height; rows > 1u; rows = (rows + 1u) / 2u) {
        workgroupBarrier();
        let other = local + (rows + 1u) / 2u * params.width;
        if other < rows * params.width {
            merge(local, other);
        }
    }
    workgroupBarrier();
    if local < 4u * params.width / params.size {
        norms[local] = norm(local);
    }
    workgroupBarrier();

    let group = (vec4u(4u * column) + vec4u(0u, 1u, 2u, 3u)) / params.size;
    let n0 = norms[group.x];
    let n1 = norms[group.y];
    let n2 = norms[group.z];
    let n3 = norms[group.w];
    let factor = vec4f(n0.y, n1.y, n2.y, n3.y) * gamma[vector];
    let centre = vec4f(n0.x, n1.x, n2.x, n3.x) - offset;
    for (var pixel = row; pixel < params.pixels; pixel += height) {
        let value = read_x(first + pixel, vector, params.vectors);
        y[(first + pixel) * params.vectors + vector] = store(activate((value - base - centre) * factor + beta[vector]));
    }
}
