//! `m[p][t, n] = Σ over c of v[p][t, c] · u[p][c, n] + before[p][t, n]` at each of
//! [36 positions](super::positions) p: v `[T, C]`, u `[N/32, C, 32]` (panels of columns) and m `[T, N]`. `before`,
//! which may be absent, is the m of other channels. The multiplications of a [Winograd convolution](super).

use rayon::prelude::*;

use super::{PANEL, POSITIONS, expect_positions, positions};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::ops::host::matrix::Matrix;
use crate::ops::product::Threads;
use crate::ops::product::gemm::{self, Size};
use crate::ops::{Case, Inputs, Launch, Op, Ty, Variant, expect_inputs};
use crate::tensor::{Shape, Tensor};

/// The products of a Winograd convolution, one for each position of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WinogradProduct {
    /// T, as [`rows`](super::rows) gives it.
    pub rows: usize,
    /// C, a multiple of four.
    pub channels: usize,
    /// N, a multiple of [`PANEL`].
    pub columns: usize,
    /// Whether the last input is the m of other channels, which these products are added to.
    pub before: bool,
}

impl Op for WinogradProduct {
    fn name(&self) -> &'static str {
        "winograd_product"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        let &Self { rows, channels, columns, before } = self;
        if rows * channels * columns == 0
            || rows != super::rows(rows)
            || !channels.is_multiple_of(4)
            || !columns.is_multiple_of(PANEL)
        {
            let what = format!("winograd_product: {rows} x {channels} x {columns} has padding left out");
            return Err(Error::shape(what));
        }
        expect_inputs("winograd_product", inputs, 2 + usize::from(before))?;
        expect_positions(inputs, 0, "winograd_product: v", rows * channels)?;
        expect_positions(inputs, 1, "winograd_product: u", channels * columns)?;
        if before {
            expect_positions(inputs, 2, "winograd_product: what is added", rows * columns)?;
        }
        Ok(positions(rows * columns))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let &Self { rows, channels, columns, before } = self;
        let mut m = if before { inputs[2].clone() } else { Tensor::zeros(output.clone()) };
        m.data.par_chunks_mut(output.channels()).enumerate().for_each(|(position, m)| {
            let of = |input: usize| &inputs[input].data[position * inputs[input].shape.channels()..];
            let mut u = Tensor::zeros([channels, columns]);
            for (panel, from) in of(1).chunks(channels * PANEL).take(columns / PANEL).enumerate() {
                for (to, from) in u.data.chunks_mut(columns).zip(from.chunks(PANEL)) {
                    to[panel * PANEL..][..PANEL].copy_from_slice(from);
                }
            }
            let (m, gap) = m.split_at_mut(rows * columns);
            Matrix::of(&u).product(m, true, &of(0)[..rows * channels], 0..channels, Threads::One);
            gap.fill(0.0);
        });
        m
    }

    fn variants(&self, _inputs: Inputs, _output: &Ty, caps: &Caps) -> Result<Vec<Variant>> {
        let launch = Launch::new("winograd_product", 2).optional(self.before).constant("HAS_BEFORE", self.before);
        let size = Size { matrices: POSITIONS, rows: self.rows, c: self.channels, taps: 1, n: self.columns };
        Ok(gemm::variants(&launch, size, caps, |launch| {
            launch
                .param("rows", POSITIONS * self.rows)
                .param("taps", 1)
                .param("c4", self.channels / 4)
                .param("n4", self.columns / 4)
                .param("rows_each", self.rows)
        }))
    }

    fn flops(&self, _inputs: Inputs, _output: &Ty) -> u64 {
        2 * (POSITIONS * self.rows * self.channels * self.columns) as u64
    }

    fn sum_length(&self, _inputs: Inputs) -> Option<usize> {
        Some(self.channels)
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |rows: usize, channels: usize, columns: usize, before: bool| {
        let inputs = [rows * channels, channels * columns, rows * columns].map(positions);
        let count = 2 + usize::from(before);
        Case::new(WinogradProduct { rows, channels, columns, before }, inputs.into_iter().take(count))
    };
    // Few rows and many, one panel and several, a part of the channels.
    vec![
        case(8, 4, 32, false),
        case(16, 20, 96, true),
        case(32, 64, 64, false),
        case(96, 12, 32, true),
        case(8, 640, 64, false),
        case(64, 320, 64, false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::case::compare;
    use crate::tensor::DType;

    #[test]
    fn the_reference_is_the_naive_sum_on_every_case() {
        for case in cases() {
            let op = case.op.downcast_ref::<WinogradProduct>().unwrap();
            let (types, tensors) = (case.types(), case.tensors(3, DType::F32, DType::F32));
            let output = op.output(&types).unwrap().shape;
            let mut wanted = Tensor::zeros(output.clone());
            for (i, m) in wanted.data.iter_mut().enumerate() {
                let (position, t, n) =
                    (i / output.channels(), i % output.channels() / op.columns, i % output.channels() % op.columns);
                if t < op.rows {
                    let at = |input: usize, i: usize| {
                        f64::from(tensors[input].data[position * types[input].shape.channels() + i])
                    };
                    let before = if op.before { at(2, t * op.columns + n) } else { 0.0 };
                    let u = |c: usize| at(1, (n / PANEL * op.channels + c) * PANEL + n % PANEL);
                    let sum = (0..op.channels).map(|c| at(0, t * op.channels + c) * u(c)).sum::<f64>();
                    *m = (sum + before) as f32;
                }
            }
            let found = op.reference(&tensors.iter().collect::<Vec<_>>(), &output);
            let difference = compare(&found, &wanted);
            assert!(difference.relative < 1e-6, "{}: {difference:?}", case.name());
        }
    }

    #[test]
    fn a_tile_of_a_core_stays_in_its_matrix() {
        let names = |rows: usize| {
            let op = WinogradProduct { rows, channels: 8, columns: 64, before: false };
            let types = [rows * 8, 8 * 64].map(positions);
            let variants = op.variants(&types, &op.output(&types).unwrap(), &Caps::webgpu_default()).unwrap();
            variants.iter().map(|variant| variant.name).collect::<Vec<_>>()
        };
        assert_eq!(names(64), ["tile64", "tile16", "naive"]);
        assert_eq!(names(96), ["tile16", "naive"]);
        assert_eq!(names(16), ["tile16", "naive"]);
        assert_eq!(names(8), ["naive"]);
    }

    #[test]
    fn padding_that_is_left_out_is_an_error() {
        let output = |rows: usize, channels: usize, columns: usize| {
            let op = WinogradProduct { rows, channels, columns, before: false };
            op.output(&[positions(rows * channels), positions(channels * columns)])
        };
        assert_eq!(output(8, 4, 32).unwrap(), positions(8 * 32));
        for [rows, channels, columns] in [[9, 4, 32], [40, 4, 32], [8, 5, 32], [8, 4, 33], [0, 4, 32]] {
            let error = output(rows, channels, columns).unwrap_err().to_string();
            assert!(error.contains("has padding left out"), "{error}");
        }
    }

    #[test]
    fn another_u_is_an_error_that_shows_both() {
        let op = WinogradProduct { rows: 8, channels: 4, columns: 32, before: false };
        let error = op.output(&[positions(32), positions(96)]).unwrap_err().to_string();
        assert!(error.contains("u should be [36, 160], found [36, 128]"), "{error}");
    }
}
