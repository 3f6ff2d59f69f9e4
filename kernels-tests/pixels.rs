//! Diffusion in pixel space against diffusers (`data/make_pixels.py`): the network alone, and whole pictures.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::forward::forward;
use ornstein::inspect::inspect;
use ornstein::network::Executor;
use ornstein::systems::{Pictures, Request, Studio};
use ornstein::tensor::Tensor;
use ornstein::weights::{Changes, Model, read_tensors};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use crate::networks::{NETWORK, PICTURE, data, on_each_executor, within};
use crate::support::{ensure, test};

const MODELS: [&str; 3] = ["cifar", "classes", "plain"];
/// The class that the pictures of the second model are of.
const CLASS: usize = 3;

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for model in MODELS {
        trials.extend(on_each_executor(&format!("pixels::{model}::network"), move |executor, kind| {
            network(model, executor, NETWORK[kind])
        }));
        for name in cases().expect("pictures.json can be read").into_keys() {
            let title = format!("pixels::{model}::picture {name}");
            trials.extend(on_each_executor(&title, move |executor, kind| {
                let wanted = &tensors(model, "pictures")?[&name];
                within("state", &draw(model, &name, executor)?.latents, wanted, PICTURE[kind])
            }));
        }
    }
    trials.extend([
        test("pixels::a_picture_shows_the_state_within_its_range", a_picture_shows_the_state),
        test("pixels::the_pipelines_class_decides_sampler_and_steps", the_class_decides),
        test("pixels::a_class_is_asked_for_where_the_network_knows_some", a_class_is_asked_for),
        test("pixels::a_prompt_is_refused", a_prompt_is_refused),
        test("pixels::such_a_model_is_of_no_family_of_text_to_picture_models", no_family),
        test("pixels::with_its_files_at_the_top_it_is_the_same_model", files_at_the_top),
        test("pixels::each_picture_of_a_batch_is_its_own", each_picture_is_its_own),
    ]);
    trials
}

/// How a picture was drawn.
#[derive(Debug, Deserialize)]
struct Case {
    pipeline: String,
    steps: usize,
    variance_type: String,
    eta: Option<f64>,
}

fn cases() -> Result<BTreeMap<String, Case>, Failed> {
    Ok(serde_json::from_str(&std::fs::read_to_string(data("pixels/pictures.json"))?)?)
}

fn tensors(model: &str, file: &str) -> Result<BTreeMap<String, Tensor>, Failed> {
    let tensors = read_tensors(&data("pixels").join(model).join(format!("{file}.safetensors")))?;
    Ok(tensors.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
}

fn network(model: &str, executor: &Executor, limit: f64) -> Result<(), Failed> {
    let inputs = tensors(model, "unet.inputs")?;
    let opened = Model::open(&data("pixels").join(model))?;
    let outputs = pollster::block_on(forward(&opened, &Changes::default(), "unet", inputs, executor, &mut |_| {}))?;
    within("sample", &outputs["sample"], &tensors(model, "unet.outputs")?["sample"], limit)
}

/// The model with its system, and the folder that its weights are read from.
struct Opened {
    studio: Studio,
    folder: TempDir,
}

/// The model as a folder whose index names this pipeline.
fn opened(model: &str, pipeline: &str, variance_type: &str) -> Result<Opened, Failed> {
    let folder = tempfile::tempdir()?;
    for component in ["unet", "scheduler"] {
        std::fs::create_dir(folder.path().join(component))?;
        copy(&data("pixels").join(model).join(component), &folder.path().join(component))?;
    }
    let path = folder.path().join("scheduler/scheduler_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["variance_type"] = variance_type.into();
    std::fs::write(&path, config.to_string())?;
    std::fs::write(folder.path().join("model_index.json"), json!({ "_class_name": pipeline }).to_string())?;
    Ok(Opened { studio: Studio::open(Model::open(folder.path())?)?, folder })
}

fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        std::fs::copy(&path, to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

fn draw(model: &str, name: &str, executor: &Executor) -> Result<Pictures, Failed> {
    let case = &cases()?[name];
    let request = Request {
        steps: Some(case.steps),
        eta: case.eta,
        seed: 7,
        batch: 2,
        class: (model == "classes").then_some(CLASS),
        ..Request::default()
    };
    made(&opened(model, &case.pipeline, &case.variance_type)?.studio, &request, executor)
}

fn made(studio: &Studio, request: &Request, executor: &Executor) -> Result<Pictures, Failed> {
    Ok(pollster::block_on(studio.generate(executor, request, &AtomicBool::new(false), &mut |_| {}))?)
}

fn a_picture_shows_the_state() -> Result<(), Failed> {
    let Pictures { pictures, latents, .. } = draw("cifar", "ddpm", &Executor::Cpu)?;
    let pixels = latents.to_channels_last()?;
    let bytes = pixels.data.iter().map(|v| (((v / 2.0 + 0.5).clamp(0.0, 1.0)) * 255.0).round_ties_even() as u8);
    ensure(bytes.eq(pictures.iter().flat_map(|picture| picture.rgb.iter().copied())), "other bytes")
}

fn the_class_decides() -> Result<(), Failed> {
    for (pipeline, sampler, steps) in [("DDPMPipeline", "ddpm", 1000), ("DDIMPipeline", "ddim", 50)] {
        let settings = opened("cifar", pipeline, "fixed_large")?.studio.settings(&Request::default())?;
        assert_eq!((settings.sampler.as_str(), settings.steps), (sampler, steps));
        assert_eq!((settings.width, settings.height), (16, 16));
    }
    Ok(())
}

fn refused(model: &str, request: &Request) -> Result<String, Failed> {
    let settings = opened(model, "DDPMPipeline", "fixed_large")?.studio.settings(request);
    settings.err().map(|error| error.to_string()).ok_or_else(|| "nothing was refused".into())
}

fn a_class_is_asked_for() -> Result<(), Failed> {
    let class = |class| Request { class, ..Request::default() };
    let error = refused("classes", &class(None))?;
    ensure(error.contains("one of the classes 0 to 4") && error.contains("give class"), error)?;
    let error = refused("classes", &class(Some(5)))?;
    ensure(error.contains("class 5, but the model knows 0 to 4"), error)?;
    let error = refused("cifar", &class(Some(0)))?;
    ensure(error.contains("class is for models that know classes"), error)
}

fn a_prompt_is_refused() -> Result<(), Failed> {
    let error = refused("cifar", &Request { prompt: "a cat".into(), ..Request::default() })?;
    ensure(error.contains("prompt is not for a DDPMPipeline, which takes width, height, steps"), error)
}

fn no_family() -> Result<(), Failed> {
    let found = inspect(&Model::open(&data("pixels/classes"))?)?;
    assert_eq!((found.family, found.class.as_deref()), (None, Some("DDPMPipeline")));
    Ok(())
}

/// As the first ones were published, with an index or without.
fn files_at_the_top() -> Result<(), Failed> {
    let parts = opened("cifar", "DDPMPipeline", "fixed_small")?;
    let request = Request { steps: Some(2), ..Request::default() };
    let wanted = made(&parts.studio, &request, &Executor::Cpu)?;
    for with_index in [true, false] {
        let top = tempfile::tempdir()?;
        ["unet", "scheduler"].iter().try_for_each(|part| copy(&parts.folder.path().join(part), top.path()))?;
        if with_index {
            std::fs::copy(parts.folder.path().join("model_index.json"), top.path().join("model_index.json"))?;
        }
        let model = Model::open(top.path())?;
        assert_eq!(model.components(), ["unet"]);
        assert_eq!(inspect(&model)?.components.len(), 1);
        let made = made(&Studio::open(model)?, &request, &Executor::Cpu)?;
        ensure(made.latents.data == wanted.latents.data, "another picture")?;
    }
    Ok(())
}

fn each_picture_is_its_own() -> Result<(), Failed> {
    let both = draw("plain", "ddpm", &Executor::Cpu)?;
    let one = Request { steps: Some(6), seed: 8, ..Request::default() };
    let one = made(&opened("plain", "DDPMPipeline", "fixed_large")?.studio, &one, &Executor::Cpu)?;
    ensure(one.pictures[0].rgb == both.pictures[1].rgb, "the second picture of the batch is another")
}
