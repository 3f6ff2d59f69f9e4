//! `u[6i + j][p, c, n] = (G g Gᵀ)[i, j]` with `g[u, v] = w[u, v, c, 32p + n]`: w `[3, 3, C, N]` to `[P, C', 32]`
//! values of f32 at each of [36 positions](super::positions), for a range of the channels; C' is their number and P
//! that of panels of 32 columns, both with padding, which is zero. The kernels of a [Winograd convolution](super),
//! transformed at every run: kept, they would be four to eight times the weights.

use std::ops::Range;

use rayon::prelude::*;

use super::{G, GAP, PANEL, POSITIONS, SIDE, check_channels, positions};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::ops::{Case, Inputs, Kind, Launch, Op, Ty, expect};
use crate::tensor::{Shape, Tensor, pad4};

/// The weights of a Winograd convolution, transformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WinogradWeights {
    /// Whole vectors of four, up to the last channel.
    pub channels: Range<usize>,
}

impl Op for WinogradWeights {
    fn name(&self) -> &'static str {
        "winograd_weights"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect("winograd_weights", inputs, &[("w", Kind::Weight)])?;
        let &[3, 3, channels, n] = inputs[0].shape.dims() else {
            return Err(Error::shape(format!("winograd_weights: w should be [3, 3, C, N], found {}", inputs[0].shape)));
        };
        check_channels("winograd_weights", &self.channels, channels)?;
        Ok(positions(n.next_multiple_of(PANEL) * pad4(self.channels.len())))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let (w, n) = (inputs[0], inputs[0].shape.channels());
        let (all, rows) = (w.shape.dims()[2], pad4(self.channels.len()));
        let mut u = Tensor::zeros(output.clone());
        u.data.par_chunks_mut(output.channels()).enumerate().for_each(|(position, u)| {
            let (i, j) = (position / SIDE, position % SIDE);
            for (index, row) in u.chunks_mut(PANEL).take(n.div_ceil(PANEL) * rows).enumerate() {
                let (panel, c) = (index / rows, index % rows);
                if c >= self.channels.len() {
                    continue;
                }
                for (tap, g) in (0..9).map(|tap| (tap, G[i][tap / 3] * G[j][tap % 3])) {
                    let taps = &w.data[(tap * all + self.channels.start + c) * n..][..n][panel * PANEL..];
                    row.iter_mut().zip(taps).for_each(|(u, w)| *u += (g * f64::from(*w)) as f32);
                }
            }
        });
        u
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let n4 = pad4(inputs[0].shape.channels()) / 4;
        let vectors = output.shape.channels() / 4;
        Ok(Launch::flat("winograd_weights", 1, vectors, caps)
            .param("panel_vectors", vectors - GAP / 4)
            .param("rows", pad4(self.channels.len()))
            .param("first", self.channels.start * n4)
            .param("tap", pad4(inputs[0].shape.dims()[2]) * n4)
            .param("n4", n4))
    }

    /// Both products with G, with three terms each.
    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        (5 * SIDE * (3 + SIDE) * output.shape.len() / POSITIONS) as u64
    }

    fn reads(&self, inputs: Inputs, _output: &Ty, _index: usize) -> usize {
        9 * pad4(self.channels.len()) * pad4(inputs[0].shape.channels())
    }

    fn sum_length(&self, _inputs: Inputs) -> Option<usize> {
        Some(9)
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |channels: Range<usize>, all: usize, n: usize| {
        Case::new(WinogradWeights { channels }, [Ty::new(Kind::Weight, [3, 3, all, n])])
    };
    vec![
        case(0..1, 1, 1),
        case(0..5, 5, 7),
        case(0..8, 13, 10),
        case(8..13, 13, 10),
        case(0..64, 64, 65),
        case(0..320, 320, 320),
        case(320..640, 640, 64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_are_the_corners_of_the_kernel() {
        let w = Tensor::new([3, 3, 1, 1], (1..10).map(|v| v as f32).collect());
        let op = WinogradWeights { channels: 0..1 };
        let ty = op.output(&[Ty::new(Kind::Weight, [3, 3, 1, 1])]).unwrap();
        let u = op.reference(&[&w], &ty.shape);
        let at = |i: usize, j: usize| u.data[(6 * i + j) * ty.shape.channels()];
        assert_eq!([at(0, 0), at(0, 5), at(5, 0), at(5, 5)], [1.0, 3.0, 7.0, 9.0]);
        assert!(u.data.chunks(ty.shape.channels()).all(|rest| rest[1..].iter().all(|v| *v == 0.0)), "padding");
    }

    #[test]
    fn another_kernel_is_an_error() {
        let error = WinogradWeights { channels: 0..4 }.output(&[Ty::new(Kind::Weight, [5, 3, 4, 4])]).unwrap_err();
        assert!(error.to_string().contains("[5, 3, 4, 4]"), "{error}");
    }
}
