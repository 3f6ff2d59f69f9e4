//! In what the two kinds of Stable Diffusion differ: 1 and 2, and XL.

use crate::models::clip::State;

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
    /// diffusers' default.
    pub guidance: f32,
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
    guidance: 7.5,
    upcasts: false,
};

/// Stable Diffusion XL.
pub static SDXL: Variant = Variant {
    class: "StableDiffusionXLPipeline",
    encoders: &["", "_2"],
    state: State::Raw,
    skip: 2,
    pooled: true,
    guidance: 5.0,
    upcasts: true,
};
