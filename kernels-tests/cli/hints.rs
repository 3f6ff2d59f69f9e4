//! What is said to somebody who mistakes one option for another, or leaves one out.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::tensor::Tensor;
use ornstein::weights::write_tensors;

use super::{Check, draw, in_folders, ornstein, refused, text, write_picture};
use crate::controlnet::write_for_the_built_in_model;
use crate::support::{copy_model, ensure};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    in_folders(CHECKS)
}

const CHECKS: &[(&str, Check)] = &[
    ("a_schedule_given_as_a_sampler_and_the_reverse_name_the_option", |at| {
        let schedule = "--sampler karras is a schedule; try --schedule karras\n";
        refused(at, &["generate", "red", "--sampler", "karras"], 2, &[schedule])?;
        refused(at, &["schedule", "--steps", "5", "--sampler", "Trailing"], 2, &["try --schedule Trailing\n"])?;
        let sampler = "--schedule DPM++ 2M is a sampler; try --sampler dpm++2m\n";
        refused(at, &["generate", "red", "--schedule", "DPM++ 2M"], 2, &[sampler])
    }),
    ("numbers_that_are_none_say_what_is_expected", |at| {
        for (option, value, wanted) in [
            ("--width", "abc", "expected a whole number, 0 or more"),
            ("--steps", "-1", "'-1' for '--steps <N>': expected a whole number, 0 or more"),
            ("--steps", "1.5", "expected a whole number"),
            ("--batch", "99999999999999999999999", "that number is too large"),
            ("--seed", "x", "expected a whole number, 0 or more; -1 is a random one"),
            ("--control-scale", "edges.png", "'edges.png' for '--control-scale <F>': expected a number"),
            ("--guidance", "inf", "--guidance inf is not a finite number"),
        ] {
            refused(at, &["generate", "red", option, value], 2, &[wanted])?;
        }
        refused(at, &["generate", "-5"], 2, &["unexpected argument '-5' found"])
    }),
    ("two_options_that_exclude_each_other_are_named", |at| {
        let wanted = ["'[PROMPT]' cannot be used with '--prompts <FILE>'; leave one of them out"];
        refused(at, &["generate", "red", "--prompts", "prompts.txt"], 2, &wanted)
    }),
    ("a_controlnets_scale_is_its_own_option", control_scale),
    ("a_prompt_that_is_missing_is_said_once", no_prompt),
    ("what_is_not_downloaded_says_where_it_is", not_downloaded),
    ("models_to_begin_with_are_named", |at| {
        let names = "sd15-checkpoint-fp16 or sdxl-checkpoint";
        refused(at, &["models", "fetch"], 2, &[names])?;
        let listed = text(&ornstein(at, &["models", "list"])?.stdout);
        let told = ["here: whether it is on this machine; if not, `ornstein models fetch NAME` downloads it\n", names];
        ensure(told.iter().all(|part| listed.contains(part)), listed)
    }),
    ("sizes_of_small_files_are_in_kilobytes", |at| {
        let weight = Tensor::zeros([32, 4, 3, 3]);
        write_tensors(&at.join("small.safetensors"), &[("input_blocks.0.0.weight", &weight)])?;
        let said = text(&ornstein(at, &["convert", "small.safetensors", "--to", "f16", "-o", "x.gguf"])?.stderr);
        ensure(said.contains(" kB, from ") && said.ends_with(" kB\n"), said)
    }),
];

fn control_scale(at: &Path) -> Result<(), Failed> {
    write_for_the_built_in_model(&at.join("guide"))?;
    write_picture(&at.join("p.png"))?;
    let scaled = ["generate", "red", "--control", "guide:0.8", "--control-image", "p.png"];
    refused(at, &scaled, 2, &["an option of its own: --control guide --control-scale 0.8\n"])?;
    let alone = ["generate", "red", "--control-scale", "0.8"];
    refused(at, &alone, 2, &["--control-scale is for a ControlNet, and none is given; give --control\n"])
}

fn no_prompt(at: &Path) -> Result<(), Failed> {
    let said = |arguments: &[&str]| Ok::<_, Failed>(text(&draw(at, arguments)?.stderr));
    let wanted = "ornstein: no prompt is given, so what is drawn is left to chance; give one in quotes\n";
    ensure(said(&["-b", "2"])? == wanted, "it is not said, or not once")?;
    ensure(said(&[""])?.is_empty() && said(&["--prompt", ""])?.is_empty(), "an empty prompt is one")?;
    let model = at.join("model");
    copy_model(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/shapes-ddpm"), &model)?;
    ensure(said(&["-m", "model"])?.is_empty(), "a model without prompts wants one")
}

fn not_downloaded(at: &Path) -> Result<(), Failed> {
    let wanted = ["shapes-ddpm: is not downloaded, it lies in Ornstein's repository: run from a clone of it, or copy"];
    refused(at, &["models", "fetch", "shapes-ddpm"], 1, &wanted)?;
    refused(at, &["generate", "-m", "shapes-ddpm"], 1, &wanted)?;
    refused(at, &["convert", "shapes", "--to", "f16", "-o", "x.gguf"], 1, &["shapes: no such file or folder"])?;
    refused(at, &["convert", "shapes-ddpm", "--to", "f16", "-o", "x.gguf"], 1, &wanted)?;
    let listed = text(&ornstein(at, &["models", "list"])?.stdout);
    ensure(
        listed.contains("\nshapes-ddpm: not downloaded, but in Ornstein's repository, assets/shapes-ddpm\n"),
        listed,
    )?;
    let built_in = ornstein(at, &["models", "fetch", "shapes"])?;
    ensure(text(&built_in.stderr) == "shapes is here: there is nothing to fetch\n", text(&built_in.stderr))
}
