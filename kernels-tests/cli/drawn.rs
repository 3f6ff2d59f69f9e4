//! What is drawn, where it goes, and what is told of it.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::image::decode;
use ornstein::tensor::Tensor;
use ornstein::weights::write_tensors;

use super::{Check, draw, files, in_folders, text, write_picture};
use crate::controlnet::write_for_the_built_in_model;
use crate::support::ensure;

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    in_folders(CHECKS)
}

const CHECKS: &[(&str, Check)] = &[
    ("a_picture_on_dev_stdout_is_the_only_thing_there", a_picture_on_dev_stdout_is_alone),
    ("a_changed_seed_changes_the_picture_and_the_same_does_not", a_seed_is_a_picture),
    ("another_generator_makes_another_picture_and_is_told", another_generator_is_told),
    ("a_weighted_prompt_of_any_length_is_used_whole", a_weighted_prompt_is_used_whole),
    ("an_embedding_is_used_where_its_name_stands", an_embedding_is_used_where_its_name_stands),
    ("a_tiny_autoencoder_decodes_the_same_latents", a_tiny_autoencoder_decodes_the_same_latents),
    ("a_controlnet_is_told_in_the_picture_and_its_scale_changes_it", a_controlnet_is_told),
    ("checking_a_healthy_model_says_nothing_and_changes_nothing", checking_changes_nothing),
    ("a_prompt_of_words_that_the_model_does_not_know_is_told_once", other_words_are_told_once),
    ("what_a_prompt_is_written_for_and_is_read_as_text_is_told_once", what_is_text_is_told),
    ("an_empty_prompt_makes_a_picture", an_empty_prompt_makes_a_picture),
    ("a_prompt_of_ten_thousand_characters_makes_a_picture_and_a_warning", a_long_prompt_makes_a_picture),
    ("a_batch_counts_its_seeds_up_in_the_file_names", a_batch_counts_its_seeds_up),
    ("a_picture_on_stdout_is_a_png", a_picture_on_stdout_is_a_png),
    ("options_and_samplers_are_called_as_in_other_programs", other_programs_habits),
    ("saved_latents_start_another_run", saved_latents_start_another_run),
];

#[cfg(unix)]
fn a_picture_on_dev_stdout_is_alone(at: &Path) -> Result<(), Failed> {
    let file = std::fs::File::create(at.join("x.png"))?;
    let arguments = ["generate", "red", "--steps", "1", "--device", "cpu", "--output", "/dev/stdout"];
    let status = Command::new(env!("CARGO_BIN_EXE_ornstein")).args(arguments).stdout(file).status()?;
    ensure(status.success(), "failed")?;
    ornstein::image::decode("x.png", &std::fs::read(at.join("x.png"))?)?;
    Ok(())
}

#[cfg(not(unix))]
fn a_picture_on_dev_stdout_is_alone(_: &Path) -> Result<(), Failed> {
    Ok(())
}

fn a_seed_is_a_picture(at: &Path) -> Result<(), Failed> {
    for (seed, file) in [("5", "a.png"), ("5", "b.png"), ("6", "c.png")] {
        draw(at, &["a red circle", "--seed", seed, "-o", file])?;
    }
    let read = |name: &str| std::fs::read(at.join(name));
    ensure(read("a.png")? == read("b.png")?, "one seed gave two pictures")?;
    ensure(read("a.png")? != read("c.png")?, "two seeds gave one picture")
}

fn other_programs_habits(at: &Path) -> Result<(), Failed> {
    let own = ["a red circle", "--seed", "5", "--guidance", "3", "-n", "blue", "--sampler", "euler-a"];
    draw(at, &[&own[..], &["-o", "own.png"]].concat())?;
    for sampler in ["Euler a", "euler_a", "k_euler_a", "euler_ancestral"] {
        let theirs = ["-p", "a red circle", "-s", "5", "--cfg", "3", "--negative-prompt", "blue"];
        draw(at, &[&theirs[..], &["--sampler", sampler, "-o", "theirs.png"]].concat())?;
        ensure(std::fs::read(at.join("own.png"))? == std::fs::read(at.join("theirs.png"))?, sampler)?;
    }
    let mut pictures = Vec::new();
    for (sampler, told) in [("DPM++ 2M", "Sampler: DPM++ 2M, CFG"), ("DPM++ 2M Karras", "2M, Schedule type: Karras,")] {
        draw(at, &["red", "--seed", "5", "--sampler", sampler, "-o", "a.png"])?;
        let picture = decode("a.png", &std::fs::read(at.join("a.png"))?)?;
        ensure(picture.parameters.as_ref().is_some_and(|text| text.contains(told)), format!("{picture:?}"))?;
        pictures.push(picture.rgb);
    }
    ensure(pictures[0] != pictures[1], "Karras' sigmas make the same picture")?;
    let random = || draw(at, &["red", "--seed", "-1", "--json"]);
    ensure(random()?.stdout != random()?.stdout, "seed -1 is not a random one")
}

fn another_generator_is_told(at: &Path) -> Result<(), Failed> {
    let mut latents = Vec::new();
    for (rng, name) in [("cpu", "RNG: CPU"), ("cuda", "RNG: NV")] {
        draw(at, &["red", "--seed", "5", "--rng", rng, "-o", "a.png", "--save-latents", "latents.safetensors"])?;
        let picture = decode("a.png", &std::fs::read(at.join("a.png"))?)?;
        let parameters = picture.parameters.unwrap_or_default();
        ensure(parameters.contains(name), parameters)?;
        latents.push(std::fs::read(at.join("latents.safetensors"))?);
    }
    ensure(latents[0] != latents[1], "both generators gave one picture")
}

/// The latents of a picture, and what was said.
fn latents(at: &Path, arguments: &[&str]) -> Result<(Vec<u8>, String), Failed> {
    let output =
        draw(at, &[arguments, &["--seed", "5", "-o", "a.png", "--save-latents", "latents.safetensors"]].concat())?;
    Ok((std::fs::read(at.join("latents.safetensors"))?, text(&output.stderr)))
}

fn a_controlnet_is_told(at: &Path) -> Result<(), Failed> {
    write_for_the_built_in_model(&at.join("guide"))?;
    write_picture(&at.join("p.png"))?;
    let guided = |scale| {
        let arguments = ["red", "--control", "guide", "--control-image", "p.png", "--control-scale", scale];
        latents(at, &[&arguments[..], &["--control-end", "0.5"]].concat())
    };
    let ((strong, said), (weak, _)) = (guided("0.75")?, guided("0.25")?);
    ensure(said.is_empty(), said)?;
    ensure(strong != weak, "the scale changes nothing")?;
    let parameters = decode("a.png", &std::fs::read(at.join("a.png"))?)?.parameters.unwrap_or_default();
    let told = "ControlNet 0: \"Module: none, Model: guide, Weight: 0.25, Resize Mode: Just Resize, \
                Guidance Start: 0.0, Guidance End: 0.5\"";
    ensure(parameters.contains(told), parameters)
}

fn a_weighted_prompt_is_used_whole(at: &Path) -> Result<(), Failed> {
    let long = "circle ".repeat(100);
    let weighted = |prompt: &str| latents(at, &[prompt, "--prompt-syntax", "weighted"]);
    let (whole, said) = weighted(&long)?;
    ensure(!said.contains("left out"), said)?;
    ensure(whole != weighted(&(long.clone() + "star"))?.0, "the end of the prompt changes nothing")?;
    ensure(weighted("a (red) circle")?.0 != weighted("a red circle")?.0, "a weight changes nothing")?;
    ensure(latents(at, &["a red circle"])?.0 == weighted("a red circle")?.0, "a plain prompt is another one")
}

fn an_embedding_is_used_where_its_name_stands(at: &Path) -> Result<(), Failed> {
    let vectors = Tensor::new([2, 128], (0..256).map(|i| (i as f32).sin()).collect());
    write_tensors(&at.join("style.safetensors"), &[("emb_params", &vectors)])?;
    let with = |prompt| Ok::<_, Failed>(latents(at, &[prompt, "--embedding", "style.safetensors"])?.0);
    ensure(with("a circle, Style")? != latents(at, &["a circle, Style"])?.0, "the embedding changes nothing")?;
    ensure(with("a circle")? == latents(at, &["a circle"])?.0, "it is used where it is not named")
}

fn a_tiny_autoencoder_decodes_the_same_latents(at: &Path) -> Result<(), Failed> {
    let vae = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/cases/taesd/vae");
    let draw = |extra: &[&str]| {
        let latents = latents(at, &[&["red"], extra].concat())?.0;
        Ok::<_, Failed>((latents, decode("a.png", &std::fs::read(at.join("a.png"))?)?))
    };
    let (own, tiny) = (draw(&[])?, draw(&["--vae", &vae.display().to_string()])?);
    ensure(own.0 == tiny.0, "it changes the latents")?;
    ensure((own.1.width, own.1.height) == (tiny.1.width, tiny.1.height), "it changes the size")?;
    ensure(own.1.rgb != tiny.1.rgb, "the picture is the full autoencoder's")
}

fn checking_changes_nothing(at: &Path) -> Result<(), Failed> {
    draw(at, &["red", "--seed", "1", "-o", "plain.png"])?;
    let output = draw(at, &["red", "--seed", "1", "-o", "checked.png", "--check"])?;
    ensure(output.stderr.is_empty(), text(&output.stderr))?;
    ensure(std::fs::read(at.join("plain.png"))? == std::fs::read(at.join("checked.png"))?, "the picture changed")
}

fn other_words_are_told_once(at: &Path) -> Result<(), Failed> {
    std::fs::write(at.join("prompts.txt"), "a RED dog and a blue circle\na photo of a cat\na dog, a cat\n")?;
    let said = text(&draw(at, &["--prompts", "prompts.txt", "--negative", "a blurry star"])?.stderr);
    let knows = "it draws a circle, square, triangle, star, ring or diamond, or two of them, in red, green, blue, \
                 yellow, orange, purple, pink, white, black, cyan, brown or gray; try another --model\n";
    let line = |words| format!("ornstein: shapes does not know {words}; {knows}");
    ensure(said == line("dog, blurry") + &line("cat"), said)
}

fn what_is_text_is_told(at: &Path) -> Result<(), Failed> {
    let lines = "a red AND blue circle\n{red|blue} __ring__\na star AND a ring\n[red|blue] (ring:1.1)\n";
    std::fs::write(at.join("prompts.txt"), lines)?;
    let told =
        |syntax| Ok::<_, Failed>(text(&draw(at, &["--prompts", "prompts.txt", "--prompt-syntax", syntax])?.stderr));
    let said = told("weighted")?;
    let line = |what: &str| format!("ornstein: the prompt has {what}, which is read as text\n");
    ensure(said == line("AND") + &line("__name__"), said)?;
    let said = told("plain")?;
    let choices = "ornstein: {a|b} in a plain prompt is text: --prompt-syntax weighted draws each of its choices\n";
    ensure(said == choices, said)
}

fn an_empty_prompt_makes_a_picture(at: &Path) -> Result<(), Failed> {
    draw(at, &["", "--seed", "1"])?;
    ensure(at.join("ornstein-1.png").exists(), "there is no picture")
}

fn a_long_prompt_makes_a_picture(at: &Path) -> Result<(), Failed> {
    let output = draw(at, &[&"circle ".repeat(1429), "--seed", "1"])?;
    ensure(text(&output.stderr).contains("too long"), "there is no warning")
}

fn a_batch_counts_its_seeds_up(at: &Path) -> Result<(), Failed> {
    draw(at, &["a blue square", "--seed", "3", "-b", "2", "-o", "many.png"])?;
    draw(at, &["a blue square", "--seed", "4", "-o", "one.png"])?;
    let names: Vec<_> = files(at)?.iter().map(|p| p.file_name().unwrap_or_default().to_owned()).collect();
    ensure(names == ["many-3.png", "many-4.png", "one.png"], format!("{names:?}"))?;
    let (second, alone) = (std::fs::read(at.join("many-4.png"))?, std::fs::read(at.join("one.png"))?);
    let pixels = |file: &[u8]| ornstein::image::decode("test", file).map(|picture| picture.rgb);
    let worst = pixels(&second)?.iter().zip(&pixels(&alone)?).map(|(a, b)| a.abs_diff(*b)).max();
    ensure(worst <= Some(1), format!("a picture depends on its batch: {worst:?}"))
}

fn a_picture_on_stdout_is_a_png(at: &Path) -> Result<(), Failed> {
    let output = draw(at, &["a green ring", "--seed", "2", "-o", "-"])?;
    let picture = ornstein::image::decode("stdout", &output.stdout)?;
    ensure((picture.width, picture.height) == (64, 64), "another size")?;
    let parameters = picture.parameters.unwrap_or_default();
    ensure(parameters.contains("a green ring") && parameters.contains("Seed: 2"), parameters)
}

fn saved_latents_start_another_run(at: &Path) -> Result<(), Failed> {
    draw(at, &["red", "--seed", "1", "--save-latents", "one.safetensors"])?;
    draw(at, &["red", "--seed", "1", "--init-latents", "one.safetensors", "-o", "next.png"])?;
    ensure(at.join("next.png").exists(), "there is no picture")
}
