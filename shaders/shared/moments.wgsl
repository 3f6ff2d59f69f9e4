// (mean, M2, count, 0) of some values, M2 being the sum of squared distances to the mean: of the values of both `p`
// and `q` (Chan, Golub and LeVeque 1979). No large sums are subtracted, so a large mean costs no precision.
fn merge_moments(p: vec4f, q: vec4f) -> vec4f {
    if q.z == 0.0 {
        return p;
    }
    let count = p.z + q.z;
    let share = q.z / count;
    let distance = q.x - p.x;
    return vec4f(p.x + distance * share, p.y + q.y + distance * distance * p.z * share, count, 0.0);
}
