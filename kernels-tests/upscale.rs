//! Models that work on a picture, the x4 upscaler and InstructPix2Pix, against diffusers (`data/make_upscale.py`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::Gpu;
use ornstein::graph::Graph;
use ornstein::image::{Filter, Picture, decode};
use ornstein::network::{Executor, IfWrong};
use ornstein::ops::case::compare;
use ornstein::systems::{Event, Pictures, Request, Studio};
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::vocabulary::vocabulary;
use ornstein::weights::{Model, read_tensors, write_tensors};
use serde::Deserialize;

use crate::checkpoints::kept::Kept;
use crate::memory::binding;
use crate::networks::{PICTURE, data, on_each_executor, within};
use crate::support::{ensure, on_gpu, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for name in cases().expect("pictures.json can be read").into_keys() {
        let title = format!("upscale::picture {name}");
        trials.extend(on_each_executor(&title, move |executor, kind| picture(&name, executor, PICTURE[kind])));
    }
    trials.extend([
        test("upscale::a_picture_is_four_times_as_large", four_times_as_large),
        test("upscale::each_picture_of_a_batch_is_its_own", each_picture_is_its_own),
        test("upscale::given_latents_replace_those_that_would_be_drawn", given_latents),
        test("upscale::the_vaes_scaling_is_the_pipelines_whatever_the_file_says", scaling_is_the_pipelines),
        test("upscale::bicubic_gives_pillows_bytes", bicubic),
        test("upscale::what_is_loaded_is_what_the_parts_say", parts),
        test("upscale::a_request_that_makes_no_sense_says_what_is_taken", refused),
        test("upscale::parameters_tell_what_was_given_for_the_picture", parameters),
        on_gpu("upscale::a_unet_that_does_not_fit_sees_windows_as_diffusers_would".into(), in_windows),
        on_gpu("upscale::a_unet_of_which_no_window_fits_is_an_error_that_names_the_node".into(), no_window_fits),
        on_gpu("upscale::the_device_goes_from_step_to_step_by_itself".into(), chained),
    ]);
    trials
}

/// Tokens of a single letter, which are the first of every vocabulary: at a word's end or before.
const LETTERS: usize = 512;

/// How a picture was drawn.
#[derive(Debug, Deserialize)]
struct Case {
    model: String,
    prompt: String,
    negative: Option<String>,
    steps: usize,
    guidance: Option<f32>,
    image_guidance: Option<f32>,
    noise_level: Option<usize>,
    sampler: Option<String>,
    eta: Option<f64>,
    batch: Option<usize>,
    /// Left, top, right and bottom of what is seen of the picture.
    crop: [usize; 4],
}

impl Case {
    fn of(name: &str) -> Result<Self, Failed> {
        Ok(cases()?.remove(name).ok_or("there is no such picture")?)
    }

    fn request(self) -> Result<Request, Failed> {
        let Self { prompt, negative, steps, guidance, image_guidance, noise_level, sampler, eta, batch, crop, .. } =
            self;
        Ok(Request {
            prompt,
            negative,
            steps: Some(steps),
            guidance,
            image_guidance,
            noise_level,
            sampler,
            eta,
            seed: 7,
            batch: batch.unwrap_or(1),
            init_image: Some(seen(crop)?),
            ..Request::default()
        })
    }
}

fn cases() -> Result<BTreeMap<String, Case>, Failed> {
    Ok(serde_json::from_str(&std::fs::read_to_string(data("upscale/pictures.json"))?)?)
}

fn reference(name: &str) -> Result<Tensor, Failed> {
    let mut tensors = read_tensors(&data("upscale/pictures.safetensors"))?;
    Ok(tensors.remove(name).ok_or("there is no such tensor")?.1)
}

fn shown() -> Result<Picture, Failed> {
    Ok(decode("picture.png", &std::fs::read(data("controlnet/picture.png"))?)?)
}

/// A part of the picture.
fn seen([left, top, right, bottom]: [usize; 4]) -> Result<Picture, Failed> {
    let Picture { width, rgb, .. } = shown()?;
    let rows = (top..bottom).flat_map(|y| &rgb[3 * (y * width + left)..3 * (y * width + right)]);
    Ok(Picture { width: right - left, height: bottom - top, rgb: rows.copied().collect(), parameters: None })
}

fn studio(model: &str) -> Result<Studio, Failed> {
    let folder = tempfile::tempdir()?;
    Kept::of(model)?.write_folder(folder.path())?;
    // The weights are read when they are needed.
    Ok(Studio::open(Model::open(&folder.keep())?)?)
}

fn draw(model: &str, request: &Request, executor: &Executor) -> Result<Pictures, Failed> {
    let never = AtomicBool::new(false);
    Ok(pollster::block_on(studio(model)?.generate(executor, request, &never, &mut |_| {}))?)
}

/// One of the cases on the CPU, changed.
fn drawn(name: &str, change: impl FnOnce(Request) -> Request) -> Result<Pictures, Failed> {
    let case = Case::of(name)?;
    let model = case.model.clone();
    draw(&model, &change(case.request()?), &Executor::Cpu)
}

fn picture(name: &str, executor: &Executor, limit: f64) -> Result<(), Failed> {
    let case = Case::of(name)?;
    let model = case.model.clone();
    within("latents", &draw(&model, &case.request()?, executor)?.latents, &reference(name)?, limit)
}

fn four_times_as_large() -> Result<(), Failed> {
    for (name, width, height) in [("x4", 80, 112), ("pix2pix", 20, 48)] {
        let made = drawn(name, |request| Request { steps: Some(1), batch: 1, ..request })?;
        let Picture { width: found_width, height: found_height, rgb, .. } = &made.pictures[0];
        assert_eq!((*found_width, *found_height, rgb.len()), (width, height, 3 * width * height), "{name}");
    }
    Ok(())
}

fn each_picture_is_its_own() -> Result<(), Failed> {
    for name in ["x4", "pix2pix"] {
        let both = drawn(name, |request| request)?;
        let second = drawn(name, |request| Request { seed: request.seed + 1, batch: 1, ..request })?;
        ensure(second.pictures[0].rgb == both.pictures[1].rgb, format!("{name}: the second picture is another"))?;
    }
    Ok(())
}

fn given_latents() -> Result<(), Failed> {
    // The picture's noise is drawn all the same, and first.
    let with = |noise: f32| {
        let latents = Tensor::new([1, 4, 12, 16], vec![noise; 4 * 12 * 16]);
        drawn("x4-eta", |request| Request { init_latents: Some(latents), eta: None, noise_level: Some(20), ..request })
    };
    let [one, same, other] = [with(0.5)?, with(0.5)?, with(-0.5)?].map(|made| made.latents);
    ensure(one == same && one != other, "the latents are not those that were given")
}

fn scaling_is_the_pipelines() -> Result<(), Failed> {
    let request = Request { steps: Some(1), ..Case::of("x4-ancestral")?.request()? };
    let picture = |scaling: f64| {
        let (mut kept, folder) = (Kept::of("x4")?, tempfile::tempdir()?);
        kept.configs.get_mut("vae").ok_or("no VAE")?["scaling_factor"] = scaling.into();
        let studio = Studio::open(kept.write_folder(folder.path())?)?;
        let never = AtomicBool::new(false);
        let made = pollster::block_on(studio.generate(&Executor::Cpu, &request, &never, &mut |_| {}))?;
        Ok::<_, Failed>(made.pictures[0].rgb.clone())
    };
    ensure(picture(0.08333)? == picture(0.18215)?, "the pictures differ")
}

fn bicubic() -> Result<(), Failed> {
    let picture = shown()?;
    for name in ["bicubic-tall", "bicubic-low", "bicubic-large", "bicubic-line"] {
        let wanted = reference(name)?;
        let &[height, width, _] = wanted.shape.dims() else { return Err("no picture".into()) };
        let found = picture.resized(Filter::Bicubic, [width, height]);
        let differ =
            found.iter().zip(&wanted.data).filter(|(found, wanted)| f32::from(**found) / 255.0 != **wanted).count();
        ensure(differ == 0 && found.len() == wanted.data.len(), format!("{name}: {differ} values differ"))?;
    }
    Ok(())
}

fn parts() -> Result<(), Failed> {
    for (name, wanted) in [("x4", &[1, 1, 1, 1, 1][..]), ("pix2pix", &[1, 1, 1, 1, 1, 1])] {
        let change = |request| Request { steps: Some(1), batch: 1, ..request };
        let parts = studio(name)?.parts(&Executor::Cpu, &change(Case::of(name)?.request()?))?;
        let made = drawn(name, change)?;
        let loaded: Vec<_> = made.spans.iter().filter_map(|span| span.what.strip_prefix("loading the ")).collect();
        assert_eq!(loaded, parts.iter().map(|part| part.what.as_str()).collect::<Vec<_>>());
        assert_eq!(parts.iter().map(|part| part.times).collect::<Vec<_>>(), wanted);
    }
    Ok(())
}

fn refused() -> Result<(), Failed> {
    let message = |model: &str, change: &dyn Fn(Request) -> Request| {
        let settings = studio(model)?.settings(&change(Case::of(model)?.request()?));
        settings.err().map(|error| error.to_string()).ok_or_else(|| Failed::from("nothing was refused"))
    };
    let small = Picture { width: 3, height: 9, rgb: vec![0; 81], parameters: None };
    for model in ["x4", "pix2pix"] {
        let error = message(model, &|request| Request { init_image: None, ..request })?;
        ensure(error == "this model works on a picture; give init image", error)?;
        let error = message(model, &|request| Request { init_image: Some(small.clone()), ..request })?;
        ensure(error.contains("init image has 3x9 pixels, expected at least 4x4"), error)?;
        let error = message(model, &|request| Request { width: Some(64), ..request })?;
        ensure(error.contains("width is not for a StableDiffusion") && error.contains("init image"), error)?;
    }
    let error = message("x4", &|request| Request { noise_level: Some(351), ..request })?;
    ensure(error == "noise level 351 is more than this model's most, 350; try noise level 350", error)?;
    let error = message("pix2pix", &|request| Request { noise_level: Some(1), ..request })?;
    ensure(error.contains("noise level is not for a StableDiffusionInstructPix2PixPipeline"), error)
}

fn parameters() -> Result<(), Failed> {
    let text = |name: &str| {
        let made = drawn(name, |request| Request { steps: Some(1), ..request })?;
        Ok::<_, Failed>(made.pictures[0].parameters.clone().unwrap_or_default())
    };
    let (x4, pix2pix) = (text("x4-other")?, text("pix2pix-ddim")?);
    ensure(x4.contains(", Noise level: 350,"), x4)?;
    ensure(pix2pix.contains(", Image CFG scale: 1,"), pix2pix)
}

fn chained(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let executor = Executor::Gpu(Arc::clone(gpu), DType::F32, IfWrong::UseAnyway);
    for name in ["x4", "x4-ancestral", "pix2pix", "pix2pix-ddim"] {
        let made = |check, executor: &Executor| {
            let case = Case::of(name)?;
            let model = case.model.clone();
            Ok::<_, Failed>(draw(&model, &Request { check, ..case.request()? }, executor)?.latents)
        };
        let device = made(false, &executor)?;
        ensure(device == made(true, &executor)?, format!("{name}: checking changed the latents"))?;
        let error = compare(&device, &made(false, &Executor::Cpu)?).relative;
        ensure(error < 1e-4, format!("{name}: relative error {error:.2e}"))?;
    }
    Ok(())
}

/// The upscaler with a vocabulary of single letters, whose table of vectors would be the largest value of all.
fn of_letters() -> Result<Studio, Failed> {
    let (mut kept, folder) = (Kept::of("x4")?, tempfile::tempdir()?.keep());
    let mut words: BTreeMap<String, usize> = serde_json::from_str(&vocabulary())?;
    words.retain(|_, id| *id < LETTERS);
    words.extend([("<|startoftext|>".to_string(), LETTERS), ("<|endoftext|>".to_string(), LETTERS + 1)]);
    kept.configs.get_mut("text_encoder").ok_or("no text encoder")?["vocab_size"] = words.len().into();
    kept.write_folder(&folder)?;
    std::fs::write(folder.join("tokenizer/vocab.json"), serde_json::to_string(&words)?)?;
    std::fs::write(folder.join("tokenizer/merges.txt"), "#version: 0.2\n")?;
    let mut tensors = kept.component("text_encoder");
    let table = tensors.iter_mut().find(|(name, _)| name.ends_with("token_embedding.weight")).ok_or("no table")?.1;
    let width = table.shape.channels();
    let marks = table.data.split_off(table.data.len() - 2 * width);
    table.data.truncate(LETTERS * width);
    table.data.extend(marks);
    table.shape = [words.len(), width].into();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    write_tensors(&folder.join("text_encoder/model.safetensors"), &tensors)?;
    Ok(Studio::open(Model::open(&folder)?)?)
}

/// A picture whose latents are larger than a window, on a device that binds this share of the UNet's largest value, or
/// of all; and what is told of the UNet.
fn bound(share: f64) -> Result<(ornstein::error::Result<Pictures>, Vec<String>), Failed> {
    let (width, height) = (68, 72);
    let picture = Picture { width, height, rgb: shown()?.resized(Filter::Bicubic, [width, height]), parameters: None };
    let request =
        Request { prompt: "a b".into(), steps: Some(2), seed: 7, init_image: Some(picture), ..Request::default() };
    let studio = of_letters()?;
    let parts = studio.parts(&Executor::Cpu, &request)?;
    let unet = parts.into_iter().find(|part| part.what == "UNet").ok_or("there is no UNet")?;
    let executor = binding((share * largest(unet.graph) as f64) as u64)?;
    let (never, mut told) = (AtomicBool::new(false), Vec::new());
    let tell = &mut |event: Event<'_>| {
        if let Event::Warning(text) = event {
            told.extend(Some(text.to_string()).filter(|text| text.starts_with("the UNet")));
        }
    };
    let made = pollster::block_on(studio.generate(&executor, &request, &never, tell));
    Ok((made, told))
}

/// Bytes in f32.
fn largest(graph: Graph) -> usize {
    4 * graph.fused().values.iter().map(|value| value.ty.shape.len()).max().unwrap_or_default()
}

fn in_windows(_: &Arc<Gpu>) -> Result<(), Failed> {
    let (made, told) = bound(0.9)?;
    let latents = made?.latents;
    let start = "the UNet runs in tiles of 64x64 latents, which changes the picture a little: ";
    ensure(told.len() == 1 && told[0].starts_with(start) && told[0].contains("in one buffer"), told.join("\n"))?;
    within("latents", &latents, &reference("x4-windows")?, PICTURE[1])?;
    let (whole, told) = bound(100.0)?;
    ensure(told.is_empty(), told.join("\n"))?;
    let apart = compare(&latents, &whole?.latents).relative;
    ensure(apart > 1e-4 && apart < 0.6, format!("{apart:.2e} from the whole"))
}

fn no_window_fits(_: &Arc<Gpu>) -> Result<(), Failed> {
    let (made, told) = bound(0.6)?;
    let error = made.err().map(|error| error.to_string()).unwrap_or_default();
    ensure(error.starts_with("unet.") && error.contains(" in one buffer ([2, 32, 32, "), &*error)?;
    ensure(error.ends_with("try dtype f16, device cpu, a smaller width or height"), error)?;
    ensure(told.is_empty(), told.join("\n"))
}
