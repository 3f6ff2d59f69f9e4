//! Stable Diffusion XL (Podell et al. 2023): two text encoders, and a UNet that is given the sizes of pictures; and its
//! refiner, which reads the second encoder alone and is given a score of how good a picture looks.

use serde_json::{Value, json};

use super::{
    CONTROLNET, Component, Family, Prediction, Seen, TEXT_ENCODER, Trainer, UNET, Untold, VAE, files, infer, noise,
};
use crate::weights::checkpoint::keys::Layout;

pub static SDXL: Family = Family {
    name: "sdxl",
    title: "Stable Diffusion XL",
    // Others with such an embedding have transformers at the first level.
    recognises: |network| network.has("add_embedding.") && !network.has("down_blocks.0.attentions."),
    refuses: |_| None,
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
            parts: &[
                ("conditioner.embedders.1.model.", Layout::OpenClip),
                ("text_encoders.clip_g.transformer.", Layout::Clip),
                // stable-diffusion.cpp's name.
                ("cond_stage_model.1.transformer.", Layout::Clip),
                ("text_encoder_2.", Layout::Clip),
            ],
            ..TEXT_ENCODER_2
        },
    ],
    leftovers: &[],
    architectures: &[],
    prediction: noise,
    side: |_| 128,
    files: |prediction| all_files("StableDiffusionXLPipeline", prediction),
};

/// What both have.
const TEXT_ENCODER_2: Component = Component {
    name: "text_encoder_2",
    lora: [&["text_encoder_2.", "clip_g.", "text_encoders.clip_g.transformer."], &["lora_te2_"]],
    unread: |_, _| Vec::new(),
    config: |text, _| infer::text_encoder(text, Trainer::OpenClip),
    others: |_, _| vec![("tokenizer_2/tokenizer_config.json", infer::tokenizer(Trainer::OpenClip))],
    ..TEXT_ENCODER
};

pub(super) fn all_files(pipeline: &str, prediction: &Prediction) -> Vec<(&'static str, Value)> {
    let own = json!({
        "timestep_spacing": "leading",
        "interpolation_type": "linear",
        "sample_max_value": 1.0,
        "prediction_type": prediction.kind,
    });
    files(pipeline, "EulerDiscreteScheduler", own, prediction)
}

pub static REFINER: Family = Family {
    name: "sdxl-refiner",
    title: "Stable Diffusion XL's refiner",
    recognises: |network| (SDXL.recognises)(network) && is_refiner(network),
    components: &[
        CONTROLNET,
        UNET,
        VAE,
        Component { parts: &[("conditioner.embedders.0.model.", Layout::OpenClip)], ..TEXT_ENCODER_2 },
    ],
    files: |prediction| {
        let mut files = all_files("StableDiffusionXLImg2ImgPipeline", prediction);
        let index = &mut files[0].1;
        index["force_zeros_for_empty_prompt"] = false.into();
        index["requires_aesthetics_score"] = true.into();
        files
    },
    ..SDXL
};

/// A refiner's UNet, unlike the base's, has no transformer at its lowest level.
fn is_refiner(unet: &Seen) -> bool {
    let last = unet.count("down_blocks.").saturating_sub(1);
    !unet.has(&format!("down_blocks.{last}.attentions."))
}
