//! A picture that is edited as a text says (Brooks et al. 2023, "InstructPix2Pix"; diffusers'
//! `StableDiffusionInstructPix2PixPipeline`): the UNet sees its latents next to its own.

use super::picture::{Batch, Decided, Reading, Show, Shown, Use, needed};
use crate::conditioning::repeat_rows;
use crate::error::Result;
use crate::systems::denoise::Start;
use crate::systems::encode::Encoder;
use crate::systems::guidance::Guidance;
use crate::systems::kit::Kit;
use crate::systems::part::Part;
use crate::systems::request::Request;
use crate::systems::settings::Settings;

/// diffusers' default of `image_guidance_scale`.
const IMAGE_GUIDANCE: f32 = 1.5;

/// Edits the request's picture.
pub(super) struct Editor;

impl Use for Editor {
    fn decide(&self, request: &Request, factor: usize, _: bool) -> Result<Decided> {
        let picture = needed(request, factor)?;
        let size = [picture.height, picture.width].map(|side| side - side % factor);
        Ok(Decided { size: Some(size), ..Decided::default() })
    }

    /// By the picture and by the text: nothing, the picture, the picture and the text.
    fn guidance(&self, request: &Request, scale: f32) -> Guidance {
        match request.image_guidance.unwrap_or(IMAGE_GUIDANCE) {
            by_picture if by_picture >= 1.0 => {
                Guidance { rows: 3, terms: vec![(by_picture, 1, 0), (scale, 2, 1)], rescale: 0.0 }
            }
            _ => Guidance::none(),
        }
    }

    fn parts(&self, encoder: Encoder<'_>, settings: &Settings) -> Result<Vec<Part>> {
        Ok(vec![encoder.part([settings.height, settings.width])?])
    }

    fn read<'a, 's: 'a>(&'s self, kit: &'a mut Kit<'_>, encoder: Encoder<'s>) -> Reading<'a, 's> {
        Box::pin(async move {
            let picture = needed(kit.request, encoder.vae.factor())?;
            let [height, width] = kit.size();
            let latents = encoder.encode(kit, &picture.at_size([width, height])).await?.mean;
            let show: Show<'s> = Box::new(move |Batch { noise, first, rows, .. }| {
                let mut beside = repeat_rows(&latents, rows * noise.len());
                if rows > 1 {
                    // The row without the picture, as `guidance` has it.
                    beside.data[..noise.len() * latents.data.len()].fill(0.0);
                }
                (Start::Noise(first).into(), Shown { beside: Some(beside), ..Shown::default() })
            });
            Ok(Some(show))
        })
    }
}
