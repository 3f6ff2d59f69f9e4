//! The first pass of a group norm: x `[B, .., C]` to `[B, groups, chunks, 4]`, f32, holding (mean, M2, count, 0) of
//! each chunk of pixels, where M2 is the sum of squared distances to that mean. The second pass, [`GroupNorm`], puts
//! the chunks together: that way a large picture occupies a whole device, and a large mean costs no precision (Chan,
//! Golub and LeVeque 1979).
//!
//! An optional row `[B, C]`, the time embedding, is added to every pixel of its batch entry on the way in. Added
//! before, and stored in f16, a large one would push out the bits that the norm is about to bring forward.
//!
//! [`GroupNorm`]: super::group_norm::GroupNorm

use std::convert::identity;

use rayon::prelude::*;

use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::ops::host::vectorized;
use crate::ops::joined::Joined;
use crate::ops::{Case, Fill, Inputs, Kind, Launch, Op, Ty, UNET, VAE, expect, expect_shape, large};
use crate::tensor::{Shape, Tensor};

/// Means and variances of groups of channels, by chunks of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupNormStats {
    /// Groups of channels, which share a mean and a variance.
    pub groups: usize,
    /// A second input, `[B, C]`, is added to x first.
    pub row: bool,
}

/// Pixels in a chunk, as long as that does not make too many chunks: every workgroup of the second pass reads them
/// all.
const CHUNK_PIXELS: usize = 256;
const MOST_CHUNKS: usize = 32;

/// How a picture's pixels are cut: number of chunks, and pixels in each but the last.
pub fn chunks(pixels: usize) -> (usize, usize) {
    let size = pixels.div_ceil(MOST_CHUNKS).max(CHUNK_PIXELS);
    (pixels.div_ceil(size), size)
}

/// Pixels or tokens of a batch entry.
pub(crate) fn pixels(x: &Shape) -> usize {
    x.rows() / x.batch()
}

/// The statistics' shape for an x of this shape, or an error if its channels do not make that many groups.
pub(crate) fn stats_shape(x: &Shape, groups: usize) -> Result<Shape> {
    if x.rank() < 2 {
        return Err(Error::shape(format!("a group norm takes [batch, .., channels], found {x}")));
    }
    if groups == 0 || !x.channels().is_multiple_of(groups) {
        return Err(Error::shape(format!("{} channels do not divide into {groups} groups", x.channels())));
    }
    Ok([x.batch(), groups, chunks(pixels(x)).0, 4].into())
}

/// `Ok` if the inputs from `first` on have the shapes of a group norm's gamma and beta and of the row added to x, if
/// there is one.
pub(crate) fn expect_vectors(op: &str, inputs: Inputs, first: usize) -> Result<()> {
    let (batch, channels) = (inputs[0].shape.batch(), inputs[0].shape.channels());
    let shapes = [("gamma", [channels].into()), ("beta", [channels].into()), ("row", [batch, channels].into())];
    let mut each = (first..inputs.len()).zip(shapes);
    each.try_for_each(|(index, (what, shape))| expect_shape(inputs, index, &format!("{op}: {what}"), &shape))
}

/// Mean, M2 and count of each group over these pixels plus `row`. In f64, by two passes.
fn moments(x: &[f32], row: Option<&[f32]>, channels: usize, groups: usize) -> Vec<[f32; 4]> {
    let size = channels / groups;
    let offset: Vec<f64> = (0..channels).map(|c| row.map_or(0.0, |row| f64::from(row[c]))).collect();
    let count = (x.len() / groups) as f64;
    let over_groups = |of_channels: &[f64]| of_channels.chunks(size).map(|g| g.iter().sum()).collect::<Vec<f64>>();
    let sums = add_up(x, &offset, identity);
    let means: Vec<f64> = over_groups(&sums).into_iter().map(|sum| sum / count).collect();
    let offset: Vec<f64> = offset.iter().enumerate().map(|(c, offset)| offset - means[c / size]).collect();
    let squares = add_up(
        x,
        &offset,
        #[inline(always)]
        |d| d * d,
    );
    means.iter().zip(over_groups(&squares)).map(|(mean, m2)| [*mean as f32, m2 as f32, count as f32, 0.0]).collect()
}

/// The sum of `f(x + offset)` over all pixels, for each channel.
fn add_up(x: &[f32], offset: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; offset.len()];
    vectorized(
        #[inline(always)]
        || {
            for pixel in x.chunks_exact(sums.len()) {
                for ((sum, x), offset) in sums.iter_mut().zip(pixel).zip(offset) {
                    *sum += f(f64::from(*x) + offset);
                }
            }
        },
    );
    sums
}

impl Op for GroupNormStats {
    fn name(&self) -> &'static str {
        "group_norm_stats"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect("group_norm_stats", inputs, &[("x", Kind::Act), ("row", Kind::Act)][..1 + usize::from(self.row)])?;
        let x = &inputs[0].shape;
        if self.row {
            expect_shape(inputs, 1, "group_norm_stats: row", &[x.batch(), x.channels()].into())?;
        }
        Ok(Ty::new(Kind::F32, stats_shape(x, self.groups)?))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let (x, groups) = (inputs[0], self.groups);
        let (channels, pixels) = (x.shape.channels(), pixels(&x.shape));
        let (count, size) = chunks(pixels);
        let part = |i: usize| {
            let first = i % count * size;
            let begin = (i / count * pixels + first) * channels;
            let row = self.row.then(|| &inputs[1].data[i / count * channels..][..channels]);
            moments(&x.data[begin..][..size.min(pixels - first) * channels], row, channels, groups)
        };
        let parts: Vec<_> = (0..x.shape.batch() * count).into_par_iter().map(part).collect();
        let mut data = Vec::with_capacity(output.len());
        for of_batch in parts.chunks(count) {
            data.extend((0..groups).flat_map(|g| of_batch.iter().flat_map(move |chunk| chunk[g])));
        }
        Tensor::new(output.clone(), data)
    }

    fn launch(&self, inputs: Inputs, _output: &Ty, _caps: &Caps) -> Result<Launch> {
        let x = &inputs[0].shape;
        let (count, size) = chunks(pixels(x));
        Ok(Launch::new("group_norm_stats", 1)
            .optional(self.row)
            .constant("HAS_ROW", self.row)
            .param("pixels", pixels(x))
            .param("channels", x.channels())
            .param("groups", self.groups)
            .param("chunks", count)
            .param("chunk", size)
            .joinable()
            .workgroups([count as u32, self.groups as u32, x.batch() as u32]))
    }

    /// Shift, sum, square and its sum.
    fn flops(&self, inputs: Inputs, _output: &Ty) -> u64 {
        4 * inputs[0].shape.len() as u64
    }

    fn sum_length(&self, inputs: Inputs) -> Option<usize> {
        let x = &inputs[0].shape;
        Some(pixels(x).min(chunks(pixels(x)).1) * x.channels() / self.groups)
    }

    fn absorb_input(&self, previous: &dyn Op, operand: usize) -> Option<Box<dyn Op>> {
        Joined::with(*self, previous, operand)
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |groups, shape: &[usize]| Case::new(GroupNormStats { groups, row: false }, [Ty::act(Shape::new(shape))]);
    let with_row = |groups, shape: &[usize]| {
        let x = Shape::new(shape);
        let row = Ty::act([x.batch(), x.channels()]);
        Case::new(GroupNormStats { groups, row: true }, [Ty::act(x), row]).fill(1, Fill::Normal(20.0))
    };
    // Nearly constant around 40, and a first pixel far off.
    let off_centre = |i: usize| 40.0 + (i as f32 * 1.7).sin();
    let outlier = |i: usize| if i < 8 { 1000.0 } else { (i as f32 * 1.7).sin() };
    vec![
        case(1, &[1, 1]),
        case(1, &[1, 1, 1, 1030]),
        case(4, &[2, 3, 5, 8]),
        case(32, &[1, 7, 9, 32]),
        case(3, &[2, 17, 9]),
        case(2, &[1, 19, 14, 6]),
        case(32, &[2, 16, 16, 320]),
        case(32, &[1, 32, 33, 64]),
        case(2, &[1, 100, 100, 8]),
        case(2, &[1, 300, 8]).fill(0, Fill::With(off_centre)),
        case(2, &[1, 300, 8]).fill(0, Fill::With(outlier)),
        case(2, &[1, 19, 14, 6]).fill(0, Fill::With(large)),
        with_row(3, &[2, 17, 9]),
        with_row(32, &[2, 16, 16, 64]),
        // x in two parts, of which a group may have some of both.
        Case::new(Joined(GroupNormStats { groups: 3, row: false }), [Ty::act([2, 9, 33, 8]), Ty::act([2, 9, 33, 16])]),
    ]
}

/// What a full check adds: two latents of SDXL, and a picture of SDXL inside the VAE.
pub(crate) fn largest(_: &Caps) -> Vec<Case> {
    [UNET, VAE].map(|x| Case::new(GroupNormStats { groups: 32, row: false }, [Ty::act(x)])).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_of_each_batch_entry_has_its_own_moments() {
        let x = Tensor::new([2, 2, 2], vec![1.0, 10.0, 3.0, 10.0, 0.0, 4.0, 0.0, 8.0]);
        let y = GroupNormStats { groups: 2, row: false }.reference(&[&x], &[2, 2, 1, 4].into());
        let wanted = [[2.0, 2.0, 2.0, 0.0], [10.0, 0.0, 2.0, 0.0], [0.0, 0.0, 2.0, 0.0], [6.0, 8.0, 2.0, 0.0]];
        assert_eq!(y.data, wanted.as_flattened());
    }

    #[test]
    fn a_row_shifts_the_means_and_nothing_else() {
        let x = Tensor::new([1, 2, 2], vec![1.0, 10.0, 3.0, 14.0]);
        let row = Tensor::new([1, 2], vec![100.0, -10.0]);
        let y = GroupNormStats { groups: 2, row: true }.reference(&[&x, &row], &[1, 2, 1, 4].into());
        assert_eq!(y.data, [102.0, 2.0, 2.0, 0.0, 2.0, 8.0, 2.0, 0.0]);
    }

    #[test]
    fn chunks_cover_every_pixel_once() {
        for pixels in [1, 255, 256, 257, 8192, 8193, 9999, 262_144] {
            let (count, size) = chunks(pixels);
            assert!(count <= MOST_CHUNKS && (count - 1) * size < pixels && pixels <= count * size, "{pixels}");
        }
        assert_eq!(chunks(262_144), (32, 8192));
    }

    #[test]
    fn channels_that_do_not_divide_into_groups_are_an_error() {
        let error =
            GroupNormStats { groups: 32, row: false }.output(&[Ty::act([1, 4, 4, 48])]).unwrap_err().to_string();
        assert!(error.contains("48 channels do not divide into 32 groups"), "{error}");
    }
}
