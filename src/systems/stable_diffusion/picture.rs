//! What a kind of Stable Diffusion does with the picture that a request gives: one [`Use`] for each, a file each.

use std::pin::Pin;

use crate::error::{Error, Field, Remedy, Result};
use crate::image::Picture;
use crate::rng::Generator;
use crate::samplers::Portion;
use crate::systems::denoise::Begun;
use crate::systems::encode::Encoder;
use crate::systems::guidance::Guidance;
use crate::systems::kit::Kit;
use crate::systems::noise::First;
use crate::systems::part::Part;
use crate::systems::request::Request;
use crate::systems::settings::Settings;
use crate::tensor::{Shape, Tensor};

/// A use of the request's picture, opened with the model.
pub(super) trait Use: Send + Sync {
    /// What a request decides by its picture, for a VAE with this many pixels to a latent; `refined` is whether a
    /// refiner ends the steps.
    ///
    /// # Errors
    /// If the picture, or what is set for it, makes no sense.
    fn decide(&self, request: &Request, factor: usize, refined: bool) -> Result<Decided>;

    /// How texts guide by this scale, where they do.
    fn guidance(&self, _: &Request, scale: f32) -> Guidance {
        Guidance::by_text(scale)
    }

    /// The networks that [`Use::read`] loads.
    ///
    /// # Errors
    /// If one cannot be built.
    fn parts(&self, _: Encoder<'_>, _: &Settings) -> Result<Vec<Part>> {
        Ok(Vec::new())
    }

    /// Whether the steps hold a part of the picture as it is.
    fn holds(&self, _: &Request) -> bool {
        false
    }

    /// Reads the picture, once for all that are drawn: how it is shown to some of them; `None` if there is none.
    ///
    /// The future fails if a network cannot be loaded or run.
    fn read<'a, 's: 'a>(&'s self, kit: &'a mut Kit<'_>, encoder: Encoder<'s>) -> Reading<'a, 's>;
}

/// What the request's picture decides.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Decided {
    /// Height and width of what is drawn, where the request does not say them.
    pub size: Option<[usize; 2]>,
    /// Which of the steps are done.
    pub portion: Portion,
}

/// A picture that is being read.
pub(super) type Reading<'a, 's> = Pin<Box<dyn Future<Output = Result<Option<Show<'s>>>> + Send + 'a>>;

/// Shows what was read to some pictures.
pub(super) type Show<'s> = Box<dyn Fn(Batch<'_>) -> (Begun, Shown) + Send + Sync + 's>;

/// Some of the pictures that are drawn.
pub(super) struct Batch<'a> {
    /// A generator for each.
    pub noise: &'a mut [Generator],
    pub first: First,
    /// Of their latents, channels last.
    pub state: &'a Shape,
    /// How many the UNet sees of each.
    pub rows: usize,
}

/// What the steps of some pictures are shown of the request's picture.
#[derive(Default)]
pub(super) struct Shown {
    /// The UNet's `class_labels`: a row for each text, or for each text of each picture.
    pub classes: Option<Tensor>,
    /// What the UNet sees next to the latents ([`Given::beside`](crate::systems::cut::Given::beside)).
    pub beside: Option<Tensor>,
}

/// The request's picture, of at least this many pixels to a side, for a kind that draws none without.
///
/// # Errors
/// If it is missing or smaller.
pub(super) fn needed(request: &Request, least: usize) -> Result<&Picture> {
    let missing = || Error::usage("this model works on a picture").remedies([Remedy::Give(Field::InitImage)]);
    let picture = request.init_image.as_ref().ok_or_else(missing)?;
    let Picture { width, height, .. } = *picture;
    if width.min(height) >= least {
        return Ok(picture);
    }
    let what = format!("has {width}x{height} pixels, expected at least {least}x{least}");
    Err(Error::usage(what).of(Field::InitImage))
}
