// A textbook's kernel as a yardstick, which takes the place of `gemm_naive`: workgroups of 16 x 16 threads, a loop over
// K for each element of y, two loads of an element for each multiply-add. y is stored in vectors of four, so a thread
// makes the four elements of one: one after the other, each by a loop of its own.
#import gemm

// Element `j` of vector `i` of w.
fn w_element(i: u32, j: u32) -> f32 {
    return load_weight(w[i])[j];
}

fn element(place: Place, first: u32, j: u32) -> f32 {
    var sum = 0.0;
    var from_w = first;
    for (var tap = 0u; tap < params.taps; tap++) {
        let run = run_x(place, tap);
        for (var c4 = 0u; c4 < params.c4; c4++) {
            sum += load_x(run, c4).x * w_element(from_w, j);
            sum += load_x(run, c4).y * w_element(from_w + step_w(), j);
            sum += load_x(run, c4).z * w_element(from_w + 2u * step_w(), j);
            sum += load_x(run, c4).w * w_element(from_w + 3u * step_w(), j);
            from_w += 4u * step_w();
        }
    }
    return sum;
}

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let row = (group.z * groups.y + group.y) * 16u + local.y;
    let n4 = group.x * 16u + local.x;
    let first = first_w(row, min(n4, params.n4 - 1u));
    let place = place_x(row);
    let sum = vec4(
        element(place, first, 0u),
        element(place, first, 1u),
        element(place, first, 2u),
        element(place, first, 3u),
    );
    store_y(sum, row, n4);
}
