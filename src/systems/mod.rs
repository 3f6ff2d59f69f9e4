//! Systems: what a model as a whole does, from a request to pictures, one row for each.
//!
//! A system is plain code over what all of them share, from the ground up: [`request`], [`settings`] and [`made`]
//! (plain values), [`part`] (the networks it runs, as a list), [`kit`] (networks loaded, kept and released; telling,
//! cancelling, timing), [`windows`] (of a state that is too large) and `rest` (the pictures of a batch that are still
//! to be made), [`cut`] (a network cut by how often its inputs change), [`denoise`] (the step loop), [`text`], `encode`
//! and [`decode`]. [`Studio`] is a model opened with its system.

mod canvas;
pub mod cut;
pub mod decode;
pub mod denoise;
mod encode;
pub mod families;
pub mod guidance;
mod hires;
mod kept;
pub mod kit;
pub mod latent_diffusion;
mod loras;
pub mod made;
pub mod noise;
mod parameters;
pub mod part;
pub mod pixels;
pub mod request;
mod rest;
pub mod settings;
pub mod stable_diffusion;
pub mod start;
mod studio;
pub mod system;
pub mod text;
mod tiles;
pub mod windows;

pub use loras::{Loras, open_lora};
pub use made::{Event, Keep, Made, Pictures, Seconds, Span, Tell};
pub use part::{Models, Part};
pub use request::{Control, Hires, HiresMode, Request, Variation};
pub use settings::Settings;
pub use studio::{Loaded, Studio};
pub use system::System;

use crate::error::{Error, Field, Remedy, Result, short};
use crate::models::unet2d;
use crate::weights::Model;
use latent_diffusion::{Kind, LatentDiffusion, Under};
use pixels::{Defaults, Pixels};
use stable_diffusion::variant::{EDITOR, REFINER, REPAINTER, SD, SDXL, UNCLIP, UPSCALER, Variant, XL_REPAINTER};
use stable_diffusion::{StableDiffusion, unet_of};

/// A system that is built.
pub struct Row {
    /// The classes of `model_index.json` that it draws, its own first.
    pub classes: &'static [&'static str],
    /// What it does, in a few words.
    pub about: &'static str,
    /// Groups of the optional fields of a [`Request`] ([`Request::given`]) that it takes.
    takes: &'static [&'static [Field]],
    /// The fields that an example request sets.
    pub example: &'static [(Field, &'static str)],
    /// Whether a model's networks are such a system's.
    fits: fn(&Model) -> bool,
    open: fn(&Models) -> Result<Box<dyn System>>,
}

impl Row {
    /// Whether it takes this field.
    pub fn takes(&self, field: Field) -> bool {
        self.taken().any(|taken| taken == field)
    }

    /// The fields that it takes, in order.
    pub fn taken(&self) -> impl Iterator<Item = Field> {
        self.takes.iter().flat_map(|fields| fields.iter().copied())
    }

    /// Whether what it draws is up to a prompt.
    pub fn is_prompted(&self) -> bool {
        self.example.iter().any(|(field, _)| *field == Field::Prompt)
    }

    /// Whether the system takes all that a request sets.
    ///
    /// # Errors
    /// If it does not: the first field that it does not take, and those that it does.
    fn check(&self, request: &Request) -> Result<()> {
        request.given().try_for_each(|field| self.check_field(field))
    }

    /// Refuses a field that it does not take.
    fn check_field(&self, field: Field) -> Result<()> {
        if self.takes(field) {
            return Ok(());
        }
        let taken: Vec<_> = self.taken().map(Field::word).collect();
        let what = format!("is not for a {}, which takes {}", self.classes[0], taken.join(", "));
        Err(Error::usage(what).of(field).remedies([Remedy::Without(field)]))
    }
}

/// One row a system.
pub static TABLE: &[Row] = &[
    Row {
        classes: &[
            "StableDiffusionPipeline",
            "StableDiffusionImg2ImgPipeline",
            "StableDiffusionControlNetPipeline",
            "StableDiffusionControlNetImg2ImgPipeline",
            "StableDiffusionPipelineSafe",
            "LatentConsistencyModelPipeline",
            "LatentConsistencyModelImg2ImgPipeline",
        ],
        about: "text to picture: Stable Diffusion 1 and 2",
        takes: &[TEXT, SIZE, STEPS, START, MASK, HIRES, &[Field::Control]],
        example: &[(Field::Prompt, "a red circle on a blue background"), (Field::Model, "sd15")],
        fits: |model| fits(model, &SD),
        open: |models| Ok(Box::new(StableDiffusion::open(models, &SD)?)),
    },
    Row {
        classes: &[
            "StableDiffusionXLPipeline",
            "StableDiffusionXLControlNetPipeline",
            "StableDiffusionXLControlNetImg2ImgPipeline",
        ],
        about: "text to picture: Stable Diffusion XL",
        takes: &[TEXT, SIZE, STEPS, START, MASK, HIRES, &[Field::Refiner, Field::RefinerStart, Field::Control]],
        example: &[(Field::Prompt, "a lighthouse at dusk"), (Field::Model, "sdxl")],
        fits: |model| fits(model, &SDXL),
        open: |models| Ok(Box::new(StableDiffusion::open(models, &SDXL)?)),
    },
    Row {
        classes: &["StableDiffusionXLImg2ImgPipeline"],
        about: "picture to a finer one: Stable Diffusion XL's refiner",
        takes: &[TEXT, SIZE, STEPS, START, MASK, &[Field::Control]],
        example: &[
            (Field::Prompt, "a lighthouse at dusk"),
            (Field::Model, "sdxl-refiner"),
            (Field::InitImage, "lighthouse.png"),
            (Field::Strength, "0.3"),
        ],
        fits: |model| fits(model, &REFINER),
        open: |models| Ok(Box::new(StableDiffusion::open(models, &REFINER)?)),
    },
    Row {
        classes: &["StableDiffusionInpaintPipeline", "StableDiffusionInpaintPipelineLegacy"],
        about: "text, picture and mask to picture: Stable Diffusion 1 and 2 for inpainting",
        takes: &[TEXT, SIZE, STEPS, START, MASK],
        example: &[
            (Field::Prompt, "a red armchair"),
            (Field::Model, "path/to/stable-diffusion-inpainting"),
            (Field::InitImage, "room.png"),
            (Field::Mask, "mask.png"),
        ],
        fits: |model| fits(model, &REPAINTER),
        open: |models| Ok(Box::new(StableDiffusion::open(models, &REPAINTER)?)),
    },
    Row {
        classes: &["StableDiffusionXLInpaintPipeline"],
        about: "text, picture and mask to picture: Stable Diffusion XL for inpainting",
        takes: &[TEXT, SIZE, STEPS, START, MASK],
        example: &[
            (Field::Prompt, "a red armchair"),
            (Field::Model, "path/to/stable-diffusion-xl-1.0-inpainting-0.1"),
            (Field::InitImage, "room.png"),
            (Field::Mask, "mask.png"),
        ],
        fits: |model| fits(model, &XL_REPAINTER),
        open: |models| Ok(Box::new(StableDiffusion::open(models, &XL_REPAINTER)?)),
    },
    Row {
        classes: &["StableUnCLIPImg2ImgPipeline"],
        about: "picture to others like it: Stable Diffusion 2.1 unCLIP",
        takes: &[PICTURE, &[Field::NoiseLevel], TEXT, SIZE, STEPS],
        example: &[(Field::Model, "sd21-unclip"), (Field::InitImage, "lighthouse.png")],
        fits: |model| fits(model, &UNCLIP),
        open: |models| Ok(Box::new(StableDiffusion::open(models, &UNCLIP)?)),
    },
    Row {
        classes: &["StableDiffusionInstructPix2PixPipeline"],
        about: "text and picture to picture: InstructPix2Pix edits a picture by an instruction",
        takes: &[PICTURE, TEXT, &[Field::ImageGuidance], STEPS],
        example: &[
            (Field::Prompt, "make the mountains snowy"),
            (Field::Model, "pix2pix"),
            (Field::InitImage, "photo.png"),
            (Field::ImageGuidance, "1.5"),
        ],
        fits: |model| fits(model, &EDITOR),
        open: |models| Ok(Box::new(StableDiffusion::open(models, &EDITOR)?)),
    },
    Row {
        classes: &["StableDiffusionUpscalePipeline"],
        about: "text and picture to a picture four times as large: Stable Diffusion's x4 upscaler",
        takes: &[PICTURE, TEXT, &[Field::NoiseLevel], STEPS],
        example: &[
            (Field::Prompt, "a white cat"),
            (Field::Model, "x4"),
            (Field::InitImage, "small.png"),
            (Field::NoiseLevel, "20"),
        ],
        fits: |model| fits(model, &UPSCALER),
        open: |models| Ok(Box::new(StableDiffusion::open(models, &UPSCALER)?)),
    },
    Row {
        classes: &["DDPMPipeline"],
        about: "noise to picture, in pixels, as the model was trained: 1000 steps",
        takes: &[SIZE, STEPS, START, MASK, &[Field::Class]],
        example: &[(Field::Model, "ddpm-cifar10-32"), (Field::Seed, "1")],
        fits: is_in_pixels,
        open: |models| Ok(Box::new(Pixels::open(models, &Defaults { steps: 1000, sampler: None })?)),
    },
    Row {
        classes: &["DDIMPipeline"],
        about: "noise to picture, in pixels, in few steps: 50",
        takes: &[SIZE, STEPS, START, MASK, &[Field::Class]],
        example: &[(Field::Model, "ddpm-cifar10-32"), (Field::Sampler, "ddim"), (Field::Steps, "50")],
        fits: is_in_pixels,
        open: |models| Ok(Box::new(Pixels::open(models, &Defaults { steps: 50, sampler: Some("ddim") })?)),
    },
    Row {
        classes: &["LDMPipeline"],
        about: "noise to picture, in latents",
        takes: &[SIZE, STEPS, START, MASK],
        example: &[(Field::Model, "path/to/ldm-celebahq-256"), (Field::Steps, "50")],
        fits: |model| draws_latents(model, false),
        open: |models| Ok(Box::new(LatentDiffusion::open(models, &Kind { under: Under::Nothing, steps: 50 })?)),
    },
    Row {
        classes: &["LDMTextToImagePipeline"],
        about: "text to picture: latent diffusion of 2021",
        takes: &[&[Field::Prompt, Field::Guidance, Field::GuidanceRescale], SIZE, STEPS, START, MASK],
        example: &[
            (Field::Prompt, "a painting of a squirrel eating a burger"),
            (Field::Model, "path/to/ldm-text2im-large-256"),
            (Field::Guidance, "6"),
            (Field::Eta, "0.3"),
        ],
        fits: |model| fits(model, &SD) && model.has("bert"),
        open: |models| Ok(Box::new(LatentDiffusion::open(models, &Kind { under: Under::Text, steps: 50 })?)),
    },
    Row {
        classes: &["LDMSuperResolutionPipeline"],
        about: "picture to a larger picture: latent diffusion of 2021",
        takes: &[PICTURE, STEPS],
        example: &[
            (Field::Model, "path/to/ldm-super-resolution-4x"),
            (Field::InitImage, "small.png"),
            (Field::Eta, "1"),
        ],
        fits: |model| draws_latents(model, true),
        open: |models| Ok(Box::new(LatentDiffusion::open(models, &Kind { under: Under::Picture, steps: 100 })?)),
    },
];

// Fields that systems take together.
const TEXT: &[Field] =
    &[Field::Prompt, Field::Negative, Field::Guidance, Field::GuidanceRescale, Field::ClipSkip, Field::Lora];
const SIZE: &[Field] = &[Field::Width, Field::Height];
const STEPS: &[Field] = &[
    Field::Steps,
    Field::Sampler,
    Field::Spacing,
    Field::Schedule,
    Field::Prediction,
    Field::Eta,
    Field::InitLatents,
    Field::VariationStrength,
];
const PICTURE: &[Field] = &[Field::InitImage];
const START: &[Field] = &[Field::InitImage, Field::Strength];
const MASK: &[Field] = &[Field::Mask, Field::MaskBlur, Field::MaskInvert, Field::InpaintFullRes, Field::Extend];
const HIRES: &[Field] = &[Field::Hires, Field::HiresStrength, Field::HiresMode];

/// Whether the model's UNet is an unconditional one.
fn is_in_pixels(model: &Model) -> bool {
    let path = "unet/config.json";
    model.text(path).is_ok_and(|text| unet2d::Config::from_json(&text, path).is_ok())
        && !model.has("vae")
        && !model.has("vqvae")
}

/// Whether the model's UNet is an unconditional one that draws an autoencoder's latents, with a picture joined to them
/// or without.
fn draws_latents(model: &Model, with_picture: bool) -> bool {
    let path = "unet/config.json";
    let config = model.text(path).and_then(|text| unet2d::Config::from_json(&text, path));
    model.has("vqvae") && config.is_ok_and(|config| (config.in_channels != config.out_channels) == with_picture)
}

/// Whether the model's UNet is of this kind.
fn fits(model: &Model, variant: &Variant) -> bool {
    unet_of(model).is_ok_and(|unet| {
        let latents = unet.out_channels;
        (variant.fits)(&unet) && unet.in_channels == latents + (variant.beside)(latents)
    })
}

/// The class that a model's `model_index.json` names, if there is one that can be understood and names any.
pub fn class_of(model: &Model) -> Option<String> {
    let index: serde_json::Value = model.json("model_index.json").ok()?;
    index["_class_name"].as_str().filter(|class| !class.is_empty()).map(String::from)
}

/// The row of a system that draws what names this class.
pub fn row_of(class: Option<&str>) -> Option<&'static Row> {
    TABLE.iter().find(|row| class.is_some_and(|class| row.classes.contains(&class)))
}

/// The row of the system that a model names in its `model_index.json` or, if it names none that fits its networks, of
/// the first that does; and what is to be said of that.
pub fn find(model: &Model) -> (&'static Row, Option<String>) {
    let class = class_of(model);
    let named = row_of(class.as_deref());
    let fitting = || TABLE.iter().find(|row| (row.fits)(model));
    // A class decides, unless its networks are another's. Without any, opening the commonest says what is missing.
    let row = named.filter(|row| (row.fits)(model)).or_else(fitting).or(named).unwrap_or(&TABLE[0]);
    let told = class.filter(|class| !row.classes.contains(&class.as_str()));
    let own = row.classes[0];
    (row, told.map(|class| format!("model_index.json names the class {}: drawn as by {own}", short(class))))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::network::Executor;

    #[test]
    fn a_field_that_a_system_does_not_take_is_refused_with_those_that_it_takes() {
        let row = Row { takes: &[&[Field::Prompt, Field::Steps]], ..TABLE[0] };
        let request = Request { prompt: "x".into(), steps: Some(2), ..Request::default() };
        assert!(row.check(&request).is_ok());
        let error = row.check(&Request { eta: Some(0.5), ..request }).unwrap_err().to_string();
        assert!(error.starts_with("eta is not for a StableDiffusionPipeline, which takes prompt, steps"), "{error}");
    }

    #[test]
    fn a_class_is_of_one_row() {
        let mut classes: Vec<_> = TABLE.iter().flat_map(|row| row.classes).collect();
        let all = classes.len();
        classes.sort_unstable();
        classes.dedup();
        assert_eq!(classes.len(), all);
    }

    /// The built-in model's row, and what is said of it, with this for its `model_index.json`.
    fn found(index: &str) -> (&'static str, Option<String>) {
        let (from, at) = (std::path::Path::new("assets/demo-model/unet/config.json"), tempfile::tempdir().unwrap());
        std::fs::create_dir(at.path().join("unet")).unwrap();
        std::fs::copy(from, at.path().join("unet/config.json")).unwrap();
        std::fs::write(at.path().join("model_index.json"), index).unwrap();
        let (row, told) = find(&Model::open(at.path()).unwrap());
        (row.classes[0], told)
    }

    #[test]
    fn a_class_that_is_not_the_networks_is_told_and_the_networks_decide() {
        let own = "StableDiffusionPipeline";
        for index in [r#"{"_class_name": "LatentConsistencyModelPipeline"}"#, "{}", r#"{"_class_name": ""}"#, "{", ""] {
            assert_eq!(found(index), (own, None), "{index}");
        }
        for class in ["StableDiffusionXLPipeline", "FluxPipeline", "DDPMPipeline"] {
            let (row, told) = found(&format!(r#"{{"_class_name": "{class}"}}"#));
            assert_eq!(row, own);
            assert_eq!(told.as_deref(), Some(&*format!("model_index.json names the class {class}: drawn as by {own}")));
        }
    }

    #[test]
    fn what_is_loaded_is_what_the_parts_say() {
        let studio = Studio::open(Model::builtin()).unwrap();
        let request = Request { prompt: "a red circle".into(), steps: Some(2), ..Request::default() };
        let parts = studio.parts(&Executor::Cpu, &request).unwrap();
        let never = AtomicBool::new(false);
        let drawn = pollster::block_on(studio.generate(&Executor::Cpu, &request, &never, &mut |_| {})).unwrap();
        let spans = drawn.spans.iter().filter_map(|span| span.what.strip_prefix("loading the "));
        assert_eq!(spans.collect::<Vec<_>>(), parts.iter().map(|part| part.what.as_str()).collect::<Vec<_>>());
        let times: Vec<_> = parts.iter().map(|part| part.times).collect();
        assert_eq!(times, [1, 1, 1, 2, 1]);
    }

    #[test]
    fn a_drawing_can_move_between_threads() {
        fn moves<T: Send>(_: T) {}
        let studio = Studio::open(Model::builtin()).unwrap();
        let (request, never) = (Request::default(), AtomicBool::new(false));
        moves(studio.generate(&Executor::Cpu, &request, &never, &mut |_| {}));
        moves(studio.load(&Executor::Cpu).generate(&request, &never, &mut |_| {}));
    }
}
