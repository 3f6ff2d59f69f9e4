//! Parts of pictures drawn anew, second runs and variations, against diffusers, Pillow and the web UI's arithmetic
//! (`data/make_editing.py`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::image::{Mask, Picture, decode};
use ornstein::inspect::inspect;
use ornstein::network::Executor;
use ornstein::systems::{Control, Event, Hires, HiresMode, Made, Pictures, Request, Studio, Variation};
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::{Model, read_tensors};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::checkpoints::checkpoint;
use crate::checkpoints::kept::Kept;
use crate::controlnet::write_for_the_built_in_model;
use crate::networks::{PICTURE, data, on_each_executor, within};
use crate::support::{ensure, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for name in cases().into_keys() {
        let title = format!("editing::picture {name}");
        trials.extend(on_each_executor(&title, move |executor, kind| {
            within("latents", &draw(&name, executor, |_| {})?.latents, &reference(&name)?, PICTURE[kind])
        }));
    }
    trials.extend([
        test("editing::a_blurred_mask_is_pillows", blurred),
        test("editing::a_region_is_put_back_where_it_was", put_back),
        test("editing::what_a_faded_mask_keeps_is_the_pictures_own_to_the_bit", kept_to_the_bit),
        test("editing::a_controlnet_sees_the_region_that_is_drawn", a_controlnet_sees_the_region),
        test("editing::an_inverted_mask_draws_what_the_other_keeps", inverted),
        test("editing::a_picture_that_is_extended_keeps_its_own_latents", extended),
        test("editing::pixels_and_latents_without_a_prompt_are_held_too", held_everywhere),
        test("editing::each_picture_of_a_batch_is_its_own", each_is_its_own),
        test("editing::what_is_loaded_is_what_the_parts_say", parts_are_loaded),
        test("editing::what_makes_no_sense_is_said", refused),
        test("editing::a_mask_of_another_aspect_is_told", another_aspect),
        test("editing::a_network_that_sees_a_mask_is_known_in_one_file", one_file),
        test("editing::parameters_tell_what_was_done", told),
    ]);
    trials
}

/// What diffusers' pipelines were called with: the prompt, seed, picture and mask are the same for all.
#[derive(Deserialize)]
struct Case {
    model: String,
    scheduler: Value,
    steps: usize,
    strength: Option<f64>,
    guidance: Option<f32>,
    eta: Option<f64>,
    blur: Option<f32>,
    padding: Option<usize>,
    height: Option<usize>,
    width: Option<usize>,
    hires: Option<String>,
    scale: Option<f64>,
    variation: Option<f64>,
}

fn cases() -> BTreeMap<String, Case> {
    let text = std::fs::read_to_string(data("editing/cases.json")).expect("cases.json can be read");
    serde_json::from_str(&text).expect("cases.json can be understood")
}

fn reference(name: &str) -> Result<Tensor, Failed> {
    let mut tensors = read_tensors(&data("editing/cases.safetensors"))?;
    Ok(tensors.remove(name).ok_or("there is no such tensor")?.1)
}

fn file(name: &str) -> Result<Picture, Failed> {
    Ok(decode(name, &std::fs::read(data(&format!("editing/{name}")))?)?)
}

/// The small model of this kind with a schedule, as a folder.
fn model(kind: &str, scheduler: &Value, at: &Path) -> Result<Model, Failed> {
    let mut kept = match kind {
        "sdxl-inpaint" => Kept::of("sdxl")?.with_unet_inputs(9),
        family => Kept::of(family)?,
    };
    kept.configs.insert("scheduler".into(), scheduler.clone());
    kept.write_folder(at)?;
    std::fs::write(at.join("model_index.json"), json!({"force_zeros_for_empty_prompt": true}).to_string())?;
    Ok(Model::open(at)?)
}

fn request(case: &Case) -> Result<Request, Failed> {
    let is_drawn_anew = case.hires.is_none() && case.variation.is_none();
    let mode = if case.hires.as_deref() == Some("latent") { HiresMode::Latent } else { HiresMode::Lanczos };
    let hires = case.scale.map(|scale| Hires { scale, strength: case.strength.unwrap_or_default(), mode });
    Ok(Request {
        prompt: "a photo of a cat".into(),
        seed: 7,
        width: case.width,
        height: case.height,
        steps: Some(case.steps),
        guidance: Some(case.guidance.unwrap_or(5.0)),
        eta: case.eta,
        init_image: is_drawn_anew.then(|| file("picture.png")).transpose()?,
        mask: is_drawn_anew.then(|| file("mask.png")).transpose()?,
        strength: case.strength.filter(|_| is_drawn_anew),
        mask_blur: case.blur,
        inpaint_full_res: case.padding,
        hires,
        variation: case.variation.map(|strength| Variation { seed: 11, strength }),
        ..Request::default()
    })
}

fn made(studio: &Studio, request: &Request, executor: &Executor) -> Result<Pictures, Failed> {
    Ok(pollster::block_on(studio.generate(executor, request, &AtomicBool::new(false), &mut |_| {}))?)
}

fn draw(name: &str, executor: &Executor, change: impl FnOnce(&mut Request)) -> Result<Pictures, Failed> {
    let (folder, case) = (tempfile::tempdir()?, cases().remove(name).ok_or("there is no such picture")?);
    let mut request = request(&case)?;
    change(&mut request);
    made(&Studio::open(model(&case.model, &case.scheduler, folder.path())?)?, &request, executor)
}

fn blurred() -> Result<(), Failed> {
    let mask = Mask::of(&file("mask.png")?);
    for deviation in ["0.0", "0.4", "1.0", "2.5", "7.0", "40.0"] {
        let bytes: Vec<_> = mask.clone().blurred(deviation.parse()?).grey.into_iter().map(f32::from).collect();
        ensure(bytes == reference(&format!("blur.{deviation}"))?.data, format!("{deviation} is another blur"))?;
    }
    Ok(())
}

/// The bytes of the first picture.
fn bytes(pictures: &Pictures) -> Vec<f32> {
    pictures.pictures[0].rgb.iter().copied().map(f32::from).collect()
}

fn put_back() -> Result<(), Failed> {
    for name in ["sd1-region", "sd1-inpaint-region"] {
        let drawn = draw(name, &Executor::Cpu, |_| {})?;
        let wanted = reference(&format!("{name}.picture"))?.data;
        assert_eq!((drawn.pictures[0].width, drawn.pictures[0].height), (38, 45));
        let off = bytes(&drawn).iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // diffusers rounds a pixel's share three times.
        ensure(off <= 2.0, format!("{name}: {off} levels away"))?;
    }
    Ok(())
}

/// The built-in model's picture of a circle, which is 64 x 64, and a mask for the middle of it.
fn circle(studio: &Studio) -> Result<Request, Failed> {
    let text = Request { prompt: "a red circle on a blue background".into(), ..Request::default() };
    let drawn = made(studio, &Request { steps: Some(8), seed: 3, ..text.clone() }, &Executor::Cpu)?;
    let mask = (0..64 * 64).flat_map(|at| [if (at % 64 / 16 + at / 64 / 16) % 3 == 1 { 255 } else { 0 }; 3]).collect();
    let mask = Picture { width: 64, height: 64, rgb: mask, parameters: None };
    let steps = Some(4);
    Ok(Request { init_image: Some(drawn.pictures[0].clone()), mask: Some(mask), steps, guidance: Some(1.0), ..text })
}

fn kept_to_the_bit() -> Result<(), Failed> {
    let studio = Studio::open(Model::builtin())?;
    let request = Request { mask_blur: Some(0.0), ..circle(&studio)? };
    let drawn = made(&studio, &request, &Executor::Cpu)?;
    let (given, mask) = (request.init_image.ok_or("no picture")?.rgb, request.mask.ok_or("no mask")?.rgb);
    let pixels = given.iter().zip(&drawn.pictures[0].rgb).zip(&mask);
    let same = |wanted: u8| pixels.clone().filter(|(_, mask)| **mask == wanted).all(|((a, b), _)| a == b);
    ensure(same(0) && !same(255), "what is kept was changed, or what is drawn was not")
}

fn a_controlnet_sees_the_region() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    write_for_the_built_in_model(&folder.path().join("guide"))?;
    let studio = Studio::open(Model::builtin())?.with_controls(vec![Model::open(&folder.path().join("guide"))?])?;
    let request = circle(&Studio::open(Model::builtin())?)?;
    let small = |at: usize| [if (20..28).contains(&(at % 64)) && (20..28).contains(&(at / 64)) { 255 } else { 0 }; 3];
    let mask = Picture { width: 64, height: 64, rgb: (0..64 * 64).flat_map(small).collect(), parameters: None };
    // A guiding picture with another colour from this column on; the region that is drawn ends at 32.
    let drawn = |column: usize| {
        let rgb = (0..64 * 64).flat_map(|at| [if at % 64 >= column { 200 } else { 40 }; 3]).collect();
        let image = Picture { width: 64, height: 64, rgb, parameters: None };
        let controls = vec![Control { image, scale: 3.0, start: 0.0, end: 1.0 }];
        let request = Request { controls, mask: Some(mask.clone()), inpaint_full_res: Some(4), ..request.clone() };
        made(&studio, &request, &Executor::Cpu).map(|made| made.latents.data)
    };
    ensure(drawn(40)? == drawn(56)?, "what lies outside of the region guides it")?;
    ensure(drawn(40)? != drawn(24)?, "what lies in the region does not guide it")
}

fn inverted() -> Result<(), Failed> {
    let studio = Studio::open(Model::builtin())?;
    let request = circle(&studio)?;
    let mut mask = request.mask.clone().ok_or("no mask")?;
    mask.rgb.iter_mut().for_each(|value| *value = 255 - *value);
    let drawn = made(&studio, &Request { mask: Some(mask), ..request.clone() }, &Executor::Cpu)?;
    let other = made(&studio, &Request { mask_invert: true, ..request }, &Executor::Cpu)?;
    ensure(drawn.latents.data == other.latents.data, "another part was drawn")
}

fn extended() -> Result<(), Failed> {
    let studio = Studio::open(Model::builtin())?;
    let request = Request { mask: None, extend: Some([16, 0, 0, 32]), mask_blur: Some(0.0), ..circle(&studio)? };
    let drawn = made(&studio, &request, &Executor::Cpu)?.pictures.remove(0);
    assert_eq!((drawn.width, drawn.height), (80, 96));
    let rows = drawn.rgb.chunks_exact(3 * 80).take(64).flat_map(|row| &row[3 * 16..]);
    ensure(rows.eq(&request.init_image.ok_or("no picture")?.rgb), "the picture itself was changed")
}

fn held_everywhere() -> Result<(), Failed> {
    for small in ["pixels/plain", "latent_diffusion/unconditional"] {
        let studio = Studio::open(Model::open(&data(small))?)?;
        let size = studio.settings(&Request::default())?;
        let pixel = |at: usize| [(at % 251) as u8, (at % 17 * 15) as u8, 90];
        let rgb = (0..size.width * size.height).flat_map(pixel).collect();
        let picture = Picture { width: size.width, height: size.height, rgb, parameters: None };
        let left = |at: usize| [if at % size.width < size.width / 2 { 255 } else { 0 }; 3];
        let mask = (0..size.width * size.height).flat_map(left).collect();
        let mask = Picture { rgb: mask, ..picture.clone() };
        let drawn = |seed, mask: Option<&Picture>| {
            let init_image = Some(picture.clone());
            let request = Request { seed, steps: Some(3), strength: Some(1.0), init_image, ..Request::default() };
            made(&studio, &Request { mask: mask.cloned(), ..request }, &Executor::Cpu)
        };
        let [a, b] = [drawn(1, Some(&mask))?, drawn(2, Some(&mask))?].map(|made| made.latents);
        let width = a.shape.dims()[3];
        let columns = |right: bool| {
            let both = a.data.iter().zip(&b.data).enumerate();
            both.filter(move |(at, _)| (at % width >= width / 2) == right).all(|(_, (a, b))| a == b)
        };
        ensure(columns(true) && !columns(false), format!("{small}: what is kept depends on the seed"))?;
        let whole = drawn(1, None)?.latents;
        ensure(whole.data != a.data, format!("{small}: the mask changes nothing"))?;
    }
    Ok(())
}

fn each_is_its_own() -> Result<(), Failed> {
    for name in ["sd1-dpm-sde", "sd1-inpaint-euler-a", "lanczos"] {
        let both = draw(name, &Executor::Cpu, |request| (request.batch, request.seed) = (2, 6))?;
        let one = draw(name, &Executor::Cpu, |_| {})?;
        ensure(one.pictures[0].rgb == both.pictures[1].rgb, format!("{name}: the second picture is another"))?;
    }
    // The seed of a variation counts up, and the picture's stays.
    let both = draw("variation", &Executor::Cpu, |request| {
        request.batch = 2;
        request.variation = Some(Variation { seed: 10, strength: 0.3 });
    })?;
    let one = draw("variation", &Executor::Cpu, |_| {})?;
    ensure(one.pictures[0].rgb == both.pictures[1].rgb, "the second variation is another")
}

fn parts_are_loaded() -> Result<(), Failed> {
    for name in ["sd1-euler", "sd1-inpaint-pndm", "sd1-inpaint-euler-a", "latent", "lanczos"] {
        let (folder, case) = (tempfile::tempdir()?, cases().remove(name).ok_or("there is no such picture")?);
        let studio = Studio::open(model(&case.model, &case.scheduler, folder.path())?)?;
        let request = request(&case)?;
        let mut loading = Vec::new();
        let mut tell = |event: Event<'_>| {
            if let Event::Loading(what) = event {
                loading.push(what.to_string());
            }
        };
        let mut keep = |_: Made<'_>| Ok(());
        let never = AtomicBool::new(false);
        pollster::block_on(studio.generate_each(&Executor::Cpu, &request, &never, &mut tell, &mut keep))?;
        let parts: Vec<_> = studio.parts(&Executor::Cpu, &request)?.into_iter().map(|part| part.what).collect();
        assert_eq!(loading, parts, "{name}");
    }
    Ok(())
}

fn refusal(name: &str, change: impl FnOnce(&mut Request)) -> Result<String, Failed> {
    let drawn = draw(name, &Executor::Cpu, change);
    drawn.err().and_then(|failed| failed.message().map(String::from)).ok_or_else(|| "nothing was refused".into())
}

fn refused() -> Result<(), Failed> {
    type Change = fn(&mut Request);
    let black = |request: &mut Request| {
        request.mask.iter_mut().for_each(|mask| mask.rgb.fill(0));
    };
    let tiny = |request: &mut Request| {
        request.init_image = Some(Picture { width: 1, height: 2, rgb: vec![0; 6], parameters: None });
        (request.mask, request.strength) = (None, None);
    };
    let cases: [(&str, Change, &str); 21] = [
        ("sd1-euler", |r| r.init_image = None, "mask is for a part of a picture; give init image"),
        ("sd1-euler", |r| (r.mask, r.mask_blur) = (None, Some(1.0)), "give mask or extend"),
        ("sd1-euler", |r| (r.mask, r.inpaint_full_res) = (None, Some(1)), "give mask or extend"),
        ("sd1-euler", |r| (r.mask, r.mask_invert) = (None, true), "mask invert is for a part of a picture; give mask"),
        ("sd1-euler", |r| r.mask_blur = Some(f32::NAN), "mask blur NaN does not lie from 0 to 1000"),
        ("sd1-euler", |r| r.strength = Some(0.0), "strength 0 leaves none of 6 steps"),
        ("sd1-euler", |r| r.strength = Some(f64::NAN), "strength NaN does not lie from 0 to 1"),
        ("sd1-euler", |r| r.extend = Some([0; 4]), "extend 0,0,0,0 adds nothing"),
        ("sd1-euler", |r| r.extend = Some([0, 1 << 20, 0, 0]), "is more than 16384 pixels to a side"),
        ("sd1-euler", |r| r.extend = Some([16384, 16384, 0, 0]), "makes a picture that is too large"),
        ("sd1-euler", tiny, "init image has 1x2 pixels, expected at least 4x4; give width or height"),
        ("sd1-euler", |r| r.hires = Some(Hires::default()), "leave out init image"),
        ("sd1-euler", black, "mask has no white, so nothing would be drawn anew; try another mask or give mask invert"),
        ("sd1-region", black, "mask has no white"),
        ("sd1-inpaint-pndm", |r| r.mask = None, "this model draws a part of a picture anew; give mask"),
        (
            "sd1-inpaint-pndm",
            |r| (r.mask, r.init_image, r.strength) = (None, None, None),
            "a picture anew; give init image",
        ),
        ("latent", |r| r.hires = Some(Hires { scale: 1.0, ..Hires::default() }), "hires 1 does not lie above 1"),
        ("latent", |r| r.hires = Some(Hires { scale: 1.01, ..Hires::default() }), "leaves 40x32 as it is"),
        ("latent", |r| r.hires = Some(Hires { strength: 0.1, ..Hires::default() }), "hires strength 0.1 leaves none"),
        ("variation", |r| r.variation = Some(Variation { seed: 1, strength: 1.5 }), "does not lie from 0 to 1"),
        ("variation", |r| r.init_latents = Some(Tensor::zeros([1])), "leave out init latents"),
    ];
    for (name, change, part) in cases {
        let error = refusal(name, change)?;
        ensure(error.contains(part), format!("{part:?} is not in {error:?}"))?;
    }
    Ok(())
}

fn another_aspect() -> Result<(), Failed> {
    let studio = Studio::open(Model::builtin())?;
    let told = |width: usize, height: usize| {
        let mut request = circle(&studio)?;
        request.mask = Some(Picture { width, height, rgb: vec![255; 3 * width * height], parameters: None });
        let mut said = Vec::new();
        let mut tell = |event: Event<'_>| {
            if let Event::Warning(text) = event {
                said.push(text.to_string());
            }
        };
        let studio = Studio::open(Model::builtin())?;
        pollster::block_on(studio.generate(&Executor::Cpu, &request, &AtomicBool::new(false), &mut tell))?;
        Ok::<_, Failed>(said)
    };
    assert_eq!(told(32, 32)?, Vec::<String>::new());
    assert_eq!(told(64, 32)?, ["the mask, 64x32 pixels, is stretched over the picture's 64x64"]);
    Ok(())
}

fn one_file() -> Result<(), Failed> {
    let (_folder, path) = checkpoint("sd1-inpaint", DType::F16)?;
    let model = Model::open(&path)?;
    let found = inspect(&model)?;
    assert_eq!(found.family, Some("Stable Diffusion 1 for inpainting"));
    assert_eq!(found.class.as_deref(), Some("StableDiffusionInpaintPipeline"));
    let (init_image, mask) = (Some(file("picture.png")?), Some(file("mask.png")?));
    let settings = Studio::open(model)?.settings(&Request { init_image, mask, ..Request::default() })?;
    assert_eq!((settings.width, settings.height, settings.sampler.as_str()), (36, 44, "pndm"));
    Ok(())
}

fn told() -> Result<(), Failed> {
    let parameters = |name: &str, change: fn(&mut Request)| {
        Ok::<_, Failed>(draw(name, &Executor::Cpu, change)?.pictures.remove(0).parameters.unwrap_or_default())
    };
    let region = parameters("sd1-region", |r| r.mask_blur = Some(2.0))?;
    let wanted = "Denoising strength: 0.75, Mask blur: 2, Inpaint area: Only masked, Masked area padding: 3";
    ensure(region.contains(wanted), region)?;
    let hires = parameters("latent", |_| {})?;
    ensure(hires.contains("Denoising strength: 0.7, Hires upscale: 1.5, Hires upscaler: Latent"), hires)?;
    let varied = parameters("variation", |_| {})?;
    ensure(varied.contains("Variation seed: 11, Variation seed strength: 0.3"), varied)
}
