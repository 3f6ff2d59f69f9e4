//! Variations of a picture against diffusers, transformers and Pillow (`data/make_unclip.py`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::forward::forward;
use ornstein::image::{Filter, Picture, Preprocessor};
use ornstein::inspect::{inspect, verify};
use ornstein::network::Executor;
use ornstein::systems::{Pictures, Request, Studio};
use ornstein::tensor::{Shape, Tensor};
use ornstein::weights::vocabulary::{merges, vocabulary};
use ornstein::weights::{Changes, Model, read_tensors, write_tensors};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::checkpoints::kept::{Tensors, values};
use crate::networks::{NETWORK, PICTURE, data, on_each_executor, within};
use crate::support::{ensure, test};

const MODELS: [&str; 2] = ["h", "l"];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for model in MODELS {
        for network in ["image-encoder", "unet"] {
            let title = format!("unclip::{model}::{network}");
            trials.extend(on_each_executor(&title, move |executor, kind| {
                agrees(model, network, executor, NETWORK[kind])
            }));
        }
        trials.push(test(format!("unclip::{model}::a_picture_is_seen_as_transformers_sees_it"), move || seen(model)));
    }
    for name in cases().into_keys() {
        let title = format!("unclip::picture {name}");
        trials.extend(on_each_executor(&title, move |executor, kind| {
            within("latents", &draw(&name, executor, |_| {})?.latents, &references()?[&name], PICTURE[kind])
        }));
    }
    trials.extend([
        test("unclip::a_resized_picture_has_pillows_bytes", resized),
        test("unclip::each_picture_of_a_batch_is_its_own", each_picture_is_its_own),
        test("unclip::what_is_loaded_is_what_the_parts_say", parts_are_loaded),
        test("unclip::every_network_is_inspected_and_verified", inspected),
        test("unclip::what_it_does_not_draw_is_said", refused),
    ]);
    trials
}

/// What diffusers' pipeline was called with: the picture and the seed are the same for all.
#[derive(Deserialize)]
struct Case {
    model: String,
    scheduler: Value,
    steps: usize,
    guidance: f32,
    eta: Option<f64>,
    noise_level: Option<usize>,
    prompt: Option<String>,
    negative: Option<String>,
    size: Option<[usize; 2]>,
    batch: Option<usize>,
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> Result<T, Failed> {
    Ok(serde_json::from_slice(&std::fs::read(data("unclip").join(file))?)?)
}

fn cases() -> BTreeMap<String, Case> {
    read("pictures.json").expect("pictures.json can be read")
}

fn references() -> Result<Tensors, Failed> {
    let tensors = read_tensors(&data("unclip/pictures.safetensors"))?;
    Ok(tensors.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
}

/// The script's `picture`.
fn picture(width: usize, height: usize) -> Picture {
    let value = |(x, y, c): (usize, usize, usize)| ((x * x * 7 + y * 11 * (c + 1) + x * y * (c + 2)) % 256) as u8;
    let places = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| (x, y, c))));
    Picture { width, height, rgb: places.map(value).collect(), parameters: None }
}

/// One of the small models as a folder.
pub fn model(name: &str, scheduler: &Value, at: &Path) -> Result<Model, Failed> {
    let models: Value = read("models.json")?;
    let model = &models[name];
    let write = |path: &str, text: String| -> Result<(), Failed> {
        std::fs::create_dir_all(at.join(path).parent().ok_or("no folder")?)?;
        Ok(std::fs::write(at.join(path), text)?)
    };
    for (component, kept) in model["components"].as_object().ok_or("no components")? {
        write(&format!("{component}/config.json"), kept["config"].to_string())?;
        let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_value(kept["tensors"].clone())?;
        let tensor = |(name, shape): (String, Vec<usize>)| {
            // A deviation of 1, give or take what its name gives.
            let base = if (component.as_str(), name.as_str()) == ("image_normalizer", "std") { 1.0 } else { 0.0 };
            let values = values(component, &name, &shape).into_iter().map(|value| base + value).collect();
            (name, Tensor::new(Shape::new(shape), values))
        };
        let tensors: Vec<_> = shapes.into_iter().map(tensor).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        write_tensors(&at.join(component).join("model.safetensors"), &tensors)?;
    }
    write("tokenizer/vocab.json", vocabulary())?;
    write("tokenizer/merges.txt", merges())?;
    write("tokenizer/tokenizer_config.json", json!({"pad_token": "!", "model_max_length": 77}).to_string())?;
    write("scheduler/scheduler_config.json", scheduler.to_string())?;
    write("image_noising_scheduler/scheduler_config.json", model["noising"].to_string())?;
    write("feature_extractor/preprocessor_config.json", model["processor"].to_string())?;
    write("model_index.json", json!({"_class_name": "StableUnCLIPImg2ImgPipeline"}).to_string())?;
    Ok(Model::open(at)?)
}

fn agrees(name: &str, network: &str, executor: &Executor, limit: f64) -> Result<(), Failed> {
    let (folder, tensors) = (tempfile::tempdir()?, references()?);
    let model = model(name, &json!({}), &folder.path().join("model"))?;
    let part = |way: &str| -> Tensors {
        let start = format!("{name}.{network}.{way}.");
        let named = tensors.iter().filter_map(|(key, tensor)| Some((key.strip_prefix(&start)?.into(), tensor.clone())));
        named.collect()
    };
    let outputs = pollster::block_on(forward(&model, &Changes::default(), network, part("in"), executor, &mut |_| {}))?;
    part("out").iter().try_for_each(|(output, wanted)| within(output, &outputs[output], wanted, limit))
}

fn seen(name: &str) -> Result<(), Failed> {
    let models: Value = read("models.json")?;
    let preprocessor = Preprocessor::from_json(&models[name]["processor"].to_string(), "here")?;
    let (start, references) = (format!("{name}.pixels."), references()?);
    let mut count = 0;
    for (size, wanted) in references.iter().filter_map(|(key, tensor)| Some((key.strip_prefix(&start)?, tensor))) {
        let (width, height) = size.split_once('x').ok_or("no size")?;
        let found = preprocessor.apply(&picture(width.parse()?, height.parse()?))?;
        within(size, &found.to_channels_first()?, wanted, 1e-6)?;
        count += 1;
    }
    ensure(count == 3, "pictures are missing")
}

fn resized() -> Result<(), Failed> {
    let rows: Vec<(String, [usize; 2], [usize; 2], String)> = read("resized.json")?;
    for (kind, [width, height], to, wanted) in rows {
        let filter = if kind == "lanczos" { Filter::Lanczos } else { Filter::Bicubic };
        let sum = Sha256::digest(picture(width, height).resized(filter, to));
        let found: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        ensure(found == wanted, format!("{kind} from {width}x{height} to {to:?} gives other bytes"))?;
    }
    Ok(())
}

fn studio(case: &Case, at: &Path) -> Result<Studio, Failed> {
    Ok(Studio::open(model(&case.model, &case.scheduler, &at.join("model"))?)?)
}

fn request(case: &Case) -> Request {
    let [width, height] = case.size.unwrap_or([32; 2]);
    Request {
        prompt: case.prompt.clone().unwrap_or_default(),
        negative: case.negative.clone(),
        seed: 7,
        batch: case.batch.unwrap_or(1),
        width: Some(width),
        height: Some(height),
        steps: Some(case.steps),
        guidance: Some(case.guidance),
        eta: case.eta,
        init_image: Some(picture(38, 45)),
        noise_level: case.noise_level,
        ..Request::default()
    }
}

fn made(studio: &Studio, request: &Request, executor: &Executor) -> Result<Pictures, Failed> {
    Ok(pollster::block_on(studio.generate(executor, request, &AtomicBool::new(false), &mut |_| {}))?)
}

fn draw(name: &str, executor: &Executor, change: impl FnOnce(&mut Request)) -> Result<Pictures, Failed> {
    let (folder, case) = (tempfile::tempdir()?, cases().remove(name).ok_or("there is no such picture")?);
    let mut request = request(&case);
    change(&mut request);
    made(&studio(&case, folder.path())?, &request, executor)
}

fn each_picture_is_its_own() -> Result<(), Failed> {
    let both = draw("h-noisy", &Executor::Cpu, |_| {})?;
    let one = draw("h-noisy", &Executor::Cpu, |request| (request.batch, request.seed) = (1, 8))?;
    ensure(one.pictures[0].rgb == both.pictures[1].rgb, "the second picture of the batch is another")
}

fn parts_are_loaded() -> Result<(), Failed> {
    let (folder, case) = (tempfile::tempdir()?, cases().remove("h-noisy").ok_or("there is no such picture")?);
    let (studio, request) = (studio(&case, folder.path())?, request(&case));
    let parts: Vec<_> = studio.parts(&Executor::Cpu, &request)?.into_iter().map(|part| part.what).collect();
    let spans = made(&studio, &request, &Executor::Cpu)?.spans;
    let loaded: Vec<_> = spans.iter().filter_map(|span| span.what.strip_prefix("loading the ")).collect();
    assert_eq!(loaded, parts);
    ensure(parts.iter().any(|part| part == "image encoder"), format!("{parts:?}"))
}

fn inspected() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let model = model("h", &json!({}), &folder.path().join("model"))?;
    let found = inspect(&model)?;
    let mut verified = Vec::new();
    verify(&model, &mut |part| verified.push(part.component.clone()))?;
    assert_eq!(verified, ["image_encoder", "image_normalizer", "text_encoder", "unet", "vae"]);
    assert_eq!((found.class.as_deref(), found.others.len()), (Some("StableUnCLIPImg2ImgPipeline"), 0));
    Ok(())
}

fn refused() -> Result<(), Failed> {
    for (change, part) in [
        ((|r| r.init_image = None) as fn(&mut Request), "draws variations of a picture; give init image"),
        (|r| r.noise_level = Some(1000), "noise level 1000, but the model knows 0 to 999"),
        (|r| r.strength = Some(0.5), "strength is not for a StableUnCLIPImg2ImgPipeline, which takes init image"),
        (|r| r.width = Some(30), "width 30 is not a positive multiple of 4"),
    ] {
        let error = draw("h-plain", &Executor::Cpu, change).err();
        let error = error.and_then(|failed| failed.message().map(String::from)).unwrap_or_default();
        ensure(error.contains(part), format!("{part}: {error}"))?;
    }
    Ok(())
}
