// A vector of four whose first lane is number `first` of a row of `count`: the lanes past the row's end become zero.
fn keep_lanes(v: vec4f, first: u32, count: u32) -> vec4f {
    let lane = vec4u(first) + vec4u(0u, 1u, 2u, 3u);
    return select(vec4f(), v, lane < vec4u(count));
}
