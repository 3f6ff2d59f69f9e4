//! Nearest neighbour: x `[B, H, W, C]` to `[B, height, width, C]`,
//! `y[b, i, j] = x[b, floor(i * H/height), floor(j * W/width)]`, the quotients in f32. The U-Net's and the VAE's up
//! blocks (PyTorch `interpolate(mode="nearest", size=..)`).

use rayon::prelude::*;

use super::{Case, Fill, Inputs, Kind, Launch, Op, Ty, expect, subnormal};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor, pad4};

/// The nearest pixel, at another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upsample {
    /// Rows of pixels of the output.
    pub height: usize,
    /// Pixels in a row of the output.
    pub width: usize,
}

/// Where row or column `i` of `size` comes from, of `source_size`.
pub(super) fn nearest(i: usize, source_size: usize, size: usize) -> usize {
    ((i as f32 * scale(source_size, size)).floor() as usize).min(source_size - 1)
}

pub(super) fn scale(source_size: usize, size: usize) -> f32 {
    source_size as f32 / size as f32
}

impl Op for Upsample {
    fn name(&self) -> &'static str {
        "upsample"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect("upsample", inputs, &[("x", Kind::Act)])?;
        let [b, h, w, c] = inputs[0].shape.image()?;
        let &Self { height, width } = self;
        if height == 0 || width == 0 {
            return Err(Error::shape(format!("upsample: {h} x {w} pixels cannot become {height} x {width}")));
        }
        Ok(Ty::act([b, height, width, c]))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let [_, h, w, c] = inputs[0].shape.image().expect("the graph checked the shapes");
        let mut y = Tensor::zeros(output.clone());
        y.data.par_chunks_mut(self.width * c).enumerate().for_each(|(line, y)| {
            let source = line / self.height * h + nearest(line % self.height, h, self.height);
            let x = &inputs[0].data[source * w * c..][..w * c];
            for (j, pixel) in y.chunks_exact_mut(c).enumerate() {
                pixel.copy_from_slice(&x[nearest(j, w, self.width) * c..][..c]);
            }
        });
        y
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let [_, h, w, c] = inputs[0].shape.image()?;
        Ok(Launch::flat("upsample", 1, output.device_len() / 4, caps)
            .param("in_height", h)
            .param("in_width", w)
            .param("out_height", self.height)
            .param("out_width", self.width)
            .param("row", pad4(c) / 4)
            .param_f32("y_scale", scale(h, self.height))
            .param_f32("x_scale", scale(w, self.width)))
    }

    fn flops(&self, _inputs: Inputs, _output: &Ty) -> u64 {
        0
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |shape: [usize; 4], height, width| Case::new(Upsample { height, width }, [Ty::act(shape)]);
    vec![
        case([1, 1, 1, 1], 1, 3),
        case([2, 3, 5, 7], 6, 10),
        case([1, 7, 5, 6], 13, 9),
        case([1, 4, 6, 3], 3, 5),
        case([2, 8, 8, 320], 16, 16),
        case([1, 3, 3, 5], 6, 6).fill(0, Fill::With(subnormal)),
    ]
}

/// What a full check adds: latents in SDXL's U-Net, and a picture of SDXL inside the VAE.
pub(super) fn largest(_: &Caps) -> Vec<Case> {
    vec![
        Case::new(Upsample { height: 128, width: 128 }, [Ty::act([2, 64, 64, 640])]),
        Case::new(Upsample { height: 1024, width: 1024 }, [Ty::act([1, 512, 512, 256])]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_size_repeats_every_pixel() {
        let x = Tensor::new([1, 1, 2, 1], vec![1.0, 2.0]);
        let y = Upsample { height: 2, width: 4 }.reference(&[&x], &[1, 2, 4, 1].into());
        assert_eq!(y.data, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
    }

    /// PyTorch: `interpolate(arange(n), size=m, mode="nearest")`.
    #[test]
    fn odd_sizes_take_the_pixels_that_pytorch_takes() {
        let taken = |n, m| (0..m).map(|i| nearest(i, n, m)).collect::<Vec<_>>();
        assert_eq!(taken(7, 13), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]);
        assert_eq!(taken(5, 9), [0, 0, 1, 1, 2, 2, 3, 3, 4]);
        assert_eq!(taken(6, 4), [0, 1, 3, 4]);
        assert_eq!(taken(3, 3), [0, 1, 2]);
    }

    #[test]
    fn a_size_of_zero_is_an_error() {
        let error = Upsample { height: 0, width: 4 }.output(&[Ty::act([1, 2, 2, 8])]).unwrap_err().to_string();
        assert!(error.contains("2 x 2 pixels cannot become 0 x 4"), "{error}");
    }
}
