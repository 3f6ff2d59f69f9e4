//! A picture read, from whomever it comes: nothing is allocated by a number that the file does not bear out.

use std::fmt;
use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{KEYWORD, Picture, exif};
use crate::error::{Error, Result};

/// In bytes, as RGB with transparency: 8192 x 8192 pixels.
const MOST: u64 = 1 << 28;

/// Reads a PNG, JPEG or WebP of any colour type as RGB; `place` is what an error calls it. As with Pillow and
/// diffusers, transparency is left out, of 16 bits the upper 8 count, and a picture is turned as its EXIF says.
///
/// # Errors
/// What is not such a file, or so large that the header must be wrong or the memory is not to be filled with it.
pub fn decode(place: &str, file: &[u8]) -> Result<Picture> {
    let format = image::guess_format(file).ok();
    let name = match format {
        Some(ImageFormat::Png) => "PNG",
        Some(ImageFormat::Jpeg) => "JPEG",
        Some(ImageFormat::WebP) => "WebP",
        other => {
            let ending = other.and_then(|other| other.extensions_str().first()).map(|name| name.to_uppercase());
            let what = ending.map_or("is not a picture".into(), |ending| format!("is a {ending} picture"));
            return Err(Error::file(place, format!("{what}; give a PNG, JPEG or WebP file")));
        }
    };
    let fail = |error: &dyn fmt::Display| Error::file(place, format!("cannot be read as {name}: {error}"));
    let mut parameters = None;
    if name == "PNG" {
        let mut reader = png::Decoder::new(Cursor::new(file)).read_info().map_err(|error| fail(&error))?;
        check(reader.info(), file.len()).map_err(|what| Error::file(place, what))?;
        parameters = reader.finish().and_then(|()| read_parameters(reader.info())).map_err(|error| fail(&error))?;
    }
    let mut reader = ImageReader::new(Cursor::new(file));
    reader.set_format(format.unwrap_or(ImageFormat::Png));
    let mut decoder = reader.into_decoder().map_err(|error| fail(&error))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, 4).map_err(|what| Error::file(place, what))?;
    // EXIF that cannot be read is as good as none.
    let orientation = decoder.orientation().ok();
    let block = decoder.exif_metadata().ok().flatten();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| fail(&error))?;
    orientation.into_iter().for_each(|orientation| picture.apply_orientation(orientation));
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    parameters = parameters.or_else(|| block.and_then(exif::comment));
    Ok(Picture { width, height, rgb: rgb8(picture), parameters })
}

fn rgb8(picture: DynamicImage) -> Vec<u8> {
    match picture.color().bytes_per_pixel() / picture.color().channel_count() {
        1 => picture.into_rgb8().into_raw(),
        _ => picture.into_rgb16().into_raw().into_iter().map(|value| (value >> 8) as u8).collect(),
    }
}

/// Checks that `width * height` pixels of `bytes` each stay below [`MOST`].
fn check_size(width: u32, height: u32, bytes: usize) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels.saturating_mul(bytes as u64) > MOST {
        return Err(format!("is a picture of {width}x{height} pixels, which is too large; make it smaller"));
    }
    Ok(())
}

/// Whether a header tells of what its decoder can make room for, and reads without a panic; an error says why not.
fn check(info: &png::Info, file: usize) -> Result<(), String> {
    // Deflate makes no more of one byte.
    const EXPANSION: usize = 1032;
    let png::Info { width, height, .. } = *info;
    check_size(width, height, info.bytes_per_pixel().max(4))?;
    if info.raw_bytes() > file.saturating_mul(EXPANSION) {
        return Err(format!("is damaged: its {file} bytes cannot hold the {width}x{height} pixels it tells of"));
    }
    let colours = info.palette.as_ref().map_or(0, |palette| palette.len());
    let transparent = info.trns.as_ref().map_or(0, |trns| trns.len());
    if info.color_type == png::ColorType::Indexed && (!colours.is_multiple_of(3) || 3 * transparent > colours) {
        return Err("is damaged: its palette is not one of whole colours".into());
    }
    Ok(())
}

fn read_parameters(info: &png::Info) -> Result<Option<String>, png::DecodingError> {
    if let Some(text) = info.uncompressed_latin1_text.iter().find(|text| text.keyword == KEYWORD) {
        return Ok(Some(text.text.clone()));
    }
    let Some(text) = info.utf8_text.iter().find(|text| text.keyword == KEYWORD) else { return Ok(None) };
    let mut text = text.clone();
    // This first: it stops at 2 MiB, however much the chunk would unpack to.
    text.decompress_text()?;
    text.get_text().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::encode_png;

    /// A PNG of one pixel whose header tells of another size.
    fn of_size(width: u32, height: u32) -> Vec<u8> {
        let mut file = encode_png(1, 1, &[0; 3], "").unwrap();
        file[16..24].copy_from_slice(&[width.to_be_bytes(), height.to_be_bytes()].concat());
        let mut crc = flate2::Crc::new();
        crc.update(&file[12..29]);
        file[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        file
    }

    #[test]
    fn a_size_that_the_file_does_not_bear_out_is_refused() {
        let message = |width, height| decode("a.png", &of_size(width, height)).unwrap_err().to_string();
        assert!(message(1000, 1000).contains("bytes cannot hold the 1000x1000 pixels"), "{}", message(1000, 1000));
        for [width, height] in [[8193, 8192], [1, u32::MAX >> 1]] {
            assert!(message(width, height).contains("too large"), "{}", message(width, height));
        }
        assert!(message(u32::MAX >> 1, u32::MAX >> 1).contains("limits are exceeded"));
        assert!(decode("a.png", &of_size(1, 1)).is_ok());
    }

    #[test]
    fn parameters_that_unpack_to_more_than_a_file_would_hold_are_an_error() {
        let mut info = png::Info::with_size(1, 1);
        info.color_type = png::ColorType::Rgb;
        info.bit_depth = png::BitDepth::Eight;
        let mut text = png::text_metadata::ITXtChunk::new(KEYWORD, "a".repeat(3 << 20));
        text.compressed = true;
        text.compress_text().unwrap();
        info.utf8_text.push(text);
        let mut file = Vec::new();
        let mut writer = png::Encoder::with_info(&mut file, info).unwrap().write_header().unwrap();
        writer.write_image_data(&[0; 3]).unwrap();
        writer.finish().unwrap();
        let error = decode("a.png", &file).unwrap_err().to_string();
        assert!(error.starts_with("a.png: cannot be read as PNG"), "{error}");
    }

    #[test]
    fn another_format_is_named() {
        let message = |file: &[u8]| decode("a.png", file).unwrap_err().to_string();
        assert_eq!(message(b"GIF89a"), "a.png: is a GIF picture; give a PNG, JPEG or WebP file");
        assert_eq!(message(b"text"), "a.png: is not a picture; give a PNG, JPEG or WebP file");
    }

    #[test]
    fn a_palette_of_no_whole_colours_is_refused() {
        let file = |palette: usize, transparent: usize| {
            let mut info = png::Info::with_size(1, 1);
            info.color_type = png::ColorType::Indexed;
            info.bit_depth = png::BitDepth::Eight;
            info.palette = Some(vec![0; palette].into());
            info.trns = Some(vec![0; transparent].into());
            let mut file = Vec::new();
            let mut writer = png::Encoder::with_info(&mut file, info).unwrap().write_header().unwrap();
            writer.write_image_data(&[0]).unwrap();
            writer.finish().unwrap();
            decode("a.png", &file).map_err(|error| error.to_string())
        };
        for (palette, transparent) in [(4, 0), (3, 2)] {
            let error = file(palette, transparent).unwrap_err();
            assert!(error.starts_with("a.png: is damaged: its palette"), "{error}");
        }
        assert_eq!(file(6, 1).unwrap().rgb, [0; 3]);
    }
}
