//! LoRA files in every form that trainers write, against diffusers, PEFT and LyCORIS (`data/make_lora.py` wrote files
//! and outputs): on the CPU and on the adapter at hand in f32 and f16, in a model of every layout.

mod drawn;
mod refused;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::conditioning::{Embedding, Options};
use ornstein::forward::{Tensors, forward};
use ornstein::gpu::Gpu;
use ornstein::network::{Executor, IfWrong};
use ornstein::rng::Generator;
use ornstein::systems::{Request, Studio};
use ornstein::tensor::{DType, Shape, Tensor, Weights};
use ornstein::weights::{Changes, Lora, LoraFile, Model, read_tensors, write_tensors};
use serde::Deserialize;

use crate::checkpoints::gguf::write_gguf;
use crate::checkpoints::kept::{Kept, reference, write};
use crate::networks::{NETWORK, data, on_each_executor, within};
use crate::support::{ensure, on_gpu, test};

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    family: String,
    files: Vec<(String, f32)>,
    networks: Vec<String>,
}

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for case in cases() {
        let (name, case) = (format!("lora::{}", case.name), Arc::new(case));
        trials.extend(on_each_executor(&name, move |executor, kind| case.check(executor, NETWORK[kind])));
    }
    trials.push(test("lora::every_layout_of_a_model_takes_the_same_changes", every_layout));
    trials.push(on_gpu("lora::matrices_in_blocks_on_a_device_take_them".into(), matrices_in_blocks));
    trials.push(test("lora::a_change_itself_is_added_to_weights_biases_and_norms", whole_changes));
    trials.push(test("lora::words_that_come_with_a_file_are_embeddings", bundled_words));
    trials.push(test("lora::only_changed_tensors_are_touched", only_changed_tensors_are_touched));
    trials
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(data("lora/cases.json")).expect("cases.json can be read");
    serde_json::from_str(&text).expect("cases.json can be understood")
}

fn file(name: &str) -> PathBuf {
    data("lora").join(format!("{name}.safetensors"))
}

/// A file and how much of it is added everywhere.
fn lora(path: &Path, scale: f32) -> ornstein::error::Result<Lora> {
    Ok(Lora { file: Arc::new(LoraFile::open(path)?), unet: scale, text: scale })
}

impl Case {
    fn changes(&self, model: &Model) -> Result<Changes, Failed> {
        let loras = self.files.iter().map(|(name, scale)| lora(&file(name), *scale));
        Ok(Changes::of(model, &loras.collect::<Result<Vec<_>, _>>()?)?)
    }

    fn check(&self, executor: &Executor, limit: f64) -> Result<(), Failed> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("model.safetensors");
        write(&path, &Kept::of(&self.family)?.tensors(), DType::F16, &HashMap::new())?;
        let model = Model::open(&path)?;
        let expected = read_tensors(&data("lora/expected.safetensors"))?;
        for network in &self.networks {
            let found = self.output(&model, network, executor)?;
            within(network, &found, &expected[&format!("{}.{network}", self.name)].1, limit)?;
        }
        Ok(())
    }

    /// What the changed network gives for the reference's inputs.
    fn output(&self, model: &Model, network: &str, executor: &Executor) -> Result<Tensor, Failed> {
        let (component, output) = match network {
            "text_encoder" => ("text-encoder", "pooler_output"),
            "text_encoder_2" => ("text-encoder-2", "text_embeds"),
            _ => ("unet", "sample"),
        };
        let start = format!("{}.in.", network.replace('_', "-"));
        let inputs = reference(&self.family)?.into_iter();
        let inputs: Tensors =
            inputs.filter_map(|(name, t)| Some((name.strip_prefix(&start)?.to_string(), t))).collect();
        let changes = self.changes(model)?;
        let mut outputs = pollster::block_on(forward(model, &changes, component, inputs, executor, &mut |_| {}))?;
        Ok(outputs.remove(output).ok_or("there is no such output")?)
    }
}

/// A single file, a folder and a GGUF file, whose tensors have other names, and some of which are three in one.
fn every_layout() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    for case in cases().iter().filter(|case| ["kohya", "kohya-sd2"].contains(&case.name.as_str())) {
        let kept = Kept::of(&case.family)?;
        let at = |name: &str| folder.path().join(format!("{}-{name}", case.name));
        let [single, packed, unpacked] = ["a.safetensors", "b.gguf", "c.safetensors"].map(at);
        write(&single, &kept.tensors(), DType::F32, &HashMap::new())?;
        let values = write_gguf(&packed, &kept.tensors())?;
        write(&unpacked, &values, DType::F32, &HashMap::new())?;
        let diffusers = kept.write_folder(&at("folder"))?;
        for network in &case.networks {
            let output = |model: &Model| case.output(model, network, &Executor::Cpu);
            let (single, packed, unpacked) = (Model::open(&single)?, Model::open(&packed)?, Model::open(&unpacked)?);
            ensure(output(&single)? == output(&diffusers)?, format!("{} {network} of a folder differs", case.name))?;
            ensure(output(&packed)? == output(&unpacked)?, format!("{} {network} of a GGUF file differs", case.name))?;
        }
    }
    Ok(())
}

/// There the others stay in blocks.
fn matrices_in_blocks(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let [packed, unpacked] = ["a.gguf", "b.safetensors"].map(|name| folder.path().join(name));
    let values = write_gguf(&packed, &Kept::of("sd2")?.tensors())?;
    write(&unpacked, &values, DType::F32, &HashMap::new())?;
    let (packed, unpacked) = (Model::open(&packed)?, Model::open(&unpacked)?);
    let case = cases().into_iter().find(|case| case.name == "kohya-sd2").ok_or("there is no such case")?;
    let weights = case.changes(&packed)?.merged("unet", packed.weights("unet")?);
    let in_blocks = weights.names().iter().filter(|name| weights.layout(name).is_some()).count();
    let whole = packed.weights("unet")?;
    let all = whole.names().iter().filter(|name| whole.layout(name).is_some()).count();
    let changed = read_tensors(&file("kohya-sd2"))?.keys().filter(|name| name.starts_with("lora_unet_")).count() / 3;
    ensure(in_blocks == all - changed, format!("{in_blocks} of {all} are in blocks, {changed} are changed"))?;
    let device = Executor::Gpu(Arc::clone(gpu), DType::F32, IfWrong::UseAnyway);
    for network in &case.networks {
        let (found, wanted) =
            (case.output(&packed, network, &device)?, case.output(&unpacked, network, &Executor::Cpu)?);
        within(network, &found, &wanted, NETWORK[1])?;
    }
    Ok(())
}

fn only_changed_tensors_are_touched() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let model = Kept::of("sd1")?.write_folder(folder.path())?;
    let changes = Changes::of(&model, &[lora(&file("peft-alpha"), 1.0)?])?;
    let (merged, plain) = (changes.merged("unet", model.weights("unet")?), model.weights("unet")?);
    let differ = |name: &String| merged.get(name).map(|t| t.to_f32()) != plain.get(name).map(|t| t.to_f32());
    let changed: Vec<String> = plain.names().into_iter().filter(differ).collect();
    let in_file = read_tensors(&file("peft-alpha"))?.len() / 2;
    ensure(changed.len() == in_file && changed.iter().all(|name| name.ends_with(".weight")), format!("{changed:?}"))?;
    ensure(
        plain.names().iter().all(|name| merged.dtype(name) == merged.get(name).map(|t| t.dtype)),
        "a type is wrong",
    )?;
    ensure(changes.files("text_encoder").is_empty(), "the text encoder is changed")
}

/// A file with these tensors, each of values of its own.
fn written(folder: &Path, name: &str, tensors: &[(&str, &[usize])]) -> Result<(PathBuf, Vec<Tensor>), Failed> {
    let tensor = |(seed, (_, dims)): (usize, &(&str, &[usize]))| {
        let shape = Shape::new(*dims);
        Tensor::new(shape.clone(), Generator::new(seed as u64).normal(shape.len()))
    };
    let values: Vec<Tensor> = tensors.iter().enumerate().map(tensor).collect();
    let path = folder.join(name);
    let named: Vec<_> = tensors.iter().map(|(name, _)| *name).zip(&values).collect();
    write_tensors(&path, &named)?;
    Ok((path, values))
}

/// What LyCORIS calls full and norm modules.
fn whole_changes() -> Result<(), Failed> {
    let (folder, model) = (tempfile::tempdir()?, Model::builtin());
    let names = [
        ("lora_unet_conv_in.diff", "conv_in.weight"),
        ("lora_unet_conv_in.diff_b", "conv_in.bias"),
        ("lora_unet_conv_norm_out.w_norm", "conv_norm_out.weight"),
        ("lora_unet_conv_norm_out.b_norm", "conv_norm_out.bias"),
    ];
    let plain = model.weights("unet")?;
    let dims: Vec<Vec<usize>> = names.iter().filter_map(|(_, name)| Some(plain.shape(name)?.dims().to_vec())).collect();
    let parts: Vec<_> = names.iter().zip(&dims).map(|((part, _), dims)| (*part, &dims[..])).collect();
    let (path, values) = written(folder.path(), "whole.safetensors", &parts)?;
    let changes = Changes::of(&model, &[lora(&path, 0.5)?])?;
    let merged = changes.merged("unet", model.weights("unet")?);
    for ((_, name), change) in names.iter().zip(values) {
        let (found, old) = (merged.get(name).ok_or("found")?.to_f32(), plain.get(name).ok_or("old")?.to_f32());
        let wanted = old.iter().zip(&change.data).map(|(old, change)| old + 0.5 * change);
        ensure(found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-6), *name)?;
    }
    Ok(())
}

fn bundled_words() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let width =
        Model::builtin().weights("text_encoder")?.shape("text_model.final_layer_norm.weight").ok_or("no norm")?;
    let (alone, values) = written(folder.path(), "blorp.safetensors", &[("clip_l", &[2, width.len()])])?;
    let bundle = folder.path().join("bundle.safetensors");
    let nothing = Tensor::zeros(Model::builtin().weights("unet")?.shape("conv_in.bias").ok_or("no bias")?);
    write_tensors(&bundle, &[("bundle_emb.blorp.clip_l", &values[0]), ("lora_unet_conv_in.diff_b", &nothing)])?;
    let studio = Studio::open(Model::builtin())?;
    let draw = |options: Options, loras: Vec<Lora>| {
        let (prompt, never) = ("a blorp circle".into(), AtomicBool::new(false));
        let request = Request { prompt, steps: Some(1), conditioning: options, loras, ..Request::default() };
        pollster::block_on(studio.generate(&Executor::Cpu, &request, &never, &mut |_| {}))
    };
    let explicit = Options { embeddings: vec![Embedding::read(&alone)?], ..Options::default() };
    let (wanted, without) = (draw(explicit, Vec::new())?, draw(Options::default(), Vec::new())?);
    let found = draw(Options::default(), vec![lora(&bundle, 1.0)?])?;
    ensure(wanted.latents != without.latents, "the word changes nothing")?;
    ensure(found.latents == wanted.latents, "the bundled word is another")
}
