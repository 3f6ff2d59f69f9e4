//! Pictures at the files' border: pixels to PNG and back, with the parameters that made them.
//!
//! The parameters stand in a text chunk `parameters`, written as AUTOMATIC1111's web UI writes it and as other
//! programs read it: `tEXt` where the text is Latin-1, else `iTXt`, which is what Python's
//! `PIL.PngImagePlugin.PngInfo` does.
//!
//! Floor 3: may import `graph`, `ops` and floor 0.

mod decode;
mod resize;

use crate::error::{Error, Result};
use crate::tensor::Tensor;
pub use decode::decode_png;
pub use resize::Filter;

const KEYWORD: &str = "parameters";

/// Pixel values in [-1, 1], channels last, to bytes: clamped, and rounded half to even.
///
/// Source: diffusers `VaeImageProcessor.denormalize` and `numpy_to_pil`, step for step in f32.
pub fn to_rgb8(pixels: &Tensor) -> Vec<u8> {
    pixels.data.iter().map(|x| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8).collect()
}

/// A PNG of `width * height` RGB pixels, rows from the top.
///
/// # Errors
/// A size of 0, or one that is not that of `rgb`.
pub fn encode_png(width: usize, height: usize, rgb: &[u8], parameters: &str) -> Result<Vec<u8>> {
    let size = |n: usize| u32::try_from(n).map_err(|_| Error::shape(format!("a PNG cannot be {width}x{height}")));
    let mut info = png::Info::with_size(size(width)?, size(height)?);
    info.color_type = png::ColorType::Rgb;
    info.bit_depth = png::BitDepth::Eight;
    // A zero byte ends a text chunk.
    let parameters = parameters.replace('\0', "");
    if parameters.chars().all(|c| u32::from(c) < 256) {
        info.uncompressed_latin1_text.push(png::text_metadata::TEXtChunk::new(KEYWORD, parameters));
    } else {
        info.utf8_text.push(png::text_metadata::ITXtChunk::new(KEYWORD, parameters));
    }
    let mut file = Vec::new();
    let write = |file: &mut Vec<u8>| -> Result<(), png::EncodingError> {
        let mut writer = png::Encoder::with_info(file, info)?.write_header()?;
        writer.write_image_data(rgb)?;
        writer.finish()
    };
    write(&mut file).map_err(|error| Error::shape(format!("no PNG of {width}x{height}: {error}")))?;
    Ok(file)
}

/// A picture that was drawn, or read from a PNG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Rows from the top, three bytes a pixel.
    pub rgb: Vec<u8>,
    /// What made it, as [`Parameters`] has it: the text chunk, if there is one.
    pub parameters: Option<String>,
}

impl Picture {
    /// The picture as a PNG file, with its parameters in the text chunk.
    ///
    /// # Errors
    /// As [`encode_png`].
    pub fn to_png(&self) -> Result<Vec<u8>> {
        encode_png(self.width, self.height, &self.rgb, self.parameters.as_deref().unwrap_or_default())
    }

    /// Its pixels from 0 to 1, `[1, height, width, 3]`. A picture of another size is resized, each side by itself, as
    /// diffusers' `VaeImageProcessor` does by default: with Lanczos' filter.
    pub fn to_tensor(&self, width: usize, height: usize) -> Tensor {
        let bytes = self.resized(Filter::Lanczos, [width, height]);
        Tensor::new([1, height, width, 3], bytes.into_iter().map(|byte| f32::from(byte) / 255.0).collect())
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
        let picture = decode_png("a.png", &file).unwrap();
        assert_eq!(picture, Picture { width: 5, height: 2, rgb, parameters: Some("a\nb".into()) });
    }

    #[test]
    fn text_is_latin1_where_it_can_be() {
        let chunk = |text: &str| {
            let file = encode_png(1, 1, &[0; 3], text).unwrap();
            assert_eq!(decode_png("a.png", &file).unwrap().parameters.as_deref(), Some(text));
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
