//! Whole networks against PyTorch: the cases in `data/cases`, through the same door as `ornstein forward`, on the CPU
//! and on the adapter at hand in f32 and f16; and whole pictures against the built-in model's golden latents.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::forward::forward;
use ornstein::network::{Executor, IfWrong};
use ornstein::ops::case::compare;
use ornstein::systems::{Request, Studio};
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::{Changes, Model, read_tensors};
use serde::Deserialize;

use crate::support::{on_gpu, test};

/// Largest relative errors of a network: on the CPU, on a GPU in f32 and in f16.
pub const NETWORK: [f64; 3] = [2e-5, 1e-4, 5e-3];
/// The same of a seeded, guided picture's latents.
pub const PICTURE: [f64; 3] = [1e-4, 1e-3, 5e-2];

/// A file pair `<stem>.inputs.safetensors`, `<stem>.outputs.safetensors` in a model folder, and the network it is of.
const CASES: &[(&str, &str, &str)] = &[
    ("sd1", "text-encoder", "text-encoder"),
    ("sd1", "unet", "unet"),
    ("sd1", "unet-square", "unet"),
    ("sd1", "unet-odd", "unet"),
    ("sd1", "unet-long", "unet"),
    ("sd1", "vae-decoder", "vae-decoder"),
    ("sd1", "vae-encoder", "vae-encoder"),
    ("sd2", "text-encoder", "text-encoder"),
    ("sd2", "unet", "unet"),
    ("sd2", "vae-decoder", "vae-decoder"),
    ("sd2", "vae-encoder", "vae-encoder"),
    ("sdxl", "text-encoder", "text-encoder"),
    ("sdxl", "text-encoder-2", "text-encoder-2"),
    ("sdxl", "unet", "unet"),
    ("sdxl", "vae-decoder", "vae-decoder"),
    ("sdxl", "vae-encoder", "vae-encoder"),
    ("taesd", "vae-decoder", "vae-decoder"),
    ("taesd", "vae-encoder", "vae-encoder"),
];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (model, stem, component) in CASES {
        let name = format!("networks::{model}::{stem}");
        trials.extend(on_each_executor(&name, move |executor, kind| {
            network(model, stem, component, executor, NETWORK[kind])
        }));
    }
    for golden in golden() {
        let name = format!("pictures::{}", golden.picture);
        let golden = Arc::new(golden);
        trials.extend(on_each_executor(&name, move |executor, kind| picture(&golden, executor, PICTURE[kind])));
    }
    trials
}

/// The same test on the CPU and on the adapter in f32 and in f16; `run` gets the executor and its index in the limits.
pub fn on_each_executor(
    name: &str,
    run: impl Fn(&Executor, usize) -> Result<(), Failed> + Clone + Send + 'static,
) -> [Trial; 3] {
    let (cpu, f32, f16) = (run.clone(), run.clone(), run);
    [
        test(format!("{name}::cpu"), move || cpu(&Executor::Cpu, 0)),
        on_gpu(format!("{name}::f32"), move |gpu| {
            f32(&Executor::Gpu(Arc::clone(gpu), DType::F32, IfWrong::UseAnyway), 1)
        }),
        on_gpu(format!("{name}::f16"), move |gpu| {
            f16(&Executor::Gpu(Arc::clone(gpu), DType::F16, IfWrong::UseAnyway), 2)
        }),
    ]
}

pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data").join(path)
}

fn network(model: &str, stem: &str, component: &str, executor: &Executor, limit: f64) -> Result<(), Failed> {
    let folder = data("cases").join(model);
    let file = |kind: &str| read_tensors(&folder.join(format!("{stem}.{kind}.safetensors")));
    let inputs = file("inputs")?.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect();
    let outputs = pollster::block_on(forward(
        &Model::open(&folder)?,
        &Changes::default(),
        component,
        inputs,
        executor,
        &mut |_| {},
    ))?;
    for (name, (_, wanted)) in file("outputs")? {
        let output = outputs.get(&name).ok_or_else(|| format!("there is no output {name}"))?;
        within(&name, output, &wanted, limit)?;
    }
    Ok(())
}

pub fn within(name: &str, output: &Tensor, wanted: &Tensor, limit: f64) -> Result<(), Failed> {
    let difference = compare(output, wanted);
    if difference.relative <= limit {
        return Ok(());
    }
    Err(format!("{name}: relative error {:.2e} exceeds {limit:.0e}", difference.relative).into())
}

/// A row of the built-in model's `golden.json`.
#[derive(Debug, Clone, Deserialize)]
struct Golden {
    file: String,
    picture: String,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    steps: usize,
    guidance_scale: f32,
    width: usize,
    height: usize,
}

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model/golden")
}

fn golden() -> Vec<Golden> {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Golden>,
    }
    let text = std::fs::read_to_string(golden_folder().join("golden.json")).expect("golden.json can be read");
    serde_json::from_str::<File>(&text).expect("golden.json can be understood").cases
}

fn picture(golden: &Golden, executor: &Executor, limit: f64) -> Result<(), Failed> {
    let request = Request {
        prompt: golden.prompt.clone(),
        negative: Some(golden.negative_prompt.clone()),
        width: Some(golden.width),
        height: Some(golden.height),
        steps: Some(golden.steps),
        guidance: Some(golden.guidance_scale),
        sampler: Some("ddim".into()),
        seed: golden.seed,
        batch: 1,
        ..Request::default()
    };
    let pipeline = Studio::open(Model::builtin())?;
    let pictures = pollster::block_on(pipeline.generate(executor, &request, &AtomicBool::new(false), &mut |_| {}))?;
    let wanted = read_tensors(&golden_folder().join(&golden.file))?;
    within("final latents", &pictures.latents, &wanted["final_latents"].1, limit)?;
    // Pixels follow from latents; 2 % of the range, on average, would be a visible difference.
    let image = wanted["image"].1.to_channels_last()?;
    let difference: f64 = image
        .data
        .iter()
        .zip(&pictures.pictures[0].rgb)
        .map(|(w, p)| (f64::from(*w) * 255.0 - f64::from(*p)).abs())
        .sum();
    let mean = difference / image.data.len() as f64;
    if mean < 5.0 { Ok(()) } else { Err(format!("pixels differ by {mean:.1} of 255 on average").into()) }
}
