//! Pictures that begin with a given one instead of noise alone (Meng et al. 2021, "SDEdit"; diffusers'
//! `..Img2ImgPipeline`), or of which a part is drawn anew (`..InpaintPipeline`): for every system whose states a
//! picture can be encoded to.

use super::canvas::{Canvas, check, is_masked};
use super::denoise::{Begun, Held, Start};
use super::encode::{Encoded, Encoder, pixels};
use super::kit::Kit;
use super::noise::First;
use super::request::Request;
use crate::error::{Error, Field, Remedy, Result};
use crate::image::Mask;
use crate::models::autoencoder::Autoencoder;
use crate::rng::Generator;
use crate::samplers::Portion;
use crate::tensor::Shape;

/// How many pictures are made at once of a given one: what each begins with is made before anything can say that it
/// does not fit.
pub(super) const MOST_AT_ONCE: usize = 16;

/// Which share of the noise a given picture gets, where the request does not say so.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// Of a whole picture.
    pub whole: f64,
    /// Where only a part of it is drawn.
    pub masked: f64,
}

impl Shares {
    /// diffusers' for Stable Diffusion 1 and 2.
    pub const SD: Self = Self { whole: 0.8, masked: 1.0 };
    /// diffusers' for Stable Diffusion XL.
    pub const SDXL: Self = Self { whole: 0.3, masked: 0.9999 };

    /// The steps that are done: all, without a picture.
    ///
    /// # Errors
    /// If what is said of the picture makes no sense, or there is none for it.
    pub fn portion(self, request: &Request) -> Result<Portion> {
        check(request)?;
        let share = if is_masked(request) { self.masked } else { self.whole };
        match (&request.init_image, request.strength) {
            (Some(_), strength) => Ok(Portion::Last(strength.unwrap_or(share))),
            (None, None) => Ok(Portion::Whole),
            (None, Some(_)) => {
                let error = Error::usage("is that of the noise on a picture to start from").of(Field::Strength);
                Err(error.remedies([Remedy::Give(Field::InitImage)]))
            }
        }
    }
}

/// A request's picture as states: what pictures begin with.
pub(super) struct Original<'a> {
    encoded: Encoded,
    vae: Option<&'a Autoencoder>,
    /// Whether nothing of it is left in the first state.
    hidden: bool,
    /// What of it is drawn, if not everything.
    drawn: Option<Vec<bool>>,
}

impl<'a> Original<'a> {
    /// Reads the kit's picture, if the steps start from one; states without an encoder are pixels.
    ///
    /// # Errors
    /// If the encoder cannot be loaded or run.
    pub async fn read(kit: &mut Kit<'_>, encoder: Option<Encoder<'a>>) -> Result<Option<Self>> {
        let Portion::Last(share) = kit.settings.portion else { return Ok(None) };
        let Some(Canvas { picture, mask, patch }) = Canvas::of(kit.request, kit.size())? else { return Ok(None) };
        let vae = encoder.map(|encoder| encoder.vae);
        let drawn = mask.map(|mask| in_states(&mask, vae.map_or(1, Autoencoder::factor))).transpose()?;
        let encoded = match encoder {
            Some(encoder) => encoder.encode(kit, &picture).await?,
            None => Encoded::exactly(pixels(&picture)),
        };
        kit.patch = patch;
        Ok(Some(Self { encoded, vae, hidden: drawn.is_some() && share == 1.0, drawn }))
    }

    /// What these generators' pictures begin with, whose states together have this shape.
    pub fn begin(&self, generators: &mut [Generator], mut first: First, state: &Shape) -> Begun {
        let pictures = self.encoded.drawn(self.vae, generators);
        let Some(drawn) = self.drawn.clone() else {
            return Begun { start: Start::Noised(pictures, first), held: None };
        };
        // diffusers also draws the latents of the masked picture, after the noise, for networks that see them.
        first.draw(generators, state);
        self.encoded.pass_over(generators);
        let held = Some(Held { pictures: pictures.clone(), drawn });
        let start = if self.hidden { Start::Noise(first) } else { Start::Noised(pictures, first) };
        Begun { start, held }
    }
}

/// Which pixels of a state, of so many pixels of the picture to a side, are drawn: the nearest ones, as
/// `torch.nn.functional.interpolate` takes them.
///
/// # Errors
/// If none is.
pub(super) fn in_states(mask: &Mask, factor: usize) -> Result<Vec<bool>> {
    let rows = mask.grey.chunks_exact(mask.width).step_by(factor);
    let drawn: Vec<_> = rows.flat_map(|row| row.iter().step_by(factor)).map(|value| *value > 0).collect();
    if drawn.contains(&true) {
        return Ok(drawn);
    }
    let what = format!("has so little white that no latent of {factor}x{factor} pixels would be drawn anew");
    Err(Error::usage(what).of(Field::Mask).remedies([Remedy::Give(Field::InpaintFullRes)]))
}
