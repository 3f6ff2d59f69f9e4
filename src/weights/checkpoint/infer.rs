//! The configurations that a folder would hold, from the shapes of the tensors.
//!
//! A checkpoint says how wide and how deep its networks are, but not how many heads they have, which activation a text
//! encoder uses, or what the UNet predicts: there the published models of its kind decide, as they do in diffusers.

use serde_json::{Value, json};

use super::prediction::{EPSILON, Prediction};
use crate::tensor::Weights;
use crate::weights::manifest::Family;

/// Width of a head wherever the number of heads follows from the channels: Stable Diffusion 2, SDXL, every CLIP.
const HEAD: usize = 64;
/// Heads of Stable Diffusion 1 at every level.
const SD1_HEADS: usize = 8;
/// Sines and cosines for each of SDXL's time ids.
const TIME_ID_WIDTH: usize = 256;
/// Width of SDXL's two text encoders together.
const SDXL_TEXT_WIDTH: usize = 2048;
/// Channels of OpenAI's text encoder (ViT-L) and of the narrower of OpenCLIP's two (ViT-H; the other is ViT-bigG).
const OPENAI_WIDTH: usize = 768;
const OPEN_CLIP_WIDTH: usize = 1024;
const TOKEN_EMBEDDING: &str = "text_model.embeddings.token_embedding.weight";

/// A network's tensors, to be counted and measured.
pub struct Seen<'a> {
    weights: &'a dyn Weights,
    /// Sorted.
    names: Vec<String>,
}

impl<'a> Seen<'a> {
    pub fn of(weights: &'a dyn Weights) -> Self {
        let mut names = weights.names();
        names.sort();
        Self { weights, names }
    }

    pub fn has(&self, start: &str) -> bool {
        let at = self.names.partition_point(|name| name.as_str() < start);
        self.names.get(at).is_some_and(|name| name.starts_with(start))
    }

    /// How many numbers from 0 on follow `start`.
    fn count(&self, start: &str) -> usize {
        (0..).take_while(|i| self.has(&format!("{start}{i}."))).count()
    }

    fn dims(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.weights.shape(name)?.dims().to_vec())
    }

    fn dim(&self, name: &str, index: usize) -> Option<usize> {
        self.dims(name)?.get(index).copied()
    }

    /// The shape of the first tensor whose name ends so.
    fn dims_of_any(&self, end: &str) -> Option<Vec<usize>> {
        self.dims(self.names.iter().find(|name| name.ends_with(end))?)
    }

    /// The output channels of a residual block, from whichever of its tensors is there.
    fn channels(&self, resnet: &str) -> Option<usize> {
        let tensors = ["conv1.weight", "conv1.bias", "norm2.weight", "conv2.weight"];
        tensors.iter().find_map(|tensor| self.dim(&format!("{resnet}.{tensor}"), 0))
    }
}

/// What a UNet alone tells of its family: only SDXL takes sizes of pictures, and its first level has no transformer; only
/// Stable Diffusion 1 projects into its transformers by convolutions.
pub fn family(unet: &Seen) -> Family {
    if unet.has("add_embedding.") && !unet.has("down_blocks.0.attentions.") {
        Family::Sdxl
    } else if unet.dims_of_any("proj_in.weight").is_some_and(|dims| dims.len() == 2) {
        Family::Sd2
    } else {
        Family::Sd1
    }
}

/// Whether this is the UNet of SDXL's refiner, which unlike the base has no transformer at its lowest level.
pub fn is_refiner(unet: &Seen) -> bool {
    let last = unet.count("down_blocks.").saturating_sub(1);
    family(unet) == Family::Sdxl && !unet.has(&format!("down_blocks.{last}.attentions."))
}

/// `unet/config.json`; `side` is the latents' height and width that it was trained on.
pub fn unet(unet: &Seen, side: usize) -> Value {
    let levels = unet.count("down_blocks.");
    let family = family(unet);
    let heads = |channels: &usize| match family {
        Family::Sd1 => SD1_HEADS,
        Family::Sd2 | Family::Sdxl => (channels / HEAD).max(1),
    };
    let channels: Vec<_> = (0..levels).filter_map(|i| unet.channels(&format!("down_blocks.{i}.resnets.0"))).collect();
    let layers: Vec<_> = (0..levels).map(|i| unet.count(&format!("down_blocks.{i}.resnets."))).collect();
    let depth = |path: String| unet.count(&format!("{path}.transformer_blocks."));
    let depths = |block: String, layers: usize| -> Vec<usize> {
        (0..layers).map(|j| depth(format!("{block}.attentions.{j}"))).collect()
    };
    let mut down: Vec<_> = (0..levels).map(|i| depths(format!("down_blocks.{i}"), layers[i])).collect();
    let up: Vec<_> = (0..levels).map(|i| depths(format!("up_blocks.{i}"), layers[levels - 1 - i] + 1)).collect();
    let types = |way: &str, kinds: [&'static str; 2]| -> Vec<&str> {
        let cross = |i| unet.has(&format!("{way}_blocks.{i}.attentions."));
        (0..levels).map(|i| if cross(i) { kinds[0] } else { kinds[1] }).collect()
    };
    let down_types = types("down", ["CrossAttnDownBlock2D", "DownBlock2D"]);
    if let (Some(last), Some(&"DownBlock2D")) = (down.last_mut(), down_types.last()) {
        // The middle block's depth is told by the last level, whether that has transformers or not.
        *last = vec![depth("mid_block.attentions.0".into()); last.len()];
    }
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "sample_size": side,
        "attention_head_dim": channels.iter().map(heads).collect::<Vec<_>>(),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": down_types,
        "up_block_types": types("up", ["CrossAttnUpBlock2D", "UpBlock2D"]),
        "transformer_layers_per_block": down,
        "reverse_transformer_layers_per_block": up,
        "use_linear_projection": family != Family::Sd1,
    });
    if !unet.has("mid_block.") {
        config["mid_block_type"] = Value::Null;
    } else if !unet.has("mid_block.attentions.") {
        config["mid_block_type"] = "UNetMidBlock2D".into();
    }
    put(&mut config, "in_channels", unet.dim("conv_in.weight", 1));
    put(&mut config, "out_channels", unet.dim("conv_out.weight", 0));
    put(
        &mut config,
        "cross_attention_dim",
        unet.dims_of_any("attn2.to_k.weight").and_then(|dims| dims.get(1).copied()),
    );
    put(&mut config, "time_cond_proj_dim", unet.dim("time_embedding.cond_proj.weight", 1));
    put(&mut config, "num_class_embeds", unet.dim("class_embedding.weight", 0));
    let added = unet.dim("add_embedding.linear_1.weight", 1);
    put(&mut config, "projection_class_embeddings_input_dim", added);
    match (added, family) {
        (Some(_), Family::Sdxl) => {
            config["addition_embed_type"] = "text_time".into();
            config["addition_time_embed_dim"] = TIME_ID_WIDTH.into();
        }
        (Some(_), _) => config["class_embed_type"] = "projection".into(),
        (None, _) => {}
    }
    config
}

/// `controlnet/config.json`: what a UNet's has of the way down, and the stages of its picture.
pub fn controlnet(seen: &Seen) -> Value {
    let mut config = unet(seen, 0);
    if let Some(config) = config.as_object_mut() {
        for key in ["sample_size", "up_block_types", "reverse_transformer_layers_per_block"] {
            config.remove(key);
        }
    }
    let picture = "controlnet_cond_embedding";
    if family(seen) == Family::Sdxl && config.get("cross_attention_dim").is_none() {
        // Some of SDXL's have no transformers.
        config["cross_attention_dim"] = SDXL_TEXT_WIDTH.into();
    }
    let halving = (0..).map_while(|i| seen.dim(&format!("{picture}.blocks.{}.weight", 2 * i + 1), 0));
    let stages: Vec<_> = seen.dim(&format!("{picture}.conv_in.weight"), 0).into_iter().chain(halving).collect();
    config["_class_name"] = "ControlNetModel".into();
    config["conditioning_embedding_out_channels"] = stages.into();
    config
}

fn put(config: &mut Value, key: &str, value: Option<usize>) {
    if let Some(value) = value {
        config[key] = value.into();
    }
}

/// `vae/config.json`, where the UNet's family says how its latents are scaled.
pub fn vae(vae: &Seen, family: Option<Family>) -> Value {
    let levels = vae.count("encoder.down_blocks.").max(vae.count("decoder.up_blocks."));
    // The decoder's levels are in the order of computation, from the widest on.
    let channels = |i: usize| {
        let up = format!("decoder.up_blocks.{}.resnets.0", levels - 1 - i);
        vae.channels(&format!("encoder.down_blocks.{i}.resnets.0")).or_else(|| vae.channels(&up))
    };
    let layers = vae.count("encoder.down_blocks.0.resnets.").max(vae.count("decoder.up_blocks.0.resnets.").max(1) - 1);
    let mut config = json!({
        "_class_name": "AutoencoderKL",
        "block_out_channels": (0..levels).filter_map(channels).collect::<Vec<_>>(),
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "layers_per_block": layers,
        "scaling_factor": if family == Some(Family::Sdxl) { 0.13025 } else { 0.18215 },
        "use_quant_conv": vae.has("quant_conv."),
        "use_post_quant_conv": vae.has("post_quant_conv."),
        "mid_block_add_attention": vae.has("decoder.mid_block.attentions.") || vae.has("encoder.mid_block.attentions."),
    });
    put(&mut config, "latent_channels", vae.dim("decoder.conv_in.weight", 1));
    put(&mut config, "in_channels", vae.dim("encoder.conv_in.weight", 1));
    put(&mut config, "out_channels", vae.dim("decoder.conv_out.weight", 0));
    config
}

/// Who trained a text encoder: that decides its activation, what fills up its texts, and whether Stable Diffusion
/// leaves out its last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trainer {
    OpenAi,
    OpenClip,
}

/// The trainer of a family's text encoder: by its width, where that is a published one's, and else as the family's own
/// is. Never by its tensors' names, since programs write either's in the other's manner.
pub fn trainer(text: &Seen, component: &str, family: Option<Family>) -> Trainer {
    match (text_width(text), component, family) {
        (OPENAI_WIDTH, "text_encoder", _) => Trainer::OpenAi,
        (OPEN_CLIP_WIDTH.., ..) | (_, "text_encoder_2", _) | (_, _, Some(Family::Sd2)) => Trainer::OpenClip,
        _ => Trainer::OpenAi,
    }
}

fn text_width(text: &Seen) -> usize {
    let width = text.dim(TOKEN_EMBEDDING, 1).or_else(|| text.dim("text_model.final_layer_norm.weight", 0));
    width.unwrap_or(OPENAI_WIDTH)
}

/// `text_encoder/config.json`
pub fn text_encoder(text: &Seen, trainer: Trainer) -> Value {
    let width = text_width(text);
    let projection = text.dim("text_projection.weight", 0);
    let class = if projection.is_some() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
    let mut config = json!({
        "architectures": [class],
        "model_type": "clip_text_model",
        "hidden_act": if trainer == Trainer::OpenClip { "gelu" } else { "quick_gelu" },
        "hidden_size": width,
        "num_attention_heads": (width / HEAD).max(1),
        "num_hidden_layers": text.count("text_model.encoder.layers."),
        // What the published files have: pooling then looks for the largest id, as the original code does.
        "eos_token_id": 2,
    });
    put(&mut config, "projection_dim", projection);
    put(&mut config, "intermediate_size", text.dims_of_any("mlp.fc1.weight").and_then(|dims| dims.first().copied()));
    put(&mut config, "vocab_size", text.dim(TOKEN_EMBEDDING, 0));
    let positions = text.dim("text_model.embeddings.position_embedding.weight", 0);
    put(&mut config, "max_position_embeddings", positions);
    config
}

/// `scheduler/scheduler_config.json` with the keys that the family's published one has: each sampler takes its own
/// class's default for every other, so a key more or less is another schedule.
pub fn scheduler(family: Family, prediction: &Prediction) -> Value {
    let mut config = json!({
        "_class_name": match family {
            // PNDM knows nothing of a schedule that ends in pure noise.
            Family::Sd1 if !prediction.zero_snr => "PNDMScheduler",
            Family::Sd1 | Family::Sdxl => "EulerDiscreteScheduler",
            Family::Sd2 => "DDIMScheduler",
        },
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
    if family == Family::Sdxl {
        config["timestep_spacing"] = "leading".into();
        config["interpolation_type"] = "linear".into();
        config["sample_max_value"] = 1.0.into();
    }
    if family != Family::Sd1 || prediction.kind != EPSILON {
        config["prediction_type"] = prediction.kind.into();
    }
    if prediction.zero_snr {
        config["rescale_betas_zero_snr"] = true.into();
        // The last training step is the one of pure noise, and only this spacing begins with it.
        config["timestep_spacing"] = "trailing".into();
    }
    config
}

/// `model_index.json`.
pub fn index(family: Family) -> Value {
    let class = if family == Family::Sdxl { "StableDiffusionXLPipeline" } else { "StableDiffusionPipeline" };
    json!({"_class_name": class, "force_zeros_for_empty_prompt": true})
}

/// `tokenizer/tokenizer_config.json`: OpenCLIP was trained with zeros after the text.
pub fn tokenizer(trainer: Trainer) -> Value {
    let end = "<|endoftext|>";
    json!({"model_max_length": 77, "pad_token": if trainer == Trainer::OpenClip { "!" } else { end }})
}
