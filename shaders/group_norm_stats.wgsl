// y[b, g, k] = (mean, M2, count, 0) of x's channels of group g in pixels [k * chunk, (k + 1) * chunk): the first pass
// of a group norm. With HAS_ROW, x + row_bias[b, c] takes the place of x. One workgroup per group and chunk.
#import joined
#import moments

struct Params {
    pixels: u32,
    channels: u32,
    groups: u32,
    chunks: u32,
    chunk: u32, // pixels of a chunk; the last may have fewer
    x_vectors: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem4>; // [batch, pixels, channels/4], with JOINED [batch, pixels, x_vectors]
@group(0) @binding(1) var<storage, read> row_bias: array<elem4>; // [batch, channels/4]
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>; // [batch, groups, chunks]
@group(0) @binding(3) var<uniform> params: Params;
@group(0) @binding(4) var<storage, read> x_tail: array<elem4>; // [batch, pixels, channels/4 - x_vectors]

override HAS_ROW: bool = false;

const THREADS: u32 = 256u;

var<workgroup> part: array<vec4f, THREADS>;

// This thread's share of the chunk: columns are vectors of four that hold channels of the group, and the threads are
// spread over columns and pixels.
fn moments_of_thread(batch: u32, group: u32, chunk: u32, local: u32) -> vec4f {
    let size = params.channels / params.groups;
    let begin = group * size;
    let end = begin + size;
    let first_column = begin / 4u;
    let columns = (end + 3u) / 4u - first_column;
    let width = min(columns, THREADS);
    let height = THREADS / width;
    let row_vectors = (params.channels + 3u) / 4u;
    let pixel_end = min((chunk + 1u) * params.chunk, params.pixels);
    if local >= width * height {
        return vec4f();
    }

    // Distances to the first value seen, not the values: it is one of the sample, so that the squares are never much
    // larger than those around the mean.
    var shift = 0.0;
    var count = 0.0;
    var sum = vec4f();
    var squares = vec4f();
    for (var pixel = chunk * params.chunk + local / width; pixel < pixel_end; pixel += height) {
        for (var column = first_column + local % width; column < first_column + columns; column += width) {
            var v = read_x(batch * params.pixels + pixel, column, row_vectors);
            if HAS_ROW {
                v += load(row_bias[batch * row_vectors + column]);
            }
            let channel = vec4u(4u * column) + vec4u(0u, 1u, 2u, 3u);
            let inside = (channel >= vec4u(begin)) & (channel < vec4u(end));
            if count == 0.0 {
                shift = v[max(begin, 4u * column) % 4u];
            }
            let distance = select(vec4f(), v - shift, inside);
            count += dot(select(vec4f(), vec4f(1.0), inside), vec4f(1.0));
            sum += distance;
            squares += distance * distance;
        }
    }
    let total = dot(sum, vec4f(1.0));
    let mean = total / max(count, 1.0);
    return vec4f(shift + mean, max(dot(squares, vec4f(1.0)) - total * mean, 0.0), count, 0.0);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) local: u32) {
    part[local] = moments_of_thread(id.z, id.y, id.x, local);
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            part[local] = merge_moments(part[local], part[local + half]);
        }
    }
    if local == 0u {
        y[(id.z * params.groups + id.y) * params.chunks + id.x] = part[0];
    }
}
