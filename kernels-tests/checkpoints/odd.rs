//! Files that are not quite a checkpoint: parts of one, more than one, damaged ones, and other things altogether.

use std::collections::HashMap;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::forward::forward;
use ornstein::network::Executor;
use ornstein::systems::Studio;
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::{Changes, Model};

use super::kept::{Kept, Tensors, reference, write};
use crate::support::test;

const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    type Run = fn() -> Result<(), Failed>;
    let tests: [(&str, Run); 13] = [
        ("a_unet_alone_runs_with_and_without_its_prefix", unet_alone),
        ("a_vae_alone_runs_and_draws_nothing", vae_alone),
        ("a_vae_in_diffusers_names_runs", vae_in_diffusers_names),
        ("missing_tensors_are_listed_up_to_ten", missing_tensors),
        ("a_tensor_of_another_shape_is_named", misshapen_tensor),
        ("a_tensor_that_no_network_knows_is_named", unknown_tensor),
        ("what_training_leaves_is_left_out", leftovers),
        ("a_type_that_is_not_known_is_named", unknown_types),
        ("what_is_predicted_is_told_by_the_file", prediction),
        ("what_is_no_model_says_what_it_is", other_kinds),
        ("a_refiner_is_told_by_its_unet", refiner),
        ("a_truncated_file_is_named", truncated),
        ("a_pickle_says_why_and_how_to_convert", pickles),
    ];
    tests.into_iter().map(|(name, run)| test(format!("checkpoints::{name}"), run)).collect()
}

/// A model of these tensors in f16.
pub fn opened(tensors: &Tensors, metadata: &[(&str, &str)]) -> ornstein::error::Result<Model> {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let path = folder.path().join("model.safetensors");
    let metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    write(&path, tensors, DType::F16, &metadata).expect("a file for a test");
    // A map outlives its file's name.
    Model::open(&path)
}

/// Why this model makes no pictures.
fn not_drawn(model: Model) -> String {
    message(Studio::open(model))
}

fn message<T>(opened: ornstein::error::Result<T>) -> String {
    let text = opened.err().expect("an error").to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn tensors(family: &str) -> Result<Tensors, Failed> {
    Ok(Kept::of(family)?.tensors())
}

/// The tensors whose names begin so, without that beginning.
fn part(tensors: &Tensors, start: &str) -> Tensors {
    tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(start)?.into(), tensor.clone()))).collect()
}

fn ones(names: &[&str]) -> Tensors {
    names.iter().map(|name| (name.to_string(), Tensor::new([1], vec![1.0]))).collect()
}

/// One pass on the reference's inputs.
fn run(model: &Model, name: &str) -> Result<Tensor, Failed> {
    let start = format!("{name}.in.");
    let inputs = part(&reference("sd1")?, &start);
    let mut outputs =
        pollster::block_on(forward(model, &Changes::default(), name, inputs, &Executor::Cpu, &mut |_| {}))?;
    Ok(outputs.remove("sample").ok_or("no sample")?)
}

fn unet_alone() -> Result<(), Failed> {
    let all = tensors("sd1")?;
    let bare = part(&all, UNET);
    let whole = run(&opened(&all, &[])?, "unet")?;
    for start in ["", "diffusion_model.", UNET] {
        let alone: Tensors = bare.iter().map(|(name, tensor)| (format!("{start}{name}"), tensor.clone())).collect();
        let model = opened(&alone, &[])?;
        assert_eq!(run(&model, "unet")?, whole, "{start}");
        assert!(model.has("unet") && !model.has("vae") && !model.has("text_encoder"));
        assert!(not_drawn(model).contains("holds no vae, only unet; give base or give it as unet"));
    }
    Ok(())
}

fn vae_alone() -> Result<(), Failed> {
    let all = tensors("sd1")?;
    let whole = run(&opened(&all, &[])?, "vae-decoder")?;
    let model = opened(&part(&all, VAE), &[])?;
    assert_eq!(run(&model, "vae-decoder")?, whole);
    assert!(not_drawn(model).contains("holds no unet, only vae; give base or give it as vae"));
    Ok(())
}

fn vae_in_diffusers_names() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let pipeline = Kept::of("sd1")?.write_folder(&folder.path().join("model"))?;
    let alone = Model::open(&folder.path().join("model/vae/model.safetensors"))?;
    assert_eq!(run(&alone, "vae-decoder")?, run(&pipeline, "vae-decoder")?);
    Ok(())
}

fn refused(model: &Model, name: &str) -> Result<String, Failed> {
    Ok(run(model, name).err().ok_or("it ran")?.message().ok_or("no message")?.to_string())
}

fn missing_tensors() -> Result<(), Failed> {
    let mut all = tensors("sd1")?;
    all.retain(|name, _| !name.starts_with("model.diffusion_model.middle_block.1.transformer_blocks.0.attn"));
    let text = refused(&opened(&all, &[])?, "unet")?;
    let first = "(unet): 10 tensors missing: mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight, ";
    assert!(text.contains(first) && !text.contains(" more"), "{text}");
    all.retain(|name, _| !name.starts_with("model.diffusion_model.time_embed."));
    let text = refused(&opened(&all, &[])?, "unet")?;
    assert!(text.contains("(unet): 14 tensors missing: ") && text.contains(" and 4 more"), "{text}");
    Ok(())
}

fn misshapen_tensor() -> Result<(), Failed> {
    let mut all = tensors("sd1")?;
    all.insert(format!("{UNET}time_embed.2.bias"), Tensor::zeros([7]));
    let text = refused(&opened(&all, &[])?, "unet")?;
    assert!(text.contains("time_embedding.linear_2.bias is [7], not [128]"), "{text}");
    let mut all = tensors("sd2")?;
    all.insert("cond_stage_model.model.transformer.resblocks.3.attn.in_proj_bias".into(), Tensor::zeros([7]));
    let text = refused(&opened(&all, &[])?, "text-encoder")?;
    assert!(text.contains("text_model.encoder.layers.3.self_attn.k_proj.bias is [7], not [128]"), "{text}");
    Ok(())
}

fn unknown_tensor() -> Result<(), Failed> {
    let mut all = tensors("sd1")?;
    all.extend(ones(&["model.diffusion_model.input_blocks.1.2.gate"]));
    let text = refused(&opened(&all, &[])?, "unet")?;
    assert!(text.contains("(unet): 1 tensor too many: ") && text.contains("2.gate"), "{text}");
    Ok(())
}

fn leftovers() -> Result<(), Failed> {
    let mut all = tensors("sd1")?;
    let left = [
        "model_ema.decay",
        "alphas_cumprod",
        "global_step",
        "first_stage_model.loss.logvar",
        "low_scale_model.sqrt_alphas_cumprod",
        "model_ema.diffusion_modelout2bias",
    ];
    all.extend(ones(&left));
    all.extend(ones(&["somebody.elses"]));
    let model = opened(&all, &[])?;
    let checkpoint = model.checkpoint().ok_or("no checkpoint")?;
    assert_eq!((checkpoint.left_out(), checkpoint.unknown()), (left.len(), &["somebody.elses".to_string()][..]));
    run(&model, "vae-decoder")?;
    Ok(())
}

/// A safetensors file of one tensor of one element.
fn file_of(name: &str, dtype: &str, bytes: usize) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,{bytes}]}}}}"#);
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; bytes]].concat()
}

fn opened_bytes(name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file for a test");
    let text = message(Model::open(&path));
    assert!(text.starts_with(path.to_str().expect("a name in UTF-8")), "{text}");
    text
}

fn unknown_types() -> Result<(), Failed> {
    let text = opened_bytes("x.safetensors", &file_of("model.diffusion_model.input_blocks.0.0.weight", "F64", 8));
    assert!(text.contains("input_blocks.0.0.weight (F64); convert them to f16"), "{text}");
    // A buffer that nothing reads.
    let names = ["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.transformer.position_ids"];
    let entry = |name, dtype, range| format!(r#""{name}":{{"dtype":"{dtype}","shape":[1],"data_offsets":{range}}}"#);
    let header = format!("{{{},{}}}", entry(names[0], "F32", "[0,4]"), entry(names[1], "F64", "[4,12]"));
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 12]].concat();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, bytes)?;
    assert_eq!(Model::open(&path)?.components(), ["text_encoder", "unet"]);
    Ok(())
}

/// The prediction type that is recognised, and whether the schedule ends in pure noise.
pub fn predicted(tensors: &Tensors, metadata: &[(&str, &str)]) -> Result<(String, bool), Failed> {
    let config: serde_json::Value = opened(tensors, metadata)?.json("scheduler/scheduler_config.json")?;
    // Stable Diffusion 1's published file does not have the key.
    let kind = config["prediction_type"].as_str().unwrap_or("epsilon");
    Ok((kind.into(), config["rescale_betas_zero_snr"] == true))
}

fn prediction() -> Result<(), Failed> {
    let is = |found: Result<(String, bool), Failed>, wanted: &str, zero_snr: bool| {
        assert_eq!(found?, (wanted.to_string(), zero_snr));
        Ok::<_, Failed>(())
    };
    let (sd1, mut sd2, mut sdxl) = (tensors("sd1")?, tensors("sd2")?, tensors("sdxl")?);
    is(predicted(&sd1, &[]), "epsilon", false)?;
    is(predicted(&sd1, &[("modelspec.prediction_type", "v")]), "v_prediction", false)?;
    is(predicted(&sd2, &[]), "epsilon", false)?;
    let norm =
        sd2.get_mut("model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias").ok_or("no norm")?;
    norm.data.iter_mut().for_each(|value| *value *= 10.0);
    is(predicted(&sd2, &[]), "v_prediction", false)?;
    is(predicted(&sd2, &[("modelspec.prediction_type", "epsilon")]), "epsilon", false)?;
    sdxl.extend(ones(&["v_pred"]));
    is(predicted(&sdxl, &[]), "v_prediction", false)?;
    sdxl.extend(ones(&["ztsnr"]));
    is(predicted(&sdxl, &[]), "v_prediction", true)
}

fn other_kinds() -> Result<(), Failed> {
    for (name, part) in [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", "is a LoRA"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "is a LoRA"),
        ("lora_controlnet", "is a Control-LoRA"),
        ("difference", "is a ControlNet's difference"),
        ("control_add_embedding.linear_1.weight", "for several kinds of images"),
        ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("emb_params", "textual inversion"),
        (
            "state_dict.model.diffusion_model.input_blocks.0.0.weight",
            "has a unet whose names begin with state_dict.model.diffusion_model., which is not known; save it with \
             names that begin with model.diffusion_model.",
        ),
        (
            "layers.0.weight",
            "holds no network of Stable Diffusion XL's refiner, Stable Diffusion XL for inpainting, Stable Diffusion \
             XL, Stable Diffusion x4 upscaler, Stable Diffusion 2 for inpainting, Stable Diffusion 2, InstructPix2Pix, \
             Stable Diffusion 1 for inpainting, Stable Diffusion 1 under a name that is known; it has layers.0.weight",
        ),
    ] {
        let text = message(opened(&ones(&[name]), &[]));
        assert!(text.contains(part), "{name}: {text}");
    }
    let text = opened_bytes("x.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    assert!(text.contains("it has no tensors"), "{text}");
    assert!(opened_bytes("model.gguf", b"GGUF\x03\0\0\0").contains("is truncated"));
    Ok(())
}

/// The refiner's UNet has no transformer at its lowest level.
fn refiner() -> Result<(), Failed> {
    let mut unet = part(&tensors("sdxl")?, UNET);
    unet.retain(|name, _| !name.starts_with("input_blocks.5.1.") && !name.starts_with("conditioner"));
    let found = ornstein::inspect::inspect(&opened(&unet, &[])?)?;
    assert_eq!(found.family, Some("Stable Diffusion XL's refiner"));
    Ok(())
}

fn truncated() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.safetensors");
    write(&path, &tensors("sd1")?, DType::F16, &HashMap::new())?;
    let whole = std::fs::read(&path)?;
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        let text = opened_bytes("model.safetensors", &whole[..length]);
        assert!(text.contains("truncated") || text.contains("empty") || length == 7, "{length}: {text}");
    }
    Ok(())
}

fn pickles() -> Result<(), Failed> {
    for name in ["model.ckpt", "model.pt", "model.bin", "model.safetensors"] {
        let text = opened_bytes(name, b"PK\x03\x04\0\0\0\0archive/data.pkl");
        assert!(text.contains("can run any code") && text.contains("safetensors.torch.save_file"), "{text}");
    }
    Ok(())
}
