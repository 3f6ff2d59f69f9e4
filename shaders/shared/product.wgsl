// What every core of a matrix product shares: y [rows, N] = epilogue(sum over taps and c of x(row, tap, c) w[tap, c]).
//
// The shader declares `w` [taps * 4 c4, n4], `y` [rows, n4] and `params` (with first_tile, rows, taps, c4, n4; the last
// two count vectors of four), and says what x is:
//     place_x(row) -> Place       what is to know of a row, computed once
//     run_x(place, tap) -> Run    where that row's vectors of a tap stand
//     has_x(run, i) -> bool       whether x has vector i of them; else zeros take its place
//     read_x(run, i) -> x_vector  that one, or whatever a load that needs no condition finds
// and where w stands: first_w(row, n4) and step_w() (see `one_w`, to which cores for cooperative matrices keep); and
// how a finished sum is kept: store_y(sum, row, n4), which leaves out what is beyond y.
// A core has `main`, how a device's threads share the work, and says what they read at once: `w_vector`, and `x_vector`
// of VECTOR_FOURS vectors of four.

// The tile of rows of a workgroup. Workgroups are numbered along N by x, and along the rows by y and z (see
// `ops::fold_groups`), from params.first_tile on.
fn tile_of(group: vec3u, groups: vec3u) -> u32 {
    return params.first_tile + group.z * groups.y + group.y;
}
