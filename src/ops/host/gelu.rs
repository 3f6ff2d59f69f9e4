//! The GELU of the CPU executor, in f32 and by vectors. [`Act::Gelu`](crate::ops::activation::Act) is the definition.

use pulp::{Simd, WithSimd};

use super::{exp2, load, scaled, store};

/// `(1 + |x|) exp(x²/2) erfc(|x|/√2)` is smooth and close to 1 on the whole line, so that a polynomial in
/// `(|x| - 4) / (|x| + 4)` meets it (the change of variable is Shepherd's and Laframboise's, 1981). The coefficients,
/// from the highest power's on down, interpolate at Chebyshev points up to |x| = 14, where exp(-x²/2) is not an f32 any
/// more.
const SCALED_ERFC: [f32; 11] = [
    -0.000_146_826_82,
    -0.000_128_968_14,
    0.001_383_591_7,
    -0.000_602_230_6,
    -0.010_006,
    0.035_879_258,
    -0.064_395_25,
    0.057_200_05,
    0.027_999_246,
    -0.193_406_94,
    0.944_106_4,
];

/// `x * Φ(x)`, with an error of 3e-7 relative to |x|.
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let (one, four) = (simd.splat_f32s(1.0), simd.splat_f32s(4.0));
    let a = simd.abs_f32s(x);
    let q = simd.div_f32s(simd.sub_f32s(a, four), simd.add_f32s(a, four));
    let mut sum = simd.splat_f32s(SCALED_ERFC[0]);
    for coefficient in &SCALED_ERFC[1..] {
        sum = simd.mul_add_e_f32s(sum, q, simd.splat_f32s(*coefficient));
    }
    let power = exp2(simd, simd.mul_f32s(scaled(simd, -0.5 * std::f32::consts::LOG2_E, x), x));
    // Half of erfc(|x|/√2), which is Φ(-|x|).
    let below = scaled(simd, 0.5, simd.div_f32s(simd.mul_f32s(power, sum), simd.add_f32s(one, a)));
    let negative = simd.less_than_f32s(x, simd.splat_f32s(0.0));
    simd.mul_f32s(x, simd.select_f32s(negative, below, simd.sub_f32s(one, below)))
}

/// `y[i] = p[2i] * gelu(p[2i + 1])`, p being the sum of both `pairs`; y may end before they do.
pub(super) struct Gate<'a> {
    pub pairs: [&'a [f32]; 2],
    pub y: &'a mut [f32],
}

impl WithSimd for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [a, b] = self.pairs.map(|pairs| pairs.as_chunks::<2>().0);
        // Sixteen at a time: as many lanes as the widest vectors have.
        for ((a, b), y) in a.chunks(16).zip(b.chunks(16)).zip(self.y.chunks_mut(16)) {
            let (mut values, mut gates) = ([0.0; 16], [0.0; 16]);
            for (((value, gate), a), b) in values.iter_mut().zip(&mut gates).zip(a).zip(b) {
                [*value, *gate] = [a[0] + b[0], a[1] + b[1]];
            }
            for (value, gate) in values.chunks_mut(S::F32_LANES).zip(gates.chunks(S::F32_LANES)) {
                let gated = simd.mul_f32s(load::<S>(value), gelu(simd, load::<S>(gate)));
                store::<S>(value, gated);
            }
            y.copy_from_slice(&values[..y.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::*;
    use crate::ops::activation::Act;

    #[test]
    fn gates_are_the_definitions_to_the_digits_of_f32() {
        let gates: Vec<f32> = (-20_000..20_000).map(|i| i as f32 * 1e-3).chain([-1e30, -0.0, 0.0, 1e30]).collect();
        let pairs: Vec<f32> = gates.iter().flat_map(|gate| [2.0, *gate]).collect();
        let (none, mut y) = (vec![0.0; pairs.len()], vec![f32::NAN; gates.len()]);
        Arch::new().dispatch(Gate { pairs: [&pairs, &none], y: &mut y });
        for (gate, y) in gates.iter().zip(y) {
            let wanted = 2.0 * Act::Gelu.apply(*gate);
            assert!((y - wanted).abs() <= 3e-7 * wanted.abs().max(1.0), "2 gelu({gate}) = {y} should be {wanted}");
        }
    }

    #[test]
    fn biases_are_added_to_values_and_gates_and_a_short_row_ends_early() {
        let (pairs, bias) = ([1.0, 2.0, 3.0, 0.5, f32::NAN, f32::NAN], [0.5, -1.0, 0.0, 0.5, 0.0, 0.0]);
        let mut y = [0.0; 2];
        Arch::new().dispatch(Gate { pairs: [&pairs, &bias], y: &mut y });
        let wanted = [1.5 * Act::Gelu.apply(1.0), 3.0 * Act::Gelu.apply(1.0)];
        assert!(y.iter().zip(wanted).all(|(y, wanted)| (y - wanted).abs() < 1e-6), "{y:?} should be {wanted:?}");
    }
}
