//! What is told on stdout: models, kernels, tokens, schedules.

use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::lab::predict::cards;

use super::{Check, draw, in_folders, ornstein, refused, text};
use crate::controlnet::write_for_the_built_in_model;
use crate::support::{change_tensor, copy_of_the_model, ensure};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    in_folders(CHECKS)
}

const CHECKS: &[(&str, Check)] = &[
    ("models_tells_what_a_model_is_and_whether_it_is_whole", models_tells_what_a_model_is),
    ("models_tells_a_controlnet", models_tells_a_controlnet),
    ("json_is_the_only_thing_on_stdout", json_is_the_only_thing_on_stdout),
    ("a_pipe_that_closes_early_is_no_error", a_pipe_that_closes_early_is_no_error),
    ("a_shader_is_printed_for_each_target", a_shader_is_printed_for_each_target),
    ("a_shaders_variants_differ_in_their_constants", a_shaders_variants_differ),
    ("spirv_goes_to_a_file_as_words", spirv_goes_to_a_file),
    ("an_edited_kernel_is_printed_with_the_checks_that_it_keeps", an_edited_kernel_keeps_its_checks),
    ("passes_are_predicted_for_cards_that_are_not_there", passes_are_predicted),
    ("every_listed_kernel_is_a_file", every_listed_kernel_is_a_file),
    ("tokens_are_a_json_list", tokens_are_a_json_list),
    ("a_schedule_is_json", a_schedule_is_json),
    ("a_configuration_with_a_byte_order_mark_is_read", a_configuration_with_a_mark_is_read),
    ("what_a_file_says_does_nothing_to_a_terminal", what_a_file_says_does_nothing),
];

fn models_tells_what_a_model_is(at: &Path) -> Result<(), Failed> {
    let told = |arguments: &[&str]| -> Result<String, Failed> {
        let output = ornstein(at, arguments)?;
        assert!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    assert!(told(&["models", "list"])?.contains("\nshapes "));
    let text = told(&["models", "inspect", "shapes"])?;
    assert!(text.starts_with("shapes: Stable Diffusion 1\npredicts v_prediction\n"), "{text}");
    let found: serde_json::Value = serde_json::from_str(&told(&["models", "inspect", "shapes", "--json"])?)?;
    let parameters = |part: &serde_json::Value| part["dtypes"]["f16"].as_u64();
    let sum: Option<u64> = found["components"].as_array().ok_or("no components")?.iter().map(parameters).sum();
    assert_eq!(sum.map(|n| n / 10_000), Some(482));
    assert_eq!(told(&["models", "verify", "shapes"])?.lines().count(), 3);
    let unet = copy_of_the_model(at)?.join("unet/diffusion_pytorch_model.safetensors");
    change_tensor(&unet, "conv_in.bias", |_| f32::NAN)?;
    refused(at, &["models", "verify", "model"], 1, &["conv_in.bias is NaN or infinite at element [0]"])
}

fn models_tells_a_controlnet(at: &Path) -> Result<(), Failed> {
    write_for_the_built_in_model(&at.join("guide"))?;
    let output = ornstein(at, &["models", "inspect", "guide"])?;
    let said = text(&output.stdout);
    ensure(output.status.success(), text(&output.stderr))?;
    let told = said.starts_with("guide: a part of a model\ncontrolnet ") && said.contains("for Stable Diffusion 1, ");
    ensure(told && said.contains("text 128 wide"), said)?;
    let verified = ornstein(at, &["models", "verify", "guide"])?;
    ensure(text(&verified.stdout).contains("controlnet") && verified.status.success(), text(&verified.stderr))
}

fn json_is_the_only_thing_on_stdout(at: &Path) -> Result<(), Failed> {
    let output = draw(at, &["red", "--seed", "9", "--json"])?;
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure(document["images"][0]["path"] == "ornstein-9.png", document.to_string())?;
    ensure(document["images"][0]["seed"] == 9 && document["images"][0]["width"] == 64, document.to_string())?;
    ensure(document["device"] == "cpu" && document["dtype"] == "f32", document.to_string())?;
    let seconds = ["load", "text", "denoise", "decode", "total"];
    ensure(seconds.iter().all(|part| document["seconds"][part].is_number()), document.to_string())?;
    ensure(document["peak_device_bytes"].is_u64(), document.to_string())
}

fn a_pipe_that_closes_early_is_no_error(at: &Path) -> Result<(), Failed> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ornstein"))
        .current_dir(at)
        .args(["schedule", "--sampler", "ddim", "--steps", "1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output()?;
    ensure(output.status.success() && output.stderr.is_empty(), text(&output.stderr))
}

fn passes_are_predicted(at: &Path) -> Result<(), Failed> {
    let predict = ["bench", "--synthetic", "sd15", "--batch", "2", "--predict"];
    let output = ornstein(at, &[&predict[..], &["all"]].concat())?;
    let (said, cards) = (text(&output.stdout), cards());
    ensure(said.starts_with("Predicted from data sheets and compilers, not measured"), said.clone())?;
    ensure(cards.iter().all(|card| said.contains(&format!("\n{} ", card.caps.name))), said)?;
    let output = ornstein(at, &[&predict[..], &["RTX 3060", "--json"]].concat())?;
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let unet = &document[0]["networks"][1];
    ensure(document[0]["card"] == "RTX 3060" && unet["network"] == "unet", document.to_string())?;
    ensure(unet["seconds"].as_f64().is_some_and(|seconds| (0.01..1.0).contains(&seconds)), document.to_string())?;
    refused(at, &["bench", "--predict"], 2, &["--predict is for whole networks: give --synthetic sd15, or --model"])
}

fn tokens_are_a_json_list(at: &Path) -> Result<(), Failed> {
    let output = ornstein(at, &["tokenize", ""])?;
    ensure(text(&output.stdout) == "[2046,2047]\n", text(&output.stdout))
}

fn a_schedule_is_json(at: &Path) -> Result<(), Failed> {
    let output = ornstein(at, &["schedule", "--sampler", "euler", "--steps", "3", "--json"])?;
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let count = |key: &str| document[key].as_array().map(Vec::len);
    ensure(count("timesteps") == Some(3) && count("sigmas") == Some(4), document.to_string())
}

fn a_configuration_with_a_mark_is_read(at: &Path) -> Result<(), Failed> {
    let config = "\u{feff}{\"num_train_timesteps\": 100}\r\n";
    std::fs::write(at.join("utf8.json"), config)?;
    std::fs::write(at.join("utf16.json"), config.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())?;
    for name in ["utf8.json", "utf16.json"] {
        let output = ornstein(at, &["schedule", "--sampler", "euler", "--steps", "2", "--config", name])?;
        ensure(text(&output.stdout).starts_with("timesteps 99 0\n"), text(&output.stderr))?;
    }
    Ok(())
}

fn what_a_file_says_does_nothing(at: &Path) -> Result<(), Failed> {
    let model = copy_of_the_model(at)?;
    std::fs::write(model.join("scheduler/scheduler_config.json"), r#"{"prediction_type": "\u001b[31m\u009b"}"#)?;
    std::fs::rename(model, at.join("\u{1b}[2J"))?;
    let output = ornstein(at, &["models", "inspect", "\u{1b}[2J"])?;
    let told = r"\u{1b}[2J: Stable Diffusion 1".to_string() + "\n" + r"predicts \u{1b}[31m\u{9b}" + "\n";
    ensure(text(&output.stdout).starts_with(&told), format!("{output:?}"))
}

/// What `ornstein shader` writes to stdout.
fn shader(at: &Path, arguments: &[&str]) -> Result<Vec<u8>, Failed> {
    let output = ornstein(at, &[&["shader"], arguments].concat())?;
    ensure(output.status.success() && output.stderr.is_empty(), text(&output.stderr))?;
    Ok(output.stdout)
}

fn a_shader_is_printed_for_each_target(at: &Path) -> Result<(), Failed> {
    for (target, words) in [
        ("wgsl", ["@compute", "override TILE_ROWS"]),
        ("msl", ["#include <metal_stdlib>", "kernel void"]),
        ("hlsl", ["[numthreads(", "cbuffer"]),
    ] {
        let printed = text(&shader(at, &["matmul", "--variant", "tile16", "--to", target])?);
        ensure(printed.starts_with("// matmul, variant tile16, "), format!("{target}: {printed:.200}"))?;
        for word in words {
            ensure(printed.contains(word), format!("{target}: there is no {word}"))?;
        }
    }
    Ok(())
}

fn a_shaders_variants_differ(at: &Path) -> Result<(), Failed> {
    for (variant, rows) in [("tile16", 16.0), ("tile64", 64.0)] {
        let printed = shader(at, &["matmul", "--variant", variant, "--to", "msl", "--json"])?;
        let document: serde_json::Value = serde_json::from_slice(&printed)?;
        ensure(document["variant"] == variant && document["constants"]["TILE_ROWS"] == rows, document.to_string())?;
    }
    Ok(())
}

fn spirv_goes_to_a_file(at: &Path) -> Result<(), Failed> {
    let printed = shader(at, &["conv2d", "--to", "spirv", "-o", "conv2d.spv"])?;
    ensure(printed.is_empty(), "something is on stdout as well")?;
    let words = std::fs::read(at.join("conv2d.spv"))?;
    // The magic number, in the byte order of the file.
    ensure(words.len() % 4 == 0 && words.starts_with(&0x0723_0203u32.to_le_bytes()), "no SPIR-V")?;
    ensure(words == shader(at, &["conv2d", "--to", "spirv"])?, "stdout is given something else")
}

fn an_edited_kernel_keeps_its_checks(at: &Path) -> Result<(), Failed> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/matmul.wgsl");
    std::fs::create_dir(at.join("edited"))?;
    // A copy that is not edited is the built-in one.
    std::fs::write(at.join("edited/matmul.wgsl"), std::fs::read_to_string(own)? + "// edited\n")?;
    let printed = |to: &str, more: &[&str]| {
        shader(at, &[&["matmul", "--variant", "tile16", "--to", to], more].concat()).map(|text| text.len())
    };
    for to in ["spirv", "msl", "hlsl"] {
        let built_in = printed(to, &[])?;
        let [edited, trusted] = [&["--shaders", "edited"][..], &["--shaders", "edited", "--trusted"]];
        let [edited, trusted] = [printed(to, edited)?, printed(to, trusted)?];
        ensure(edited > built_in && trusted == built_in, format!("{to}: {built_in}, {edited}, {trusted}"))?;
    }
    Ok(())
}

fn every_listed_kernel_is_a_file(at: &Path) -> Result<(), Failed> {
    let listed = text(&shader(at, &[])?);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let missing = listed.lines().find(|name| !folder.join(format!("{name}.wgsl")).is_file());
    ensure(missing.is_none(), format!("{missing:?} is listed and not there"))?;
    let groups = ["matmul", "cores/gemm_tile", "shared/gemm", "lab/copy"];
    ensure(groups.iter().all(|name| listed.lines().any(|line| line == *name)), listed)
}
