//! What is asked of a system, as plain values.

use crate::conditioning;
use crate::error::{Error, Field, Remedy, Result};
use crate::image::Picture;
use crate::rng;
use crate::samplers::Sigmas;
use crate::tensor::Tensor;
use crate::weights::Lora;

/// What to draw. Absent values are the model's defaults.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to draw.
    pub prompt: String,
    /// The prompt as the picture's parameters show it, if not as it is: with tags for LoRA files.
    pub shown_prompt: Option<String>,
    /// `None` is not the same as empty: SDXL then leaves its unconditional embedding zero.
    pub negative: Option<String>,
    /// How both are read and encoded.
    pub conditioning: conditioning::Options,
    /// Pixels, a multiple of the autoencoder's factor.
    pub width: Option<usize>,
    /// Pixels, a multiple of the autoencoder's factor.
    pub height: Option<usize>,
    /// Denoising steps, at least 1.
    pub steps: Option<usize>,
    /// How closely to follow the prompt; 1 or less skips the unconditional pass, unless the sampler steps from that.
    pub guidance: Option<f32>,
    /// How far the guided prediction's spread goes back to that of the prompt's, from 0, not at all, to 1 (diffusers'
    /// `guidance_rescale`): models that start from pure noise draw too bright and too dark without it.
    pub guidance_rescale: Option<f32>,
    /// One of [`samplers::names`](crate::samplers::names), or what else [`called`](crate::samplers::called) takes.
    pub sampler: Option<String>,
    /// [`samplers::Config::with_spacing`](crate::samplers::Config::with_spacing)
    pub spacing: Option<String>,
    /// [`samplers::Config::with_sigmas`](crate::samplers::Config::with_sigmas)
    pub sigmas: Option<Sigmas>,
    /// [`samplers::Config::with_prediction`](crate::samplers::Config::with_prediction)
    pub prediction: Option<String>,
    /// [`samplers::Config::with_eta`](crate::samplers::Config::with_eta)
    pub eta: Option<f64>,
    /// Which of the classes that a network knows is drawn, from 0.
    pub class: Option<usize>,
    /// A picture that the system starts from or works on.
    pub init_image: Option<Picture>,
    /// Which share of the noise the picture that is started from gets, from 0 to 1: 1 leaves nothing of it.
    pub strength: Option<f64>,
    /// What of that picture is drawn anew: white is, black is kept. Resized to the picture.
    pub mask: Option<Picture>,
    /// How far the mask's edge fades, as a deviation in pixels. With it, what the mask keeps is the given picture's to
    /// the bit; without, it comes from the autoencoder.
    pub mask_blur: Option<f32>,
    /// Whether black is drawn anew, and white kept.
    pub mask_invert: bool,
    /// Draws the masked region alone, with this many of the picture's pixels around it, at the size that is drawn, and
    /// puts it back.
    pub inpaint_full_res: Option<usize>,
    /// Pixels that the picture gets more, which are drawn: to the left, above, to the right and below.
    pub extend: Option<[usize; 4]>,
    /// A second run that starts from what was drawn, enlarged.
    pub hires: Option<Hires>,
    /// Other noise that the first is mixed with.
    pub variation: Option<Variation>,
    /// How closely to keep to the given picture; 1 or less skips the pass without it.
    pub image_guidance: Option<f32>,
    /// The training step whose noise the given picture gets.
    pub noise_level: Option<usize>,
    /// Which share of the noise is gone when the refiner takes over, from 0 to 1.
    pub refiner_start: Option<f64>,
    /// Seed of the first picture; the others count up.
    pub seed: u64,
    /// Which generator the noise is of: the latents', and a stochastic sampler's, which goes on drawing from it.
    pub rng: rng::NoiseSource,
    /// Number of pictures, at least 1.
    pub batch: usize,
    /// Files whose changes are added to the weights.
    pub loras: Vec<Lora>,
    /// `[batch, channels, height, width]` in latent pixels, unit variance: used instead of seeded noise.
    pub init_latents: Option<Tensor>,
    /// One for each of [`Studio::with_controls`](super::Studio::with_controls), in the same order.
    pub controls: Vec<Control>,
    /// Whether every node's output is checked, as [`Network::checked`](crate::network::Network::checked) tells:
    /// slower, the same picture.
    pub check: bool,
}

impl Default for Request {
    /// One picture without a prompt, by the model's defaults.
    fn default() -> Self {
        Self {
            prompt: String::new(),
            shown_prompt: None,
            negative: None,
            conditioning: conditioning::Options::default(),
            width: None,
            height: None,
            steps: None,
            guidance: None,
            guidance_rescale: None,
            sampler: None,
            spacing: None,
            sigmas: None,
            prediction: None,
            eta: None,
            class: None,
            init_image: None,
            strength: None,
            mask: None,
            mask_blur: None,
            mask_invert: false,
            inpaint_full_res: None,
            extend: None,
            hires: None,
            variation: None,
            image_guidance: None,
            noise_level: None,
            refiner_start: None,
            seed: 0,
            rng: rng::NoiseSource::default(),
            batch: 1,
            loras: Vec::new(),
            init_latents: None,
            controls: Vec::new(),
            check: false,
        }
    }
}

impl Request {
    /// The fields that are set, of those that not every system takes.
    pub fn given(&self) -> impl Iterator<Item = Field> {
        [
            (Field::Prompt, !self.prompt.is_empty()),
            (Field::Negative, self.negative.is_some()),
            (Field::Width, self.width.is_some()),
            (Field::Height, self.height.is_some()),
            (Field::Steps, self.steps.is_some()),
            (Field::Guidance, self.guidance.is_some()),
            (Field::GuidanceRescale, self.guidance_rescale.is_some()),
            (Field::Sampler, self.sampler.is_some()),
            (Field::Spacing, self.spacing.is_some()),
            (Field::Schedule, self.sigmas.is_some()),
            (Field::Prediction, self.prediction.is_some()),
            (Field::Eta, self.eta.is_some()),
            (Field::Class, self.class.is_some()),
            (Field::InitImage, self.init_image.is_some()),
            (Field::Strength, self.strength.is_some()),
            (Field::Mask, self.mask.is_some()),
            (Field::MaskBlur, self.mask_blur.is_some()),
            (Field::MaskInvert, self.mask_invert),
            (Field::InpaintFullRes, self.inpaint_full_res.is_some()),
            (Field::Extend, self.extend.is_some()),
            (Field::Hires, self.hires.is_some()),
            (Field::VariationStrength, self.variation.is_some()),
            (Field::ImageGuidance, self.image_guidance.is_some()),
            (Field::NoiseLevel, self.noise_level.is_some()),
            (Field::RefinerStart, self.refiner_start.is_some()),
            (Field::ClipSkip, self.conditioning.clip_skip.is_some()),
            (Field::Lora, !self.loras.is_empty()),
            (Field::Control, !self.controls.is_empty()),
            (Field::InitLatents, self.init_latents.is_some()),
        ]
        .into_iter()
        .filter_map(|(field, is_set)| is_set.then_some(field))
    }
}

/// A second run that starts from an enlarged picture (the web UI's "Hires. fix").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hires {
    /// How often the picture's sides are longer, more than 1.
    pub scale: f64,
    /// Which share of the noise the enlarged picture gets, from 0 to 1, as [`Request::strength`].
    pub strength: f64,
    /// How it is enlarged.
    pub mode: HiresMode,
}

impl Default for Hires {
    /// Twice as long sides, by the web UI's share of the noise.
    fn default() -> Self {
        Self { scale: 2.0, strength: 0.7, mode: HiresMode::default() }
    }
}

/// How a picture is enlarged between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HiresMode {
    /// Its latents, linearly between their centres (`torch.nn.functional.interpolate`, `mode="bilinear"`).
    #[default]
    Latent,
    /// Its pixels, by Lanczos' filter: it is decoded, and encoded again.
    Lanczos,
}

/// Noise that is mixed with the first noise along the arc between the two, as the web UI does it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variation {
    /// Its seed for the first picture, which counts up in a batch while [`Request::seed`] stays.
    pub seed: u64,
    /// Its share, from 0 to 1.
    pub strength: f64,
}

impl Request {
    /// The seed of this picture of the batch.
    pub fn seed_of(&self, index: usize) -> u64 {
        if self.variation.is_some() { self.seed } else { self.seed.wrapping_add(index as u64) }
    }

    /// The seed of this picture's variation, and its share.
    pub fn variation_of(&self, index: usize) -> Option<Variation> {
        let counted = |variation: Variation| Variation { seed: variation.seed.wrapping_add(index as u64), ..variation };
        self.variation.map(counted)
    }
}

/// How one ControlNet guides a request's pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// What it is shown, for all pictures and all texts the same.
    pub image: Picture,
    /// What its residuals are multiplied by; 1 is what it was trained for.
    pub scale: f32,
    /// The part of the steps in which it guides, from 0 to 1 (diffusers' `control_guidance_start` and `_end`).
    pub start: f64,
    /// Where that part ends.
    pub end: f64,
}

impl Control {
    /// Its scale at evaluation `index` of `evaluations`: 0 outside the part that it guides, as in diffusers.
    pub(super) fn scale_at(&self, index: usize, evaluations: usize) -> f32 {
        let share = |index: usize| index as f64 / evaluations as f64;
        if share(index) < self.start || share(index + 1) > self.end { 0.0 } else { self.scale }
    }

    /// # Errors
    /// If its scale is not a number or its part of the steps is not one.
    pub(super) fn check(&self) -> Result<()> {
        let Self { scale, start, end, .. } = self;
        if !scale.is_finite() {
            return Err(Error::usage(format!("{scale} is not a finite number")).of(Field::ControlScale));
        }
        if !(0.0 <= *start && start < end && *end <= 1.0) {
            let what = format!("{start}, up to {end}: expected 0 <= start < end <= 1");
            let ends = [Field::ControlStart, Field::ControlEnd].map(Remedy::Other);
            return Err(Error::usage(what).of(Field::ControlStart).remedies(ends));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(start: f64, end: f64) -> Control {
        let image = Picture { width: 1, height: 1, rgb: vec![0; 3], parameters: None };
        Control { image, scale: 0.5, start, end }
    }

    #[test]
    fn a_control_guides_in_its_part_of_the_steps() {
        let scales = |start, end| (0..4).map(|at| control(start, end).scale_at(at, 4)).collect::<Vec<_>>();
        assert_eq!(scales(0.0, 1.0), [0.5; 4]);
        assert_eq!(scales(0.25, 1.0), [0.0, 0.5, 0.5, 0.5]);
        assert_eq!(scales(0.0, 0.5), [0.5, 0.5, 0.0, 0.0]);
        assert_eq!(scales(0.3, 0.9), [0.0, 0.0, 0.5, 0.0]);
    }

    #[test]
    fn a_part_of_no_steps_is_refused() {
        for (start, end) in [(0.5, 0.5), (0.7, 0.2), (-0.1, 1.0), (0.0, 1.1), (f64::NAN, 1.0)] {
            let error = control(start, end).check().unwrap_err().to_string();
            assert!(error.contains("control start") && error.contains("expected 0 <= start"), "{error}");
        }
        assert!(Control { scale: f32::NAN, ..control(0.0, 1.0) }.check().is_err());
    }
}
