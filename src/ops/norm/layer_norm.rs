//! `y[.., c] = (x[.., c] - mean) / sqrt(var + eps) * gamma[c] + beta[c]`, mean and biased variance over the channels:
//! x `[.., C]`, gamma and beta `[C]`. Around every attention and feed-forward (PyTorch `LayerNorm`; Ba et al. 2016).

use std::convert::identity;

use rayon::prelude::*;

use crate::caps::Caps;
use crate::error::Result;
use crate::ops::host::vectorized;
use crate::ops::{Case, Fill, Inputs, Kind, Launch, Op, Ty, expect, expect_shape, fold_groups, large};
use crate::tensor::{Shape, Tensor};

/// Normalisation of each row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f32,
}

/// `Σ f(x)` by sixteen interleaved sums, which are vectors.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let (whole, rest) = x.as_chunks::<16>();
    let mut sums = [0f64; 16];
    for x in whole {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += f(f64::from(*x));
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|x| f(f64::from(*x))).sum::<f64>()
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect("layer_norm", inputs, &[("x", Kind::Act), ("gamma", Kind::F32), ("beta", Kind::F32)])?;
        let channels = [inputs[0].shape.channels()].into();
        expect_shape(inputs, 1, "layer_norm: gamma", &channels)?;
        expect_shape(inputs, 2, "layer_norm: beta", &channels)?;
        Ok(inputs[0].clone())
    }

    fn execute(&self, inputs: &[&Tensor], y: &mut Tensor) {
        let (x, gamma, beta) = (&inputs[0].data, &inputs[1].data, &inputs[2].data);
        let c = y.shape.channels();
        y.data.par_chunks_mut(c).with_min_len(16).zip(x.par_chunks(c)).for_each(|(y, x)| {
            vectorized(
                #[inline(always)]
                || {
                    let mean = sum(x, identity) / c as f64;
                    let variance = sum(
                        x,
                        #[inline(always)]
                        |x| (x - mean) * (x - mean),
                    ) / c as f64;
                    let factor = (variance + f64::from(self.eps)).sqrt().recip();
                    for (((y, x), gamma), beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
                        *y = ((f64::from(*x) - mean) * factor) as f32 * gamma + beta;
                    }
                },
            );
        });
    }

    fn launch(&self, _inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        Ok(Launch::new("layer_norm", 3)
            .param("rows", output.shape.rows())
            .param("channels", output.shape.channels())
            .param_f32("eps", self.eps)
            .workgroups(fold_groups(output.shape.rows(), caps)))
    }

    /// Sum, distance, square and its sum, and four to write.
    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        8 * output.shape.len() as u64
    }

    fn sum_length(&self, inputs: Inputs) -> Option<usize> {
        Some(inputs[0].shape.channels())
    }
}

fn case(shape: &[usize]) -> Case {
    let x = Ty::act(Shape::new(shape));
    let vector = Ty::new(Kind::F32, [x.shape.channels()]);
    Case::new(LayerNorm { eps: 1e-5 }, [x, vector.clone(), vector])
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let off_centre = case(&[3, 64]).fill(0, Fill::With(|i| 8.0 + (i as f32 * 1.7).sin()));
    let shapes: [&[usize]; 6] = [&[1, 1], &[5, 6], &[2, 3, 7], &[3, 257], &[2, 77, 768], &[1, 4, 4, 1280]];
    let over = case(&[3, 65]).fill(0, Fill::With(large));
    // A variance of about eps, which counts here.
    let faint = case(&[3, 66]).fill(0, Fill::Normal(4e-3));
    shapes.map(case).into_iter().chain([off_centre, over, faint]).collect()
}

/// What a full check adds: tokens of SDXL.
pub(crate) fn largest(_: &Caps) -> Vec<Case> {
    vec![case(&[2, 4096, 640])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_centred_and_scaled_by_its_biased_deviation() {
        let x = Tensor::new([2, 4], vec![1.0, 2.0, 3.0, 4.0, -7.0, -7.0, -7.0, -7.0]);
        let gamma = Tensor::new([4], vec![1.0, 1.0, 1.0, 2.0]);
        let beta = Tensor::new([4], vec![0.0, 0.0, 10.0, 0.0]);
        let y = LayerNorm { eps: 0.0 }.reference(&[&x, &gamma, &beta], &x.shape);
        let d = 1.25f32.sqrt();
        let wanted = [-1.5 / d, -0.5 / d, 10.0 + 0.5 / d, 3.0 / d];
        assert!(y.data.iter().zip(wanted).all(|(y, w)| (y - w).abs() < 1e-6), "{:?}", y.data);
    }

    #[test]
    fn a_row_of_equal_values_becomes_beta() {
        let x = Tensor::new([1, 3], vec![0.1; 3]);
        let [gamma, beta] = [1.0, 5.0].map(|v| Tensor::new([3], vec![v; 3]));
        assert_eq!(LayerNorm { eps: 1e-5 }.reference(&[&x, &gamma, &beta], &x.shape).data, [5.0; 3]);
    }

    #[test]
    fn a_gamma_of_other_length_is_an_error() {
        let inputs = [Ty::act([2, 6]), Ty::new(Kind::F32, [5]), Ty::new(Kind::F32, [6])];
        let error = LayerNorm { eps: 1e-5 }.output(&inputs).unwrap_err().to_string();
        assert!(error.contains("gamma should be [6], found [5]"), "{error}");
    }
}
