//! `v[6i + j][t, c] = (Bᵀ d B)[i, j]` with d the 6x6 pixels of x's channel c around output tile t: x `[B, H, W, C]` to
//! `[T, C']` values of f32 at each of [36 positions](super::positions), for a range of the tiles and of the channels;
//! T and C' are their numbers filled up to what a product computes at once, with zeros. Tiles are numbered by batch
//! entry, row, column; beyond x's edges there are zeros. With [`WinogradInput::upsample`] the up-sampled x takes the
//! place of x, and is never stored. The pixels of a [Winograd convolution](super).

use std::ops::Range;

use rayon::prelude::*;

use super::{B_T, OUT, SIDE, both_sides, check_channels, check_tiles, positions, rows, tiles};
use crate::caps::Caps;
use crate::error::Result;
use crate::ops::upsample::{Upsample, nearest, scale};
use crate::ops::{Case, Inputs, Kind, Launch, Op, Ty, expect};
use crate::tensor::{Shape, Tensor, pad4};

/// The input tiles of a Winograd convolution, transformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WinogradInput {
    /// x is read as if this had been applied to it.
    pub upsample: Option<Upsample>,
    /// Of all batch entries.
    pub tiles: Range<usize>,
    /// Whole vectors of four, up to the last channel.
    pub channels: Range<usize>,
}

impl WinogradInput {
    /// Height and width as which x, of this size, is read.
    fn size(&self, source: [usize; 2]) -> [usize; 2] {
        self.upsample.map_or(source, |up| [up.height, up.width])
    }

    /// The pixels of a channel around a tile.
    fn block(&self, x: &Tensor, tile: usize, channel: usize) -> [[f64; SIDE]; SIDE] {
        let &[_, source_height, source_width, channels] = x.shape.dims() else { unreachable!("x is an image") };
        let [height, width] = self.size([source_height, source_width]);
        let [down, across] = tiles([height, width]);
        let (b, row, column) = (tile / (down * across), tile / across % down * OUT, tile % across * OUT);
        let pixel = |i: usize, j: usize| {
            // Above or left of x these wrap around to huge numbers, which are outside as well.
            let (y, x_at) = ((row + i).wrapping_sub(1), (column + j).wrapping_sub(1));
            if y >= height || x_at >= width {
                return 0.0;
            }
            let (y, x_at) = (nearest(y, source_height, height), nearest(x_at, source_width, width));
            f64::from(x.data[((b * source_height + y) * source_width + x_at) * channels + channel])
        };
        std::array::from_fn(|i| std::array::from_fn(|j| pixel(i, j)))
    }
}

impl Op for WinogradInput {
    fn name(&self) -> &'static str {
        "winograd_input"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect("winograd_input", inputs, &[("x", Kind::Act)])?;
        let [batch, height, width, channels] = inputs[0].shape.image()?;
        let count = batch * tiles(self.size([height, width])).iter().product::<usize>();
        check_tiles("winograd_input", &self.tiles, count)?;
        check_channels("winograd_input", &self.channels, channels)?;
        Ok(positions(rows(self.tiles.len()) * pad4(self.channels.len())))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let width = pad4(self.channels.len());
        let of_tile = |tile| -> Vec<_> {
            self.channels.clone().map(|c| both_sides(&B_T, &self.block(inputs[0], tile, c))).collect()
        };
        let of_tiles: Vec<_> = self.tiles.clone().into_par_iter().map(of_tile).collect();
        let mut v = Tensor::zeros(output.clone());
        v.data.par_chunks_mut(output.channels()).enumerate().for_each(|(position, v)| {
            for (row, blocks) in v.chunks_mut(width).zip(&of_tiles) {
                row.iter_mut().zip(blocks).for_each(|(v, b)| *v = b[position / SIDE][position % SIDE] as f32);
            }
        });
        v
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let [_, source_height, source_width, channels] = inputs[0].shape.image()?;
        let [height, width] = self.size([source_height, source_width]);
        let [down, across] = tiles([height, width]);
        let vectors = output.shape.channels() / 4;
        Ok(Launch::flat("winograd_input", 1, vectors, caps)
            .constant("UPSAMPLED", self.upsample.is_some())
            .param("tiles", self.tiles.len())
            .param("c4", pad4(self.channels.len()) / 4)
            .param("first_tile", self.tiles.start)
            .param("first_c4", self.channels.start / 4)
            .param("x_c4", pad4(channels) / 4)
            .param("height", height)
            .param("width", width)
            .param("down", down)
            .param("across", across)
            .param("in_height", source_height)
            .param("in_width", source_width)
            .param_f32("y_scale", scale(source_height, height))
            .param_f32("x_scale", scale(source_width, width)))
    }

    /// Both products with Bᵀ, of which a row has about four terms.
    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        (2 * 2 * 4 * output.shape.len()) as u64
    }

    fn sum_length(&self, _inputs: Inputs) -> Option<usize> {
        Some(16)
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |x: [usize; 4], upsample: Option<[usize; 2]>, tiles: Range<usize>, channels: Range<usize>| {
        let upsample = upsample.map(|[height, width]| Upsample { height, width });
        Case::new(WinogradInput { upsample, tiles, channels }, [Ty::act(x)])
    };
    vec![
        case([1, 1, 1, 1], None, 0..1, 0..1),
        case([2, 3, 5, 7], None, 0..4, 0..7),
        case([2, 9, 6, 10], None, 3..11, 4..10),
        case([1, 4, 4, 1280], None, 0..1, 640..1280),
        case([2, 16, 16, 320], None, 0..32, 0..320),
        case([1, 32, 33, 64], None, 20..72, 0..64),
        // Read larger than it is, or smaller.
        case([2, 3, 5, 7], Some([6, 10]), 0..12, 0..7),
        case([1, 9, 7, 6], Some([5, 13]), 1..8, 0..6),
        case([1, 8, 8, 64], Some([16, 16]), 0..16, 0..64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_picture_has_one_block_inside_and_others_at_the_edges() {
        let x = Tensor::new([1, 12, 12, 1], vec![1.0; 144]);
        let v = |tile: usize| {
            let op = WinogradInput { upsample: None, tiles: tile..tile + 1, channels: 0..1 };
            op.reference(&[&x], &op.output(&[Ty::act([1, 12, 12, 1])]).unwrap().shape)
        };
        // Of a constant, each row of Bᵀ leaves its sum.
        let sums = B_T.map(|row| row.iter().sum::<f64>());
        let inside = v(4);
        for (position, values) in inside.data.chunks(inside.shape.channels()).enumerate() {
            let wanted = sums[position / SIDE] * sums[position % SIDE];
            assert!((f64::from(values[0]) - wanted).abs() < 1e-6, "{position}: {}", values[0]);
            assert!(values[1..].iter().all(|v| *v == 0.0), "padding at {position}");
        }
        assert_ne!(v(0).data, inside.data);
    }

    #[test]
    fn tiles_that_are_not_there_are_an_error() {
        let op = WinogradInput { upsample: None, tiles: 3..5, channels: 0..4 };
        let error = op.output(&[Ty::act([1, 8, 8, 4])]).unwrap_err().to_string();
        assert!(error.contains("no tiles 3..5 of 4"), "{error}");
    }
}
