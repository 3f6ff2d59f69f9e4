//! Distilled models against diffusers (`data/make_few_steps.py`): pictures of one to four steps with the schedules
//! that Turbo, Lightning, LCM and TCD are published with, and the network that is told its guidance. And, by the same
//! model, those with EDM's noise, and rescaled guidance.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::forward::forward;
use ornstein::gpu::Gpu;
use ornstein::lab::validate::{Selection, network};
use ornstein::models::unet;
use ornstein::network::Executor;
use ornstein::systems::{Pictures, Request, Studio};
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::{Changes, Model, read_tensors, write_tensors};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::checkpoints::kept::{Kept, Tensors, values, write};
use crate::networks::{NETWORK, PICTURE, data, on_each_executor, within};
use crate::support::{ensure, on_gpu, test};

/// The picture of `pictures.json` whose network is told its guidance.
const TOLD: &str = "lcm-whole-4";
/// The tensor that it has beside another's.
const PROJECTION: &str = "time_embedding.cond_proj.weight";

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for name in cases().into_keys() {
        let title = format!("few_steps::picture {name}");
        trials.extend(on_each_executor(&title, move |executor, kind| {
            within("latents", &draw(&name, executor, |_| {})?.latents, &reference(&name)?, PICTURE[kind])
        }));
    }
    trials.extend(on_each_executor("few_steps::a_network_that_is_told_its_guidance", |executor, kind| {
        let folder = tempfile::tempdir()?;
        told(&model(case(TOLD)?, folder.path())?, part("unet.in.")?, executor, NETWORK[kind])
    }));
    trials.extend([
        test("few_steps::a_spacing_may_be_given_beside_the_model", spacing_beside_the_model),
        test("few_steps::a_guidance_is_told_as_diffusers_tells_it", guidance_embedding),
        test("few_steps::one_file_tells_that_its_network_is_told_its_guidance", one_file),
        test("few_steps::a_network_that_is_not_told_its_guidance_says_so", not_told),
        test("few_steps::a_network_that_is_told_its_guidance_draws_once_a_step", drawn_once_a_step),
        on_gpu("few_steps::validate_runs_every_node_of_one".into(), validate_runs_every_node),
    ]);
    trials
}

/// What diffusers' pipeline was called with: the prompt, seed and size are the same for all.
#[derive(Deserialize)]
struct Case {
    /// Beside the small SDXL's.
    unet: Map<String, Value>,
    scheduler: Value,
    steps: usize,
    guidance: f32,
    eta: Option<f64>,
    guidance_rescale: Option<f32>,
}

fn cases() -> BTreeMap<String, Case> {
    let text = std::fs::read_to_string(data("few_steps/pictures.json")).expect("pictures.json can be read");
    serde_json::from_str(&text).expect("pictures.json can be understood")
}

fn case(name: &str) -> Result<Case, Failed> {
    Ok(cases().remove(name).ok_or("there is no such picture")?)
}

fn part(start: &str) -> Result<Tensors, Failed> {
    let tensors = read_tensors(&data("few_steps/pictures.safetensors"))?;
    Ok(tensors.into_iter().filter_map(|(name, (_, t))| Some((name.strip_prefix(start)?.to_string(), t))).collect())
}

fn reference(name: &str) -> Result<Tensor, Failed> {
    Ok(part("")?.remove(name).ok_or("there are no such latents")?)
}

/// The small SDXL with this case's schedule, and what its UNet has beside the small one's.
fn model(case: Case, at: &Path) -> Result<Model, Failed> {
    let mut kept = Kept::of("sdxl")?;
    let unet = kept.configs.get_mut("unet").and_then(Value::as_object_mut).ok_or("no UNet")?;
    let channels = unet["block_out_channels"][0].as_u64().ok_or("no channels")? as usize;
    let width = case.unet.get("time_cond_proj_dim").and_then(Value::as_u64);
    unet.extend(case.unet);
    kept.configs.insert("scheduler".into(), case.scheduler);
    let model = kept.write_folder(at)?;
    if let Some(width) = width {
        let path = at.join("unet/model.safetensors");
        let mut tensors: Tensors = read_tensors(&path)?.into_iter().map(|(name, (_, t))| (name, t)).collect();
        tensors.insert(PROJECTION.into(), projection([channels, width as usize]));
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        write_tensors(&path, &tensors)?;
    }
    Ok(model)
}

fn projection(shape: [usize; 2]) -> Tensor {
    Tensor::new(shape, values("unet", PROJECTION, &shape))
}

fn draw(name: &str, executor: &Executor, change: impl FnOnce(&mut Request)) -> Result<Pictures, Failed> {
    draw_case(case(name)?, executor, change)
}

fn draw_case(case: Case, executor: &Executor, change: impl FnOnce(&mut Request)) -> Result<Pictures, Failed> {
    let folder = tempfile::tempdir()?;
    let mut request = Request {
        prompt: "a photo of a cat".into(),
        seed: 7,
        width: Some(32),
        height: Some(40),
        steps: Some(case.steps),
        guidance: Some(case.guidance),
        eta: case.eta,
        guidance_rescale: case.guidance_rescale,
        batch: 1,
        ..Request::default()
    };
    change(&mut request);
    let pipeline = Studio::open(model(case, folder.path())?)?;
    Ok(pollster::block_on(pipeline.generate(executor, &request, &AtomicBool::new(false), &mut |_| {}))?)
}

/// A pass of the network that is told its guidance.
fn told(model: &Model, inputs: Tensors, executor: &Executor, limit: f64) -> Result<(), Failed> {
    let changes = Changes::default();
    let found = pollster::block_on(forward(model, &changes, "unet", inputs, executor, &mut |_| {}))?;
    within("sample", &found["sample"], &part("unet.out.")?["sample"], limit)
}

fn one_file() -> Result<(), Failed> {
    let (folder, kept) = (tempfile::tempdir()?, Kept::of("sdxl")?);
    let path = folder.path().join("model.safetensors");
    let mut tensors = kept.tensors();
    tensors.insert(format!("model.diffusion_model.{PROJECTION}"), projection([64, 256]));
    write(&path, &tensors, DType::F16, &kept.metadata)?;
    told(&Model::open(&path)?, part("unet.in.")?, &Executor::Cpu, NETWORK[0])
}

fn spacing_beside_the_model() -> Result<(), Failed> {
    let mut case = case("lightning-2")?;
    case.scheduler["timestep_spacing"] = "leading".into();
    let drawn = draw_case(case, &Executor::Cpu, |request| request.spacing = Some("trailing".into()))?;
    within("latents", &drawn.latents, &reference("lightning-2")?, PICTURE[0])
}

fn guidance_embedding() -> Result<(), Failed> {
    let config = unet::Config::from_json(r#"{"time_cond_proj_dim": 256}"#, "unet")?;
    let wanted = &part("unet.in.")?["timestep_cond"];
    let found: Vec<f32> =
        [8.0, 1.5].iter().filter_map(|guidance| config.guidance_embedding(*guidance)).flatten().collect();
    // Sines of thousands: a frequency that is rounded otherwise shows in a few of them.
    within("timestep_cond", &Tensor::new(wanted.shape.clone(), found), wanted, 1e-4)
}

fn not_told() -> Result<(), Failed> {
    let mut inputs = part("unet.in.")?;
    inputs.remove("timestep_cond");
    let folder = tempfile::tempdir()?;
    let model = model(case(TOLD)?, folder.path())?;
    let error = told(&model, inputs, &Executor::Cpu, NETWORK[0]).err().ok_or("it ran")?;
    ensure(error.message().is_some_and(|text| text.contains("no timestep_cond")), format!("{error:?}"))
}

/// Without a pass for what not to draw, that changes nothing.
fn drawn_once_a_step() -> Result<(), Failed> {
    let one = draw(TOLD, &Executor::Cpu, |_| {})?;
    let other = draw(TOLD, &Executor::Cpu, |request| request.negative = Some("a dog".into()))?;
    ensure(one.latents == other.latents, "a negative prompt counts")?;
    let more = draw(TOLD, &Executor::Cpu, |request| request.guidance = Some(9.0))?;
    ensure(one.latents != more.latents, "guidance does not count")
}

fn validate_runs_every_node(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let subjects = network::of_model(&model(case(TOLD)?, folder.path())?)?;
    let selection = Selection::default();
    let reports = pollster::block_on(network::validate(gpu, subjects, &selection, None, &mut |_| {}))?;
    let unets: Vec<_> = reports.iter().filter(|report| report.network == "unet").collect();
    ensure(!unets.is_empty(), "the UNet did not run")?;
    for report in unets {
        let wrong = report.first_wrong().map(|row| format!("{row:?}"));
        ensure(report.passed(), format!("{wrong:?} {:?}", report.outputs))?;
    }
    Ok(())
}
