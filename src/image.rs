//! Pictures at the files' border: pixels to PNG and back, with the parameters that made them.
//!
//! The parameters stand in a text chunk `parameters`, written as AUTOMATIC1111's web UI writes it and as other programs
//! read it: `tEXt` where the text is Latin-1, else `iTXt`, which is what Python's `PIL.PngImagePlugin.PngInfo` does.
//!
//! Floor 3: may import `graph`, `ops` and floor 0.

mod decode;
mod resize;

use std::fmt;

use crate::error::{Error, Result};
use crate::tensor::Tensor;
pub use decode::decode_png;

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
        let bytes = resize::resize(&self.rgb, [self.width, self.height], [width, height]);
        Tensor::new([1, height, width, 3], bytes.into_iter().map(|byte| f32::from(byte) / 255.0).collect())
    }
}

/// What made a picture, as the `parameters` chunk tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters<'a> {
    /// What to draw.
    pub prompt: &'a str,
    /// What not to draw; may be empty.
    pub negative: &'a str,
    /// Denoising steps.
    pub steps: usize,
    /// By its name in the web UI.
    pub sampler: &'a str,
    /// How closely the prompt is followed; the web UI's "CFG scale".
    pub guidance: f32,
    /// How the steps are spread, if not as the model has it.
    pub spacing: Option<&'a str>,
    /// What the network predicts, if not what the model says.
    pub prediction: Option<&'a str>,
    /// The share of fresh noise, for samplers with that choice.
    pub eta: Option<f64>,
    /// Of the picture's noise.
    pub seed: u64,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// The name of the model's file or folder.
    pub model: &'a str,
    /// Which of the text encoder's layers from the end is used, if not the model's.
    pub clip_skip: Option<usize>,
    /// Whether brackets in the prompts are weights.
    pub emphasis: bool,
    /// The generator of the noise, by the web UI's name.
    pub rng: &'a str,
    /// The ControlNets, in order.
    pub controls: Vec<ControlParameters>,
}

/// One ControlNet of [`Parameters`].
#[derive(Debug, Clone, PartialEq)]
pub struct ControlParameters {
    /// The name of its file or folder.
    pub model: String,
    /// What its outputs are multiplied with.
    pub scale: f32,
    /// Where the part of the steps in which it guides begins, from 0 to 1.
    pub start: f64,
    /// Where that part ends, from 0 to 1.
    pub end: f64,
}

impl fmt::Display for ControlParameters {
    /// As the web UI's ControlNet extension has it, of a picture that is given as the network sees it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, scale, start, end } = self;
        write!(f, "Module: none, Model: {model}, Weight: {scale:?}, Resize Mode: Just Resize, ")?;
        write!(f, "Guidance Start: {start:?}, Guidance End: {end:?}")
    }
}

impl fmt::Display for Parameters<'_> {
    /// The prompt, a line for the negative prompt if there is one, and one line of `key: value`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prompt = self.prompt.trim();
        if !prompt.is_empty() {
            writeln!(f, "{prompt}")?;
        }
        let negative = self.negative.trim();
        if !negative.is_empty() {
            writeln!(f, "Negative prompt: {negative}")?;
        }
        let Self { steps, sampler, guidance, seed, width, height, .. } = self;
        write!(f, "Steps: {steps}, Sampler: {sampler}, CFG scale: {guidance}, Seed: {seed}, Size: {width}x{height}, ")?;
        write!(f, "Model: {}, ", quoted(self.model))?;
        if let Some(skip) = self.clip_skip {
            write!(f, "Clip skip: {skip}, ")?;
        }
        if let Some(spacing) = self.spacing {
            write!(f, "Timestep spacing: {spacing}, ")?;
        }
        if let Some(prediction) = self.prediction {
            write!(f, "Prediction: {prediction}, ")?;
        }
        if let Some(eta) = self.eta {
            write!(f, "{}: {eta}, ", if self.sampler == "DDIM" { "Eta DDIM" } else { "Eta" })?;
        }
        // The web UI reads brackets as weights unless it is told not to.
        if !self.emphasis && [prompt, negative].iter().any(|text| text.contains(['(', '['])) {
            f.write_str("Emphasis: None, ")?;
        }
        write!(f, "RNG: {}, ", self.rng)?;
        for (index, control) in self.controls.iter().enumerate() {
            write!(f, "ControlNet {index}: {}, ", quoted(&control.to_string()))?;
        }
        write!(f, "Version: ornstein {}", env!("CARGO_PKG_VERSION"))
    }
}

/// A value that would break the line is written as a JSON string.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) { serde_json::Value::from(value).to_string() } else { value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Parameters<'static> {
        Parameters {
            prompt: "a red circle",
            negative: "",
            steps: 25,
            sampler: "DDIM",
            guidance: 4.0,
            spacing: None,
            prediction: None,
            eta: None,
            seed: 7,
            width: 64,
            height: 64,
            model: "shapes",
            clip_skip: None,
            emphasis: false,
            rng: "CPU",
            controls: Vec::new(),
        }
    }

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

    #[test]
    fn parameters_tell_how_the_prompt_was_read() {
        let text = Parameters { clip_skip: Some(2), rng: "NV", ..parameters() }.to_string();
        assert!(text.contains("Model: shapes, Clip skip: 2, RNG: NV, Version"), "{text}");
        let brackets = |emphasis| Parameters { prompt: "(a)", emphasis, ..parameters() }.to_string();
        assert!(brackets(false).contains("Emphasis: None, RNG: CPU"), "{}", brackets(false));
        assert!(!brackets(true).contains("Emphasis"), "{}", brackets(true));
    }

    #[test]
    fn what_replaces_the_models_schedule_is_told() {
        let text = |sampler| {
            Parameters { sampler, eta: Some(0.3), spacing: Some("trailing"), prediction: Some("v"), ..parameters() }
                .to_string()
        };
        assert!(
            text("DDIM").contains("Model: shapes, Timestep spacing: trailing, Prediction: v, Eta DDIM: 0.3, RNG"),
            "{}",
            text("DDIM")
        );
        assert!(text("TCD").contains("Sampler: TCD,") && text("TCD").contains(" Eta: 0.3,"), "{}", text("TCD"));
    }

    #[test]
    fn controlnets_are_in_the_web_uis_form() {
        let control = |model: &str| ControlParameters { model: model.into(), scale: 0.8, start: 0.0, end: 0.5 };
        let text = Parameters { controls: vec![control("canny"), control("depth")], ..parameters() }.to_string();
        let said = r#"ControlNet 1: "Module: none, Model: depth, Weight: 0.8, Resize Mode: Just Resize, Guidance Start: 0.0, Guidance End: 0.5", Version"#;
        assert!(text.contains(said) && text.contains("ControlNet 0: \"Module: none, Model: canny"), "{text}");
    }

    #[test]
    fn parameters_are_in_the_web_uis_form() {
        let line = concat!(
            "Steps: 25, Sampler: DDIM, CFG scale: 4, Seed: 7, Size: 64x64, Model: shapes, RNG: CPU, Version: ornstein ",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(parameters().to_string(), format!("a red circle\n{line}"));
        assert_eq!(Parameters { prompt: " ", ..parameters() }.to_string(), line);
        let text = Parameters { negative: "blurry", guidance: 7.5, model: "a, b", ..parameters() }.to_string();
        assert!(text.starts_with("a red circle\nNegative prompt: blurry\nSteps: 25,"), "{text}");
        assert!(text.contains("CFG scale: 7.5") && text.contains(r#"Model: "a, b""#), "{text}");
    }
}
