//! In what the kinds of Stable Diffusion differ: 1 and 2, XL, XL's refiner, and those that work on a picture.

use crate::models::clip::State;
use crate::models::unet;

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
    pub picture: Uses,
    /// Whether the VAE's `force_upcast` is heeded: XL's overflows f16, and files of the others say so for no reason.
    pub upcasts: bool,
}

/// What a kind uses a picture for that it is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Uses {
    /// To start from, if there is one: by diffusers' default with this share of the noise.
    ToStart(f64),
    /// The same, and it draws nothing without.
    ToRefine(f64),
    /// To draw others like it.
    ToVary,
    /// To edit it: the UNet sees its latents next to its own, as the VAE's encoder gives them.
    ToEdit,
    /// To enlarge it: the UNet sees its pixels next to the latents, under noise of a level that it is told.
    ToEnlarge,
}

impl Uses {
    /// The channels that a UNet sees of it, next to this number of the latents'.
    pub fn channels(self, latents: usize) -> usize {
        match self {
            Self::ToEdit => latents,
            Self::ToEnlarge => 3,
            Self::ToStart(_) | Self::ToRefine(_) | Self::ToVary => 0,
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
    picture: Uses::ToStart(0.8),
    upcasts: false,
};

/// Stable Diffusion 2 that varies a picture.
pub static UNCLIP: Variant = Variant {
    class: "StableUnCLIPImg2ImgPipeline",
    fits: |unet| unet.class_width.is_some() && unet.text_time.is_none(),
    steps: 20,
    guidance: 10.0,
    picture: Uses::ToVary,
    ..SD
};

/// InstructPix2Pix.
pub static EDITOR: Variant =
    Variant { class: "StableDiffusionInstructPix2PixPipeline", steps: 100, picture: Uses::ToEdit, ..SD };

/// The x4 upscaler, whose VAE overflows f16 in earnest.
pub static UPSCALER: Variant = Variant {
    class: "StableDiffusionUpscalePipeline",
    steps: 75,
    guidance: 9.0,
    picture: Uses::ToEnlarge,
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
    steps: 25,
    guidance: 5.0,
    picture: Uses::ToStart(0.3),
    upcasts: true,
};

/// Stable Diffusion XL's refiner.
pub static REFINER: Variant = Variant {
    class: "StableDiffusionXLImg2ImgPipeline",
    fits: |unet| unet.text_time.is_some_and(|added| added.takes_score()),
    encoders: &["_2"],
    steps: 50,
    picture: Uses::ToRefine(0.3),
    ..SDXL
};
