// y[r, :] = codes[k, :], k the first of those with the least |x[r, :] - codes[k, :]|^2. One thread per row.
#import flat

struct Params {
    rows: u32, // of x and of y
    entries: u32, // of the codebook
    row: u32, // vectors of a row and of an entry
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [rows, row]
@group(0) @binding(1) var<storage, read> codes: array<vec4f>; // [entries, row]
@group(0) @binding(2) var<storage, read_write> y: array<elem4>; // [rows, row]
@group(0) @binding(3) var<uniform> params: Params;

// The squared distance of a row and an entry, whose padding is zero in both.
fn distance_to(row: u32, entry: u32) -> f32 {
    var sum = 0.0;
    for (var v = 0u; v < params.row; v++) {
        let d = x[row * params.row + v] - codes[entry * params.row + v];
        sum += dot(d, d);
    }
    return sum;
}

@compute @workgroup_size(FLAT_THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(group, groups, local);
    if row >= params.rows {
        return;
    }
    var nearest = 0u;
    var least = distance_to(row, 0u);
    for (var entry = 1u; entry < params.entries; entry++) {
        let distance = distance_to(row, entry);
        // Of equal distances the first stays.
        if distance < least {
            least = distance;
            nearest = entry;
        }
    }
    for (var v = 0u; v < params.row; v++) {
        y[row * params.row + v] = store(codes[nearest * params.row + v]);
    }
}
