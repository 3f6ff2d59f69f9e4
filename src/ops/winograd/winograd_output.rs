//! `y = act(Aᵀ m[..][t, n] A + bias + row) + residual`: `[T, N']` values of f32 at each of
//! [36 positions](super::positions) to y `[B, H, W, N]`, each tile t giving 4x4 pixels, of which those beyond y's
//! edges are dropped; T and N' are filled up to what a product computes at once. The parts after the transform are the
//! [`Epilogue`]'s. The end of a [Winograd convolution](super).
//!
//! m is of a range of the tiles: the others are taken from `before`, a y with some tiles done, or are zero. So a
//! picture's products need not be there all at once.

use std::ops::Range;

use rayon::prelude::*;

use super::{A_T, OUT, PANEL, POSITIONS, SIDE, both_sides, check_tiles, expect_positions, positions, rows, tiles};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::ops::product::Threads;
use crate::ops::product::epilogue::{Act, Epilogue, rows_per_batch};
use crate::ops::{Case, Inputs, Kind, Launch, Op, Ty, expect_kind, expect_shape};
use crate::tensor::{Shape, Tensor, pad4};

/// The output of a Winograd convolution, transformed back, with what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WinogradOutput {
    /// Batch entries.
    pub batch: usize,
    /// Height and width of y.
    pub size: [usize; 2],
    /// Channels of y.
    pub n: usize,
    /// Those of m, of all batch entries.
    pub tiles: Range<usize>,
    /// Whether the second input is a y with other tiles.
    pub before: bool,
    /// What follows it in the same kernel.
    pub epilogue: Epilogue,
}

impl WinogradOutput {
    /// Tiles of all batch entries.
    fn all_tiles(&self) -> usize {
        self.batch * tiles(self.size).iter().product::<usize>()
    }

    /// Number of inputs that are not operands of the epilogue.
    fn first_operand(&self) -> usize {
        1 + usize::from(self.before)
    }

    /// The first pixel of each row of a tile's pixels in y, and how many of the row there are.
    fn lines(&self, tile: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let ([height, width], [down, across]) = (self.size, tiles(self.size));
        let (b, row, column) = (tile / (down * across), tile / across % down * OUT, tile % across * OUT);
        let count = OUT.min(width - column);
        (row..height.min(row + OUT)).map(move |row| ((b * height + row) * width + column, count))
    }
}

impl Op for WinogradOutput {
    fn name(&self) -> &'static str {
        "winograd_output"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        let first = self.first_operand();
        if inputs.len() < first {
            return Err(Error::shape(format!("winograd_output takes at least {first} inputs, found {}", inputs.len())));
        }
        check_tiles("winograd_output", &self.tiles, self.all_tiles())?;
        let m = rows(self.tiles.len()) * self.n.next_multiple_of(PANEL);
        expect_positions(inputs, 0, "winograd_output: m", m)?;
        let output = Ty::act([self.batch, self.size[0], self.size[1], self.n]);
        if self.before {
            expect_kind(inputs, 1, "winograd_output: what is done", Kind::Act)?;
            expect_shape(inputs, 1, "winograd_output: what is done", &output.shape)?;
        }
        self.epilogue.check("winograd_output", first, inputs, &output.shape)?;
        Ok(output)
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let (n, columns, m) = (self.n, self.n.next_multiple_of(PANEL), inputs[0]);
        let block = |row: usize, channel: usize| {
            let at = |position: usize| m.data[position * m.shape.channels() + row * columns + channel];
            let block = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(at(SIDE * i + j))));
            both_sides(&A_T, &block)
        };
        let of_tile = |row| -> Vec<_> { (0..n).map(|channel| block(row, channel)).collect() };
        let of_tiles: Vec<_> = (0..self.tiles.len()).into_par_iter().map(of_tile).collect();
        let mut y = if self.before { inputs[1].clone() } else { Tensor::zeros(output.clone()) };
        let operands = self.epilogue.operands(inputs, output);
        for (tile, blocks) in self.tiles.clone().zip(&of_tiles) {
            for (i, (pixel, count)) in self.lines(tile).enumerate() {
                let line = &mut y.data[pixel * n..][..count * n];
                for (index, y) in line.iter_mut().enumerate() {
                    *y = blocks[index % n][i][index / n] as f32;
                }
                operands.finish(pixel, line, Threads::One);
            }
        }
        y
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let [down, across] = tiles(self.size);
        let n4 = pad4(self.n) / 4;
        let launch = Launch::new("winograd_output", 1).optional(self.before).constant("HAS_BEFORE", self.before);
        Ok(self
            .epilogue
            .launch(launch)
            .param("tiles", self.all_tiles())
            .param("first", self.tiles.start)
            .param("end", self.tiles.end)
            .param("vectors", inputs[0].shape.channels() / 4)
            .param("m_n4", self.n.next_multiple_of(PANEL) / 4)
            .param("n", self.n)
            .param("n4", n4)
            .param("rows_per_batch", rows_per_batch(&output.shape))
            .param("height", self.size[0])
            .param("width", self.size[1])
            .param("down", down)
            .param("across", across)
            .threads(self.all_tiles() * n4, caps))
    }

    /// Both products with Aᵀ, of which a row has about five terms.
    fn flops(&self, _inputs: Inputs, _output: &Ty) -> u64 {
        (2 * 5 * OUT * (SIDE + OUT) * self.tiles.len() * self.n) as u64
    }

    fn sum_length(&self, _inputs: Inputs) -> Option<usize> {
        Some(POSITIONS)
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |[batch, height, width, n]: [usize; 4], tiles: Range<usize>, before: bool, epilogue: Epilogue| {
        let y = Ty::act([batch, height, width, n]);
        let m = positions(rows(tiles.len()) * n.next_multiple_of(PANEL));
        let op = WinogradOutput { batch, size: [height, width], n, tiles, before, epilogue };
        let inputs = [m].into_iter().chain(before.then(|| y.clone())).chain(epilogue.operand_types(&y.shape));
        Case::new(op, inputs.collect::<Vec<_>>())
    };
    let (plain, bias) = (Epilogue::default(), Epilogue::bias(true));
    let all = Epilogue { row: true, act: Act::Gelu, residual: true, ..bias };
    vec![
        case([1, 1, 1, 1], 0..1, false, plain),
        case([2, 3, 5, 7], 0..4, false, all),
        case([2, 9, 6, 10], 0..12, false, Epilogue { row: true, act: Act::Silu, ..bias }),
        // Parts: the first, one between others, the last.
        case([1, 13, 9, 5], 0..5, false, bias),
        case([2, 9, 6, 10], 3..8, true, all),
        case([1, 16, 15, 4], 12..16, true, Epilogue { residual: true, ..plain }),
        // The network's own epilogues at the demo model's and SD 1.5's sizes.
        case([1, 16, 16, 64], 0..16, false, bias),
        case([2, 16, 16, 320], 0..32, false, Epilogue { residual: true, ..bias }),
        case([2, 8, 8, 1280], 0..8, false, Epilogue { row: true, ..bias }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(tiles: Range<usize>) -> WinogradOutput {
        WinogradOutput { batch: 1, size: [5, 9], n: 3, tiles, before: false, epilogue: Epilogue::default() }
    }

    #[test]
    fn m_has_the_rows_of_its_tiles() {
        let y = Ty::act([1, 5, 9, 3]);
        assert_eq!(op(0..6).output(&[positions(8 * 32)]).unwrap(), y);
        let error = op(0..6).output(&[positions(16 * 32)]).unwrap_err().to_string();
        assert!(error.contains("m should be [36, 288], found [36, 544]"), "{error}");
        assert!(op(2..7).output(&[positions(8 * 32)]).is_err(), "more tiles than there are");
        let second = WinogradOutput { before: true, ..op(4..6) };
        assert_eq!(second.output(&[positions(8 * 32), y.clone()]).unwrap(), y);
        assert!(second.output(&[positions(8 * 32)]).is_err(), "what is done is missing");
        assert!(second.output(&[positions(8 * 32), Ty::act([1, 5, 9, 4])]).is_err(), "what is done is another picture");
    }

    #[test]
    fn the_first_position_alone_is_the_first_pixel_of_each_tile() {
        let mut m = Tensor::zeros(positions(8 * 32).shape);
        (0..6).for_each(|tile| m.data[tile * 32] = tile as f32 + 1.0);
        let y = WinogradOutput { n: 1, ..op(0..6) }.reference(&[&m], &[1, 5, 9, 1].into());
        let wanted: Vec<f32> = (0..45)
            .map(|i| if i / 9 % 4 == 0 && i % 9 % 4 == 0 { (i / 36 * 3 + i % 9 / 4 + 1) as f32 } else { 0.0 })
            .collect();
        assert_eq!(y.data, wanted);
    }

    #[test]
    fn other_tiles_are_those_that_were_there() {
        let (m, before) = (Tensor::zeros(positions(8 * 32).shape), Tensor::new([1, 5, 9, 1], vec![2.0; 45]));
        let op = WinogradOutput { n: 1, before: true, ..op(4..5) };
        let y = op.reference(&[&m, &before], &[1, 5, 9, 1].into());
        // The tile below and in the middle has one row of four pixels.
        let wanted: Vec<f32> = (0..45).map(|i| if (40..44).contains(&i) { 0.0 } else { 2.0 }).collect();
        assert_eq!(y.data, wanted);
    }
}
