//! Networks from elsewhere in a model: files with one alone, parts of other checkpoints, and folders whose components
//! are written as in checkpoints; and checkpoints in the names of other programs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::network::Executor;
use ornstein::systems::{Request, Studio};
use ornstein::tensor::{DType, Shape, Tensor};
use ornstein::weights::Model;
use serde_json::Value;
use tempfile::TempDir;

use super::gguf::{plain, write_gguf_of};
use super::kept::{Kept, Tensors, in_eight_bits, write};
use crate::support::{ensure, test};

const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    type Run = fn() -> Result<(), Failed>;
    let tests: [(&str, Run); 9] = [
        ("a_unet_alone_draws_with_a_base", unet_on_a_base),
        ("a_vae_alone_stands_for_the_models_or_for_none", vae_alone),
        ("a_vae_of_another_family_is_refused", other_vae),
        ("a_unet_of_another_family_is_refused", other_unet),
        ("text_encoders_alone_stand_for_the_models", text_encoders),
        ("components_of_a_folder_may_be_written_as_in_checkpoints", original_names),
        ("other_programs_names_draw_the_same", other_names),
        ("weights_of_eight_bits_draw_as_the_same_in_more", eight_bits),
        ("scales_of_weights_of_eight_bits_are_multiplied_with", scaled),
    ];
    tests.into_iter().map(|(name, run)| test(format!("checkpoints::{name}"), run)).collect()
}

/// The latents of a small picture.
fn drawn(model: Model) -> Result<Tensor, Failed> {
    let (prompt, never) = ("a photo of a cat".into(), AtomicBool::new(false));
    let request = Request { prompt, width: Some(32), height: Some(32), steps: Some(1), ..Request::default() };
    let studio = Studio::open(model)?;
    Ok(pollster::block_on(studio.generate(&Executor::Cpu, &request, &never, &mut |_| {}))?.latents)
}

/// A folder for files.
struct Place(TempDir);

impl Place {
    fn new() -> Result<Self, Failed> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// These tensors as a file of this name, in f32.
    fn file(&self, name: &str, tensors: &Tensors) -> Result<PathBuf, Failed> {
        let path = self.0.path().join(name);
        if name.ends_with(".gguf") {
            write_gguf_of(&path, tensors, &HashMap::new(), plain)?;
        } else {
            write(&path, tensors, DType::F32, &HashMap::new())?;
        }
        Ok(path)
    }
}

/// Those whose names begin so, and the others; the former without that.
fn split(tensors: Tensors, start: &str) -> (Tensors, Tensors) {
    let (own, others): (Tensors, Tensors) = tensors.into_iter().partition(|(name, _)| name.starts_with(start));
    (own.into_iter().map(|(name, tensor)| (name[start.len()..].to_string(), tensor)).collect(), others)
}

fn renamed(tensors: Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect()
}

fn unet_on_a_base() -> Result<(), Failed> {
    let (place, all) = (Place::new()?, Kept::of("sd1")?.tensors());
    let wanted = drawn(Model::open(&place.file("whole.safetensors", &all)?)?)?;
    let (unet, rest) = split(all, UNET);
    // The base has another UNet.
    let other = unet.iter().map(|(name, tensor)| {
        let data = tensor.data.iter().map(|value| value * 0.5).collect();
        (format!("{UNET}{name}"), Tensor::new(tensor.shape.clone(), data))
    });
    let base = place.file("base.safetensors", &rest.into_iter().chain(other).collect())?;
    for file in ["unet.gguf", "unet.safetensors"] {
        let alone = Model::open(&place.file(file, &unet)?)?;
        let model = Model::open(&base)?.with_parts_of(&alone)?;
        assert_eq!(model.name(), "unet");
        ensure(drawn(model)? == wanted, format!("{file} on a base differs"))?;
    }
    let replaced = Model::open(&base)?.with_part("unet", &place.file("again.gguf", &unet)?)?;
    ensure(drawn(replaced)? == wanted, "a UNet in the place of another differs")
}

fn scaling(model: &Model) -> Result<f64, Failed> {
    Ok(model.json::<Value>("vae/config.json")?["scaling_factor"].as_f64().ok_or("no scaling factor")?)
}

fn vae_alone() -> Result<(), Failed> {
    let place = Place::new()?;
    for (family, wanted) in [("sd1", 0.18215), ("sdxl", 0.13025)] {
        let kept = Kept::of(family)?;
        let whole = place.file("whole.safetensors", &kept.tensors())?;
        let (vae, rest) = split(kept.tensors(), VAE);
        let without = place.file("without.safetensors", &rest)?;
        let pictures = drawn(Model::open(&whole)?)?;
        for (name, tensors) in [("original.safetensors", vae), ("diffusers.safetensors", kept.component("vae"))] {
            let file = place.file(name, &tensors)?;
            for model in [&whole, &without] {
                let model = Model::open(model)?.with_vae(&file)?;
                assert_eq!(scaling(&model)?, wanted, "{family}");
                ensure(model.weights("vae")?.stored_as("decoder.conv_in.weight").is_some(), name)?;
                ensure(drawn(model)? == pictures, name)?;
            }
        }
    }
    Ok(())
}

fn refused(model: ornstein::error::Result<Model>) -> Result<String, Failed> {
    Ok(model.err().ok_or("it is taken")?.to_string())
}

fn other_vae() -> Result<(), Failed> {
    let place = Place::new()?;
    let [sd1, sdxl] =
        ["sd1", "sdxl"].map(|family| place.file(&format!("{family}.safetensors"), &Kept::of(family)?.tensors()));
    let (sd1, sdxl) = (sd1?, sdxl?);
    let folder = place.0.path().join("folder");
    Kept::of("sd1")?.write_folder(&folder)?;
    for vae in [&sd1, &folder, &folder.join("vae")] {
        let text = refused(Model::open(&sdxl)?.with_vae(vae))?;
        let wanted = ["is a vae of", "Stable Diffusion 1", "and the model is Stable Diffusion XL"];
        ensure(wanted.iter().all(|part| text.contains(part)), text)?;
    }
    Model::open(&sd1)?.with_vae(&folder)?;
    Ok(())
}

fn other_unet() -> Result<(), Failed> {
    let place = Place::new()?;
    let (unet, _) = split(Kept::of("sdxl")?.tensors(), UNET);
    let unet = Model::open(&place.file("unet.gguf", &unet)?)?;
    let base = Model::open(&place.file("sd1.safetensors", &Kept::of("sd1")?.tensors())?)?;
    let text = refused(base.with_parts_of(&unet))?;
    ensure(text.contains("is a unet of Stable Diffusion XL, and the model is Stable Diffusion 1"), text)
}

fn text_encoders() -> Result<(), Failed> {
    let (place, kept) = (Place::new()?, Kept::of("sdxl")?);
    let whole = place.file("whole.safetensors", &kept.tensors())?;
    let wanted = drawn(Model::open(&whole)?)?;
    let rest = kept.tensors().into_iter().filter(|(name, _)| !name.starts_with("conditioner.embedders."));
    let mut parted = Model::open(&place.file("rest.safetensors", &rest.collect())?)?;
    let (open_clip, _) = split(kept.tensors(), "conditioner.embedders.1.model.");
    for (component, tensors) in [("text_encoder", kept.component("text_encoder")), ("text_encoder_2", open_clip)] {
        parted = parted.with_part(component, &place.file(&format!("{component}.safetensors"), &tensors)?)?;
    }
    ensure(drawn(parted)? == wanted, "encoders alone differ")?;
    let again = Model::open(&whole)?.with_part("text_encoder_2", &whole)?;
    ensure(drawn(again)? == wanted, "the second encoder of a whole checkpoint differs")
}

fn original_names() -> Result<(), Failed> {
    let (place, kept) = (Place::new()?, Kept::of("sd2")?);
    let folder = place.0.path().join("folder");
    let wanted = drawn(kept.write_folder(&folder)?)?;
    for (component, start) in [("unet", UNET), ("vae", VAE), ("text_encoder", "cond_stage_model.model.")] {
        let (bare, _) = split(kept.tensors(), start);
        // The original files have a layer that the folder's configuration leaves out.
        let read = bare.into_iter().filter(|(name, _)| !name.contains("resblocks.23.") && name != "text_projection");
        let read: Tensors = read.collect();
        for (file, start) in [("model.safetensors", ""), ("model.gguf", ""), ("model.safetensors", start)] {
            let files = ["model.safetensors", "model.gguf"].map(|file| folder.join(component).join(file));
            files.iter().for_each(|file| drop(std::fs::remove_file(file)));
            let tensors = renamed(read.clone(), |name| format!("{start}{name}"));
            place.file(&format!("folder/{component}/{file}"), &tensors)?;
            ensure(drawn(Model::open(&folder)?)? == wanted, format!("{component} in {file} differs"))?;
        }
    }
    Ok(())
}

/// OpenCLIP's names as stable-diffusion.cpp rewrites them.
fn in_sd_cpp_names(name: &str) -> String {
    let rules = [
        ("conditioner.embedders.0.transformer.", "cond_stage_model.transformer."),
        ("conditioner.embedders.1.model.", "cond_stage_model.1.transformer.text_model."),
        ("transformer.resblocks.", "encoder.layers."),
        ("positional_embedding", "embeddings.position_embedding.weight"),
        ("text_model.token_embedding.", "text_model.embeddings.token_embedding."),
        ("ln_final.", "final_layer_norm."),
        (".ln_1.", ".layer_norm1."),
        (".ln_2.", ".layer_norm2."),
        (".mlp.c_fc.", ".mlp.fc1."),
        (".mlp.c_proj.", ".mlp.fc2."),
        (".attn.out_proj.", ".self_attn.out_proj."),
        (".attn.in_proj_", ".self_attn.in_proj."),
    ];
    rules.iter().fold(name.to_string(), |name, (old, new)| name.replace(old, new))
}

fn other_names() -> Result<(), Failed> {
    let (place, kept) = (Place::new()?, Kept::of("sdxl")?);
    let wanted = drawn(Model::open(&place.file("whole.safetensors", &kept.tensors())?)?)?;
    let file = place.file("sd.cpp.gguf", &renamed(kept.tensors(), in_sd_cpp_names))?;
    ensure(drawn(Model::open(&file)?)? == wanted, "stable-diffusion.cpp's names differ")?;
    let component = |component: &str, start: &str| renamed(kept.component(component), |name| format!("{start}{name}"));
    let comfy = [
        split(kept.tensors(), UNET).0.into_iter().map(|(name, tensor)| (format!("{UNET}{name}"), tensor)).collect(),
        component("vae", "vae."),
        component("text_encoder", "text_encoders.clip_l.transformer."),
        component("text_encoder_2", "text_encoders.clip_g.transformer."),
    ];
    let diffusers = ["unet", "vae", "text_encoder", "text_encoder_2"].map(|name| component(name, &format!("{name}.")));
    for (who, parts) in [("ComfyUI", comfy), ("diffusers", diffusers)] {
        let file = place.file("other.safetensors", &parts.into_iter().flatten().collect())?;
        ensure(drawn(Model::open(&file)?)? == wanted, format!("{who}'s names differ"))?;
    }
    Ok(())
}

fn eight_bits() -> Result<(), Failed> {
    let (place, all) = (Place::new()?, Kept::of("sd1")?.tensors());
    for dtype in [DType::F8E4M3, DType::F8E5M2] {
        let round = |tensor: &Tensor| {
            let data = tensor.data.iter().map(|value| in_eight_bits(dtype, *value)).collect();
            Tensor::new(tensor.shape.clone(), data)
        };
        let rounded: Tensors = all.iter().map(|(name, tensor)| (name.clone(), round(tensor))).collect();
        let path = place.0.path().join("eight.safetensors");
        write(&path, &rounded, dtype, &HashMap::new())?;
        let model = Model::open(&path)?;
        assert_eq!(model.weights("unet")?.stored_as("conv_in.weight"), Some(dtype.to_string()));
        let wanted = drawn(Model::open(&place.file("wide.safetensors", &rounded)?)?)?;
        ensure(drawn(model)? == wanted, format!("{dtype} differs"))?;
    }
    Ok(())
}

/// A UNet's matrix in eight bits with a scale, as ComfyUI writes it.
fn scaled() -> Result<(), Failed> {
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("scaled.safetensors");
    let (one, rows) = (2f32.to_le_bytes(), [2f32, 0.5].map(f32::to_le_bytes).concat());
    let view = |dtype, dims: &[usize], bytes| TensorView::new(dtype, dims.to_vec(), bytes);
    let tensors = [
        ("input_blocks.0.0.weight", view(Dtype::F8_E4M3, &[2, 1], &[0x38, 0xbc])?),
        ("input_blocks.0.0.scale_weight", view(Dtype::F32, &[], &one)?),
        ("input_blocks.0.0.scale_input", view(Dtype::F32, &[], &one)?),
        ("time_embed.0.weight", view(Dtype::F8_E4M3, &[2, 1], &[0x38, 0xbc])?),
        ("time_embed.0.weight_scale", view(Dtype::F32, &[2, 1], &rows)?),
        ("scaled_fp8", view(Dtype::F8_E4M3, &[0], &[])?),
    ];
    std::fs::write(&path, safetensors::serialize(tensors, None)?)?;
    let model = Model::open(Path::new(&path))?;
    let weights = model.weights("unet")?;
    use ornstein::tensor::Weights;
    assert_eq!(weights.names(), ["conv_in.weight", "time_embedding.linear_1.weight"]);
    for (name, wanted) in [("conv_in.weight", [2.0, -3.0]), ("time_embedding.linear_1.weight", [2.0, -0.75])] {
        let tensor = weights.get(name).ok_or(name)?;
        assert_eq!((tensor.shape.clone(), tensor.to_f32()), (Shape::from([2, 1]), wanted.to_vec()), "{name}");
        assert_eq!(weights.dtype(name), Some(DType::F32));
    }
    Ok(())
}
