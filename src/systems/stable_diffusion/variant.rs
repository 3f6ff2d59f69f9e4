//! In what the kinds of Stable Diffusion differ: 1 and 2, XL, XL's refiner, and those that work on a picture.

use super::edit::Editor;
use super::enlarge::Upscaler;
use super::picture::Use;
use super::repaint::Repainter;
use super::start::SdEdit;
use super::unclip::Reader;
use crate::error::Result;
use crate::models::clip::State;
use crate::models::unet;
use crate::systems::start::Shares;
use crate::weights::Model;

/// A kind of Stable Diffusion.
#[derive(Debug)]
pub struct Variant {
    /// diffusers' class.
    pub class: &'static str,
    /// Whether a UNet is of this kind.
    pub fits: fn(&unet::Config) -> bool,
    /// Ends of the names of its text encoders' and tokenizers' folders.
    pub encoders: &'static [&'static str],
    /// What of their outputs conditions the UNet.
    pub state: State,
    /// Which layer's output that is, from the last: 1 is the last.
    pub skip: usize,
    /// Whether the UNet is given pooled text and the picture's sizes (`text_embeds`, `time_ids`).
    pub pooled: bool,
    /// How many steps there are, where the request does not say so.
    pub steps: usize,
    /// diffusers' default.
    pub guidance: f32,
    /// What becomes of the request's picture.
    pub(super) picture: fn(&Model, &unet::Config) -> Result<Box<dyn Use>>,
    /// The channels that the UNet sees of it, next to this number of the latents'.
    pub beside: fn(usize) -> usize,
    /// Whether the UNet's classes are levels of that picture's noise; otherwise it has none.
    pub leveled: bool,
    /// The VAE's `scaling_factor` whatever its file says, as in diffusers: the first files do not say it.
    pub scaling: Option<f32>,
    /// Whether the VAE's `force_upcast` is heeded: XL's overflows f16, and files of the others say so for no reason.
    pub upcasts: bool,
}

impl Variant {
    /// Whether a UNet has the channels of this kind, and no others.
    ///
    /// # Errors
    /// If it does not: what it has.
    pub fn check(&self, unet: &unet::Config, latents: usize) -> Result<(), String> {
        let (inputs, outputs, more, own) = (unet.in_channels, unet.out_channels, (self.beside)(latents), self.class);
        if [inputs, outputs] != [latents + more, latents] {
            return Err(format!(
                "in_channels {inputs} and out_channels {outputs} do not fit a {own}, whose VAE has {latents} latent \
                 channels and whose UNet takes {more} more",
            ));
        }
        match unet.classes {
            Some(classes) if !self.leveled => {
                Err(format!("num_class_embeds is {classes}, but a {own} has no classes to tell"))
            }
            _ => Ok(()),
        }
    }
}

/// Stable Diffusion 1 and 2.
pub static SD: Variant = Variant {
    class: "StableDiffusionPipeline",
    fits: |unet| unet.text_time.is_none() && unet.class_width.is_none(),
    encoders: &[""],
    state: State::Normed,
    skip: 1,
    pooled: false,
    steps: 25,
    guidance: 7.5,
    picture: |_, _| Ok(Box::new(SdEdit { shares: Shares::SD, needed: false })),
    beside: |_| 0,
    leveled: false,
    scaling: None,
    upcasts: false,
};

/// Stable Diffusion 2 that varies a picture.
pub static UNCLIP: Variant = Variant {
    class: "StableUnCLIPImg2ImgPipeline",
    fits: |unet| unet.class_width.is_some() && unet.text_time.is_none(),
    steps: 20,
    guidance: 10.0,
    picture: |model, unet| Ok(Box::new(Reader::open(model, unet)?)),
    ..SD
};

/// Stable Diffusion 1 and 2 that draw a masked part of a picture.
pub static REPAINTER: Variant = Variant {
    class: "StableDiffusionInpaintPipeline",
    picture: |_, _| Ok(Box::new(Repainter { shares: Shares::SD })),
    beside: |latents| 1 + latents,
    ..SD
};

/// Stable Diffusion XL that draws a masked part of a picture.
pub static XL_REPAINTER: Variant = Variant {
    class: "StableDiffusionXLInpaintPipeline",
    picture: |_, _| Ok(Box::new(Repainter { shares: Shares::SDXL })),
    beside: |latents| 1 + latents,
    ..SDXL
};

/// InstructPix2Pix.
pub static EDITOR: Variant = Variant {
    class: "StableDiffusionInstructPix2PixPipeline",
    steps: 100,
    picture: |_, _| Ok(Box::new(Editor)),
    beside: |latents| latents,
    ..SD
};

/// The x4 upscaler, whose VAE overflows f16 in earnest.
pub static UPSCALER: Variant = Variant {
    class: "StableDiffusionUpscalePipeline",
    steps: 75,
    guidance: 9.0,
    picture: |model, unet| Ok(Box::new(Upscaler::open(model, unet)?)),
    beside: |_| 3,
    leveled: true,
    scaling: Some(0.08333),
    upcasts: true,
    ..SD
};

/// Stable Diffusion XL.
pub static SDXL: Variant = Variant {
    class: "StableDiffusionXLPipeline",
    fits: |unet| unet.text_time.is_some_and(|added| !added.takes_score()),
    encoders: &["", "_2"],
    state: State::Raw,
    skip: 2,
    pooled: true,
    guidance: 5.0,
    picture: |_, _| Ok(Box::new(SdEdit { shares: Shares::SDXL, needed: false })),
    upcasts: true,
    ..SD
};

/// Stable Diffusion XL's refiner.
pub static REFINER: Variant = Variant {
    class: "StableDiffusionXLImg2ImgPipeline",
    fits: |unet| unet.text_time.is_some_and(|added| added.takes_score()),
    encoders: &["_2"],
    steps: 50,
    picture: |_, _| Ok(Box::new(SdEdit { shares: Shares::SDXL, needed: true })),
    ..SDXL
};
