//! Networks against PyTorch on the CPU, and against the published sizes of the real ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::components::{Component, Components};
use ornstein::graph::Graph;
use ornstein::graph::interpret::Interpreter;
use ornstein::inspect::{inspect, verify};
use ornstein::models::ports::{Tensors, bind};
use ornstein::models::{clip, controlnet, table, unet, vae};
use ornstein::ops::case::compare;
use ornstein::weights::{Model, check, read_tensors};

use crate::checkpoints::kept::Kept;
use crate::unclip;

/// The contract's largest relative error of a network on the CPU.
const TOLERANCE: f64 = 2e-5;

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for family in ["sd1", "sd2", "sdxl", "taesd"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/cases").join(family);
        for case in cases_in(&folder) {
            for fused in [false, true] {
                let form = if fused { "fused" } else { "plain" };
                let name = format!("models::{family}::{} {form}", case.name);
                let case = case.clone();
                trials.push(Trial::test(name, move || case.check(fused)));
            }
        }
    }
    trials.push(Trial::test("models::every_class_is_inspected_and_verified", every_class));
    trials
}

/// A model's folder with forward passes: inputs and outputs as PyTorch computed them.
#[derive(Clone)]
struct Case {
    folder: PathBuf,
    /// The component's name, perhaps with a variant: `text-encoder-2`, `unet-odd`.
    name: String,
}

fn cases_in(folder: &Path) -> Vec<Case> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let name =
        |file: std::fs::DirEntry| file.file_name().to_str()?.strip_suffix(".inputs.safetensors").map(String::from);
    let mut names: Vec<String> = files.filter_map(name).collect();
    names.sort();
    assert!(!names.is_empty(), "{} holds no cases", folder.display());
    names.into_iter().map(|name| Case { folder: folder.to_path_buf(), name }).collect()
}

impl Case {
    /// Inputs or outputs, as their file holds them.
    fn tensors(&self, which: &str) -> Result<Tensors, Failed> {
        let tensors = read_tensors(&self.folder.join(format!("{}.{which}.safetensors", self.name)))?;
        Ok(tensors.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
    }

    fn check(&self, fused: bool) -> Result<(), Failed> {
        let model = Model::open(&self.folder)?;
        let components = Components::of(&model)?;
        // `unet-odd` is a case of `unet`.
        let pass = self.name.split_once("unet-").map_or(self.name.as_str(), |_| "unet");
        let (Component { folder, config }, way) = components.pass(&model, pass)?;
        let (mut inputs, sizes) = bind(&config.ports(way), self.tensors("inputs")?)?;
        config.prepare(way, &mut inputs)?;
        let (graph, weights) = (config.graph(folder, way, &sizes)?, model.weights(folder)?);
        check(&weights, &config.wanted(folder)?)?;
        let graph = if fused { graph.fused() } else { graph };
        let given: Vec<_> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let outputs = Interpreter::new(graph, &weights)?.run(&given)?.into_iter().collect();
        let outputs = config.finish(way, &inputs, outputs)?;
        let references = self.tensors("outputs")?;
        assert_eq!(outputs.len(), references.len(), "number of outputs");
        for (name, reference) in references {
            let found = outputs.get(&name).ok_or_else(|| format!("no output {name}"))?;
            let found = if found.shape.rank() == 4 { found.to_channels_first()? } else { found.clone() };
            let error = compare(&found, &reference).relative;
            if error > TOLERANCE || error.is_nan() {
                return Err(format!("{name}: relative error {error:.2e}, at most {TOLERANCE:.0e}").into());
            }
        }
        Ok(())
    }
}

/// Of every class that is built there is a model here, and all of it is known to `models inspect` and `models verify`.
fn every_class() -> Result<(), Failed> {
    let (mut seen, controls) = (BTreeSet::new(), tempfile::tempdir()?);
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/cases");
    let folders = [
        "sd1",
        "sd2",
        "sdxl",
        "taesd",
        "../pixels/classes",
        "../latent_diffusion/text",
        "../latent_diffusion/enlarged",
    ]
    .map(|family| cases.join(family));
    let models = folders.iter().map(|folder| Model::open(folder));
    let control = Kept::of("controlnet-sd1")?.write_folder(controls.path())?;
    let varies = unclip::model("h", &serde_json::json!({}), &controls.path().join("unclip"))?;
    for model in models.collect::<Result<Vec<_>, _>>()?.into_iter().chain([control, varies]) {
        let inspected: Vec<_> = inspect(&model)?.components.into_iter().map(|part| part.component).collect();
        let mut verified = Vec::new();
        verify(&model, &mut |part| verified.push(part.component.clone()))?;
        let folders: Vec<_> = Components::of(&model)?.built.into_iter().map(|component| component.folder).collect();
        assert_eq!((&inspected, &verified), (&folders, &folders));
        for folder in folders {
            let text = model.text(&format!("{folder}/config.json"))?;
            seen.extend(table::class_of(&text, &folder)?);
        }
    }
    assert_eq!(seen, table::classes().map(String::from).collect());
    Ok(())
}

/// Parameters and multiply-adds of the real networks, which are known: a wrong width, depth or missing layer shows
/// here.
mod sizes {
    use super::*;

    const SD1: &str = r#"{"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}"#;
    const SD2: &str = r#"{"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "sample_size": 64,
        "use_linear_projection": true, "upcast_attention": true}"#;
    const SDXL: &str = r#"{"cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "sample_size": 128,
        "block_out_channels": [320, 640, 1280], "use_linear_projection": true,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}"#;
    const SDXL_CONTROLNET: &str = r#"{"cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280], "use_linear_projection": true,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}"#;
    const VAE: &str = r#"{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
    const CLIP_L: &str = r#"{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}"#;
    const BIG_G: &str = r#"{"architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu",
        "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32,
        "projection_dim": 1280, "eos_token_id": 49407}"#;

    #[linkme::distributed_slice(crate::TRIALS)]
    fn trials() -> Vec<Trial> {
        let unet = |config: &'static str, size, tokens| {
            move || unet::Config::from_json(config, "unet").and_then(|c| c.graph(1, size, size, tokens))
        };
        let control = |config: &'static str, size| {
            move || controlnet::Config::from_json(config, "controlnet").and_then(|c| c.graph(1, size, size, 77))
        };
        let clip = |config: &'static str| {
            move || clip::Config::from_json(config, "text_encoder").and_then(|c| c.graph("text_encoder", 1, 77))
        };
        let vae = || vae::Config::from_json(VAE, "vae");
        vec![
            trial("the Stable Diffusion 1.5 UNet", 859.52, 401.6, unet(SD1, 64, 77)),
            trial("the Stable Diffusion 2.1 UNet", 865.91, 402.1, unet(SD2, 64, 77)),
            trial("the SDXL UNet", 2567.46, 3380.6, unet(SDXL, 128, 77)),
            trial("the Stable Diffusion 1.5 ControlNet", 361.28, 141.6, control(r#"{"cross_attention_dim": 768}"#, 64)),
            trial("the SDXL ControlNet", 1251.01, 1510.2, control(SDXL_CONTROLNET, 128)),
            trial("the VAE decoder", 49.49, 1257.3, move || vae()?.decoder("vae", 1, 64, 64)),
            trial("the VAE encoder", 34.16, 558.3, move || vae()?.encoder("vae", 1, 512, 512)),
            trial("the CLIP ViT-L text encoder", 123.06, 6.65, clip(CLIP_L)),
            trial("the OpenCLIP bigG text encoder", 694.66, 48.9, clip(BIG_G)),
        ]
    }

    fn trial(
        name: &str,
        millions: f64,
        gmac: f64,
        graph: impl FnOnce() -> ornstein::error::Result<Graph> + Send + 'static,
    ) -> Trial {
        Trial::test(format!("models::{name} has its published size"), move || {
            let graph = graph()?;
            let parameters = graph.wanted().iter().map(|(_, shape)| shape.len()).sum::<usize>() as f64 / 1e6;
            assert!((parameters - millions).abs() < 0.0051, "{parameters:.3} M parameters, published {millions} M");
            let products = graph.nodes.iter().filter(|n| ["conv2d", "matmul", "attention"].contains(&n.op.name()));
            let flops: u64 = products.map(|n| n.op.flops(&graph.types(&n.inputs), graph.ty(n.output))).sum();
            let found = flops as f64 / 2e9;
            // Causal attention may count what it masks or not: 0.8 % of ViT-L's.
            assert!((found / gmac - 1.0).abs() < 1e-2, "{found:.2} billion multiply-adds, expected {gmac}");
            Ok(())
        })
    }
}
