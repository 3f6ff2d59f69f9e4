//! Prompts to what conditions a UNet, against diffusers and the web UI's way (`data/make_prompts.py` wrote both): on
//! the CPU and on the adapter at hand in f32 and f16.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::conditioning::{Embedding, Options, Syntax};
use ornstein::network::Executor;
use ornstein::prompt::{Segment, parse};
use ornstein::systems::stable_diffusion::variant::{SD, SDXL, Variant};
use ornstein::systems::stable_diffusion::{Conditioning, StableDiffusion};
use ornstein::systems::{Models, Request, Studio};
use ornstein::tensor::Tensor;
use ornstein::weights::{Model, read_tensors};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::networks::{NETWORK, PICTURE, data, on_each_executor, within};
use crate::support::test;

#[derive(Debug, Deserialize)]
struct Case {
    model: String,
    syntax: String,
    clip_skip: Option<usize>,
    embeddings: Vec<String>,
    prompt: String,
    negative: String,
}

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let text = std::fs::read_to_string(data("prompts/cases.json")).expect("cases.json can be read");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("cases.json can be understood");
    let mut trials = Vec::new();
    for (index, case) in cases.into_iter().enumerate() {
        let name = format!("prompts::{}::{} {index}", case.model, case.syntax);
        let case = Arc::new(case);
        trials.extend(on_each_executor(&name, move |executor, kind| case.check(index, executor, NETWORK[kind])));
    }
    trials.extend(on_each_executor("prompts::edited", |executor, kind| edited(executor, PICTURE[kind])));
    trials.push(test("prompts::both_encoders_have_every_version", both_encoders_have_every_version));
    trials.push(test("prompts::an_embedding_for_another_model_is_refused", an_embedding_for_another_model_is_refused));
    trials.push(test("prompts::random_prompts_are_taken_apart_alike", random_prompts_are_taken_apart_alike));
    trials.push(test("prompts::an_embedding_twice_is_refused", an_embedding_twice_is_refused));
    trials.push(test("prompts::more_layers_skipped_than_there_are_is_refused", too_many_layers_are_refused));
    trials
}

impl Case {
    fn options(&self) -> Result<Options, Failed> {
        let syntax = if self.syntax == "plain" { Syntax::Plain } else { Syntax::Weighted };
        let file = |name: &String| Embedding::read(&data("prompts").join(format!("{name}.safetensors")));
        let embeddings = self.embeddings.iter().map(file).collect::<Result<_, _>>()?;
        Ok(Options { syntax, clip_skip: self.clip_skip, embeddings })
    }

    fn check(&self, index: usize, executor: &Executor, limit: f64) -> Result<(), Failed> {
        let texts = [self.negative.as_str(), &self.prompt];
        let found = encode(&self.model, &texts, &self.options()?, executor)?;
        let expected = read_tensors(&data("prompts/expected.safetensors"))?;
        within("context", &found.context, &expected[&format!("{index}.context")].1, limit)?;
        match (found.pooled, expected.get(&format!("{index}.pooled"))) {
            (Some(found), Some((_, wanted))) => within("pooled", &found, wanted, limit),
            (None, None) => Ok(()),
            _ => Err("only one has a pooled embedding".into()),
        }
    }
}

/// Encodes texts with the small encoders of `data/prompts` and the built-in model's vocabulary.
fn encode(model: &str, texts: &[&str], options: &Options, executor: &Executor) -> Result<Conditioning, Failed> {
    let folder = tempfile::tempdir()?;
    let (variant, width, pads) = match model {
        "sdxl" => (&SDXL, 80, &["<|endoftext|>", "!"][..]),
        _ => (&SD, 32, &["<|endoftext|>"][..]),
    };
    for (suffix, pad) in variant.encoders.iter().zip(pads) {
        let encoder = format!("text_encoder{suffix}");
        copy(&data("prompts").join(model).join(&encoder), &folder.path().join(&encoder))?;
        let tokenizer = folder.path().join(format!("tokenizer{suffix}"));
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model/tokenizer"), &tokenizer)?;
        std::fs::remove_file(tokenizer.join("special_tokens_map.json"))?;
        std::fs::write(tokenizer.join("tokenizer_config.json"), json!({ "pad_token": pad }).to_string())?;
    }
    let models = Models::of(with_unet(folder.path(), variant, width)?);
    let (negative, prompt) = if let [negative, prompt] = texts { (Some(*negative), *prompt) } else { (None, texts[0]) };
    let request = Request {
        prompt: prompt.into(),
        negative: negative.map(String::from),
        guidance: Some(if negative.is_some() { 2.0 } else { 1.0 }),
        sampler: Some("ddim".into()),
        conditioning: options.clone(),
        ..Request::default()
    };
    Ok(pollster::block_on(StableDiffusion::open(&models, variant)?.encode(&models, executor, &request))?)
}

/// Prompts that change from step to step draw what diffusers does with other embeddings from step to step.
fn edited(executor: &Executor, limit: f64) -> Result<(), Failed> {
    let request = Request {
        prompt: "[a red circle:a blue square on [white|black]:1]".into(),
        negative: Some("[yellow::.5]".into()),
        conditioning: Options { syntax: Syntax::Weighted, ..Options::default() },
        steps: Some(6),
        seed: 5,
        batch: 2,
        ..Request::default()
    };
    let studio = Studio::open(Model::builtin())?;
    let drawn = pollster::block_on(studio.generate(executor, &request, &AtomicBool::new(false), &mut |_| {}))?;
    let wanted = read_tensors(&data("prompts/edited.safetensors"))?;
    within("latents", &drawn.latents, &wanted["latents"].1, limit)?;
    let told = drawn.pictures[0].parameters.as_deref().unwrap_or_default();
    if told.starts_with(&request.prompt) { Ok(()) } else { Err(told.into()) }
}

fn both_encoders_have_every_version() -> Result<(), Failed> {
    let options = Options { syntax: Syntax::Weighted, ..Options::default() };
    let encoded = |prompt: &str| encode("sdxl", &["small", prompt], &options, &Executor::Cpu);
    let (both, versions) = (encoded("a [cat:dog:.5]")?, [encoded("a cat")?, encoded("a dog")?]);
    let join = |tensors: Vec<&Tensor>| tensors.iter().flat_map(|tensor| tensor.data.clone()).collect::<Vec<_>>();
    let same = both.context.data == join(versions.iter().map(|version| &version.context).collect())
        && both.pooled.map(|tensor| tensor.data) == Some(join(versions.iter().flat_map(|v| &v.pooled).collect()));
    if same && both.versions.last() == Some(&1) { Ok(()) } else { Err("a version is another's".into()) }
}

/// Adds what a UNet is conditioned by, which itself is never loaded.
fn with_unet(at: &Path, variant: &Variant, width: usize) -> Result<Model, Failed> {
    let case = data("cases").join(if variant.pooled { "sdxl" } else { "sd1" });
    for component in ["unet", "vae"] {
        let mut config: Value = serde_json::from_slice(&std::fs::read(case.join(component).join("config.json"))?)?;
        if component == "unet" {
            config["cross_attention_dim"] = width.into();
        }
        std::fs::create_dir(at.join(component))?;
        std::fs::write(at.join(component).join("config.json"), config.to_string())?;
    }
    copy(&case.join("scheduler"), &at.join("scheduler"))?;
    std::fs::write(at.join("model_index.json"), "{}")?;
    Ok(Model::open(at)?)
}

fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let path: PathBuf = entry?.path();
        std::fs::copy(&path, to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

fn refused(embeddings: &[&str], clip_skip: Option<usize>, words: &[&str]) -> Result<(), Failed> {
    let file = |name: &&str| Embedding::read(&data("prompts").join(format!("{name}.safetensors")));
    let embeddings = embeddings.iter().map(file).collect::<Result<_, _>>()?;
    let options = Options { clip_skip, embeddings, ..Options::default() };
    let Err(error) = encode("sd", &["x"], &options, &Executor::Cpu) else { return Err("nothing was refused".into()) };
    let said = format!("{error:?}");
    if words.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said.into()) }
}

fn an_embedding_for_another_model_is_refused() -> Result<(), Failed> {
    // Its clip_l has the width of this model's encoder: it is used, and clip_g is not asked for.
    let options =
        Options { embeddings: vec![Embedding::read(&data("prompts/xl-style.safetensors"))?], ..Options::default() };
    encode("sd", &["xl-style"], &options, &Executor::Cpu)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("wide.safetensors");
    ornstein::weights::write_tensors(&path, &[("emb_params", &Tensor::zeros([1, 768]))])?;
    let options = Options { embeddings: vec![Embedding::read(&path)?], ..Options::default() };
    let Err(error) = encode("sd", &["x"], &options, &Executor::Cpu) else { return Err("it was not refused".into()) };
    let said = format!("{error:?}");
    if said.contains("wide.safetensors: has vectors of width 768") { Ok(()) } else { Err(said.into()) }
}

fn random_prompts_are_taken_apart_alike() -> Result<(), Failed> {
    type Rows = Vec<(String, Vec<Option<(String, f64)>>)>;
    let rows: Rows = serde_json::from_str(&std::fs::read_to_string(data("prompts/parsed.json"))?)?;
    for (prompt, wanted) in rows {
        let piece = |part| match part {
            Segment::Text(text, weight) => Some((text, weight)),
            Segment::Break => None,
        };
        let found: Vec<_> = parse(&prompt).into_iter().map(piece).collect();
        let same = |a: &Option<(String, f64)>, b: &Option<(String, f64)>| match (a, b) {
            (Some((a, x)), Some((b, y))) => a == b && (x - y).abs() <= 1e-12 * y.abs(),
            _ => a == b,
        };
        if found.len() != wanted.len() || !found.iter().zip(&wanted).all(|(a, b)| same(a, b)) {
            return Err(format!("{prompt:?} is {found:?}, should be {wanted:?}").into());
        }
    }
    Ok(())
}

fn an_embedding_twice_is_refused() -> Result<(), Failed> {
    refused(&["learned", "learned"], None, &["learned.safetensors", "<cat-toy>", "cannot name something else"])
}

fn too_many_layers_are_refused() -> Result<(), Failed> {
    refused(&[], Some(4), &["clip skip 4", "3 layers"])
}
