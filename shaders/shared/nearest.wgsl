// The row or column of x, of `size`, that number `i` of an up-sampled x shows; `scale` is `size` over the new size.
fn nearest(i: u32, scale: f32, size: u32) -> u32 {
    return min(u32(floor(f32(i) * scale)), size - 1u);
}
