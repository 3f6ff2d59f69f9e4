//! What the manifest says of models that are not here, against the graphs of their published configurations.

use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::graph::plan::{Storage, session_bytes};
use ornstein::image::Picture;
use ornstein::inspect::inspect;
use ornstein::lab::published::published;
use ornstein::models::table;
use ornstein::network::Executor;
use ornstein::systems::{Part, Request, Studio};
use ornstein::tensor::DType;
use ornstein::weights::Model;
use ornstein::weights::manifest::{self, Entry};

use crate::support::{ensure, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        test("manifest::memory_is_what_the_plans_of_a_picture_take", memory),
        test("manifest::sizes_are_those_of_all_parameters", sizes),
    ]
}

/// An entry's name up to here, the published models whose parts it has, the later ones in the place of the first's, the
/// class of its pipeline, and the side of its picture in pixels.
const MODELS: &[(&str, &[&str], &str, usize)] = &[
    ("sd15", &["sd15"], "StableDiffusionPipeline", 512),
    ("sd21-base", &["sd21"], "StableDiffusionPipeline", 512),
    ("sd21-unclip-small", &["sd21-unclip-small"], "StableUnCLIPImg2ImgPipeline", 768),
    ("sd21-unclip", &["sd21-unclip"], "StableUnCLIPImg2ImgPipeline", 768),
    ("sd21", &["sd21"], "StableDiffusionPipeline", 768),
    ("sd-turbo", &["sd21"], "StableDiffusionPipeline", 512),
    ("sdxl-refiner", &["sdxl-refiner"], "StableDiffusionXLImg2ImgPipeline", 1024),
    ("sdxl-turbo", &["sdxl"], "StableDiffusionXLPipeline", 512),
    ("sdxl", &["sdxl"], "StableDiffusionXLPipeline", 1024),
    ("ssd-1b", &["sdxl", "ssd-1b"], "StableDiffusionXLPipeline", 1024),
    ("vega", &["sdxl", "vega"], "StableDiffusionXLPipeline", 1024),
    ("ddpm-cifar10-32", &["ddpm-cifar10-32"], "DDPMPipeline", 32),
    ("x4", &["x4"], "StableDiffusionUpscalePipeline", 128),
    ("pix2pix", &["pix2pix"], "StableDiffusionInstructPix2PixPipeline", 512),
];

/// Folders and configurations.
type Networks = Vec<(&'static str, &'static str)>;

/// An entry's networks, and the rest of its row.
fn networks(entry: &Entry) -> Result<(Networks, &'static str, usize), Failed> {
    let row = MODELS.iter().find(|row| entry.name.starts_with(row.0)).ok_or_else(|| entry.name.clone())?;
    let mut parts = Networks::new();
    for name in row.1 {
        let own = published(name).ok_or(*name)?.parts;
        parts.retain(|(folder, _)| own.iter().all(|(other, _)| other != folder));
        parts.extend(own);
    }
    Ok((parts, row.2, row.3))
}

/// A model's folder with all but weights.
fn write(at: &Path, parts: &[(&str, &str)], class: &str) -> Result<(), Failed> {
    let put = |path: &str, text: &str| -> Result<(), Failed> {
        fs::create_dir_all(at.join(path).parent().unwrap_or(at))?;
        Ok(fs::write(at.join(path), text)?)
    };
    let scored = class == "StableDiffusionXLImg2ImgPipeline";
    put("model_index.json", &format!(r#"{{"_class_name": "{class}", "requires_aesthetics_score": {scored}}}"#))?;
    let schedules = ["scheduler", "image_noising_scheduler", "low_res_scheduler"];
    for folder in schedules {
        put(&format!("{folder}/scheduler_config.json"), r#"{"_class_name": "DDIMScheduler"}"#)?;
    }
    put("feature_extractor/preprocessor_config.json", "{}")?;
    for (folder, config) in parts {
        put(&format!("{folder}/config.json"), config)?;
        if *folder == "image_encoder" {
            let width = serde_json::from_str::<serde_json::Value>(config)?["projection_dim"].clone();
            put("image_normalizer/config.json", &format!(r#"{{"embedding_dim": {width}}}"#))?;
        }
    }
    // The graphs do not depend on the tokens.
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model/tokenizer");
    for folder in ["tokenizer", "tokenizer_2"] {
        fs::create_dir(at.join(folder))?;
        for file in fs::read_dir(&tokenizer)? {
            let file = file?;
            fs::copy(file.path(), at.join(folder).join(file.file_name()))?;
        }
    }
    Ok(())
}

/// The most MiB that a network of the model's default picture takes.
fn peak(entry: &Entry) -> Result<u64, Failed> {
    let folder = tempfile::tempdir()?;
    let mut request = Request { guidance: entry.defaults.guidance, ..Request::default() };
    let mut in_f32 = false;
    let model = if entry.repository.is_some() {
        let (parts, class, side) = networks(entry)?;
        write(folder.path(), &parts, class)?;
        // The autoencoder of Stable Diffusion XL overflows f16.
        in_f32 = class.contains("XL");
        let is_any_of = |kinds: &[&str]| kinds.iter().any(|kind| class.contains(kind));
        if is_any_of(&["Img2Img", "Upscale", "Pix2Pix"]) {
            let rgb = vec![0; 3 * side * side];
            request.init_image = Some(Picture { width: side, height: side, rgb, parameters: None });
        }
        if !is_any_of(&["Upscale", "Pix2Pix"]) {
            (request.width, request.height) = (Some(side), Some(side));
        }
        Model::open(folder.path())?
    } else {
        Model::resolve(Some(entry.name.as_ref()))?
    };
    let bytes = |part: Part| {
        let act = if in_f32 && part.what.starts_with("VAE") { DType::F32 } else { DType::F16 };
        session_bytes(&part.graph.fused(), Storage { act, weight: DType::F16 })
    };
    let parts = Studio::open(model)?.parts(&Executor::Cpu, &request)?;
    Ok(parts.into_iter().map(bytes).max().unwrap_or(0).div_ceil(1 << 20))
}

fn memory() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for entry in manifest::entries() {
        let found = peak(entry).map_err(|error| format!("{}: {error:?}", entry.name))?;
        if entry.memory_mib != Some(found) {
            wrong.push(format!("{}: memory_mib = {found}", entry.name));
        }
    }
    ensure(wrong.is_empty(), wrong.join("\n"))
}

/// Bytes of the parameters of an entry's networks, in the type of their files: f32, unless a name says otherwise.
fn bytes(entry: &Entry) -> Result<u64, Failed> {
    if entry.repository.is_none() {
        let found = inspect(&Model::resolve(Some(entry.name.as_ref()))?)?;
        return Ok(found.components.iter().map(|part| 2 * part.parameters as u64).sum());
    }
    let mut bytes = 0;
    for (folder, config) in networks(entry)?.0 {
        let network = table::open(folder, config, &entry.name)?.ok_or(folder)?;
        let parameters: usize = network.wanted(folder)?.iter().map(|(_, shape)| shape.len()).sum();
        let weights = entry.files.iter().filter(|file| file.path.ends_with(".safetensors"));
        let own = weights.clone().find(|file| file.path.starts_with(&format!("{folder}/")));
        let file = own.or(weights.clone().next()).ok_or("no file of weights")?;
        let each = if file.path.contains("fp16") { 2 } else { 4 };
        bytes += own.and_then(|file| file.bytes).unwrap_or((each * parameters) as u64);
    }
    Ok(bytes)
}

fn sizes() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for entry in manifest::entries() {
        match entry.size_mb {
            Some(size) => {
                let found = bytes(entry)?.div_ceil(1_000_000);
                if size != found {
                    wrong.push(format!("{}: size_mb = {found}", entry.name));
                }
            }
            // Its file also holds an average of its weights over the training.
            None if entry.bytes().is_none() && entry.name != "pix2pix-checkpoint" => {
                wrong.push(format!("{}: size_mb = {}", entry.name, bytes(entry)?.div_ceil(1_000_000)));
            }
            None => {}
        }
    }
    ensure(wrong.is_empty(), wrong.join("\n"))
}
