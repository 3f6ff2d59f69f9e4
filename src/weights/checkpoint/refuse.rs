//! What files hold that no network reads: what training left, and networks under names that are not known.

use crate::error::short;
use crate::weights::family::{Component, Families};

/// The networks that files with these names may have under a beginning that is not known, as some are `unknown`, and
/// what to do about each.
pub fn astray<'a>(
    mut names: impl Iterator<Item = &'a str>,
    unknown: &[String],
    families: &Families,
) -> Vec<(&'static str, String)> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    for component in families.components().filter(|component| !component.parts.is_empty()) {
        let is_known = |start: &str| component.parts.iter().any(|(known, _)| *known == start);
        let starts =
            component.alone.iter().flat_map(|(marker, _)| unknown.iter().filter_map(move |n| n.strip_suffix(*marker)));
        let start = { starts }.find(|start| start.ends_with('.') && !is_known(start));
        let (name, known) = (component.name, component.parts[0].0);
        if let Some(start) = start.filter(|_| found.iter().all(|(other, _)| *other != name)) {
            let what = format!("has a {name} whose names begin with {}, which is not known", short(start));
            found.push((name, format!("{what}; save it with names that begin with {known}")));
        }
    }
    let denoises = families.components().find(|component| component.denoises);
    if let Some(Component { name, .. }) = denoises.filter(|_| names.any(|n| n.starts_with(AVERAGES))) {
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
