// The core that shares nothing: one thread per vector of y reads all that it needs. The yardstick for the others, and
// what is left where a driver gets every one of them wrong.
#import gemm

const ROWS: u32 = 16u;
const COLUMNS4: u32 = 16u;

@compute @workgroup_size(COLUMNS4, ROWS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_id) local: vec3u,
) {
    let row = tile_of(group, groups) * ROWS + local.y;
    let n4 = group.x * COLUMNS4 + local.x;
    // Threads beyond the last column repeat it; they store nothing.
    var from_w = first_w(row, min(n4, params.n4 - 1u));
    let place = place_x(row);
    var sum = vec4f(0.0);
    for (var tap = 0u; tap < params.taps; tap++) {
        let run = run_x(place, tap);
        for (var c4 = 0u; c4 < params.c4; c4++) {
            let weights = read_weights(from_w);
            from_w += 4u * step_w();
            sum = accumulate(sum, load_x(run, c4), weights);
        }
    }
    store_y(sum, row, n4);
}
