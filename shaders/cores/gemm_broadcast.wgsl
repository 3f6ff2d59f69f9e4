// The core for software devices (see `broadcast`): one subgroup computes 8 ROW_GROUPS rows of 8 vectors, a column of
// vectors for each lane. Lane i loads x's row i of each group of 8 rows.
#import broadcast
#import gemm

override ROW_GROUPS: u32 = 4u; // groups of 8 rows: 1, 2 or 4

fn store8(sums: Sums, row: u32, n4: u32) {
    store_y(sums.r0, row, n4);
    store_y(sums.r1, row + 1u, n4);
    store_y(sums.r2, row + 2u, n4);
    store_y(sums.r3, row + 3u, n4);
    store_y(sums.r4, row + 4u, n4);
    store_y(sums.r5, row + 5u, n4);
    store_y(sums.r6, row + 6u, n4);
    store_y(sums.r7, row + 7u, n4);
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = tile_of(group, groups) * ROW_GROUPS * LANES;
    let n4 = group.x * LANES + lane;
    let place0 = place_x(first_row + lane);
    let place1 = place_x(first_row + LANES + lane);
    let place2 = place_x(first_row + 2u * LANES + lane);
    let place3 = place_x(first_row + 3u * LANES + lane);
    var sums0 = Sums();
    var sums1 = Sums();
    var sums2 = Sums();
    var sums3 = Sums();
    // Lanes beyond the last column repeat it, so that no load is conditional; they store nothing.
    var from_w = first_w(first_row, min(n4, params.n4 - 1u));
    for (var tap = 0u; tap < params.taps; tap++) {
        let run0 = run_x(place0, tap);
        let run1 = run_x(place1, tap);
        let run2 = run_x(place2, tap);
        let run3 = run_x(place3, tap);
        for (var c4 = 0u; c4 < params.c4; c4++) {
            let weights = read_weights(from_w);
            from_w += 4u * step_w();
            sums0 = accumulate8(sums0, load_x(run0, c4), weights);
            if ROW_GROUPS > 1u {
                sums1 = accumulate8(sums1, load_x(run1, c4), weights);
            }
            if ROW_GROUPS > 2u {
                sums2 = accumulate8(sums2, load_x(run2, c4), weights);
                sums3 = accumulate8(sums3, load_x(run3, c4), weights);
            }
        }
    }
    store8(sums0, first_row, n4);
    if ROW_GROUPS > 1u {
        store8(sums1, first_row + LANES, n4);
    }
    if ROW_GROUPS > 2u {
        store8(sums2, first_row + 2u * LANES, n4);
        store8(sums3, first_row + 3u * LANES, n4);
    }
}
