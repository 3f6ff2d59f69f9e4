//! A picture as CLIP sees it: transformers' `CLIPImageProcessor`, by its `preprocessor_config.json`.

use serde::Deserialize;

use super::Picture;
use super::resize::Filter;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What is done with a picture before an encoder sees it. What a file does not say is CLIP's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessor {
    /// Of the picture before it is cut: a shortest side, or width and height.
    size: Option<Size>,
    filter: Filter,
    /// Width and height of what is kept from the middle.
    crop: Option<[usize; 2]>,
    /// What bytes are multiplied by.
    scale: f64,
    /// Mean and deviation of each colour.
    normal: [[f32; 3]; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
enum Size {
    Sides { width: usize, height: usize },
    Shortest { shortest_edge: usize },
    Number(usize),
}

/// The keys that change a picture.
#[derive(Deserialize)]
#[serde(default)]
struct Keys {
    do_resize: bool,
    size: Size,
    resample: u8,
    do_center_crop: bool,
    crop_size: Size,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    do_pad: Option<bool>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            do_resize: true,
            size: Size::Shortest { shortest_edge: 224 },
            resample: 3,
            do_center_crop: true,
            crop_size: Size::Number(224),
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            do_pad: None,
        }
    }
}

/// No encoder sees more pixels to a side; larger numbers are a mistake.
const LARGEST: usize = 1 << 12;

impl Preprocessor {
    /// Reads a `preprocessor_config.json`; `place` is what error messages call it.
    ///
    /// # Errors
    /// If it is not a JSON object, or asks for what is not built; the message names the key and the value.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let fail = |what: String| Error::config(place, what);
        let keys: Keys = serde_json::from_str(text).map_err(|error| fail(format!("cannot be understood: {error}")))?;
        let filter = match keys.resample {
            1 => Filter::Lanczos,
            3 => Filter::Bicubic,
            other => return Err(fail(format!("resample is {other}, supported: 1 (Lanczos), 3 (bicubic)"))),
        };
        if keys.do_pad == Some(true) {
            return Err(fail("do_pad is true, supported: false".into()));
        }
        let crop = match keys.crop_size {
            Size::Sides { width, height } => [width, height],
            Size::Number(side) | Size::Shortest { shortest_edge: side } => [side; 2],
        };
        let size = match keys.size {
            Size::Number(shortest_edge) => Size::Shortest { shortest_edge },
            size => size,
        };
        let sides = match size {
            Size::Sides { width, height } => [width, height],
            Size::Shortest { shortest_edge: side } | Size::Number(side) => [side; 2],
        };
        if [crop, sides].concat().iter().any(|side| !(1..=LARGEST).contains(side)) {
            return Err(fail(format!("size {sides:?} and crop_size {crop:?} should be from 1 to {LARGEST}")));
        }
        let numbers = [keys.image_mean, keys.image_std].concat();
        if numbers.iter().any(|number| !number.is_finite()) || keys.image_std.contains(&0.0) {
            return Err(fail(format!("image_mean and image_std are {numbers:?}: nothing can be divided by that")));
        }
        Ok(Self {
            size: keys.do_resize.then_some(size),
            filter,
            crop: keys.do_center_crop.then_some(crop),
            scale: if keys.do_rescale { keys.rescale_factor } else { 1.0 },
            normal: if keys.do_normalize { [keys.image_mean, keys.image_std] } else { [[0.0; 3], [1.0; 3]] },
        })
    }

    /// The picture as the encoder sees it: `[1, height, width, 3]`.
    ///
    /// # Errors
    /// If it is smaller than what is to be cut from it, or so much longer than wide that its pixels fit no memory.
    pub fn apply(&self, picture: &Picture) -> Result<Tensor> {
        let [width, height] = self.resized(picture)?;
        let [kept_width, kept_height] = self.crop.unwrap_or([width, height]);
        if kept_width > width || kept_height > height {
            let what =
                format!("{width}x{height} pixels are fewer than the {kept_width}x{kept_height} that are cut out");
            return Err(Error::shape(what));
        }
        let rgb = picture.resized(self.filter, [width, height]);
        let [left, top] = [(width - kept_width) / 2, (height - kept_height) / 2];
        let rows = rgb.chunks_exact(3 * width).skip(top).take(kept_height);
        let bytes = rows.flat_map(|row| &row[3 * left..][..3 * kept_width]);
        let [mean, deviation] = self.normal;
        let value = |(index, byte): (usize, &u8)| {
            let value = (f64::from(*byte) * self.scale) as f32;
            (value - mean[index % 3]) / deviation[index % 3]
        };
        Ok(Tensor::new([1, kept_height, kept_width, 3], bytes.enumerate().map(value).collect()))
    }

    /// Width and height of a picture before it is cut.
    fn resized(&self, picture: &Picture) -> Result<[usize; 2]> {
        const MOST: usize = 1 << 26;
        let Picture { width, height, .. } = *picture;
        let size = match self.size {
            None => [width, height],
            Some(Size::Sides { width, height }) => [width, height],
            Some(Size::Shortest { shortest_edge: short } | Size::Number(short)) => {
                let long = (short * width.max(height)) as f64 / width.min(height) as f64;
                if width <= height { [short, long as usize] } else { [long as usize, short] }
            }
        };
        if size[0].saturating_mul(size[1]) > MOST {
            let what = format!("a picture of {width}x{height} pixels is too long: cut it");
            return Err(Error::shape(what));
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        Preprocessor::from_json(text, "preprocessor_config.json").unwrap_err().to_string()
    }

    #[test]
    fn the_middle_is_kept_of_a_picture_whose_shortest_side_is_resized() {
        let text = r#"{"size": 2, "crop_size": {"height": 2, "width": 2}, "do_normalize": false}"#;
        let preprocessor = Preprocessor::from_json(text, "x").unwrap();
        let rgb: Vec<u8> = (0..2 * 6).flat_map(|pixel| [10 * (pixel % 6) as u8; 3]).collect();
        let picture = Picture { width: 6, height: 2, rgb, parameters: None };
        let kept = preprocessor.apply(&picture).unwrap();
        assert_eq!(kept.shape.dims(), [1, 2, 2, 3]);
        let bytes: Vec<f32> = kept.data.iter().step_by(3).map(|v| (v * 255.0).round()).collect();
        assert_eq!(bytes, [20.0, 30.0, 20.0, 30.0]);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert!(message(r#"{"resample": 0}"#).contains("resample is 0, supported: 1"));
        assert!(message(r#"{"do_pad": true}"#).contains("do_pad is true"));
        assert!(message(r#"{"size": {"longest_edge": 4}}"#).contains("cannot be understood"));
        assert!(message(r#"{"crop_size": 0}"#).contains("should be from 1 to 4096"));
        assert!(message(r#"{"image_std": [1, 0, 1]}"#).contains("image_std"));
    }
}
