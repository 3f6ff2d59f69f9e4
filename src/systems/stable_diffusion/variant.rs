//! In what the kinds of Stable Diffusion differ: 1 and 2, XL, and those that work on a picture.

use crate::models::clip::State;

/// What a kind uses a picture for that it is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Uses {
    /// Nothing.
    None,
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
            _ => 0,
        }
    }
}

/// A kind of Stable Diffusion.
#[derive(Debug, PartialEq)]
pub struct Variant {
    /// diffusers' class.
    pub class: &'static str,
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

/// Stable Diffusion 1 and 2.
pub static SD: Variant = Variant {
    class: "StableDiffusionPipeline",
    encoders: &[""],
    state: State::Normed,
    skip: 1,
    pooled: false,
    steps: 25,
    guidance: 7.5,
    picture: Uses::None,
    upcasts: false,
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
    encoders: &["", "_2"],
    state: State::Raw,
    skip: 2,
    pooled: true,
    steps: 25,
    guidance: 5.0,
    picture: Uses::None,
    upcasts: true,
};
