//! Windows of a state that is too large for a network: at each step it predicts each of them alone, and where they
//! overlap their predictions are averaged (Bar-Tal et al. 2023, "MultiDiffusion", arXiv 2302.08113).

use std::fmt;

use super::tiles;
use crate::error::{Message, Result};
use crate::tensor::Tensor;

/// The side of the smallest, in latents: half of what the x4 upscaler was trained on, a side of 128. In smaller ones a
/// UNet's deepest level would see next to nothing.
const LEAST: usize = 64;

/// A state's windows, all of the same size.
#[derive(Debug)]
pub struct Windows {
    /// Height and width of each.
    pub size: [usize; 2],
    /// Why the state is not predicted as a whole, until that is reported.
    pub why: Option<Message>,
    side: usize,
    /// Height and width of the state.
    state: [usize; 2],
    /// Down and to the right: where windows start, and the weight of each of their rows and columns.
    axes: [Vec<(usize, Vec<f32>)>; 2],
}

/// A window's numbers, down and to the right.
type Place = [usize; 2];

impl Windows {
    /// The largest that are smaller than a side, or than a state of this height and width; `None` if there are none.
    pub fn smaller(state: [usize; 2], than: Option<usize>) -> Option<Self> {
        let than = than.unwrap_or(state[0].max(state[1]));
        let sides = std::iter::successors(Some(LEAST), |side| Some(2 * side));
        sides.take_while(|side| *side < than).last().map(|side| Self::new(state, side))
    }

    fn new(state: [usize; 2], side: usize) -> Self {
        let axes = state.map(|whole| axis(whole, side));
        Self { size: state.map(|whole| whole.min(side)), why: None, side, state, axes }
    }

    /// The side that they have where the state is not narrower.
    pub fn side(&self) -> usize {
        self.side
    }

    /// All of them.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let [rows, columns] = [0, 1].map(|axis| self.axes[axis].len());
        (0..rows).flat_map(move |row| (0..columns).map(move |column| [row, column]))
    }

    /// The part of a tensor `[rows, height, width, channels]` of the state's size that is in a window.
    ///
    /// # Errors
    /// If it has no such shape.
    pub(super) fn cut(&self, tensor: &Tensor, place: Place) -> Result<Tensor> {
        let [rows, height, width, channels] = tensor.shape.image()?;
        let at = [0, 1].map(|axis| self.axes[axis][place[axis]].0);
        let images = tensor.data.chunks_exact(height * width * channels);
        let data = images.flat_map(|image| tiles::crop(image, [width, channels], at, self.size)).collect();
        Ok(Tensor::new([rows, self.size[0], self.size[1], channels], data))
    }

    /// Adds a window's prediction of some pictures, `[pictures, height, width, channels]`, to that of their whole
    /// states: once all windows are added, each value is the weighted mean.
    pub(super) fn add(&self, whole: &mut Tensor, part: &[f32], place: Place) {
        let [(top, rows), (left, columns)] = [0, 1].map(|axis| &self.axes[axis][place[axis]]);
        let ([height, width], channels) = (self.state, whole.shape.channels());
        for (pixel, values) in part.chunks_exact(channels).enumerate() {
            let (line, x) = (pixel / columns.len(), pixel % columns.len());
            let (picture, y) = (line / rows.len(), line % rows.len());
            let to = ((picture * height + top + y) * width + left + x) * channels;
            let weight = rows[y] * columns[x];
            whole.data[to..][..channels].iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&tiles::told(self.side))
    }
}

/// Where windows of this side start, evenly, so that a quarter of them overlaps at least, and their weights: as a
/// decoder's tiles go over into each other, and 1 together at every place.
fn axis(whole: usize, side: usize) -> Vec<(usize, Vec<f32>)> {
    let (side, overlap) = (side.min(whole), side / 4);
    let count = if side == whole { 1 } else { (whole - overlap).div_ceil(side - overlap) };
    let starts = (0..count).map(|index| index * (whole - side) / (count - 1).max(1));
    let share = |pixels: usize| (pixels as f32 / overlap as f32).min(1.0);
    let weight = |index: usize, at: usize| {
        let before = if index == 0 { 1.0 } else { share(at) };
        before.min(if index + 1 == count { 1.0 } else { share(side - at) })
    };
    let mut windows: Vec<_> =
        starts.enumerate().map(|(index, start)| (start, (0..side).map(|at| weight(index, at)).collect())).collect();
    let mut sums = vec![0.0; whole];
    for (start, weights) in &windows {
        sums[*start..].iter_mut().zip(weights).for_each(|(sum, weight): (&mut f32, &f32)| *sum += weight);
    }
    for (start, weights) in &mut windows {
        let weights: &mut Vec<f32> = weights;
        weights.iter_mut().zip(&sums[*start..]).for_each(|(weight, sum)| *weight /= sum);
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_sees_single_points_predicts_what_it_does_of_the_whole() {
        for (state, side, count) in [([5, 7], 8, 1), ([17, 16], 16, 2), ([28, 29], 16, 6), ([40, 12], 12, 5)] {
            let shape = [2, state[0], state[1], 3];
            let sample = Tensor::new(shape, (0..6 * state[0] * state[1]).map(|i| (i as f32).sin()).collect());
            let windows = Windows::new(state, side);
            let (mut whole, mut seen) = (Tensor::zeros(shape), 0);
            for place in windows.places() {
                let part = windows.cut(&sample, place).unwrap();
                assert_eq!(part.shape.dims(), [2, state[0].min(side), state[1].min(side), 3]);
                windows.add(&mut whole, &part.data.iter().map(|v| v * v - 0.5).collect::<Vec<_>>(), place);
                seen += 1;
            }
            let apart = whole.data.iter().zip(&sample.data).map(|(a, v)| (a - (v * v - 0.5)).abs());
            assert!(apart.fold(0.0, f32::max) < 1e-6, "{state:?} by {side}");
            assert_eq!(seen, count, "{state:?} by {side}");
        }
    }

    #[test]
    fn a_window_goes_over_into_the_next_as_a_tile_does() {
        let windows = axis(28, 16);
        assert_eq!((windows.len(), windows[0].0, windows[1].0), (2, 0, 12));
        assert_eq!(windows[0].1[10..], [1.0, 1.0, 1.0, 0.75, 0.5, 0.25]);
        assert_eq!(windows[1].1[..6], [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn windows_are_tried_from_the_largest_down_to_half_of_what_the_upscaler_was_trained_on() {
        let sides = |state: [usize; 2]| {
            let first = Windows::smaller(state, None);
            let next = |windows: &Windows| Windows::smaller(state, Some(windows.side()));
            std::iter::successors(first, next).map(|windows| windows.size).collect::<Vec<_>>()
        };
        assert_eq!(sides([512, 512]), [[256, 256], [128, 128], [64, 64]]);
        assert_eq!(sides([40, 200]), [[40, 128], [40, 64]]);
        assert_eq!(sides([64, 64]), [[0, 0]; 0]);
    }
}
