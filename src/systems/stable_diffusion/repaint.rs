//! A UNet that sees a mask and what it leaves of a picture next to its latents (Rombach et al. 2022; diffusers'
//! `StableDiffusionInpaintPipeline`): it draws the rest.

use super::picture::{Batch, Decided, Reading, Show, Shown, Use};
use crate::error::{Error, Field, Remedy, Result};
use crate::samplers::Portion;
use crate::systems::canvas::{self, Canvas};
use crate::systems::denoise::Start;
use crate::systems::encode::Encoder;
use crate::systems::kit::Kit;
use crate::systems::part::Part;
use crate::systems::request::Request;
use crate::systems::settings::Settings;
use crate::systems::start::{Shares, in_states};
use crate::tensor::Tensor;

/// Draws the masked part of the request's picture.
pub(super) struct Repainter {
    /// diffusers' defaults.
    pub shares: Shares,
}

impl Use for Repainter {
    fn decide(&self, request: &Request, factor: usize, _: bool) -> Result<Decided> {
        let portion = self.shares.portion(request)?;
        if !canvas::is_masked(request) {
            let missing = if request.init_image.is_none() { Field::InitImage } else { Field::Mask };
            return Err(Error::usage("this model draws a part of a picture anew").remedies([Remedy::Give(missing)]));
        }
        Ok(Decided { size: canvas::size(request, factor)?, portion })
    }

    fn parts(&self, encoder: Encoder<'_>, settings: &Settings) -> Result<Vec<Part>> {
        let passes = if is_hidden(settings) { 1 } else { 2 };
        let part = encoder.part([settings.height, settings.width])?;
        Ok(vec![part; passes])
    }

    fn read<'a, 's: 'a>(&'s self, kit: &'a mut Kit<'_>, encoder: Encoder<'s>) -> Reading<'a, 's> {
        Box::pin(async move {
            let none = || Error::usage("is missing").of(Field::Mask);
            let Canvas { picture, mask, patch } = Canvas::of(kit.request, kit.size())?.ok_or_else(none)?;
            let mask = mask.ok_or_else(none)?;
            let start = if is_hidden(kit.settings) { None } else { Some(encoder.encode(kit, &picture).await?) };
            let kept = encoder.encode_masked(kit, &picture, &mask).await?;
            kit.patch = patch;
            let drawn = in_states(&mask, encoder.vae.factor())?;
            let show: Show<'s> = Box::new(move |Batch { noise, mut first, state, rows }| {
                // In the order in which diffusers draws: the picture's latents, the noise, the masked picture's.
                let pictures = start.as_ref().map(|start| start.drawn(Some(encoder.vae), noise));
                first.draw(noise, state);
                let beside = joined(&drawn, &kept.drawn(Some(encoder.vae), noise));
                // The rows of the first text come first, one for each picture.
                let shape = beside.shape.with_batch(rows * noise.len());
                let beside = Tensor::new(shape, beside.data.repeat(rows));
                let start = match pictures {
                    None => Start::Noise(first),
                    Some(pictures) => Start::Noised(pictures, first),
                };
                (start.into(), Shown { beside: Some(beside), ..Shown::default() })
            });
            Ok(Some(show))
        })
    }
}

/// Whether nothing of the picture is left in the first latents.
fn is_hidden(settings: &Settings) -> bool {
    settings.portion == Portion::Last(1.0)
}

/// The mask before the latents that it leaves: `[pictures, h, w, 1 + C]`.
fn joined(drawn: &[bool], latents: &Tensor) -> Tensor {
    let channels = latents.shape.channels();
    let pixels = latents.data.chunks_exact(channels).zip(drawn.iter().cycle());
    let data = pixels.flat_map(|(latents, drawn)| [&[f32::from(*drawn)], latents].concat()).collect();
    Tensor::new(latents.shape.with_channels(1 + channels), data)
}
