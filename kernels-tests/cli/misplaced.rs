//! Files that are given as something else: what each says that it is, and as what to give it.

use std::collections::HashMap;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::write_tensors;

use super::{Check, draw, in_folders, refused, text, write_picture};
use crate::checkpoints::kept::{Kept, Tensors, write};
use crate::networks::data;
use crate::support::ensure;

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    in_folders(CHECKS)
}

const CHECKS: &[(&str, Check)] = &[
    ("a_file_given_as_another_kind_is_answered_with_its_option", kinds),
    ("a_network_given_as_another_is_answered_with_its_option", networks),
    ("a_file_that_is_not_text_says_what_it_is_and_what_is_wanted", not_text),
    ("a_text_is_not_taken_for_weights", |at| {
        std::fs::write(at.join("prompts.txt"), "a red circle\n")?;
        for option in ["--model", "--lora", "--vae"] {
            refused(at, &["generate", "red", option, "prompts.txt"], 1, &["is not a safetensors file, but a text"])?;
        }
        Ok(())
    }),
    ("a_base_that_gives_nothing_is_refused", base),
    ("a_refiner_that_is_not_one_is_said_and_another_model_is_refused", refiner),
];

/// The models and parts of models that are given.
fn write_files(at: &Path) -> Result<(), Failed> {
    let file = |name: &str, tensors: &Tensors| write(&at.join(name), tensors, DType::F16, &HashMap::new());
    let sdxl = Kept::of("sdxl")?;
    file("xl.safetensors", &sdxl.tensors())?;
    for component in ["unet", "vae", "text_encoder"] {
        file(&format!("{component}.safetensors"), &sdxl.component(component))?;
    }
    file("canny.safetensors", &Kept::of("controlnet-sdxl")?.tensors())?;
    std::fs::copy(data("lora/kohya-sdxl.safetensors"), at.join("style.safetensors"))?;
    write_tensors(&at.join("cat.safetensors"), &[("emb_params", &Tensor::zeros([2, 128]))])?;
    write_tensors(&at.join("dog.safetensors"), &[("<dog>", &Tensor::zeros([2, 128]))])?;
    write_tensors(&at.join("noise.safetensors"), &[("latents", &Tensor::zeros([1, 4, 16, 16]))])?;
    write_picture(&at.join("edges.png"))
}

/// What is said of a file that is given by an option.
fn misplaced(at: &Path, option: &str, name: &str, wanted: &str) -> Result<(), Failed> {
    let file = if name.contains('.') { name.to_string() } else { format!("{name}.safetensors") };
    let image: &[&str] = if option == "--control" { &["--control-image", "edges.png"] } else { &[] };
    let model: &[&str] = if option == "--model" { &[] } else { &["--model", "xl.safetensors"] };
    let arguments = [&["generate", "red", option, &file], image, model].concat();
    refused(at, &arguments, 1, &[&format!("{file}: {wanted}\n")])
}

fn kinds(at: &Path) -> Result<(), Failed> {
    write_files(at)?;
    let (xl, lora) = ("is a Stable Diffusion XL model", "is a LoRA");
    let (control, embedding) = ("is a ControlNet", "is a textual inversion");
    for (option, name, what, wanted, field) in [
        ("--lora", "xl", xl, "a LoRA", "--model"),
        ("--embedding", "xl", xl, "a textual inversion", "--model"),
        ("--init-latents", "xl", xl, "a file of latents", "--model"),
        ("--control", "xl", xl, "a ControlNet", "--model"),
        ("--model", "style", lora, "a model", "--lora"),
        ("--unet", "style", lora, "a UNet", "--lora"),
        ("--embedding", "style", lora, "a textual inversion", "--lora"),
        ("--init-latents", "style", lora, "a file of latents", "--lora"),
        ("--model", "cat", embedding, "a model", "--embedding"),
        ("--lora", "cat", embedding, "a LoRA", "--embedding"),
        ("--lora", "dog", embedding, "a LoRA", "--embedding"),
        ("--vae", "cat", embedding, "an autoencoder (VAE)", "--embedding"),
        ("--model", "canny", control, "a model", "--control"),
        ("--unet", "canny", control, "a UNet", "--control"),
        ("--lora", "canny", control, "a LoRA", "--control"),
        ("--embedding", "canny", control, "a textual inversion", "--control"),
        ("--lora", "noise", "is a file of latents", "a LoRA", "--init-latents"),
        ("--init-latents", "edges.png", "is a picture", "a file of latents", "--init-image"),
    ] {
        misplaced(at, option, name, &format!("{what}, not {wanted}; give it as {field}"))?;
    }
    let picture = "is a picture, not a model's weights";
    ["--model", "--lora", "--control"]
        .into_iter()
        .try_for_each(|option| misplaced(at, option, "edges.png", picture))?;
    let scale = "\"much\" is not a scale; give a number, as style.safetensors:0.8";
    refused(at, &["generate", "red", "--lora", "style.safetensors:much"], 2, &[scale])
}

fn networks(at: &Path) -> Result<(), Failed> {
    write_files(at)?;
    let [unet, vae, encoder] = ["a UNet of Stable Diffusion XL", "an autoencoder (VAE)", "a text encoder"];
    for (option, name, what, wanted, field) in [
        ("--unet", "vae", vae, "a UNet", "--vae"),
        ("--unet", "text_encoder", encoder, "a UNet", "--text-encoder or --text-encoder-2"),
        ("--vae", "unet", unet, "an autoencoder (VAE)", "--unet"),
        ("--vae", "text_encoder", encoder, "an autoencoder (VAE)", "--text-encoder or --text-encoder-2"),
        ("--text-encoder", "vae", vae, "a text encoder", "--vae"),
        ("--lora", "unet", unet, "a LoRA", "--unet"),
        ("--refiner", "vae", vae, "a refiner", "--vae"),
    ] {
        misplaced(at, option, name, &format!("is {what}, not {wanted}; give it as {field}"))?;
    }
    let second = "--text-encoder-2 is not for shapes, which is Stable Diffusion 1 and has no text_encoder_2; leave out";
    refused(at, &["generate", "red", "--text-encoder-2", "text_encoder.safetensors"], 2, &[second])?;
    misplaced(at, "--model", "vae", "holds no unet, only vae; give --base or give it as --vae")
}

fn not_text(at: &Path) -> Result<(), Failed> {
    write_files(at)?;
    for (arguments, wanted) in [
        (&["generate", "--prompts", "edges.png"][..], "is a picture; expected a text file of prompts, one a line"),
        (&["generate", "--prompts", "style.safetensors"], "is a safetensors file; expected a text file of prompts"),
        (&["generate", "red", "--schedule", "edges.png"], "is a picture; expected a name, or a text file of sigmas"),
        (
            &["schedule", "--sampler", "euler", "--steps", "2", "--config", "edges.png"],
            "is a picture; expected a scheduler_config.json",
        ),
    ] {
        refused(at, arguments, 1, &[wanted])?;
    }
    Ok(())
}

fn base(at: &Path) -> Result<(), Failed> {
    write_files(at)?;
    let of = |model: &str, base: &str, status, wanted: &str| {
        refused(at, &["generate", "red", "--model", model, "--base", base], status, &[wanted])
    };
    let nothing = "--base xl gives nothing: xl has every network that it has; leave out --base\n";
    of("xl.safetensors", "xl.safetensors", 2, nothing)?;
    of("xl.safetensors", "vae.safetensors", 2, "--base vae gives nothing: xl has every network that it has")?;
    let control = "canny.safetensors: is a ControlNet, not a model; give it as --control\n";
    of("xl.safetensors", "canny.safetensors", 1, control)?;
    of("canny.safetensors", "xl.safetensors", 1, control)
}

fn refiner(at: &Path) -> Result<(), Failed> {
    write_files(at)?;
    let size = ["-W", "16", "-H", "16", "--seed", "1", "--refiner-start", "0.5"];
    let refined = ["red", "-m", "xl.safetensors", "--refiner", "xl.safetensors"];
    let said = text(&draw(at, &[&refined[..], &size].concat())?.stderr);
    let wanted = "--refiner xl is not SDXL's refiner: it finishes the picture as a StableDiffusionXLPipeline\n";
    ensure(said.matches(wanted).count() == 1, said)?;
    write(&at.join("sd1.safetensors"), &Kept::of("sd1")?.tensors(), DType::F16, &HashMap::new())?;
    misplaced(at, "--refiner", "sd1", "is not of Stable Diffusion XL: give its refiner, or another of its family")?;
    let swapped = ["generate", "red", "--model", "sd1.safetensors", "--refiner", "xl.safetensors"];
    refused(at, &swapped, 2, &["--refiner is not for a StableDiffusionPipeline", "leave out --refiner"])
}
