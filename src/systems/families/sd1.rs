//! Stable Diffusion 1 (Rombach et al. 2022): one text encoder, OpenAI's, and a UNet that projects into its
//! transformers by convolutions.

use serde_json::json;

use super::{CONTROLNET, EPSILON, Family, TEXT_ENCODER, Trainer, UNET, Untold, VAE, files, noise};

pub static SD1: Family = Family {
    name: "sd1",
    title: "Stable Diffusion 1",
    recognises: |network| network.has("time_embedding."),
    refuses: |_| None,
    untold: Untold {
        heads: Some(8),
        linear_projection: false,
        time_id_width: None,
        text_width: None,
        scaling: 0.18215,
        trainer: Trainer::OpenAi,
    },
    components: &[CONTROLNET, UNET, VAE, TEXT_ENCODER],
    leftovers: &[],
    architectures: &[],
    prediction: noise,
    side: |_| 64,
    files: |prediction| {
        // PNDM knows nothing of a schedule that ends in pure noise.
        let scheduler = if prediction.zero_snr { "EulerDiscreteScheduler" } else { "PNDMScheduler" };
        // The published file does not have the key.
        let own = if prediction.kind == EPSILON { json!({}) } else { json!({"prediction_type": prediction.kind}) };
        files("StableDiffusionPipeline", scheduler, own, prediction)
    },
};
