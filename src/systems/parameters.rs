//! What a picture's text chunk says made it, in the form that AUTOMATIC1111's web UI writes.

use std::fmt::Write;

use super::request::{Control, Hires, HiresMode, Request, Variation};
use super::settings::Settings;
use crate::conditioning::Syntax;
use crate::samplers::{self, Portion};

/// What the models are called.
pub(super) struct Names {
    pub model: String,
    pub controls: Vec<String>,
    pub refiner: Option<String>,
}

/// What made the picture of this place in the batch with the models of these names: the prompt, a line for the negative
/// prompt if there is one, and one line of `key: value`.
pub(super) fn parameters(request: &Request, settings: &Settings, index: usize, names: &Names) -> String {
    let prompt = request.shown_prompt.as_ref().unwrap_or(&request.prompt).trim();
    let negative = request.negative.as_deref().unwrap_or_default().trim();
    let Settings { width, height, steps, guidance, spacing, prediction, eta, guidance_rescale, .. } = settings;
    let (sampler, seed) = (samplers::web_ui_name(&settings.sampler), request.seed_of(index));
    let mut text = String::new();
    if !prompt.is_empty() {
        text += &format!("{prompt}\n");
    }
    if !negative.is_empty() {
        text += &format!("Negative prompt: {negative}\n");
    }
    text += &format!("Steps: {steps}, Sampler: {sampler}, ");
    if let Some(sigmas) = &settings.sigmas {
        text += &format!("Schedule type: {}, ", sigmas.name());
    }
    text += &format!("CFG scale: {guidance}, Seed: {seed}, Size: {width}x{height}");
    let mut add = |key: &str, value: &dyn std::fmt::Display| _ = write!(text, ", {key}: {value}");
    add("Model", &quoted(&names.model));
    if let Some(Variation { seed, strength }) = request.variation_of(index) {
        add("Variation seed", &seed);
        add("Variation seed strength", &strength);
    }
    if let Some(skip) = request.conditioning.clip_skip {
        add("Clip skip", &skip);
    }
    if let Some(share) = guidance_rescale {
        // As SD.Next has it.
        add("CFG rescale", share);
    }
    if let Some(spacing) = spacing {
        add("Timestep spacing", spacing);
    }
    if let Some(prediction) = prediction {
        add("Prediction", prediction);
    }
    if let Some(eta) = eta {
        add(if sampler == "DDIM" { "Eta DDIM" } else { "Eta" }, eta);
    }
    // The web UI reads brackets as weights unless it is told not to.
    let is_plain = request.conditioning.syntax == Syntax::Plain;
    if is_plain && [prompt, negative].iter().any(|text| text.contains(['(', '['])) {
        add("Emphasis", &"None");
    }
    match (settings.portion, &names.refiner) {
        (Portion::Last(strength), _) => add("Denoising strength", &strength),
        (Portion::Before(start), Some(refiner)) => {
            add("Refiner", &quoted(refiner));
            add("Refiner switch at", &start);
        }
        _ => {}
    }
    if let Some(Hires { scale, strength, mode }) = request.hires {
        add("Denoising strength", &strength);
        add("Hires upscale", &scale);
        add("Hires upscaler", &if mode == HiresMode::Latent { "Latent" } else { "Lanczos" });
    }
    if let Some(blur) = request.mask_blur {
        add("Mask blur", &blur);
    }
    if let Some(padding) = request.inpaint_full_res {
        add("Inpaint area", &"Only masked");
        add("Masked area padding", &padding);
    }
    if let Some([left, top, right, bottom]) = request.extend {
        add("Extended by", &quoted(&format!("{left},{top},{right},{bottom}")));
    }
    if let Some(guidance) = request.image_guidance {
        // As the web UI has it.
        add("Image CFG scale", &guidance);
    }
    if let Some(level) = request.noise_level {
        add("Noise level", &level);
    }
    add("RNG", &request.rng.automatic1111_name());
    for (index, (model, control)) in names.controls.iter().zip(&request.controls).enumerate() {
        add(&format!("ControlNet {index}"), &quoted(&guiding(model, control)));
    }
    add("Version", &format_args!("ornstein {}", env!("CARGO_PKG_VERSION")));
    text
}

/// As the web UI's ControlNet extension has it, of a picture that is given as the network sees it.
fn guiding(model: &str, Control { scale, start, end, .. }: &Control) -> String {
    format!(
        "Module: none, Model: {model}, Weight: {scale:?}, Resize Mode: Just Resize, Guidance Start: {start:?}, \
         Guidance End: {end:?}"
    )
}

/// A value that would break the line is written as a JSON string.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) { serde_json::Value::from(value).to_string() } else { value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Picture;
    use crate::rng::NoiseSource;

    fn request() -> Request {
        Request { prompt: "a red circle".into(), seed: 7, ..Request::default() }
    }

    fn settings(sampler: &str) -> Settings {
        Settings { guidance: 4.0, sampler: sampler.into(), ..Settings::square(64) }
    }

    fn names(model: &str) -> Names {
        Names { model: model.into(), controls: Vec::new(), refiner: None }
    }

    fn text(request: &Request) -> String {
        parameters(request, &settings("ddim"), 0, &names("shapes"))
    }

    #[test]
    fn spread_sigmas_are_the_type_of_a_schedule() {
        let settings = Settings { sigmas: Some(samplers::Sigmas::Karras), ..settings("dpm++2m") };
        let text = parameters(&request(), &settings, 0, &names("a"));
        assert!(text.contains("Sampler: DPM++ 2M, Schedule type: Karras, CFG scale"), "{text}");
    }

    #[test]
    fn a_picture_to_start_from_and_a_refiner_are_told() {
        let text = |portion, refiner: Option<&str>| {
            let names = Names { refiner: refiner.map(String::from), ..names("shapes") };
            parameters(&request(), &Settings { portion, ..settings("ddim") }, 0, &names)
        };
        let strong = text(Portion::Last(0.75), None);
        assert!(strong.contains("Model: shapes, Denoising strength: 0.75, RNG"), "{strong}");
        let refined = text(Portion::Before(0.8), Some("finer"));
        assert!(refined.contains("Model: shapes, Refiner: finer, Refiner switch at: 0.8, RNG"), "{refined}");
    }

    #[test]
    fn parameters_tell_how_the_prompt_was_read() {
        let mut request = Request { rng: NoiseSource::Cuda, ..request() };
        request.conditioning.clip_skip = Some(2);
        assert!(text(&request).contains("Model: shapes, Clip skip: 2, RNG: NV, Version"), "{}", text(&request));
        let mut brackets = Request { prompt: "(a)".into(), ..self::request() };
        assert!(text(&brackets).contains("Emphasis: None, RNG: CPU"), "{}", text(&brackets));
        brackets.conditioning.syntax = Syntax::Weighted;
        assert!(!text(&brackets).contains("Emphasis"), "{}", text(&brackets));
    }

    #[test]
    fn what_replaces_the_models_schedule_is_told() {
        let text = |sampler| {
            let (spacing, prediction) = (Some("trailing".into()), Some("v".into()));
            let settings =
                Settings { guidance_rescale: Some(0.7), spacing, prediction, eta: Some(0.3), ..settings(sampler) };
            parameters(&request(), &settings, 0, &names("shapes"))
        };
        let said = "Model: shapes, CFG rescale: 0.7, Timestep spacing: trailing, Prediction: v, Eta DDIM: 0.3, RNG";
        assert!(text("ddim").contains(said), "{}", text("ddim"));
        assert!(text("tcd").contains("Sampler: TCD,") && text("tcd").contains(" Eta: 0.3,"), "{}", text("tcd"));
    }

    #[test]
    fn controlnets_are_in_the_web_uis_form() {
        let image = Picture { width: 1, height: 1, rgb: vec![0; 3], parameters: None };
        let control = Control { image, scale: 0.8, start: 0.0, end: 0.5 };
        let request = Request { controls: vec![control; 2], ..request() };
        let names = Names { controls: ["canny", "depth"].map(String::from).into(), ..names("shapes") };
        let text = parameters(&request, &settings("ddim"), 0, &names);
        let said = "ControlNet 1: \"Module: none, Model: depth, Weight: 0.8, Resize Mode: Just Resize, \
                    Guidance Start: 0.0, Guidance End: 0.5\", Version";
        assert!(text.contains(said) && text.contains("ControlNet 0: \"Module: none, Model: canny"), "{text}");
    }

    #[test]
    fn parameters_are_in_the_web_uis_form() {
        let line = concat!(
            "Steps: 25, Sampler: DDIM, CFG scale: 4, Seed: 7, Size: 64x64, Model: shapes, RNG: CPU, Version: ornstein ",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text(&request()), format!("a red circle\n{line}"));
        assert_eq!(text(&Request { prompt: " ".into(), ..request() }), line);
        let request = Request { negative: Some("blurry".into()), ..request() };
        let text = parameters(&request, &Settings { guidance: 7.5, ..settings("ddim") }, 0, &names("a, b"));
        assert!(text.starts_with("a red circle\nNegative prompt: blurry\nSteps: 25,"), "{text}");
        assert!(text.contains("CFG scale: 7.5") && text.contains(r#"Model: "a, b""#), "{text}");
    }
}
