//! The families of models that are recognised, one file and one row of [`FAMILIES`] each: what [`Family`] asks for, as
//! the published models have it.

mod inpaint;
mod pix2pix;
mod sd1;
mod sd2;
mod sdxl;
mod x4;

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Field, Result};
use crate::files::is_picture;
use crate::weights::checkpoint::content::Content;
use crate::weights::checkpoint::infer::{self, Trainer, Untold};
use crate::weights::checkpoint::keys::Layout;
use crate::weights::checkpoint::seen::Seen;
use crate::weights::family::{Component, EPSILON, Families, Family, Kind, LoraMarks, Prediction, VELOCITY};
use crate::weights::{Checkpoint, Model};

/// Stable Diffusion 1 comes last: its UNet has nothing that others lack.
pub static FAMILIES: Families = Families {
    known: &[
        &sdxl::REFINER,
        &inpaint::SDXL_INPAINT,
        &sdxl::SDXL,
        &x4::X4,
        &inpaint::SD2_INPAINT,
        &sd2::SD2,
        &pix2pix::PIX2PIX,
        &inpaint::SD1_INPAINT,
        &sd1::SD1,
    ],
    others: &[
        (&["joint_blocks."], "is Stable Diffusion 3, which is not supported"),
        (&["double_blocks.", "double_stream_blocks."], "is a Flux model, which is not supported"),
        (
            &["edm_mean", "edm_vpred."],
            "was trained with EDM's noise levels (Playground 2.5), which are read from diffusers folders alone",
        ),
        (&["motion_modules."], "is a motion module for videos, which is not supported"),
    ],
    loras: &[
        // The second encoder, and transformers of several blocks.
        LoraMarks {
            parts: &["lora_te2_", "text_encoder_2_", "clip_g_", "transformer_blocks_1_"],
            title: "Stable Diffusion XL",
            families: &["sdxl", "sdxl-refiner"],
        },
        // The only encoder, and transformers at the first level.
        LoraMarks {
            parts: &["lora_te_", "down_blocks_0_attentions_", "input_blocks_1_1_", "input_blocks_2_1_"],
            title: "Stable Diffusion 1 or 2",
            families: &["sd1", "sd2", "x4", "pix2pix"],
        },
    ],
};

impl Model {
    /// What a user names: a diffusers folder or a checkpoint, else a name from `weights-manifest.toml` whose folder or
    /// file is among the models of this machine; the built-in model for none.
    ///
    /// # Errors
    /// If the path or name is neither, a known model is not on this machine, or the folder or file is not a model.
    pub fn resolve(model: Option<&OsStr>) -> Result<Self> {
        Self::resolve_among(&FAMILIES, model)
    }

    /// The model that is part of the program.
    pub fn builtin() -> Self {
        Self::builtin_among(&FAMILIES)
    }

    /// The diffusers folder or the checkpoint at `path`.
    ///
    /// # Errors
    /// If there is none, it cannot be read, or it is of none of [`FAMILIES`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_among(&FAMILIES, path)
    }

    /// The same with another autoencoder, a full one or a tiny one: [`Model::with_part`].
    ///
    /// # Errors
    /// As there.
    pub fn with_vae(self, path: &Path) -> Result<Self> {
        // Latent diffusion calls its own so, of whichever class it is.
        let component = if self.has("vqvae") { "vqvae" } else { "vae" };
        self.with_part(component, path)
    }
}

/// The error of a file that is read for this field and cannot be: that it is of another kind, where its tensors tell.
pub fn misplaced(path: &Path, wanted: Field, error: Error) -> Error {
    // What is not a file may give its bytes only once.
    if !matches!(error, Error::File(_)) || !path.is_file() {
        return error;
    }
    if wanted == Field::InitLatents && is_picture(path) {
        return Content::of(Field::InitImage).error(path, wanted);
    }
    Checkpoint::content_of(path, &FAMILIES)
        .filter(|found| *found != Content::of(wanted))
        .map_or(error, |found| found.error(path, wanted))
}

/// What each family says anew of its networks.
const NETWORK: Component = Component {
    name: "",
    denoises: false,
    parts: &[],
    alone: &[],
    lora: [&[], &[]],
    unread: |_, _| Vec::new(),
    config: |_, _| Value::Null,
    others: |_, _| Vec::new(),
};

/// Listed before a UNet: a file with a ControlNet alone also has tensors with a UNet's names.
const CONTROLNET: Component = Component {
    name: "controlnet",
    parts: &[("control_model.", Layout::ControlNet)],
    alone: &[
        ("input_hint_block.0.weight", Layout::ControlNet),
        ("controlnet_cond_embedding.conv_in.weight", Layout::ControlNet),
    ],
    config: infer::controlnet,
    ..NETWORK
};

const UNET: Component = Component {
    name: "unet",
    denoises: true,
    parts: &[
        ("model.diffusion_model.", Layout::Unet),
        ("diffusion_model.", Layout::Unet),
        // A diffusers folder's networks in one file.
        ("unet.", Layout::Unet),
    ],
    alone: &[("input_blocks.0.0.weight", Layout::Unet), ("down_blocks.0.resnets.0.conv1.weight", Layout::Unet)],
    // diffusers' first files and PEFT's own hold one network, and do not say which.
    lora: [
        &["unet.", "", "base_model.model.", "diffusion_model.", "model.diffusion_model."],
        // LyCORIS' own name, as SimpleTuner leaves it.
        &["lora_unet_", "lycoris_"],
    ],
    config: infer::unet,
    ..NETWORK
};

const VAE: Component = Component {
    name: "vae",
    parts: &[("first_stage_model.", Layout::Vae), ("vae.", Layout::Vae)],
    alone: &[("decoder.conv_in.weight", Layout::Vae)],
    config: infer::vae,
    ..NETWORK
};

const TEXT_ENCODER: Component = Component {
    name: "text_encoder",
    parts: &[
        ("cond_stage_model.transformer.", Layout::Clip),
        ("cond_stage_model.model.", Layout::OpenClip),
        ("conditioner.embedders.0.transformer.", Layout::Clip),
        // What ComfyUI and Forge save.
        ("text_encoders.clip_l.transformer.", Layout::Clip),
        ("text_encoders.clip_h.transformer.", Layout::Clip),
        ("text_encoder.", Layout::Clip),
    ],
    alone: &[
        ("text_model.embeddings.token_embedding.weight", Layout::Clip),
        ("embeddings.token_embedding.weight", Layout::Clip),
        ("transformer.resblocks.0.ln_1.weight", Layout::OpenClip),
    ],
    // OneTrainer says `clip_l.`, and ComfyUI how it saves checkpoints.
    lora: [
        &["text_encoder.", "base_model.model.", "clip_l.", "text_encoders.clip_l.transformer.", "clip_h."],
        &["lora_te_", "lora_te1_"],
    ],
    // What no UNet is conditioned by of a first text encoder: the projection of the pooled text and, of OpenCLIP's
    // layers (ViT-H has 24), the last.
    unread: |text, untold| match Trainer::of(text, untold) {
        Trainer::OpenAi => vec!["text_projection.weight"],
        Trainer::OpenClip => vec!["text_projection.weight", "text_model.encoder.layers.23."],
    },
    config: |text, untold| infer::text_encoder(text, Trainer::of(text, untold)),
    others: |text, untold| vec![("tokenizer/tokenizer_config.json", infer::tokenizer(Trainer::of(text, untold)))],
    ..NETWORK
};

/// What the published models of most families predict.
fn noise(_: &Seen, _: Option<f32>) -> (Kind, String) {
    (EPSILON, "models of this family do".into())
}

/// `model_index.json`, and `scheduler/scheduler_config.json` with the keys that the family's published one has, of
/// which `own` are those that not all have: each sampler takes its own class's default for every other, so a key more
/// or less is another schedule.
fn files(pipeline: &str, scheduler: &str, own: Value, prediction: &Prediction) -> Vec<(&'static str, Value)> {
    let mut config = json!({
        "_class_name": scheduler,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "clip_sample": false,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "_prediction_type_because": prediction.because,
    });
    for (key, value) in own.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    if prediction.zero_snr {
        config["rescale_betas_zero_snr"] = true.into();
        // The last training step is the one of pure noise, and only this spacing begins with it.
        config["timestep_spacing"] = "trailing".into();
    }
    let index = json!({"_class_name": pipeline, "force_zeros_for_empty_prompt": true});
    vec![("model_index.json", index), ("scheduler/scheduler_config.json", config)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::lab::published::published;
    use crate::models::config::FORWARD;
    use crate::models::ports::Sizes;
    use crate::models::table;
    use crate::weights::{Synthetic, manifest};

    /// At their published sizes, from the names and shapes of their tensors alone.
    #[test]
    fn a_unet_and_one_with_fewer_layers_is_known_by_its_tensors() {
        let sizes = Sizes { batch: 1, height: 8, width: 8, tokens: 77 };
        let signature = |graph: &Graph| {
            let nodes = graph.nodes.iter().map(|node| (node.name.clone(), format!("{:?}", node.op)));
            (nodes.collect::<Vec<_>>(), graph.wanted())
        };
        for (name, family) in [
            ("sd15", &sd1::SD1),
            ("tiny-sd", &sd1::SD1),
            ("sdxl", &sdxl::SDXL),
            ("ssd-1b", &sdxl::SDXL),
            ("vega", &sdxl::SDXL),
        ] {
            let graphs = published(name).unwrap().networks(8, 1).unwrap();
            let graph = graphs.iter().find(|graph| graph.network == "unet").unwrap();
            let weights = Synthetic::new(name, graph.wanted());
            let config = infer::unet(&Seen::of(&weights), &family.untold).to_string();
            let found = table::open("unet", &config, name).unwrap().unwrap().graph("unet", FORWARD, &sizes).unwrap();
            assert!(signature(&found.fused()) == signature(graph), "{name}: {config}");
        }
    }

    #[test]
    fn the_families_of_the_manifest_are_known() {
        for entry in manifest::entries() {
            let is_known = |name: &String| FAMILIES.known.iter().any(|family| family.name == name);
            assert!(entry.family.iter().all(is_known), "{}: {:?}", entry.name, entry.family);
            // Only a folder can say by itself what it is.
            let is_folder = matches!(entry.kind, manifest::Kind::Folder | manifest::Kind::Repository);
            assert!(entry.family.is_some() || is_folder, "{}", entry.name);
        }
    }
}
