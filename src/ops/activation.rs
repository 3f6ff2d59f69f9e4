//! `y = act(x)`, element by element; x and y of the same shape.
//!
//! SiLU is the U-Net's and the VAE's (PyTorch `SiLU`; Elfwing et al. 2017), quick-GELU and GELU the text encoders'
//! (transformers `QuickGELUActivation`, PyTorch `GELU(approximate="none")`; Hendrycks and Gimpel 2016), ReLU and the
//! soft clamp the tiny autoencoders' (PyTorch `ReLU`; diffusers `DecoderTiny`). As a rule it runs in the epilogue of
//! the product before it.

use rayon::prelude::*;

use super::host::{exp, exp_f64, vectorized};
use super::{Case, Fill, Inputs, Launch, Op, Ty, VAE, expect_inputs, large, subnormal};
use crate::caps::Caps;
use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// An activation function. All are 0 at 0, so padding stays zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Act {
    /// `y = x`.
    #[default]
    None,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Φ(x)` with the normal distribution's exact Φ.
    Gelu,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `3 tanh(x / 3)`.
    SoftClamp,
}

impl Act {
    /// The function's value at `x`.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::None => x,
            Self::Silu => x * sigmoid(x),
            Self::Gelu => gelu([x; GELUS])[0],
            Self::QuickGelu => x * sigmoid(1.702 * x),
            Self::Relu if x < 0.0 => 0.0,
            Self::Relu => x,
            Self::SoftClamp => 3.0 * (x / 3.0).tanh(),
        }
    }

    /// [`Act::apply`] to many, by vectors.
    pub(crate) fn apply_all(self, y: &mut [f32]) {
        vectorized(
            #[inline(always)]
            || match self {
                Self::None => (),
                Self::Silu => y.iter_mut().for_each(|y| *y = Self::Silu.apply(*y)),
                Self::Gelu => {
                    let (whole, rest) = y.as_chunks_mut();
                    whole.iter_mut().for_each(|y| *y = gelu(*y));
                    rest.iter_mut().for_each(|y| *y = Self::Gelu.apply(*y));
                }
                // One by one, so that each is compiled without the choice among them.
                Self::QuickGelu => y.iter_mut().for_each(|y| *y = Self::QuickGelu.apply(*y)),
                Self::Relu => y.iter_mut().for_each(|y| *y = Self::Relu.apply(*y)),
                Self::SoftClamp => y.iter_mut().for_each(|y| *y = Self::SoftClamp.apply(*y)),
            },
        );
    }

    /// Its number in shaders, from 0 in the order above: the override `ACTIVATION` of `shared/activation.wgsl`.
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let power = exp(-x.abs());
    (if x < 0.0 { power } else { 1.0 }) / (1.0 + power)
}

/// Values that [`gelu`] takes at once. Each step is a loop of its own over all of them: of all steps together the
/// compiler makes no vectors.
pub(super) const GELUS: usize = 16;

/// `x * Φ(x)`, by f64.
#[inline(always)]
pub(super) fn gelu(x: [f32; GELUS]) -> [f32; GELUS] {
    let mut scaled = [0.0; GELUS];
    for (scaled, x) in scaled.iter_mut().zip(x) {
        *scaled = f64::from(-x) * std::f64::consts::FRAC_1_SQRT_2;
    }
    let mut y = [0.0; GELUS];
    for ((y, x), erfc) in y.iter_mut().zip(x).zip(erfc(scaled)) {
        *y = (0.5 * f64::from(x) * erfc) as f32;
    }
    y
}

/// `1 - erf(x)`, to 1e-10 relative up to 26, where it leaves the range of f64.
///
/// `(1 + 2x) exp(x²) erfc(x)` is smooth and close to 1 on the whole half-line, so a polynomial in `(x - 3) / (x + 3)`
/// meets it (the change of variable is Shepherd's and Laframboise's, 1981; the coefficients interpolate at Chebyshev
/// points).
#[inline(always)]
fn erfc(x: [f64; GELUS]) -> [f64; GELUS] {
    /// The highest power's coefficient comes first.
    const SCALED: [f64; 15] = [
        -2.720_924_232_305_905_4e-6,
        -1.407_356_118_294_676_4e-5,
        1.040_890_292_441_503_5e-5,
        0.000_120_427_797_617_433_88,
        -0.000_110_414_033_815_623_17,
        -0.000_778_012_158_410_487_7,
        0.001_891_159_937_034_632,
        0.002_529_038_149_562_396_3,
        -0.023_771_110_693_320_566,
        0.068_308_057_328_072_84,
        -0.119_273_594_675_608_14,
        0.129_645_158_022_218_54,
        -0.047_562_297_345_087_58,
        -0.135_621_106_131_683_57,
        1.253_008_058_291_112_5,
    ];
    let (mut z, mut q) = ([0.0; GELUS], [0.0; GELUS]);
    for ((z, q), x) in z.iter_mut().zip(&mut q).zip(x) {
        // A comparison, unlike `min`, lets NaN through.
        *z = if x.abs() > 28.0 { 28.0 } else { x.abs() };
        *q = (*z - 3.0) / (*z + 3.0);
    }
    let mut sum = [0.0; GELUS];
    for coefficient in SCALED {
        for (sum, q) in sum.iter_mut().zip(q) {
            *sum = *sum * q + coefficient;
        }
    }
    let mut power = [0.0; GELUS];
    for (power, z) in power.iter_mut().zip(z) {
        *power = exp_f64(-z * z);
    }
    let mut y = [0.0; GELUS];
    for i in 0..GELUS {
        let tail = power[i] / (1.0 + 2.0 * z[i]) * sum[i];
        y[i] = if x[i] < 0.0 { 2.0 - tail } else { tail };
    }
    y
}

/// The activation as a node of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activation(pub Act);

impl Op for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect_inputs("activation", inputs, 1)?;
        Ok(inputs[0].clone())
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let mut y = Tensor::new(output.clone(), inputs[0].data.clone());
        y.data.par_chunks_mut(1 << 14).for_each(|y| self.0.apply_all(y));
        y
    }

    fn launch(&self, _inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        Ok(Launch::flat("activation", 1, output.device_len() / 4, caps).constant("ACTIVATION", self.0.code()))
    }

    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        output.shape.len() as u64
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for act in [Act::None, Act::Silu, Act::Gelu, Act::QuickGelu, Act::Relu, Act::SoftClamp] {
        cases.push(Case::new(Activation(act), [Ty::act([1, 1])]));
        cases.push(Case::new(Activation(act), [Ty::act([3, 7, 5])]));
        cases.push(Case::new(Activation(act), [Ty::act([2, 16, 16, 320])]));
        // Tails: from -12 to 12, where exp(-x) alone would leave the range of f16.
        let tails = Case::new(Activation(act), [Ty::act([1, 1025])]);
        cases.push(tails.fill(0, Fill::With(|i| (i as f32 - 512.0) / 42.0)));
    }
    // GELU's negative tail alone, where x (1 + erf x/sqrt 2) / 2 as it stands has no digits left: normal in f16, then
    // in f32.
    for tail in [(|i| i as f32 / 2050.0 - 4.0) as fn(usize) -> f32, |i| i as f32 / 1025.0 - 6.5] {
        cases.push(Case::new(Activation(Act::Gelu), [Ty::act([1, 1025])]).fill(0, Fill::With(tail)));
    }
    for act in [Act::Silu, Act::Gelu, Act::QuickGelu, Act::Relu, Act::SoftClamp] {
        for fill in [large, subnormal] {
            cases.push(Case::new(Activation(act), [Ty::act([3, 7, 5])]).fill(0, Fill::With(fill)));
        }
    }
    cases
}

/// What a full check adds: a picture of SDXL inside the VAE.
pub(super) fn largest(_: &Caps) -> Vec<Case> {
    vec![Case::new(Activation(Act::Silu), [Ty::act(VAE)])]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From mpmath, 40 digits.
    #[test]
    fn erfc_is_exact_to_ten_digits_far_into_the_tail() {
        let erfc_of = |x| erfc([x; GELUS])[0];
        let table = [
            (0.0, 1.0),
            (0.001, 0.998_871_621_209_031),
            (0.5, 0.479_500_122_186_953),
            (1.0, 0.157_299_207_050_285),
            (2.5, 4.069_520_174_449_59e-4),
            (5.0, 1.537_459_794_428_03e-12),
            (9.0, 4.137_031_746_513_81e-37),
            (20.0, 5.395_865_611_607_9e-176),
        ];
        for (x, wanted) in table {
            assert!((erfc_of(x) / wanted - 1.0).abs() < 1e-10, "erfc({x}) = {} should be {wanted}", erfc_of(x));
            assert!((erfc_of(-x) / (2.0 - wanted) - 1.0).abs() < 1e-10, "erfc(-{x})");
        }
    }

    #[test]
    fn gelu_keeps_its_negative_tail() {
        let table = [
            (-12.0, -2.131_778_534e-32),
            (-6.0, -5.919_525_87e-9),
            (-3.0, -4.049_694_095e-3),
            (-0.015_625, -7.715_105_945e-3),
            (0.5, 0.345_731_230_6),
            (3.0, 2.995_950_306),
        ];
        for (x, wanted) in table {
            let found = f64::from(Act::Gelu.apply(x));
            assert!((found / wanted - 1.0).abs() < 1e-7, "gelu({x}) = {found} should be {wanted}");
        }
    }

    #[test]
    fn sigmoid_gates_take_any_finite_input() {
        assert_eq!(Act::Silu.apply(-1e4), 0.0);
        assert_eq!(Act::Silu.apply(1e4), 1e4);
        assert!((Act::Silu.apply(1.0) - 0.731_058_6).abs() < 1e-7);
        assert!((Act::QuickGelu.apply(1.0) - 0.845_795_8).abs() < 1e-6);
    }

    #[test]
    fn a_soft_clamp_keeps_small_values_and_bounds_large_ones() {
        assert!((Act::SoftClamp.apply(1e-4) - 1e-4).abs() < 1e-11);
        assert_eq!(Act::SoftClamp.apply(-1e4), -3.0);
        // 3 tanh(1), from mpmath.
        assert!((Act::SoftClamp.apply(3.0) - 2.284_782_5).abs() < 1e-6);
        assert_eq!([-2.0, 0.0, 2.0].map(|x| Act::Relu.apply(x)), [0.0, 0.0, 2.0]);
    }

    #[test]
    fn a_number_that_is_none_stays_none() {
        for act in [Act::None, Act::Silu, Act::Gelu, Act::QuickGelu, Act::Relu, Act::SoftClamp] {
            assert!(act.apply(f32::NAN).is_nan(), "{act:?}");
        }
    }
}
