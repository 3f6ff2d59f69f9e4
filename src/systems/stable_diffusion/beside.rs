//! What a UNet sees next to its latents, in its last channels: a picture that is edited (Brooks et al. 2023,
//! "InstructPix2Pix"; diffusers' `StableDiffusionInstructPix2PixPipeline`) or enlarged (diffusers'
//! `StableDiffusionUpscalePipeline`, the cascade's last stage of Rombach et al. 2022).

use super::StableDiffusion;
use super::variant::{Uses, Variant};
use crate::conditioning::repeat_rows;
use crate::error::{Error, Field, Remedy, Result};
use crate::image::{Filter, Picture};
use crate::models::autoencoder::Autoencoder;
use crate::models::unet;
use crate::rng::Generator;
use crate::samplers;
use crate::systems::denoise::noise_of;
use crate::systems::encode::Encoded;
use crate::systems::kit::Kit;
use crate::systems::request::Request;
use crate::tensor::Tensor;
use crate::weights::Model;

/// diffusers' default of `noise_level`.
const NOISE_LEVEL: usize = 20;
/// diffusers' default of `max_noise_level` in `model_index.json`.
const MOST_NOISE: u64 = 350;
/// diffusers' default of `image_guidance_scale`.
const IMAGE_GUIDANCE: f32 = 1.5;

/// The noise that an upscaler's picture gets.
pub(super) struct Noising {
    /// The model's `low_res_scheduler`.
    schedule: samplers::Config,
    /// The highest level.
    most: usize,
}

impl Noising {
    /// # Errors
    /// If the model does not say which noise, or not how much of it at most.
    pub fn open(model: &Model, unet: &unet::Config) -> Result<Self> {
        let path = "low_res_scheduler/scheduler_config.json";
        let place = model.path(path).display().to_string();
        let schedule = samplers::Config::from_json(&model.text(path)?, &place)?;
        let said = super::index(model)?["max_noise_level"].as_u64().unwrap_or(MOST_NOISE);
        let known = unet.classes.map_or(usize::MAX, |classes| classes - 1);
        Ok(Self { schedule, most: known.min(usize::try_from(said).unwrap_or(usize::MAX)) })
    }

    /// The request's level, which the UNet is told.
    ///
    /// # Errors
    /// If it is more than the model knows.
    pub fn level(&self, request: &Request) -> Result<usize> {
        let (level, most) = (request.noise_level.unwrap_or(NOISE_LEVEL.min(self.most)), self.most);
        if level <= most {
            return self.schedule.noise_level(level).map(|_| level);
        }
        let what = format!("{level} is more than this model's most, {most}");
        Err(Error::usage(what).of(Field::NoiseLevel).remedies([Remedy::set(Field::NoiseLevel, most)]))
    }

    /// The picture under the noise of a level: for each generator its own.
    ///
    /// # Errors
    /// If the model was not trained on that level.
    fn under(&self, picture: &Tensor, level: usize, noise: &mut [Generator]) -> Result<Tensor> {
        let (keep, add) = self.schedule.noise_level(level)?;
        let mut noisy = noise_of(noise, &picture.shape.with_batch(noise.len()));
        let pixels = picture.data.iter().cycle();
        noisy.data.iter_mut().zip(pixels).for_each(|(noise, pixel)| *noise = keep * pixel + add * *noise);
        Ok(noisy)
    }
}

/// How closely to keep to the picture that is edited.
pub(super) fn image_guidance(request: &Request) -> f32 {
    request.image_guidance.unwrap_or(IMAGE_GUIDANCE)
}

/// Whether a UNet has the channels of a kind, and no others.
///
/// # Errors
/// If it does not.
pub(super) fn check(unet: &unet::Config, vae: &Autoencoder, variant: &Variant) -> Result<(), String> {
    let (latents, more) = (vae.latent_channels(), variant.picture.channels(vae.latent_channels()));
    let [inputs, outputs] = [unet.in_channels, unet.out_channels];
    if [inputs, outputs] != [latents + more, latents] {
        let own = variant.class;
        return Err(format!(
            "in_channels {inputs} and out_channels {outputs} do not fit a {own}, whose VAE has {latents} latent \
             channels and whose UNet takes {more} more: inpainting models are not supported",
        ));
    }
    match unet.classes {
        Some(classes) if variant.picture != Uses::ToEnlarge => {
            Err(format!("num_class_embeds is {classes}, but a {} has no classes to tell", variant.class))
        }
        _ => Ok(()),
    }
}

impl StableDiffusion {
    /// The picture that the request gives, where there is one to be seen.
    ///
    /// # Errors
    /// If it is missing.
    fn seen<'r>(&self, request: &'r Request) -> Result<Option<&'r Picture>> {
        match (self.variant.picture, &request.init_image) {
            (Uses::ToEdit | Uses::ToEnlarge, None) => {
                Err(Error::usage("this model works on a picture").remedies([Remedy::Give(Field::InitImage)]))
            }
            (Uses::ToEdit | Uses::ToEnlarge, picture) => Ok(picture.as_ref()),
            _ => Ok(None),
        }
    }

    /// Height and width of the drawn picture, where the one that is seen decides.
    ///
    /// # Errors
    /// If that is missing, or smaller than one latent.
    pub(super) fn size_by_seen(&self, request: &Request) -> Result<Option<[usize; 2]>> {
        let Some(Picture { width, height, .. }) = self.seen(request)? else { return Ok(None) };
        let factor = self.vae.factor();
        if *width.min(height) < factor {
            let what = format!("has {width}x{height} pixels, expected at least {factor}x{factor}");
            return Err(Error::usage(what).of(Field::InitImage));
        }
        let enlarged = if self.variant.picture == Uses::ToEnlarge { factor } else { 1 };
        Ok(Some([*height, *width].map(|side| (side - side % factor) * enlarged)))
    }

    /// What is made of the picture once for all that are drawn, for one of them: pixels from -1 to 1, or latents.
    ///
    /// # Errors
    /// If the VAE's encoder cannot be loaded or run.
    pub(super) async fn look(&self, kit: &mut Kit<'_>) -> Result<Option<Tensor>> {
        let Some(picture) = self.seen(kit.request)? else { return Ok(None) };
        let [height, width] = [kit.settings.height, kit.settings.width];
        if self.variant.picture == Uses::ToEdit {
            return Ok(Some(Encoded::of(kit, &self.vae, self.vae_in_f32(), picture, [height, width]).await?.mean));
        }
        let [height, width] = self.size(kit.settings);
        let bytes = picture.resized(Filter::Bicubic, [width, height]);
        let pixels = bytes.into_iter().map(|byte| 2.0 * (f32::from(byte) / 255.0) - 1.0);
        Ok(Some(Tensor::new([1, height, width, 3], pixels.collect())))
    }

    /// What the UNet sees next to the latents of the pictures that these generators are for, in `rows` rows each. An
    /// upscaler's noise is drawn before that of the latents.
    ///
    /// # Errors
    /// If the request's noise level is more than the model knows.
    pub(super) fn beside(
        &self,
        request: &Request,
        seen: Option<&Tensor>,
        noise: &mut [Generator],
        rows: usize,
    ) -> Result<Option<Tensor>> {
        let Some(seen) = seen else { return Ok(None) };
        let each = match &self.noising {
            Some(noising) => noising.under(seen, noising.level(request)?, noise)?,
            None => repeat_rows(seen, noise.len()),
        };
        let mut all = Tensor::new(each.shape.with_batch(rows * noise.len()), each.data.repeat(rows));
        if rows == 3 {
            // The row without the picture, as `guidance` has it.
            all.data[..each.data.len()].fill(0.0);
        }
        Ok(Some(all))
    }
}
