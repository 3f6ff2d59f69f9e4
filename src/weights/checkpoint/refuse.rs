//! Files that hold tensors, but no model: what they are, and what to do with them.

use crate::error::{Field, Message, Remedy, short};
use crate::weights::family::{Component, Families, Foreign};

const LORA: &str = "is a LoRA, a change to a model and not a model itself";

/// Parts of names that only one kind of file has, the kind, and what to do.
const KINDS: &[Foreign] = &[
    (&["lora_controlnet"], "is a Control-LoRA, which is not supported; give a ControlNet"),
    (&["difference"], "is a ControlNet's difference to a model, which is not supported; give the whole ControlNet"),
    (
        &["control_add_embedding."],
        "is a ControlNet for several kinds of images, which is not supported; give one for one",
    ),
    (
        &["lora_up.", "lora_down.", "lora_A.", "lora_B.", "lora.up.", "lora.down.", "hada_w1", "lokr_w1", "dora_scale"],
        LORA,
    ),
    (
        &["emb_params", "string_to_param"],
        "is a textual inversion, words for a model and not a model itself; give a checkpoint",
    ),
];

/// What a file with these names is, if that is known, here or as one of `others`, and cannot be opened as a model.
pub fn other_kind<'a>(names: impl Iterator<Item = &'a str> + Clone, others: &[Foreign]) -> Option<Message> {
    let has = |part: &&str| names.clone().any(|name| name.contains(*part));
    let (_, what) = KINDS.iter().chain(others).find(|(parts, _)| parts.iter().any(has))?;
    let as_lora = (*what == LORA).then_some(Remedy::GiveAs(Field::Lora));
    Some(Message::from(*what).remedies(as_lora))
}

/// The networks that files with these names may have under a beginning that is not known, and what to do about each.
pub fn astray<'a>(names: impl Iterator<Item = &'a str> + Clone, families: &Families) -> Vec<(&'static str, String)> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    for component in families.components().filter(|component| !component.parts.is_empty()) {
        let is_known = |start: &str| component.parts.iter().any(|(known, _)| *known == start);
        let starts =
            component.alone.iter().flat_map(|(marker, _)| names.clone().filter_map(move |n| n.strip_suffix(*marker)));
        let start = { starts }.find(|start| start.ends_with('.') && !is_known(start));
        let (name, known) = (component.name, component.parts[0].0);
        if let Some(start) = start.filter(|_| found.iter().all(|(other, _)| *other != name)) {
            let what = format!("has a {name} whose names begin with {}, which is not known", short(start));
            found.push((name, format!("{what}; save it with names that begin with {known}")));
        }
    }
    let denoises = families.components().find(|component| component.denoises);
    if let Some(Component { name, .. }) = denoises.filter(|_| names.clone().any(|n| n.starts_with(AVERAGES))) {
        found.push((
            name,
            format!(
                "has its {name} as moving averages alone ({AVERAGES}..), which are not read; give the \
                                   checkpoint with the weights themselves"
            ),
        ));
    }
    found
}

/// How names begin of a UNet's moving averages, whose names have no dots.
const AVERAGES: &str = "model_ema.diffusion_model";

/// What training leaves in a checkpoint: moving averages, noise schedules, counters, losses, training-only buffers.
pub fn is_leftover(name: &str) -> bool {
    const STARTS: [&str; 9] = [
        "model_ema.",
        "loss.",
        "alphas_cumprod",
        "betas",
        "sqrt_",
        "log_one_minus_",
        "posterior_",
        "optimizer",
        "denoiser.",
    ];
    const NAMES: [&str; 10] = [
        "global_step",
        "scale_factor",
        "logvar",
        "lvlb_weights",
        "v_pred",
        "ztsnr",
        "attn_mask",
        "epoch",
        "lr_schedulers",
        "embedding_manager",
    ];
    STARTS.iter().any(|start| name.starts_with(start)) || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lora_is_told_in_every_way_it_is_written() {
        for name in [
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
            "unet.mid_block.attentions.0.proj_in.lora_A.weight",
            "lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a",
        ] {
            assert!(other_kind([name].into_iter(), &[]).unwrap().what.contains("is a LoRA"), "{name}");
        }
        assert_eq!(other_kind(["model.diffusion_model.input_blocks.0.0.weight"].into_iter(), &[]), None);
    }
}
