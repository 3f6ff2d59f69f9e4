//! `y[.., c] = x[.., 2c] * gelu(x[.., 2c + 1])`: x `[.., 2N]` to `[.., N]`, with the exact (erf) GELU. The gated
//! feed-forward of every transformer block of the U-Net (diffusers `GEGLU`; Shazeer 2020). Each value stands beside
//! its gate, unlike in PyTorch, so that one thread of a product has both: [`crate::pack`] puts the columns of the
//! layer before it in pairs.

use rayon::prelude::*;

use super::activation::{GELUS, gelu};
use super::host::vectorized;
use super::{Case, Fill, Inputs, Kind, Launch, Op, Ty, expect, large};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// `y[c] = x[2c] gelu(x[2c + 1])`; no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geglu;

/// Values times their gates' GELU.
fn gate(pairs: &[f32], y: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (pairs, y) in pairs.chunks(2 * GELUS).zip(y.chunks_mut(GELUS)) {
                let (mut values, mut gates) = ([0.0; GELUS], [0.0; GELUS]);
                for ((value, gate), pair) in values.iter_mut().zip(&mut gates).zip(pairs.as_chunks::<2>().0) {
                    [*value, *gate] = *pair;
                }
                for ((y, value), gate) in y.iter_mut().zip(values).zip(gelu(gates)) {
                    *y = value * gate;
                }
            }
        },
    );
}

impl Op for Geglu {
    fn name(&self) -> &'static str {
        "geglu"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect("geglu", inputs, &[("x", Kind::Act)])?;
        let x = &inputs[0].shape;
        if !x.channels().is_multiple_of(2) {
            return Err(Error::shape(format!("geglu: x should have as many gates as values, found {x}")));
        }
        Ok(Ty::act(x.with_channels(x.channels() / 2)))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let n = output.channels();
        let mut y = Tensor::zeros(output.clone());
        y.data.par_chunks_mut(n).with_min_len(16).enumerate().for_each(|(row, y)| {
            gate(&inputs[0].data[row * 2 * n..][..2 * n], y);
        });
        y
    }

    fn launch(&self, _inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        Ok(Launch::flat("geglu", 1, output.device_len() / 4, caps).param("channels", output.shape.channels()))
    }

    /// The gate counts as one operation.
    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        2 * output.shape.len() as u64
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |shape: &[usize]| Case::new(Geglu, [Ty::act(Shape::new(shape))]);
    let shapes: [&[usize]; 5] = [&[1, 2], &[3, 7, 10], &[5, 12], &[2, 5, 14], &[2, 77, 2560]];
    let over = case(&[3, 10]).fill(0, Fill::With(large));
    // All gates in GELU's negative tail: see `activation`.
    let tail = case(&[1, 512]).fill(0, Fill::With(|i| if i % 2 == 0 { 1.0 } else { i as f32 / 1024.0 - 4.0 }));
    shapes.map(case).into_iter().chain([over, tail]).collect()
}

/// What a full check adds: the gates of SDXL's feed-forwards.
pub(super) fn largest(_: &Caps) -> Vec<Case> {
    [[2, 4096, 5120], [2, 1024, 10_240]].map(|x| Case::new(Geglu, [Ty::act(x)])).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_gated_by_its_neighbour() {
        let x = Tensor::new([1, 4], vec![2.0, 0.0, 3.0, 1.0]);
        let y = Geglu.reference(&[&x], &[1, 2].into());
        assert_eq!(y.data[0], 0.0);
        assert!((y.data[1] - 3.0 * 0.841_344_8).abs() < 1e-6, "{}", y.data[1]);
    }

    #[test]
    fn an_odd_number_of_channels_is_an_error() {
        let error = Geglu.output(&[Ty::act([2, 7])]).unwrap_err().to_string();
        assert!(error.contains("as many gates as values, found [2, 7]"), "{error}");
    }
}
