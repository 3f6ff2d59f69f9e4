//! Systems: what a model as a whole does, from a request to pictures, one row for each.
//!
//! A system is plain code over what all of them share, from the ground up: [`request`] (plain values), [`part`] (the
//! networks it runs, as a list), [`kit`] (networks loaded, kept and released; telling, cancelling, timing), [`cut`] (a
//! network cut by how often its inputs change), [`denoise`] (the step loop), [`text`] and [`decode`]. [`Studio`] is a model
//! opened with its system.

pub mod cut;
pub mod decode;
pub mod denoise;
pub mod guidance;
mod kept;
pub mod kit;
mod parameters;
pub mod part;
pub mod request;
pub mod stable_diffusion;
mod studio;
pub mod system;
pub mod text;

pub use part::{Models, Part};
pub use request::{Control, Event, Keep, Made, Pictures, Request, Seconds, Settings, Span, Tell};
pub use studio::{Loaded, Studio};
pub use system::System;

use crate::error::Result;
use crate::models::unet;
use crate::weights::Model;
use stable_diffusion::StableDiffusion;
use stable_diffusion::variant::{SD, SDXL, Variant};

/// A system that is built.
pub struct Row {
    /// The classes of `model_index.json` that it draws as, its own first.
    pub classes: &'static [&'static str],
    /// What it does, in a few words.
    pub about: &'static str,
    /// The names of the [`Request`]'s fields that it takes beside those that all take.
    pub takes: &'static [&'static str],
    /// Whether it draws with a model that names another class or none.
    fits: fn(&Model) -> bool,
    open: fn(&Models) -> Result<Box<dyn System>>,
}

/// One row a system.
pub static TABLE: [Row; 2] = [
    Row {
        classes: &[
            "StableDiffusionPipeline",
            "StableDiffusionImg2ImgPipeline",
            "StableDiffusionControlNetPipeline",
            "LatentConsistencyModelPipeline",
        ],
        about: "text to picture: Stable Diffusion 1 and 2",
        takes: TEXT_TO_PICTURE,
        fits: |model| fits(model, &SD),
        open: |models| Ok(Box::new(StableDiffusion::open(models, &SD)?)),
    },
    Row {
        classes: &[
            "StableDiffusionXLPipeline",
            "StableDiffusionXLImg2ImgPipeline",
            "StableDiffusionXLControlNetPipeline",
        ],
        about: "text to picture: Stable Diffusion XL",
        takes: TEXT_TO_PICTURE,
        fits: |model| fits(model, &SDXL),
        open: |models| Ok(Box::new(StableDiffusion::open(models, &SDXL)?)),
    },
];

const TEXT_TO_PICTURE: &[&str] = &[
    "prompt",
    "negative",
    "width",
    "height",
    "steps",
    "guidance",
    "sampler",
    "spacing",
    "prediction",
    "eta",
    "loras",
    "controls",
    "init_latents",
];

/// Whether the model's UNet is of this kind.
fn fits(model: &Model, variant: &Variant) -> bool {
    let path = "unet/config.json";
    let config = model.text(path).and_then(|text| unet::Config::from_json(&text, path));
    config.is_ok_and(|config| config.text_time.is_some() == variant.pooled)
}

/// The row of the system that a model names in its `model_index.json` or, if it names none that is known, of the first
/// that can draw with it; and what is to be said of that.
///
/// # Errors
/// If that file cannot be understood.
pub fn find(model: &Model) -> Result<(&'static Row, Option<String>)> {
    let path = "model_index.json";
    let index: serde_json::Value = if model.has(path) { model.json(path)? } else { serde_json::Value::Null };
    let class = index["_class_name"].as_str();
    if let Some(row) = TABLE.iter().find(|row| class.is_some_and(|class| row.classes.contains(&class))) {
        return Ok((row, None));
    }
    // Without one, opening the commonest says what is missing.
    let row = TABLE.iter().find(|row| (row.fits)(model)).unwrap_or(&TABLE[0]);
    let own = row.classes[0];
    Ok((
        row,
        class.map(|class| {
            format!("the model is a {}, which is not known: drawn as a {own}", crate::error::short(class))
        }),
    ))
}
