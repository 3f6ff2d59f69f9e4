// y[r, c] = a[r, c] where c < a_channels, else b[r, c - a_channels]. One thread per vector of four.
#import flat

struct Params {
    vectors: u32, // of y
    a_channels: u32,
    b_channels: u32,
}

@group(0) @binding(0) var<storage, read> a: array<elem4>; // [rows, a_channels/4]
@group(0) @binding(1) var<storage, read> b: array<elem4>; // [rows, b_channels/4]
@group(0) @binding(2) var<storage, read_write> y: array<elem4>; // [rows, (a_channels + b_channels)/4]
@group(0) @binding(3) var<uniform> params: Params;

// a's rows end on a whole vector, so vectors of b are vectors of y.
override ALIGNED: bool = true;

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
    let a_row = (params.a_channels + 3u) / 4u;
    let b_row = (params.b_channels + 3u) / 4u;
    let channels = params.a_channels + params.b_channels;
    let y_row = (channels + 3u) / 4u;
    let row = i / y_row;
    let vector = i % y_row;
    if 4u * vector + 4u <= params.a_channels {
        y[i] = a[row * a_row + vector];
        return;
    }
    if ALIGNED {
        y[i] = b[row * b_row + vector - a_row];
        return;
    }
    var v = vec4f();
    for (var lane = 0u; lane < 4u; lane++) {
        let c = 4u * vector + lane;
        if c < params.a_channels {
            v[lane] = load(a[row * a_row + c / 4u])[c % 4u];
        } else if c < channels {
            let d = c - params.a_channels;
            v[lane] = load(b[row * b_row + d / 4u])[d % 4u];
        }
    }
    y[i] = store(v);
}
