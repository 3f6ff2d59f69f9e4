//! Pictures at the files' border: pixels to PNG, JPEG or WebP and back, with the parameters that made them.
//!
//! The parameters stand where AUTOMATIC1111's web UI writes them and other programs read them: in a PNG's text chunk
//! `parameters` (`tEXt` where the text is Latin-1, else `iTXt`, as Python's `PIL.PngImagePlugin.PngInfo` does), in the
//! others' EXIF.
//!
//! Floor 3: may import `graph`, `ops` and floor 0.

mod blur;
mod decode;
mod encode;
mod exif;
mod mask;
mod preprocess;
mod resize;
mod sheet;

pub use decode::decode;
pub use encode::{Format, encode_png};
pub use mask::{Mask, Patch, Region};
pub use preprocess::Preprocessor;
pub use resize::Filter;
pub use sheet::sheet;

use crate::tensor::Tensor;

const KEYWORD: &str = "parameters";

/// Pixel values in [-1, 1], channels last, to bytes: clamped, and rounded half to even.
///
/// Source: diffusers `VaeImageProcessor.denormalize` and `numpy_to_pil`, step for step in f32.
pub fn to_rgb8(pixels: &Tensor) -> Vec<u8> {
    pixels.data.iter().map(|x| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8).collect()
}

/// A picture that was drawn, or read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Rows from the top, three bytes a pixel.
    pub rgb: Vec<u8>,
    /// What made it, as its file has it, if it does.
    pub parameters: Option<String>,
}

impl Picture {
    /// Its pixels from 0 to 1, `[1, height, width, 3]`. A picture of another size is resized, each side by itself, as
    /// diffusers' `VaeImageProcessor` does by default: with Lanczos' filter.
    pub fn to_tensor(&self, width: usize, height: usize) -> Tensor {
        let bytes = self.resized(Filter::Lanczos, [width, height]);
        Tensor::new([1, height, width, 3], bytes.into_iter().map(|byte| f32::from(byte) / 255.0).collect())
    }

    /// The same at this width and height, by Lanczos' filter.
    pub fn at_size(&self, [width, height]: [usize; 2]) -> Self {
        let rgb = self.resized(Filter::Lanczos, [width, height]);
        Self { width, height, rgb, parameters: None }
    }

    /// Its pixels at this width and height, each side resized by itself: Pillow's bytes.
    pub fn resized(&self, filter: Filter, to: [usize; 2]) -> Vec<u8> {
        resize::resize(filter, &self.rgb, [self.width, self.height], to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_clamped_and_rounded_half_to_even() {
        let x = [-3.0, -1.0, 0.0, 1.0, 3.0, 2.0 / 255.0 - 1.0, 1.0 / 255.0 - 1.0];
        assert_eq!(to_rgb8(&Tensor::new([1, 1, 1, 7], x.to_vec())), [0, 0, 128, 255, 255, 1, 0]);
    }

    #[test]
    fn a_picture_is_read_back() {
        let rgb: Vec<u8> = (0..3 * 5 * 2).map(|i| i * 8).collect();
        let file = encode_png(5, 2, &rgb, "a\nb").unwrap();
        let picture = decode("a.png", &file).unwrap();
        assert_eq!(picture, Picture { width: 5, height: 2, rgb, parameters: Some("a\nb".into()) });
    }

    #[test]
    fn text_is_latin1_where_it_can_be() {
        let chunk = |text: &str| {
            let file = encode_png(1, 1, &[0; 3], text).unwrap();
            assert_eq!(decode("a.png", &file).unwrap().parameters.as_deref(), Some(text));
            file.windows(4).find_map(|name| [*b"tEXt", *b"iTXt"].into_iter().find(|kind| kind == name)).unwrap()
        };
        assert_eq!(chunk("café"), *b"tEXt");
        assert_eq!(chunk("日本 🐱"), *b"iTXt");
    }

    #[test]
    fn a_size_that_is_not_that_of_the_pixels_is_an_error() {
        assert!(encode_png(2, 2, &[0; 11], "").is_err());
        assert!(encode_png(0, 2, &[], "").is_err());
    }
}
