// (sin x, cos x) to about 1e-7 for |x| < 65,536. WGSL's own lose all precision for large angles on some devices.
//
// The angle is reduced in whole numbers: as 32 bits of a turn, where overflow is the wrap-around wanted. So no compiler
// can contract or reorder it away, and x is taken as it was rounded.
fn sin_cos(x: f32) -> vec2f {
    let bits = bitcast<u32>(x) & 0x7fffffffu;
    // x = mantissa / 2^point. At |x| >= 1/2, point is at most 24.
    let point = clamp(150u - min(bits >> 23u, 150u), 1u, 31u);
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    let whole = mantissa >> point;
    let fraction = f32(mantissa & ((1u << point) - 1u)) * exp2_negative(point);
    // 2^32 / 2pi = 683565275 + 37777 / 2^16.
    let turns = whole * 683565275u + ((whole * 37777u) >> 16u) + u32(fraction * 683565275.6);
    let quarter = (turns + 0x20000000u) >> 30u;
    let rest = f32(bitcast<i32>(turns - (quarter << 30u))) * 1.4629180792671596e-9;

    let small = bits < 0x3f000000u;
    let angle = select(rest, bitcast<f32>(bits), small);
    let q = select(quarter, 0u, small) & 3u;
    // Taylor series: the first term left out is below 2e-9 for |angle| <= pi/4.
    let z = angle * angle;
    let s = angle * (1.0 + z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z / 362880.0))));
    let c = 1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40320.0 - z / 3628800.0))));
    let odd = (q & 1u) == 1u;
    let sine = select(s, c, odd) * select(1.0, -1.0, (q >= 2u) != (x < 0.0));
    let cosine = select(c, s, odd) * select(1.0, -1.0, q == 1u || q == 2u);
    return vec2f(sine, cosine);
}

// 2^-n, exactly, for n <= 126.
fn exp2_negative(n: u32) -> f32 {
    return bitcast<f32>((127u - n) << 23u);
}
