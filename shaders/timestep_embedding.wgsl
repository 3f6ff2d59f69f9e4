// y[b, n, :] = [sin(t f_0), .., sin(t f_half), cos(t f_0), .., cos(t f_half)] with t = timesteps[b, n]; cosines first
// if COSINES_FIRST. One thread per vector of four.
#import flat
#import sin_cos

struct Params {
    vectors: u32, // of y
    timesteps: u32, // in one row of y
    row_vectors: u32, // of timesteps; 0 if all rows of y take theirs from one row
    half: u32, // frequencies
}

@group(0) @binding(0) var<storage, read> timesteps: array<vec4f>; // [batch, timesteps/4] or [batch/4]
@group(0) @binding(1) var<storage, read> frequencies: array<vec4f>; // [half/4]
@group(0) @binding(2) var<storage, read_write> y: array<elem4>; // [batch, timesteps * 2 * half/4]
@group(0) @binding(3) var<uniform> params: Params;

override COSINES_FIRST: bool = false;

// Element `c` of row `row` of y.
fn element(row: u32, c: u32) -> f32 {
    let item = c / (2u * params.half);
    let place = c % (2u * params.half);
    let t_index = select(4u * row * params.row_vectors + item, row, params.row_vectors == 0u);
    let f_index = place % params.half;
    let t = timesteps[t_index / 4u][t_index % 4u];
    let both = sin_cos(t * frequencies[f_index / 4u][f_index % 4u]);
    return select(both.x, both.y, (place < params.half) == COSINES_FIRST);
}

@compute @workgroup_size(FLAT_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(group, groups, local);
    if i >= params.vectors {
        return;
    }
    let channels = params.timesteps * 2u * params.half;
    let y_row = (channels + 3u) / 4u;
    var v = vec4f();
    for (var lane = 0u; lane < 4u; lane++) {
        let c = 4u * (i % y_row) + lane;
        if c < channels {
            v[lane] = element(i / y_row, c);
        }
    }
    y[i] = store(v);
}
