// A vector of four whose first lane is number `first` of a row of `count`: the lanes past the row's end become zero.
fn keep_lanes(v: vec4<f32>, first: u32, count: u32) -> vec4<f32> {
    let lane = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(), v, lane < vec4<u32>(count));
}
