//! Stable Diffusion XL (Podell et al. 2023): two text encoders, and a UNet that is given the sizes of pictures.

use serde_json::json;

use super::{CONTROLNET, Component, Family, Seen, TEXT_ENCODER, Trainer, UNET, Untold, VAE, files, infer, noise};
use crate::weights::checkpoint::keys::Layout;

/// What the error of a refiner says.
pub const REFINER: &str = "is SDXL's refiner, which is not supported; give an SDXL base model";

pub static SDXL: Family = Family {
    name: "sdxl",
    title: "Stable Diffusion XL",
    // Others with such an embedding have transformers at the first level.
    recognises: |network| network.has("add_embedding.") && !network.has("down_blocks.0.attentions."),
    refuses: |unet| is_refiner(unet).then_some(REFINER),
    untold: Untold {
        heads: None,
        linear_projection: true,
        time_id_width: Some(256),
        // Some ControlNets have no transformers.
        text_width: Some(2048),
        scaling: 0.13025,
        trainer: Trainer::OpenAi,
    },
    components: &[
        CONTROLNET,
        UNET,
        VAE,
        TEXT_ENCODER,
        Component {
            name: "text_encoder_2",
            parts: &[("conditioner.embedders.1.model.", Layout::OpenClip)],
            alone: &[],
            lora: [&["text_encoder_2."], &["lora_te2_"]],
            unread: |_, _| Vec::new(),
            config: |text, _| infer::text_encoder(text, Trainer::OpenClip),
            others: |_, _| vec![("tokenizer_2/tokenizer_config.json", infer::tokenizer(Trainer::OpenClip))],
            ..TEXT_ENCODER
        },
    ],
    leftovers: &[],
    architectures: &[],
    prediction: noise,
    side: |_| 128,
    files: |prediction| {
        let own = json!({
            "timestep_spacing": "leading",
            "interpolation_type": "linear",
            "sample_max_value": 1.0,
            "prediction_type": prediction.kind,
        });
        files("StableDiffusionXLPipeline", "EulerDiscreteScheduler", own, prediction)
    },
};

/// A refiner's UNet, unlike the base's, has no transformer at its lowest level.
fn is_refiner(unet: &Seen) -> bool {
    let last = unet.count("down_blocks.").saturating_sub(1);
    !unet.has(&format!("down_blocks.{last}.attentions."))
}
