//! The configurations that a folder would hold, from the shapes of the tensors.
//!
//! A checkpoint says how wide and how deep its networks are, but not how many heads they have, which activation a text
//! encoder uses, or what the UNet predicts: there the published models of its kind decide, as they do in diffusers.

use serde_json::{Value, json};

use super::seen::Seen;

/// Width of a head wherever the number of heads follows from the channels.
const HEAD: usize = 64;
/// Channels of OpenAI's text encoder (ViT-L) and of the narrower of OpenCLIP's two (ViT-H; the other is ViT-bigG).
const OPENAI_WIDTH: usize = 768;
const OPEN_CLIP_WIDTH: usize = 1024;
const TOKEN_EMBEDDING: &str = "text_model.embeddings.token_embedding.weight";

/// What no tensor tells, as the published models of a family have it.
#[derive(Debug, Clone, Copy)]
pub struct Untold {
    /// Heads at every level; `None` has one for each 64 channels.
    pub heads: Option<usize>,
    /// Whether transformers begin and end with linear layers, not with convolutions.
    pub linear_projection: bool,
    /// What is added to the time's embedding, where something is: the pooled text with numbers of which each has this
    /// many sines and cosines, or, for `None`, one vector.
    pub time_id_width: Option<usize>,
    /// Width of the texts' embeddings, where there are networks without a transformer that has it.
    pub text_width: Option<usize>,
    /// Latents times this have a variance of 1.
    pub scaling: f64,
    /// Whose a text encoder is whose width does not tell.
    pub trainer: Trainer,
}

/// `unet/config.json`, but for the side of the latents that it was trained on.
pub fn unet(unet: &Seen, untold: &Untold) -> Value {
    let levels = unet.count("down_blocks.");
    let heads = |channels: &usize| untold.heads.unwrap_or_else(|| (channels / HEAD).max(1));
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
        // The middle block's depth follows from the last level, whether that has transformers or not.
        *last = vec![depth("mid_block.attentions.0".into()); last.len()];
    }
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "attention_head_dim": channels.iter().map(heads).collect::<Vec<_>>(),
        "block_out_channels": &channels,
        "layers_per_block": layers,
        "down_block_types": down_types,
        "up_block_types": types("up", ["CrossAttnUpBlock2D", "UpBlock2D"]),
        "transformer_layers_per_block": down,
        "reverse_transformer_layers_per_block": up,
        "use_linear_projection": untold.linear_projection,
    });
    if !unet.has("mid_block.") {
        config["mid_block_type"] = Value::Null;
    } else if !unet.has("mid_block.attentions.") {
        config["mid_block_type"] = "UNetMidBlock2D".into();
    }
    // The first attention reads texts where it is as wide as those are, unless its own level is as wide too.
    let text_width = unet.dims_of_any("attn2.to_k.weight").and_then(|dims| dims.get(1).copied());
    let only_cross = |i: usize, own: &usize| {
        let key = format!("down_blocks.{i}.attentions.0.transformer_blocks.0.attn1.to_k.weight");
        unet.dim(&key, 1).is_some_and(|width| width != *own && Some(width) == text_width)
    };
    let only_cross: Vec<_> = channels.iter().enumerate().map(|(i, own)| only_cross(i, own)).collect();
    if only_cross.contains(&true) {
        config["only_cross_attention"] = only_cross.into();
    }
    put(&mut config, "in_channels", unet.dim("conv_in.weight", 1));
    put(&mut config, "out_channels", unet.dim("conv_out.weight", 0));
    put(&mut config, "cross_attention_dim", text_width.or(untold.text_width));
    put(&mut config, "time_cond_proj_dim", unet.dim("time_embedding.cond_proj.weight", 1));
    put(&mut config, "num_class_embeds", unet.dim("class_embedding.weight", 0));
    let added = unet.dim("add_embedding.linear_1.weight", 1);
    put(&mut config, "projection_class_embeddings_input_dim", added);
    match (added, untold.time_id_width) {
        (Some(_), Some(width)) => {
            config["addition_embed_type"] = "text_time".into();
            config["addition_time_embed_dim"] = width.into();
        }
        (Some(_), None) => config["class_embed_type"] = "projection".into(),
        (None, _) => {}
    }
    config
}

/// `controlnet/config.json`: what a UNet's has of the way down, and the stages of its picture.
pub fn controlnet(seen: &Seen, untold: &Untold) -> Value {
    let mut config = unet(seen, untold);
    if let Some(config) = config.as_object_mut() {
        for key in ["up_block_types", "reverse_transformer_layers_per_block"] {
            config.remove(key);
        }
    }
    let picture = "controlnet_cond_embedding";
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

/// `vae/config.json`
pub fn vae(vae: &Seen, untold: &Untold) -> Value {
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
        "scaling_factor": untold.scaling,
        "use_quant_conv": vae.has("quant_conv."),
        "use_post_quant_conv": vae.has("post_quant_conv."),
        "mid_block_add_attention": vae.has("decoder.mid_block.attentions.") || vae.has("encoder.mid_block.attentions."),
    });
    put(&mut config, "latent_channels", vae.dim("decoder.conv_in.weight", 1));
    put(&mut config, "in_channels", vae.dim("encoder.conv_in.weight", 1));
    put(&mut config, "out_channels", vae.dim("decoder.conv_out.weight", 0));
    config
}

/// Who trained a text encoder: that decides its activation, what fills up its texts, and how many of its layers are
/// read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trainer {
    /// Of ViT-L.
    OpenAi,
    /// Of ViT-H and ViT-bigG.
    OpenClip,
}

impl Trainer {
    /// By the encoder's width, where that is a published one's. Never by its tensors' names, since programs write
    /// either's in the other's manner.
    pub fn of(text: &Seen, untold: &Untold) -> Self {
        match text_width(text) {
            OPENAI_WIDTH => Self::OpenAi,
            OPEN_CLIP_WIDTH.. => Self::OpenClip,
            _ => untold.trainer,
        }
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

/// `tokenizer/tokenizer_config.json`: OpenCLIP was trained with zeros after the text.
pub fn tokenizer(trainer: Trainer) -> Value {
    let end = "<|endoftext|>";
    json!({"model_max_length": 77, "pad_token": if trainer == Trainer::OpenClip { "!" } else { end }})
}
