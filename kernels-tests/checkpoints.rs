//! Checkpoints in one file: what is recognised in them, and whether they compute what PyTorch does with the pipeline
//! that they were made of (`data/make_single_file.py`).

mod convert;
mod family;
pub mod gguf;
pub mod kept;
mod odd;
mod parts;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::forward::forward;
use ornstein::image::decode;
use ornstein::models::{clip, unet, vae};
use ornstein::network::Executor;
use ornstein::systems::{Request, Studio};
use ornstein::tensor::{DType, Weights};
use ornstein::tokenizer::Tokenizer;
use ornstein::weights::{Changes, Model};
use tempfile::TempDir;

use crate::networks::{NETWORK, on_each_executor, within};
use crate::support::test;
use kept::{Kept, Tensors, reference, write};

const FAMILIES: [&str; 7] = ["sd1", "sd1-inpaint", "sd2", "sdxl", "sdxl-refiner", "x4", "pix2pix"];
/// What they are shown.
const PICTURE: &[u8] = include_bytes!("data/controlnet/picture.png");
/// Those that work on a picture.
const ON_PICTURES: [&str; 2] = ["x4", "pix2pix"];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for family in FAMILIES {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            trials.push(test(format!("checkpoints::{family}::networks in {dtype}"), move || {
                networks(family, dtype, &Executor::Cpu, NETWORK[0])
            }));
        }
        trials.push(test(format!("checkpoints::{family}::configurations"), move || configurations(family)));
        // A refiner draws no picture from a text alone: kernels-tests/refiner.rs.
        if !["sd1-inpaint", "sdxl-refiner"].contains(&family) {
            trials.push(test(format!("checkpoints::{family}::pictures"), move || pictures(family)));
            let on_each = on_each_executor(&format!("checkpoints::{family}::networks"), move |executor, kind| {
                networks(family, DType::F16, executor, NETWORK[kind])
            });
            // The first is the CPU.
            trials.extend(on_each.into_iter().skip(1));
        }
    }
    trials.push(test("checkpoints::padding_is_each_encoders_own", padding_is_each_encoders_own));
    trials.push(test("checkpoints::a_tensors_type_is_told_without_reading_it", types_are_told));
    trials
}

/// The family's checkpoint in a folder of its own.
pub fn checkpoint(family: &str, dtype: DType) -> Result<(TempDir, PathBuf), Failed> {
    let kept = Kept::of(family)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.safetensors");
    write(&path, &kept.tensors(), dtype, &kept.metadata)?;
    Ok((folder, path))
}

fn networks(family: &str, dtype: DType, executor: &Executor, limit: f64) -> Result<(), Failed> {
    let (_folder, path) = checkpoint(family, dtype)?;
    let names = agree(&Model::open(&path)?, family, executor, limit)?;
    assert!(names >= 4, "{names}");
    Ok(())
}

/// Every network that the reference has, through the same door as `ornstein forward`; and how many there are.
pub fn agree(model: &Model, family: &str, executor: &Executor, limit: f64) -> Result<usize, Failed> {
    let reference = reference(family)?;
    let mut names: Vec<_> = reference.keys().filter_map(|key| key.split('.').next()).collect();
    names.dedup();
    for name in &names {
        let part = |way: &str| -> Tensors {
            let start = format!("{name}.{way}.");
            let tensor =
                |(key, tensor): (&String, &_)| Some((key.strip_prefix(&start)?.to_string(), Clone::clone(tensor)));
            reference.iter().filter_map(tensor).collect()
        };
        let outputs = pollster::block_on(forward(model, &Changes::default(), name, part("in"), executor, &mut |_| {}))?;
        for (output, wanted) in part("out") {
            let found = outputs.get(&output).ok_or_else(|| format!("{name} gives no {output}"))?;
            within(&format!("{name}: {output}"), found, &wanted, limit)?;
        }
    }
    Ok(names.len())
}

fn types_are_told() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let quantised = folder.path().join("model.gguf");
    gguf::write_gguf(&quantised, &Kept::of("sd2")?.tensors())?;
    let (_folder, bf16) = checkpoint("sd2", DType::BF16)?;
    for (path, wanted) in [(quantised, DType::F32), (bf16, DType::BF16)] {
        for component in ["unet", "text_encoder", "vae"] {
            let weights = Model::open(&path)?.weights(component)?;
            let told = |name: &String| (weights.dtype(name), weights.get(name).map(|tensor| tensor.dtype));
            let wrong: Vec<_> =
                weights.names().into_iter().filter(|name| told(name) != (Some(wanted), Some(wanted))).collect();
            assert!(wrong.is_empty(), "{component}: {wrong:?}");
        }
    }
    Ok(())
}

/// What is inferred from the tensors is what diffusers wrote of the pipeline.
fn configurations(family: &str) -> Result<(), Failed> {
    let (_folder, path) = checkpoint(family, DType::F16)?;
    let (model, kept) = (Model::open(&path)?, Kept::of(family)?);
    for (component, wanted) in &kept.configs {
        if component == "scheduler" {
            let mut found: serde_json::Value = model.json("scheduler/scheduler_config.json")?;
            found.as_object_mut().ok_or("no object")?.remove("_prediction_type_because");
            assert_eq!(found, *wanted, "the keys that are published, and no others");
            continue;
        }
        if component == "low_res_scheduler" {
            assert_eq!(model.json::<serde_json::Value>("low_res_scheduler/scheduler_config.json")?, *wanted);
            continue;
        }
        let mut wanted = wanted.clone();
        if component == "vae" {
            // What no tensor tells.
            wanted.as_object_mut().ok_or("no object")?.remove("sample_size");
        }
        let (found, wanted) = (model.text(&format!("{component}/config.json"))?, wanted.to_string());
        match component.as_str() {
            "unet" => {
                assert_eq!(unet::Config::from_json(&found, "found")?, unet::Config::from_json(&wanted, "wanted")?)
            }
            "vae" => assert_eq!(vae::Config::from_json(&found, "found")?, vae::Config::from_json(&wanted, "wanted")?),
            _ => assert_eq!(clip::Config::from_json(&found, "found")?, clip::Config::from_json(&wanted, "wanted")?),
        }
    }
    Ok(())
}

/// A guided picture of the file is that of the folder with the same weights, bit for bit.
fn pictures(family: &str) -> Result<(), Failed> {
    let (folder, path) = checkpoint(family, DType::BF16)?;
    let models = [Model::open(&path)?, Kept::of(family)?.write_folder(&folder.path().join("folder"))?];
    let on_picture = ON_PICTURES.contains(&family);
    let side = |pixels: usize| Some(pixels).filter(|_| !on_picture);
    let request = Request {
        prompt: "a photo of a cat".into(),
        width: side(32),
        height: side(40),
        init_image: on_picture.then(|| decode("picture.png", PICTURE)).transpose()?,
        steps: Some(2),
        batch: 1,
        ..Request::default()
    };
    let picture = |model| {
        let never = AtomicBool::new(false);
        pollster::block_on(Studio::open(model)?.generate(&Executor::Cpu, &request, &never, &mut |_| {}))
    };
    let [file, folder] = models.map(picture);
    let (file, folder) = (file?, folder?);
    assert_eq!(file.settings.sampler, folder.settings.sampler);
    assert_eq!(file.latents, folder.latents);
    assert_eq!(file.pictures[0].rgb, folder.pictures[0].rgb);
    Ok(())
}

fn padding_is_each_encoders_own() -> Result<(), Failed> {
    for (family, folder, pad) in
        [("sd1", "tokenizer", 49407), ("sd2", "tokenizer", 0), ("sdxl", "tokenizer", 49407), ("sdxl", "tokenizer_2", 0)]
    {
        let (_folder, path) = checkpoint(family, DType::F16)?;
        let model = Model::open(&path)?;
        let tokenizer = Tokenizer::from_files(model.path(folder), |name| model.bytes(&format!("{folder}/{name}")))?;
        assert_eq!(tokenizer.encode_padded("a cat", 6)?.0, [49406, 320, 2368, 49407, pad, pad], "{family} {folder}");
    }
    Ok(())
}
