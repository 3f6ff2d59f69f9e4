//! What is refused: by which status, and with what line.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::tensor::Tensor;
use ornstein::weights::write_tensors;

use super::{Check, draw, in_folders, refused, text, write_picture};
use crate::controlnet::write_for_the_built_in_model;
use crate::support::{change_tensor, copy_of_the_model, ensure};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    in_folders(CHECKS)
}

const CHECKS: &[(&str, Check)] = &[
    ("an_unknown_sampler_is_refused_with_the_list", |at| {
        refused(at, &["generate", "red", "--sampler", "nonsense"], 2, &["nonsense", "euler"])
    }),
    ("an_unknown_op_is_refused_with_the_list", |at| {
        refused(at, &["validate", "nonsense"], 2, &["nonsense", "matmul, matmul_geglu"])
    }),
    ("a_slip_in_a_name_is_answered_with_what_was_meant", slips),
    ("a_prompt_without_quotes_is_answered_with_them", |at| {
        refused(at, &["generate", "a", "red", "circle"], 2, &["put it in quotes: \"a red circle\""])
    }),
    ("a_schedule_that_is_none_is_refused", schedules),
    ("the_reference_is_not_validated_against_itself", |at| {
        refused(at, &["validate", "--device", "cpu"], 2, &["--device cpu", "ornstein devices"])
    }),
    ("a_schedule_that_is_not_finite_is_refused_by_its_key", a_schedule_that_is_not_finite_is_refused),
    ("a_message_does_nothing_to_a_terminal", a_message_does_nothing_to_a_terminal),
    ("text_that_is_none_is_refused_with_how_to_save_it", |at| {
        std::fs::write(at.join("prompts.txt"), b"caf\xe9")?;
        refused(at, &["generate", "--prompts", "prompts.txt"], 1, &["prompts.txt: is not text in UTF-8; save it"])
    }),
    ("a_file_of_comments_is_refused", |at| {
        std::fs::write(at.join("prompts.txt"), "# nothing\n\n")?;
        refused(at, &["generate", "--prompts", "prompts.txt"], 1, &["prompts.txt: holds no prompt"])
    }),
    ("zero_steps_are_refused", |at| refused(at, &["generate", "red", "--steps", "0"], 2, &["steps"])),
    ("a_width_off_the_grid_is_refused_with_the_nearest", |at| {
        refused(at, &["generate", "red", "--width", "63"], 2, &["--width 63", "multiple of 4", "64"])
    }),
    ("a_width_of_zero_is_refused", |at| refused(at, &["generate", "red", "--width", "0"], 2, &["--width 0"])),
    ("an_empty_batch_is_refused", |at| refused(at, &["generate", "red", "--batch", "0"], 2, &["--batch"])),
    ("guidance_that_is_no_number_is_refused", |at| {
        refused(at, &["generate", "red", "--guidance", "nan"], 2, &["--guidance"])
    }),
    ("a_spacing_is_refused_by_samplers_without_one", |at| {
        refused(at, &["generate", "red", "--sampler", "lcm", "--spacing", "trailing"], 2, &["--spacing", "lcm"])
    }),
    ("an_unknown_spacing_is_refused_with_the_known", |at| {
        refused(at, &["generate", "red", "--spacing", "even"], 2, &["even", "leading, trailing, linspace"])
    }),
    ("an_eta_is_refused_by_samplers_without_one", |at| {
        refused(at, &["generate", "red", "--sampler", "euler", "--eta", "0.5"], 2, &["--eta", "ddim and tcd"])
    }),
    ("sizes_beyond_any_machine_are_refused", sizes_beyond_any_machine_are_refused),
    ("a_picture_larger_than_the_memory_is_refused", |at| {
        let size = ["--width", "131072", "--height", "131072"];
        refused(at, &[&["generate", "red", "--device", "cpu"], &size[..]].concat(), 1, &["memory", "--width"])
    }),
    ("wrong_usage_is_one_line", |at| refused(at, &["generate", "red", "--dtype", "f8"], 2, &["f8", "f16", "--help"])),
    ("latents_and_picture_in_one_file_are_refused", |at| {
        refused(at, &["generate", "red", "--output", "a.png", "--save-latents", "a.png"], 2, &["--save-latents"])
    }),
    ("an_empty_device_name_fits_none", |at| refused(at, &["generate", "red", "--device", ""], 1, &["--device"])),
    ("a_missing_model_folder_is_named", |at| {
        refused(at, &["generate", "red", "--model", "no/such/model"], 1, &["no/such/model"])
    }),
    ("a_device_that_is_not_there_is_never_replaced", |at| {
        refused(at, &["generate", "red", "--device", "voodoo"], 1, &["voodoo", "--device cpu"])
    }),
    ("two_documents_on_stdout_are_refused", |at| {
        refused(at, &["generate", "red", "--json", "--output", "-"], 2, &["--json"])
    }),
    ("a_picture_of_another_format_is_refused", |at| {
        refused(at, &["generate", "red", "-o", "out.gif"], 2, &["out.gif", "name it out.png"])
    }),
    ("an_option_of_another_program_is_not_taken_for_one_of_this", other_programs_options),
    ("an_output_in_a_missing_folder_is_refused_before_the_work", |at| {
        refused(at, &["generate", "red", "--output", "missing/picture.png"], 1, &["missing/picture.png"])
    }),
    ("a_folder_as_output_is_refused", |at| refused(at, &["generate", "red", "--output", "."], 1, &["."])),
    ("a_full_disk_is_an_error", |at| {
        refused(at, &["generate", "red", "--steps", "1", "--device", "cpu", "--output", "/dev/full"], 1, &["/dev/full"])
    }),
    ("init_latents_of_another_size_are_refused", init_latents_of_another_size_are_refused),
    ("truncated_weights_are_named", truncated_weights_are_named),
    ("weights_that_are_not_a_number_are_named", weights_that_are_not_a_number_are_named),
    ("a_tensor_of_another_shape_is_named", a_tensor_of_another_shape_is_named),
    ("an_unknown_configuration_value_is_named", an_unknown_configuration_value_is_named),
    ("merges_that_are_empty_are_named", |at| {
        std::fs::write(copy_of_the_model(at)?.join("tokenizer/merges.txt"), "")?;
        refused(at, DRAW_MODEL, 1, &["merges.txt", "empty"])
    }),
    ("forward_shows_shapes_as_the_file_has_them", |at| {
        forward_refuses(at, Tensor::zeros([1, 5, 8, 6]), 2, &["[B, 4, H, W]", "[1, 5, 8, 6]"])
    }),
    ("forward_refuses_an_input_that_is_not_a_number", |at| {
        forward_refuses(at, Tensor::new([1, 4, 1, 1], vec![0.0, 0.0, f32::NAN, 0.0]), 1, &["z", "element [0, 2, 0, 0]"])
    }),
    ("forward_lists_the_inputs_that_it_misses", forward_lists_the_inputs_that_it_misses),
    ("a_pickled_embedding_is_refused_with_how_to_convert_it", |at| {
        std::fs::write(at.join("cat.pt"), "")?;
        refused(at, &["generate", "red", "--embedding", "cat.pt"], 1, &["cat.pt", "pickle", "safetensors.torch"])
    }),
    ("more_skipped_layers_than_there_are_are_refused", |at| {
        refused(at, &["generate", "red", "--device", "cpu", "--clip-skip", "4"], 2, &["--clip-skip 4", "3 layers"])
    }),
    ("a_folder_without_an_autoencoder_is_refused", |at| {
        refused(at, &["generate", "red", "--vae", "nowhere"], 1, &["nowhere: no such file or folder"])
    }),
    ("a_controlnet_without_its_image_is_refused", |at| {
        let said = "--control is given without --control-image: give the picture that it follows";
        refused(at, &["generate", "red", "--control", "guide"], 2, &[said])
    }),
    ("a_scale_too_many_is_refused", |at| {
        write_picture(&at.join("p.png"))?;
        let arguments = ["generate", "red", "--control", "a", "--control-image", "p.png", "--control-scale", "1"];
        refused(at, &[&arguments[..], &["--control-scale", "2"]].concat(), 2, &["--control-scale is given 2 times"])
    }),
    ("a_controlnet_that_is_not_there_is_named", |at| {
        write_picture(&at.join("p.png"))?;
        let arguments = ["generate", "red", "--control", "nowhere", "--control-image", "p.png"];
        refused(at, &arguments, 1, &["nowhere", "no such file or folder"])
    }),
    ("a_control_image_that_is_none_is_named", |at| {
        std::fs::write(at.join("p.png"), "GIF89a")?;
        let arguments = |image| ["generate", "red", "--control", "guide", "--control-image", image];
        refused(at, &arguments("p.png"), 1, &["p.png", "is a GIF picture; give a PNG, JPEG or WebP file"])?;
        refused(at, &arguments("q.png"), 1, &["q.png", "no such file"])
    }),
    ("a_part_of_the_steps_that_is_none_is_refused", |at| {
        write_for_the_built_in_model(&at.join("guide"))?;
        write_picture(&at.join("p.png"))?;
        let arguments = ["generate", "red", "--control", "guide", "--control-image", "p.png", "--control-start", "1"];
        refused(at, &arguments, 2, &["--control-start 1", "--control-end", "start < end"])
    }),
    ("a_controlnet_alone_draws_nothing", |at| {
        write_for_the_built_in_model(&at.join("guide"))?;
        refused(
            at,
            &["generate", "red", "--model", "guide"],
            1,
            &["guide: is a ControlNet, not a model; give it as --control"],
        )
    }),
    ("an_unknown_shader_is_refused_with_the_list", |at| {
        refused(at, &["shader", "nonsense"], 2, &["there is no shader nonsense; known are activation, add,"])
    }),
    ("an_unknown_variant_is_refused_with_the_list", |at| {
        refused(at, &["shader", "matmul", "--variant", "nonsense"], 2, &["nonsense", "tile16, tile64"])
    }),
    ("an_unknown_target_is_refused_with_the_list", |at| {
        refused(at, &["shader", "matmul", "--to", "dxil"], 2, &["dxil", "wgsl, spirv, msl, hlsl"])
    }),
    ("a_shared_part_is_not_translated_as_a_kernel", |at| {
        refused(at, &["shader", "shared/flat"], 2, &["shared/flat is not an op's kernel"])
    }),
    ("statistics_of_the_cpu_are_refused", |at| {
        refused(at, &["shader", "matmul", "--stats", "--device", "cpu"], 1, &["compiled for the CPU", "--device"])
    }),
    ("a_device_for_a_shaders_text_is_refused", |at| {
        refused(at, &["shader", "matmul", "--device", "vulkan"], 2, &["--stats"])
    }),
    ("spirv_as_json_is_refused", |at| refused(at, &["shader", "add", "--to", "spirv", "--json"], 2, &["--json"])),
];

const DRAW_MODEL: &[&str] = &["generate", "red", "--steps", "1", "--device", "cpu", "--model", "model"];

fn sizes_beyond_any_machine_are_refused(at: &Path) -> Result<(), Failed> {
    for (option, value) in [
        ("--width", "4294967296"),
        ("--width", "18446744073709551612"),
        ("--batch", "1000000000"),
        ("--batch", "18446744073709551615"),
    ] {
        refused(at, &["generate", "red", option, value, "--device", "cpu"], 2, &[value, option])?;
    }
    Ok(())
}

/// Neither `generate`, before it begins, nor `schedule`, whose JSON knows no infinity.
fn a_schedule_that_is_not_finite_is_refused(at: &Path) -> Result<(), Failed> {
    let config = copy_of_the_model(at)?.join("scheduler/scheduler_config.json");
    std::fs::write(&config, r#"{"_class_name": "EulerDiscreteScheduler", "trained_betas": [0, 1]}"#)?;
    let words = [
        "scheduler_config.json: trained_betas: [0,1] is why",
        "not finite at step 1; try another --sampler or --steps",
    ];
    refused(at, DRAW_MODEL, 1, &words)?;
    let config = "model/scheduler/scheduler_config.json";
    refused(at, &["schedule", "--sampler", "euler", "--steps", "2", "--json", "--config", config], 1, &words)
}

fn slips(at: &Path) -> Result<(), Failed> {
    for (arguments, meant) in [
        (&["generate", "red", "-m", "sdxl-chekpoint"][..], "sdxl-checkpoint"),
        (&["models", "fetch", "sd15-checkpont"], "sd15-checkpoint"),
        (&["generate", "red", "--sampler", "eular"], "euler"),
        (&["validate", "layernorm"], "layer_norm"),
        (&["shader", "layer_nrom"], "layer_norm"),
        (&["shader", "matmul", "--variant", "tile61"], "tile16"),
    ] {
        let status = if arguments.contains(&"-m") { 1 } else { 2 };
        refused(at, arguments, status, &[&format!("did you mean {meant}?")])?;
    }
    refused(at, &["generate", "red", "-m", "nowhere.safetensors"], 1, &["no such file or folder; check the path"])
}

fn schedules(at: &Path) -> Result<(), Failed> {
    std::fs::write(at.join("rising.txt"), "1 2 3")?;
    std::fs::write(at.join("three.txt"), "14 5 1")?;
    let draw = ["generate", "red", "--sampler", "euler", "--schedule"];
    for (more, words) in [
        (&["karass"][..], "did you mean karras?"),
        (&["rising.txt"], "rising.txt: sigmas are numbers above 0, each below the one before it"),
        (&["three.txt", "--steps", "4"], "--steps 4 for a schedule of 3 sigmas; try --steps 3"),
        (&["karras", "--sampler", "ddim"], "ddim has no Karras sigmas"),
        (&["karras", "--sampler", "euler exponential"], "contradicts the sampler's name"),
        (&["karras", "--spacing", "trailing"], "cannot be used with"),
    ] {
        let sampler: &[&str] = if more.contains(&"--sampler") { &["generate", "red", "--schedule"] } else { &draw };
        refused(at, &[sampler, more].concat(), 2, &[words])?;
    }
    refused(at, &["generate", "red", "--schedule", "nowhere.txt"], 1, &["nowhere.txt", "no such file"])
}

/// Names of files and of tensors, and values of files, are what others wrote.
fn a_message_does_nothing_to_a_terminal(at: &Path) -> Result<(), Failed> {
    let long = "x".repeat(5000);
    refused(at, &["generate", "red", "--model", "\u{1b}]0;no\u{7}\u{202e}"], 1, &[r"\u{1b}]0;no\u{7}\u{202e}"])?;
    refused(at, &["generate", "red", "--sampler", &long], 2, &["no sampler is called", "known are", "euler"])?;
    refused(at, &["generate", "red", "--dtype", "\u{1b}[31m"], 2, &["dtype", "--help"])?;
    write_tensors(
        &at.join("odd.safetensors"),
        &[("\u{1b}[2J\u{9b}", &Tensor::zeros([1])), (&long, &Tensor::zeros([1]))],
    )?;
    for arguments in [["models", "inspect", "odd.safetensors"], ["generate", "--model", "odd.safetensors"]] {
        refused(at, &arguments, 1, &["odd.safetensors: holds no network", r"\u{1b}[2J\u{9b}, xxx"])?;
    }
    let config = copy_of_the_model(at)?.join("unet/config.json");
    std::fs::write(config, serde_json::json!({ "act_fn": format!("\u{1b}[31m{long}") }).to_string())?;
    refused(at, DRAW_MODEL, 1, &[r"act_fn has", r"xxx", "supported: silu, swish"])
}

fn truncated_weights_are_named(at: &Path) -> Result<(), Failed> {
    let path = copy_of_the_model(at)?.join("unet/diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&path)?;
    std::fs::write(&path, &bytes[..bytes.len() / 2])?;
    refused(at, DRAW_MODEL, 1, &["unet/diffusion_pytorch_model.safetensors"])
}

fn weights_that_are_not_a_number_are_named(at: &Path) -> Result<(), Failed> {
    let path = copy_of_the_model(at)?.join("unet/diffusion_pytorch_model.safetensors");
    change_tensor(&path, "conv_in.weight", |_| f32::NAN)?;
    refused(at, DRAW_MODEL, 1, &["conv_in.weight", "NaN"])
}

fn a_tensor_of_another_shape_is_named(at: &Path) -> Result<(), Failed> {
    let path = copy_of_the_model(at)?.join("text_encoder/config.json");
    let config = std::fs::read_to_string(&path)?.replace("\"intermediate_size\": 512", "\"intermediate_size\": 256");
    std::fs::write(&path, config)?;
    refused(at, DRAW_MODEL, 1, &["mlp.fc1.weight", "[256, 128]", "[512, 128]"])
}

fn an_unknown_configuration_value_is_named(at: &Path) -> Result<(), Failed> {
    let path = copy_of_the_model(at)?.join("unet/config.json");
    let config = std::fs::read_to_string(&path)?.replace("\"act_fn\": \"silu\"", "\"act_fn\": \"mish\"");
    std::fs::write(&path, config)?;
    refused(at, DRAW_MODEL, 1, &["act_fn", "mish"])
}

fn init_latents_of_another_size_are_refused(at: &Path) -> Result<(), Failed> {
    draw(at, &["red", "--seed", "1", "--width", "32", "--save-latents", "latents.safetensors"])?;
    refused(at, &["generate", "red", "--init-latents", "latents.safetensors", "--device", "cpu"], 2, &["[1, 4, 16, 8]"])
}

fn forward_lists_the_inputs_that_it_misses(at: &Path) -> Result<(), Failed> {
    draw(at, &["red", "--seed", "1", "--save-latents", "latents.safetensors"])?;
    let arguments =
        ["forward", "unet", "--inputs", "latents.safetensors", "--outputs", "out.safetensors", "--device", "cpu"];
    refused(at, &arguments, 2, &["sample", "latents"])
}

fn forward_refuses(at: &Path, z: Tensor, status: i32, words: &[&str]) -> Result<(), Failed> {
    write_tensors(&at.join("z.safetensors"), &[("z", &z)])?;
    let files = ["--inputs", "z.safetensors", "--outputs", "out.safetensors"];
    refused(at, &[&["forward", "vae-decoder", "--device", "cpu"], &files[..]].concat(), status, words)
}

/// A slip of the finger is advised on; another option is not.
fn other_programs_options(at: &Path) -> Result<(), Failed> {
    refused(at, &["generate", "red", "--stpes", "3"], 2, &["--stpes", "--steps"])?;
    for option in ["--upscale", "--diffusion-model", "--clip-on-cpu"] {
        let said = text(&super::ornstein(at, &["generate", "red", option])?.stderr);
        ensure(said.contains(option) && !said.contains("tip"), said)?;
    }
    Ok(())
}
