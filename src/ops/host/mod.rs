//! What the CPU computes in another way than the definition says, because that is faster, and the vectors that it
//! computes with. Every function here is held by a test against the definition.
//!
//! Whatever computes with vectors is `#[inline(always)]` and without closures: a function or a closure that stays one
//! of its own is compiled for the oldest processor.

use pulp::{Arch, Simd};

pub(crate) mod attention;
mod gelu;
pub mod matrix;
pub(crate) mod panel;
pub(crate) mod winograd;

/// Runs `work`, compiled for each instruction set, with the best that this processor has: the compiler makes vectors
/// of its loops as far as everything in them is inlined, `work` itself included.
#[inline]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// Makes a buffer at least this long; what is in it stays.
fn enlarge(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

/// The first elements of `x` as a vector.
#[inline(always)]
fn load<S: Simd>(x: &[f32]) -> S::f32s {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(&x[..S::F32_LANES]))
}

/// Puts a vector into the first elements of `y`.
#[inline(always)]
fn store<S: Simd>(y: &mut [f32], v: S::f32s) {
    bytemuck::cast_slice_mut(&mut y[..S::F32_LANES]).copy_from_slice(bytemuck::bytes_of(&v));
}

/// `a * x + b`, which is rounded once where that costs nothing.
#[inline(always)]
fn times<S: Simd>(simd: S, a: f32, x: S::f32s, b: S::f32s) -> S::f32s {
    simd.mul_add_e_f32s(simd.splat_f32s(a), x, b)
}

/// `a * x`.
#[inline(always)]
fn scaled<S: Simd>(simd: S, a: f32, x: S::f32s) -> S::f32s {
    simd.mul_f32s(simd.splat_f32s(a), x)
}

/// `a + b` and `a - b`.
#[inline(always)]
fn both<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> [S::f32s; 2] {
    [simd.add_f32s(a, b), simd.sub_f32s(a, b)]
}

/// `e^x` for x up to 0, to 2e-7 relative, and 0 where f32 has not all digits of it any more. Without a branch or a
/// call, so that the compiler makes vectors of it: a large picture takes hundreds of millions.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it leaves f32 no room for a fraction: the low bits are then the nearest whole number.
    const ROUND: f32 = (3 << 22) as f32;
    /// ln(2) in two parts, the first with so few digits that its products with whole numbers are exact (Cody and
    /// Waite).
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // 2^-126 is the smallest power with all its digits. A comparison, unlike `max`, lets NaN through.
    let t = x * std::f32::consts::LOG2_E;
    let small = t < -126.0;
    let (t, x) = if small { (-126.0, 0.0) } else { (t, x) };
    let whole = t + ROUND;
    let n = whole - ROUND;
    let f = (x - n * LN_2[0]) - n * LN_2[1];
    // Taylor series: |f| is at most ln(2)/2, and the first term left out below 6e-9.
    let tail = 1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0 + f / 5040.0));
    let power = 1.0 + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * tail)));
    let scale = f32::from_bits((whole.to_bits() << 23).wrapping_add(1f32.to_bits()));
    if small { 0.0 } else { power * scale }
}

/// `2^x` for x up to 0, to 2e-7 relative, and 0 where f32 has not all digits of it any more. NaN gives NaN.
#[inline(always)]
fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// See [`exp`].
    const ROUND: f32 = (3 << 22) as f32;
    let small = simd.less_than_f32s(x, simd.splat_f32s(-126.0));
    let whole = simd.add_f32s(x, simd.splat_f32s(ROUND));
    let f = simd.sub_f32s(x, simd.sub_f32s(whole, simd.splat_f32s(ROUND)));
    let mut power = simd.splat_f32s(POWERS_OF_TWO[0]);
    for coefficient in &POWERS_OF_TWO[1..] {
        power = simd.mul_add_e_f32s(power, f, simd.splat_f32s(*coefficient));
    }
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(whole), simd.splat_u32s(23));
    let scale = simd.transmute_f32s_u32s(simd.add_u32s(exponent, simd.splat_u32s(1f32.to_bits())));
    simd.select_f32s(small, simd.splat_f32s(0.0), simd.mul_f32s(power, scale))
}

/// Coefficients of the Taylor series of `2^x`, from the seventh power's on down: |x| is at most a half, and the first
/// term left out below 6e-9.
const POWERS_OF_TWO: [f32; 8] = {
    let (mut series, mut term) = ([0.0; 8], 1.0);
    let mut i = 0;
    while i < 8 {
        series[7 - i] = term as f32;
        i += 1;
        term *= std::f64::consts::LN_2 / i as f64;
    }
    series
};

/// Coefficients of the Taylor series of `e^x`, from the tenth power's on down.
const TAYLOR: [f64; 11] = {
    let mut series = [1.0; 11];
    let mut i = 10;
    while i > 0 {
        i -= 1;
        series[i] = series[i + 1] / (10 - i) as f64;
    }
    series
};

/// The same in f64, to 1e-11 relative, and `e^-708` below that.
#[inline(always)]
pub(crate) fn exp_f64(x: f64) -> f64 {
    const ROUND: f64 = (3u64 << 51) as f64;
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    let x = if x < -708.0 { -708.0 } else { x };
    let whole = x * std::f64::consts::LOG2_E + ROUND;
    let n = whole - ROUND;
    let f = (x - n * LN_2[0]) - n * LN_2[1];
    let mut power = 0.0;
    for coefficient in TAYLOR {
        power = power * f + coefficient;
    }
    power * f64::from_bits((whole.to_bits() << 52).wrapping_add(1f64.to_bits()))
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;

    struct Exp2<'a>(&'a mut [f32]);

    impl WithSimd for Exp2<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            for x in self.0.chunks_mut(S::F32_LANES) {
                let power = exp2(simd, load::<S>(x));
                store::<S>(x, power);
            }
        }
    }

    #[test]
    fn exp2_is_exact_to_the_digits_of_its_type() {
        let x: Vec<f32> = (0..200_000).map(|i| i as f32 * -6.3e-4).collect();
        let mut powers = x.clone();
        Arch::new().dispatch(Exp2(&mut powers));
        for (x, power) in x.iter().zip(powers) {
            let wanted = f64::from(*x).exp2();
            assert!((f64::from(power) / wanted - 1.0).abs() < 2e-7, "2^{x} = {power} should be {wanted}");
        }
        let mut ends = [0.0, -127.0, f32::NEG_INFINITY, f32::NAN, -1.0, -126.0, -1e9, -2.0].repeat(2);
        Arch::new().dispatch(Exp2(&mut ends));
        assert_eq!(
            (ends[..3].to_vec(), ends[4..8].to_vec()),
            (vec![1.0, 0.0, 0.0], vec![0.5, 2f32.powi(-126), 0.0, 0.25])
        );
        assert!(ends[3].is_nan());
    }

    #[test]
    fn exp_is_exact_to_the_digits_of_its_type() {
        for i in 0..=200_000 {
            let x = f64::from(i) * -4e-4;
            let wanted = f64::from(x as f32).exp();
            let found = exp(x as f32);
            assert!((f64::from(found) / wanted - 1.0).abs() < 2e-7, "exp({x}) = {found} should be {wanted}");
            assert!((exp_f64(8.0 * x) / (8.0 * x).exp() - 1.0).abs() < 1e-11, "exp({}) in f64", 8.0 * x);
        }
        assert_eq!((exp(0.0), exp_f64(0.0)), (1.0, 1.0));
        assert_eq!((exp(-1e4), exp(f32::NEG_INFINITY)), (0.0, 0.0));
        assert!(exp_f64(-1e4) < 1e-307);
        assert!(exp(f32::NAN).is_nan() && exp_f64(f64::NAN).is_nan());
    }
}
