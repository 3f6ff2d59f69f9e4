//! A picture that is enlarged (diffusers' `StableDiffusionUpscalePipeline`, the cascade's last stage of Rombach et al.
//! 2022): the UNet sees its pixels next to the latents, under noise of a level that it is given.

use super::index;
use super::picture::{Batch, Decided, Reading, Show, Shown, Use, needed};
use crate::error::{Error, Field, Remedy, Result};
use crate::image::Filter;
use crate::models::unet;
use crate::samplers;
use crate::systems::denoise::Start;
use crate::systems::encode::Encoder;
use crate::systems::kit::Kit;
use crate::systems::noise::noise_of;
use crate::systems::request::Request;
use crate::tensor::Tensor;
use crate::weights::Model;

/// diffusers' default of `noise_level`.
const NOISE_LEVEL: usize = 20;
/// diffusers' default of `max_noise_level` in `model_index.json`.
const MOST_NOISE: u64 = 350;

/// The noise that the picture gets.
pub(super) struct Upscaler {
    /// The model's `low_res_scheduler`.
    schedule: samplers::Config,
    /// The highest level.
    most: usize,
    /// Whether the UNet is given the level.
    told: bool,
}

impl Upscaler {
    /// # Errors
    /// If the model does not say which noise, or not how much of it at most.
    pub fn open(model: &Model, unet: &unet::Config) -> Result<Self> {
        let path = "low_res_scheduler/scheduler_config.json";
        let place = model.path(path).display().to_string();
        let schedule = samplers::Config::from_json(&model.text(path)?, &place)?;
        let said = index(model)?["max_noise_level"].as_u64().unwrap_or(MOST_NOISE);
        let known = unet.classes.map_or(usize::MAX, |classes| classes - 1);
        let most = known.min(usize::try_from(said).unwrap_or(usize::MAX));
        Ok(Self { schedule, most, told: unet.classes.is_some() })
    }

    /// The request's level, and what the picture and its noise are multiplied by.
    fn level(&self, request: &Request) -> Result<(usize, (f32, f32))> {
        let (level, most) = (request.noise_level.unwrap_or(NOISE_LEVEL.min(self.most)), self.most);
        if level <= most {
            return Ok((level, self.schedule.noise_level(level)?));
        }
        let what = format!("{level} is more than this model's most, {most}");
        Err(Error::usage(what).of(Field::NoiseLevel).remedies([Remedy::set(Field::NoiseLevel, most)]))
    }
}

impl Use for Upscaler {
    fn decide(&self, request: &Request, factor: usize, _: bool) -> Result<Decided> {
        let picture = needed(request, factor)?;
        self.level(request)?;
        let size = [picture.height, picture.width].map(|side| (side - side % factor) * factor);
        Ok(Decided { size: Some(size), ..Decided::default() })
    }

    fn read<'a, 's: 'a>(&'s self, kit: &'a mut Kit<'_>, encoder: Encoder<'s>) -> Reading<'a, 's> {
        Box::pin(async move {
            let factor = encoder.vae.factor();
            let [height, width] = [kit.settings.height, kit.settings.width].map(|side| side / factor);
            let bytes = needed(kit.request, factor)?.resized(Filter::Bicubic, [width, height]);
            let pixels: Vec<_> = bytes.into_iter().map(|byte| 2.0 * (f32::from(byte) / 255.0) - 1.0).collect();
            let (level, (keep, add)) = self.level(kit.request)?;
            // Each picture's own noise, drawn before that of its latents.
            let show: Show<'s> = Box::new(move |Batch { noise, first, rows, .. }| {
                let mut noisy = noise_of(noise, &[noise.len(), height, width, 3].into()).data;
                let pixels = pixels.iter().cycle();
                noisy.iter_mut().zip(pixels).for_each(|(noise, pixel)| *noise = keep * pixel + add * *noise);
                let beside = Tensor::new([rows * noise.len(), height, width, 3], noisy.repeat(rows));
                let classes = self.told.then(|| Tensor::new([rows], vec![level as f32; rows]));
                (Start::Noise(first).into(), Shown { classes, beside: Some(beside) })
            });
            Ok(Some(show))
        })
    }
}
