//! The options of `generate` that say which part of a picture is drawn, and draw one again.

use std::path::PathBuf;

use clap::Args;
use clap::builder::TypedValueParser;

use super::{read_picture, seed};
use crate::cli::{one_of, value};
use crate::error::Result;
use crate::systems::{Hires, HiresMode, Request, Variation};

#[derive(Debug, Args)]
pub(super) struct EditingArgs {
    /// What of the init image is drawn anew: a picture of which white is, and black is kept
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// How far the mask's edge fades to each side, in about half as many pixels; what is kept beyond is then the init
    /// image's own pixels, and not what the VAE makes of them
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    mask_blur: Option<f32>,
    /// Draw what is black in the mask anew
    #[arg(long)]
    mask_invert: bool,
    /// Draw the masked region alone, with so many pixels around it, at the model's size, and put it back
    #[arg(long, value_name = "PADDING", num_args = 0..=1, default_missing_value = "32", value_parser = padding)]
    inpaint_full_res: Option<usize>,
    /// Pixels to add to the init image, and to draw, on each side: 64,0,64,0 makes it wider
    #[arg(long, value_name = "LEFT,TOP,RIGHT,BOTTOM", value_parser = sides, allow_hyphen_values = true)]
    extend: Option<[usize; 4]>,
    /// Draw the picture again, its sides so many times longer, starting from what was drawn
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    hires: Option<f64>,
    /// How much of it is then drawn anew, from 0 to 1 [default: 0.7]
    #[arg(long, value_name = "F", requires = "hires", allow_negative_numbers = true)]
    hires_strength: Option<f64>,
    /// How it is enlarged for that [default: latent]
    #[arg(long, value_name = "HOW", requires = "hires", value_parser = modes())]
    hires_mode: Option<HiresMode>,
    /// The seed of what --variation-strength mixes in; it counts up in a batch, and --seed then stays [default: -1, a
    /// random one, printed]
    #[arg(long, value_name = "N", requires = "variation_strength", value_parser = seed, allow_negative_numbers = true)]
    #[arg(default_value = "-1", hide_default_value = true)]
    variation_seed: u64,
    /// How much of another seed's noise is mixed in, from 0 to 1: a little makes a picture like that of --seed
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    variation_strength: Option<f64>,
}

fn modes() -> impl TypedValueParser<Value = HiresMode> {
    let latent = value("latent", "its latents, between their centres: quick, and needs a strength of 0.5 or more");
    let lanczos = value("lanczos", "its pixels, by Lanczos' filter: decoded and encoded again");
    one_of([(latent, HiresMode::Latent), (lanczos, HiresMode::Lanczos)])
}

fn padding(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "is not a number of pixels; give one, or another option behind it".to_string())
}

fn sides(text: &str) -> Result<[usize; 4], String> {
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|side| side.trim().parse()).collect();
    let sides = numbers.ok().and_then(|numbers| <[usize; 4]>::try_from(numbers).ok());
    sides.ok_or_else(|| "is not four numbers of pixels, LEFT,TOP,RIGHT,BOTTOM: 64,0,64,0 makes it wider".to_string())
}

impl EditingArgs {
    /// The seed of the variation, if there is one.
    pub(super) fn seed_of_variation(&self) -> Option<u64> {
        self.variation_strength.map(|_| self.variation_seed)
    }

    /// A request with what they say.
    ///
    /// # Errors
    /// If the mask cannot be read.
    pub(super) fn added_to(&self, request: Request) -> Result<Request> {
        let hires = self.hires.map(|scale| {
            let Hires { strength, mode, .. } = Hires::default();
            let strength = self.hires_strength.unwrap_or(strength);
            Hires { scale, strength, mode: self.hires_mode.unwrap_or(mode) }
        });
        let variation = self.variation_strength.map(|strength| Variation { seed: self.variation_seed, strength });
        Ok(Request {
            mask: self.mask.as_deref().map(read_picture).transpose()?,
            mask_blur: self.mask_blur,
            mask_invert: self.mask_invert,
            inpaint_full_res: self.inpaint_full_res,
            extend: self.extend,
            hires,
            variation,
            ..request
        })
    }
}
