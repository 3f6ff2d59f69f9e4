//! A picture as a file, with its parameters where readers look for them.

use std::path::Path;

use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::{KEYWORD, Picture, exif};
use crate::error::{Error, Result};

/// In what format a picture is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lossless; parameters in a text chunk.
    Png,
    /// By quality 95; parameters in EXIF's UserComment.
    Jpeg,
    /// Lossless; parameters in EXIF's UserComment.
    WebP,
}

/// JPEG's scale from 1 to 100.
const JPEG_QUALITY: u8 = 95;

impl Format {
    /// The format that the name of a file ends in, if it is one of these.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// The most pixels in a row or column.
    pub fn most(self) -> usize {
        match self {
            Self::Png => i32::MAX as usize,
            Self::Jpeg => u16::MAX.into(),
            Self::WebP => (1 << 14) - 1,
        }
    }
}

impl Picture {
    /// The picture as a file of this format, with its parameters.
    ///
    /// # Errors
    /// If it has no pixels, or more in a row or column than the format takes.
    pub fn to_file(&self, format: Format) -> Result<Vec<u8>> {
        let (width, height) = (self.width, self.height);
        let parameters = self.parameters.as_deref().unwrap_or_default();
        let mut file = Vec::new();
        let written = match format {
            Format::Png => return encode_png(width, height, &self.rgb, parameters),
            Format::Jpeg => self.write(JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY), parameters),
            Format::WebP => self.write(WebPEncoder::new_lossless(&mut file), parameters),
        };
        written.map_err(|error| Error::shape(format!("no {format:?} of {width}x{height}: {error}")))?;
        Ok(file)
    }

    /// The picture as a PNG file, with its parameters in the text chunk.
    ///
    /// # Errors
    /// As [`encode_png`].
    pub fn to_png(&self) -> Result<Vec<u8>> {
        self.to_file(Format::Png)
    }

    fn write(&self, mut encoder: impl ImageEncoder, parameters: &str) -> Result<(), Box<dyn std::error::Error>> {
        if !parameters.is_empty() {
            encoder.set_exif_metadata(exif::with_comment(parameters)?)?;
        }
        let [width, height] = [self.width, self.height].map(u32::try_from);
        Ok(encoder.write_image(&self.rgb, width?, height?, ExtendedColorType::Rgb8)?)
    }
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
    if parameters.is_empty() {
        // There is nothing to keep.
    } else if parameters.chars().all(|c| u32::from(c) < 256) {
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
