//! A picture to start from instead of noise alone: [`crate::systems::start`].

use super::picture::{Batch, Decided, Reading, Show, Shown, Use};
use crate::error::{Error, Field, Remedy, Result};
use crate::samplers::Portion;
use crate::systems::canvas;
use crate::systems::encode::Encoder;
use crate::systems::kit::Kit;
use crate::systems::part::Part;
use crate::systems::request::Request;
use crate::systems::settings::Settings;
use crate::systems::start::{Original, Shares};

/// Where a refiner takes over, if the request does not say so.
const REFINER_START: f64 = 0.8;

/// How a kind starts from a picture.
pub(super) struct SdEdit {
    /// diffusers' defaults.
    pub shares: Shares,
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
        let portion = self.shares.portion(request)?;
        match request.refiner_start {
            _ if refined && picture => {
                let what = "a refiner goes on with what was drawn from a text alone";
                error(what, Remedy::Without(Field::InitImage))
            }
            start if refined => Ok(Portion::Before(start.unwrap_or(REFINER_START))),
            Some(_) => Err(Error::usage("is for a model with a refiner")
                .of(Field::RefinerStart)
                .remedies([Remedy::Give(Field::Refiner)])),
            None => Ok(portion),
        }
    }
}

impl Use for SdEdit {
    fn decide(&self, request: &Request, factor: usize, refined: bool) -> Result<Decided> {
        let portion = self.portion(request, refined)?;
        Ok(Decided { size: canvas::size(request, factor)?, portion })
    }

    fn parts(&self, encoder: Encoder<'_>, settings: &Settings) -> Result<Vec<Part>> {
        let starts = matches!(settings.portion, Portion::Last(_));
        starts.then(|| encoder.part([settings.height, settings.width])).into_iter().collect()
    }

    fn holds(&self, request: &Request) -> bool {
        canvas::is_masked(request)
    }

    fn read<'a, 's: 'a>(&'s self, kit: &'a mut Kit<'_>, encoder: Encoder<'s>) -> Reading<'a, 's> {
        Box::pin(async move {
            let original = Original::read(kit, Some(encoder)).await?;
            Ok(original.map(|original| {
                let show = move |Batch { noise, first, state, .. }: Batch<'_>| {
                    (original.begin(noise, first, state), Shown::default())
                };
                Box::new(show) as Show<'s>
            }))
        })
    }
}
