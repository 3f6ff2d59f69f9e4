//! A picture to start from instead of noise alone (Meng et al. 2021, "SDEdit"; diffusers' `..Img2ImgPipeline`).

use super::picture::{Decided, Reading, Show, Shown, Use};
use crate::error::{Error, Field, Remedy, Result};
use crate::samplers::Portion;
use crate::systems::encode::Encoder;
use crate::systems::kit::Kit;
use crate::systems::part::Part;
use crate::systems::request::Request;
use crate::systems::settings::Settings;

/// Where a refiner takes over, if the request does not say so.
const REFINER_START: f64 = 0.8;

/// How a kind starts from a picture.
pub(super) struct SdEdit {
    /// diffusers' default share of the noise.
    pub strength: f64,
    /// Whether it draws nothing without one.
    pub needed: bool,
}

impl SdEdit {
    fn portion(&self, request: &Request, refined: bool) -> Result<Portion> {
        let picture = request.init_image.is_some();
        let error = |what: &str, remedy| Err(Error::usage(what).remedies([remedy]));
        if !picture && self.needed {
            let what = "this model refines a picture, or finishes that of an SDXL base model as its refiner, and draws \
                        none from a text alone";
            return error(what, Remedy::Give(Field::InitImage));
        }
        if !picture && request.strength.is_some() {
            let error = Error::usage("is that of the noise on a picture to start from").of(Field::Strength);
            return Err(error.remedies([Remedy::Give(Field::InitImage)]));
        }
        match request.refiner_start {
            _ if refined && picture => {
                let what = "a refiner goes on with what was drawn from a text alone";
                error(what, Remedy::Without(Field::InitImage))
            }
            start if refined => Ok(Portion::Before(start.unwrap_or(REFINER_START))),
            Some(_) => Err(Error::usage("is for a model with a refiner")
                .of(Field::RefinerStart)
                .remedies([Remedy::Give(Field::Refiner)])),
            None if picture => Ok(Portion::Last(request.strength.unwrap_or(self.strength))),
            None => Ok(Portion::Whole),
        }
    }
}

impl Use for SdEdit {
    fn decide(&self, request: &Request, factor: usize, refined: bool) -> Result<Decided> {
        let whole = |side: usize| side / factor * factor;
        let size = request.init_image.as_ref().map(|picture| [picture.height, picture.width].map(whole));
        Ok(Decided { size, portion: self.portion(request, refined)? })
    }

    fn parts(&self, encoder: Encoder<'_>, settings: &Settings) -> Result<Vec<Part>> {
        let starts = matches!(settings.portion, Portion::Last(_));
        starts.then(|| encoder.part([settings.height, settings.width])).into_iter().collect()
    }

    fn read<'a, 's: 'a>(&'s self, kit: &'a mut Kit<'_>, encoder: Encoder<'s>) -> Reading<'a, 's> {
        Box::pin(async move {
            let Settings { width, height, portion: Portion::Last(_), .. } = *kit.settings else { return Ok(None) };
            let Some(picture) = &kit.request.init_image else { return Ok(None) };
            let encoded = encoder.encode(kit, picture, [height, width]).await?;
            let show: Show<'s> =
                Box::new(move |noise, _| Shown { start: Some(encoded.drawn(encoder.vae, noise)), ..Shown::default() });
            Ok(Some(show))
        })
    }
}
