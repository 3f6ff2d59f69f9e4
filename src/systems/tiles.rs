//! A picture that is decoded in overlapping tiles of its latents, with blended seams, as diffusers'
//! `AutoencoderKL.tiled_decode` does it.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The tiles of one picture, and those that are decoded.
#[derive(Debug, Clone)]
pub(super) struct Tiles {
    /// Height and width of the latents.
    size: [usize; 2],
    side: usize,
    /// From one tile's start to the next one's: a quarter of a tile overlaps.
    stride: usize,
    /// By their starts.
    decoded: BTreeMap<[usize; 2], Tensor>,
}

impl Tiles {
    /// Of latents of this size, each of `side` x `side` or, at the ends, of what is left. One of the whole size is
    /// alone.
    pub fn new(size: [usize; 2], side: usize) -> Self {
        let stride = if side >= size[0].max(size[1]) { side } else { side - side / 4 };
        Self { size, side, stride, decoded: BTreeMap::new() }
    }

    /// Where they start, row by row.
    fn starts(&self) -> Vec<[usize; 2]> {
        let [rows, columns] = self.size.map(|size| (0..size).step_by(self.stride));
        rows.flat_map(|y| columns.clone().map(move |x| [y, x])).collect()
    }

    fn size_at(&self, at: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| self.side.min(self.size[axis] - at[axis]))
    }

    /// The heights and widths that there are.
    pub fn sizes(&self) -> Vec<[usize; 2]> {
        let mut sizes: Vec<_> = self.starts().into_iter().map(|at| self.size_at(at)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Where those of this height and width start.
    pub fn of_size(&self, size: [usize; 2]) -> Vec<[usize; 2]> {
        self.starts().into_iter().filter(|at| self.size_at(*at) == size).collect()
    }

    /// The latents of the tile that starts there, of all `[height, width, channels]`.
    pub fn cut(&self, latents: &[f32], channels: usize, at: [usize; 2]) -> Tensor {
        let [height, width] = self.size_at(at);
        let data = crop(latents, [self.size[1], channels], at, [height, width]).collect();
        Tensor::new([1, height, width, channels], data)
    }

    /// Takes the pixels `[1, h, w, c]` of the tile that starts there.
    pub fn put(&mut self, at: [usize; 2], pixels: Tensor) {
        self.decoded.insert(at, pixels);
    }

    /// The whole picture. Each tile goes over from the one above it, then from the one left of it, as those were joined
    /// to their own.
    ///
    /// # Errors
    /// If a tile is missing.
    pub fn join(&mut self) -> Result<Tensor> {
        let missing = || Error::shape("a tile of the picture is missing");
        let [_, height, _, channels] = self.decoded.get(&[0, 0]).ok_or_else(missing)?.shape.image()?;
        let factor = height / self.size_at([0, 0])[0];
        let (overlap, kept) = ((self.side - self.stride) * factor, self.stride * factor);
        let [rows, columns] = self.size.map(|size| size * factor);
        let mut picture = Tensor::zeros([1, rows, columns, channels]);
        for at in self.starts() {
            let mut tile = self.decoded.remove(&at).ok_or_else(missing)?;
            for axis in [0, 1] {
                let mut before = at;
                if let Some(start) = at[axis].checked_sub(self.stride) {
                    before[axis] = start;
                    blend(self.decoded.get(&before).ok_or_else(missing)?, &mut tile, axis, overlap)?;
                }
            }
            let [_, height, width, _] = tile.shape.image()?;
            let used = kept.min(width) * channels;
            for y in 0..kept.min(height) {
                let to = ((at[0] * factor + y) * columns + at[1] * factor) * channels;
                picture.data[to..][..used].copy_from_slice(&tile.data[y * width * channels..][..used]);
            }
            self.decoded.insert(at, tile);
        }
        Ok(picture)
    }
}

/// What starts there in an image `[.., width, channels]` and has this height and width.
pub(super) fn crop(
    image: &[f32],
    [width, channels]: [usize; 2],
    at: [usize; 2],
    size: [usize; 2],
) -> impl Iterator<Item = f32> {
    let row = move |y: usize| &image[((at[0] + y) * width + at[1]) * channels..][..size[1] * channels];
    (0..size[0]).flat_map(row).copied()
}

/// How something runs, for a message.
pub(super) fn told(side: usize) -> String {
    format!("in tiles of {side}x{side} latents, which changes the picture a little")
}

/// Lets the first pixels of a tile go over from the last ones of the tile before it, down (axis 0) or to the right.
fn blend(before: &Tensor, tile: &mut Tensor, axis: usize, overlap: usize) -> Result<()> {
    let sizes = [before.shape.image()?, tile.shape.image()?];
    let [[_, last_y, last_x, channels], [_, height, width, _]] = sizes;
    let [last, own] = [[last_y, last_x], [height, width]];
    let extent = overlap.min(last[axis]).min(own[axis]);
    let [rows, columns] = if axis == 0 { [extent, width] } else { [height, extent] };
    for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
        let share = [y, x][axis] as f64 / extent as f64;
        let (old, new) = ((1.0 - share) as f32, share as f32);
        let mut from = [y, x];
        from[axis] += last[axis] - extent;
        let (from, to) = ((from[0] * last_x + from[1]) * channels, (y * width + x) * channels);
        for c in 0..channels {
            tile.data[to + c] = before.data[from + c] * old + tile.data[to + c] * new;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decoded as if every latent became 2 x 2 pixels of its value.
    fn decoded(size: [usize; 2], side: usize) -> Tensor {
        let latents: Vec<f32> = (0..size[0] * size[1]).map(|i| (i / size[1] + i % size[1]) as f32).collect();
        let mut tiles = Tiles::new(size, side);
        for size in tiles.sizes() {
            for at in tiles.of_size(size) {
                let z = tiles.cut(&latents, 1, at);
                let [_, height, width, _] = z.shape.image().unwrap();
                let pixel = |i: usize| z.data[i / (2 * width) / 2 * width + i % (2 * width) / 2];
                let pixels = (0..4 * height * width).map(pixel).collect();
                tiles.put(at, Tensor::new([1, 2 * height, 2 * width, 1], pixels));
            }
        }
        tiles.join().unwrap()
    }

    #[test]
    fn tiles_that_agree_make_the_whole_picture() {
        for size in [[5, 7], [16, 16], [20, 9], [13, 37]] {
            let (whole, tiled) = (decoded(size, 40), decoded(size, 8));
            assert_eq!(whole.shape, tiled.shape);
            let apart = whole.data.iter().zip(&tiled.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-5, "{size:?}: {apart}");
        }
        assert_eq!(Tiles::new([5, 7], 8).sizes(), [[5, 7]]);
    }

    #[test]
    fn a_seam_goes_over_from_one_tile_to_the_next() {
        let mut tiles = Tiles::new([4, 7], 4);
        for (at, value) in [([0, 0], 1.0), ([0, 3], 3.0), ([0, 6], 5.0), ([3, 0], 1.0), ([3, 3], 3.0), ([3, 6], 5.0)] {
            let [height, width] = tiles.size_at(at).map(|side| 2 * side);
            tiles.put(at, Tensor::new([1, height, width, 1], vec![value; height * width]));
        }
        // Two pixels overlap: the first is the tile's before.
        assert_eq!(tiles.join().unwrap().data[..14], [1., 1., 1., 1., 1., 1., 1., 2., 3., 3., 3., 3., 3., 4.]);
    }
}
