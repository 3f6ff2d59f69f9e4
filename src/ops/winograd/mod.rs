//! Winograd's 3x3 convolution of stride 1, F(4x4, 3x3): an output tile of 4x4 pixels from an input tile of 6x6 by
//! `Y = Aᵀ [Σ over channels of (G g Gᵀ) ⊙ (Bᵀ d B)] A`, d being the input tile and g the kernel. The products in
//! the brackets are 36 matrix products over channels, one for each position in the tile, with a quarter of the
//! multiply-adds of the convolution itself (Winograd 1980; Lavin and Gray 2015, arXiv:1509.09308).
//!
//! In a graph it is four kinds of nodes: [`WinogradWeights`](winograd_weights::WinogradWeights) and
//! [`WinogradInput`](winograd_input::WinogradInput) transform, [`WinogradProduct`](winograd_product::WinogradProduct)
//! multiplies, [`WinogradOutput`](winograd_output::WinogradOutput) transforms back. What is between them is f32
//! whatever the type of activations: in f16 the transforms would lose three bits. Interpolation is at 0, ±√½, ±√2
//! and ∞, which loses fewer bits than the whole numbers of the paper.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::ops::Range;

use crate::error::{Error, Result};
use crate::ops::{Inputs, Kind, Ty, expect_kind, expect_shape};

pub mod winograd_input;
pub mod winograd_output;
pub mod winograd_product;
pub mod winograd_weights;

/// Side of an output tile in pixels, and of an input tile.
pub const OUT: usize = 4;
/// Side of an input tile in pixels: an output tile's, and one at each edge.
pub const SIDE: usize = 6;
/// In an input tile: the number of products.
pub const POSITIONS: usize = SIDE * SIDE;
/// Columns of a panel of the products' w, which is read from its first value to its last. A product's columns are
/// filled up to whole panels.
pub const PANEL: usize = 32;
/// Zeros behind the values of each position. Without them the 36 that a thread reads or writes would often be a
/// multiple of 4 KiB apart, and a cache holds few such lines.
pub(crate) const GAP: usize = 32;

const P: f64 = FRAC_1_SQRT_2;
const Q: f64 = SQRT_2;

pub(crate) const B_T: [[f64; SIDE]; SIDE] = [
    [1.0, 0.0, -2.5, 0.0, 1.0, 0.0],
    [0.0, -Q, -2.0, P, 1.0, 0.0],
    [0.0, Q, -2.0, -P, 1.0, 0.0],
    [0.0, -P, -0.5, Q, 1.0, 0.0],
    [0.0, P, -0.5, -Q, 1.0, 0.0],
    [0.0, 1.0, 0.0, -2.5, 0.0, 1.0],
];

pub(crate) const G: [[f64; 3]; SIDE] = [
    [1.0, 0.0, 0.0],
    [-2.0 / 3.0, -Q / 3.0, -1.0 / 3.0],
    [-2.0 / 3.0, Q / 3.0, -1.0 / 3.0],
    [1.0 / 6.0, Q / 6.0, 1.0 / 3.0],
    [1.0 / 6.0, -Q / 6.0, 1.0 / 3.0],
    [0.0, 0.0, 1.0],
];

pub(crate) const A_T: [[f64; SIDE]; OUT] = [
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    [0.0, P, -P, Q, -Q, 0.0],
    [0.0, 0.5, 0.5, 2.0, 2.0, 0.0],
    [0.0, P / 2.0, -P / 2.0, 2.0 * Q, -2.0 * Q, 1.0],
];

/// `m · block · mᵀ`.
pub(crate) fn both_sides<const R: usize, const C: usize>(m: &[[f64; C]; R], block: &[[f64; C]; C]) -> [[f64; R]; R] {
    let dot = |a: &[f64; C], b: &[f64; C]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // Row i of the half is column i of block · mᵀ.
    let half: [[f64; C]; R] = std::array::from_fn(|j| std::array::from_fn(|k| dot(&block[k], &m[j])));
    std::array::from_fn(|i| std::array::from_fn(|j| dot(&m[i], &half[j])))
}

/// Tiles of an output of this height and width: number in a column, number in a row.
pub fn tiles([height, width]: [usize; 2]) -> [usize; 2] {
    [height.div_ceil(OUT), width.div_ceil(OUT)]
}

/// Rows that the products compute for so many tiles: as many as their cores compute at once, few or many.
pub fn rows(tiles: usize) -> usize {
    match tiles {
        0..=8 => 8,
        9..=16 => 16,
        _ => tiles.next_multiple_of(32),
    }
}

/// What the nodes hand on: `len` values at each position, and the gap.
pub fn positions(len: usize) -> Ty {
    Ty::new(Kind::F32, [POSITIONS, len + GAP])
}

/// `Ok` if input `index` (called `what`) is `len` values at each position.
pub(crate) fn expect_positions(inputs: Inputs, index: usize, what: &str, len: usize) -> Result<()> {
    expect_kind(inputs, index, what, Kind::F32)?;
    expect_shape(inputs, index, what, &positions(len).shape)
}

/// `Ok` if `channels` is a part of all `count` that begins and ends with a vector of four, or with the last channel.
pub(crate) fn check_channels(op: &str, channels: &Range<usize>, count: usize) -> Result<()> {
    let whole = |n: usize| n.is_multiple_of(4) || n == count;
    if channels.start < channels.end && channels.end <= count && channels.start.is_multiple_of(4) && whole(channels.end)
    {
        return Ok(());
    }
    Err(Error::shape(format!("{op}: {channels:?} are not whole vectors of {count} channels")))
}

/// `Ok` if `tiles` is a part of all `count`.
pub(crate) fn check_tiles(op: &str, tiles: &Range<usize>, count: usize) -> Result<()> {
    if tiles.start < tiles.end && tiles.end <= count {
        return Ok(());
    }
    Err(Error::shape(format!("{op}: there are no tiles {tiles:?} of {count}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_four_is_the_correlation_of_six_with_three() {
        let (d, g) = ([0.3, -1.0, 2.0, 0.7, -0.2, 1.1], [0.5, -2.0, 3.0]);
        let m: Vec<f64> = (0..SIDE)
            .map(|i| {
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                dot(&B_T[i], &d) * dot(&G[i], &g)
            })
            .collect();
        for (i, row) in A_T.iter().enumerate() {
            let found: f64 = row.iter().zip(&m).map(|(a, m)| a * m).sum();
            let wanted: f64 = (0..3).map(|u| d[i + u] * g[u]).sum();
            assert!((found - wanted).abs() < 1e-12, "{i}: {found} should be {wanted}");
        }
    }

    #[test]
    fn channels_that_split_a_vector_are_an_error() {
        assert!(check_channels("winograd_input", &(4..10), 10).is_ok());
        for channels in [2..8, 4..9, 4..12, 4..4] {
            let error = check_channels("winograd_input", &channels, 10).unwrap_err().to_string();
            assert!(error.contains("not whole vectors of 10 channels"), "{error}");
        }
    }

    #[test]
    fn tiles_that_are_not_there_are_an_error() {
        assert!(check_tiles("winograd_input", &(3..4), 4).is_ok());
        for tiles in [3..5, 4..4] {
            let error = check_tiles("winograd_input", &tiles, 4).unwrap_err().to_string();
            assert!(error.contains("no tiles") && error.contains("of 4"), "{error}");
        }
    }
}
