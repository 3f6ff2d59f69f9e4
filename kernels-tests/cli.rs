//! The command line as a careless user meets it: exit status, one helpful line, no half-written file.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};
use ornstein::image::{decode_png, encode_png};
use ornstein::tensor::Tensor;
use ornstein::weights::write_tensors;

use crate::controlnet::write_for_the_built_in_model;
use crate::support::{change_tensor, copy_of_the_model, ensure, test};

type Check = fn(&Path) -> Result<(), Failed>;

pub fn trials() -> Vec<Trial> {
    let checks: &[(&str, Check)] = &[
        ("an_unknown_sampler_is_refused_with_the_list", |at| {
            refused(at, &["generate", "x", "--sampler", "nonsense"], 2, &["nonsense", "euler"])
        }),
        ("an_unknown_op_is_refused_with_the_list", |at| {
            refused(at, &["validate", "nonsense"], 2, &["nonsense", "matmul, matmul_geglu"])
        }),
        ("the_reference_is_not_validated_against_itself", |at| {
            refused(at, &["validate", "--device", "cpu"], 2, &["--device cpu", "ornstein devices"])
        }),
        ("zero_steps_are_refused", |at| refused(at, &["generate", "x", "--steps", "0"], 2, &["steps"])),
        ("a_width_off_the_grid_is_refused_with_the_nearest", |at| {
            refused(at, &["generate", "x", "--width", "63"], 2, &["--width 63", "multiple of 4", "60"])
        }),
        ("a_width_of_zero_is_refused", |at| refused(at, &["generate", "x", "--width", "0"], 2, &["--width 0"])),
        ("an_empty_batch_is_refused", |at| refused(at, &["generate", "x", "--batch", "0"], 2, &["--batch"])),
        ("guidance_that_is_no_number_is_refused", |at| {
            refused(at, &["generate", "x", "--guidance", "nan"], 2, &["--guidance"])
        }),
        ("a_spacing_is_refused_by_samplers_without_one", |at| {
            refused(at, &["generate", "x", "--sampler", "lcm", "--spacing", "trailing"], 2, &["--spacing", "lcm"])
        }),
        ("an_unknown_spacing_is_refused_with_the_known", |at| {
            refused(at, &["generate", "x", "--spacing", "even"], 2, &["even", "leading, trailing, linspace"])
        }),
        ("an_eta_is_refused_by_samplers_without_one", |at| {
            refused(at, &["generate", "x", "--sampler", "euler", "--eta", "0.5"], 2, &["--eta", "ddim and tcd"])
        }),
        ("sizes_beyond_any_machine_are_refused", sizes_beyond_any_machine_are_refused),
        ("a_picture_larger_than_the_memory_is_refused", |at| {
            let size = ["--width", "131072", "--height", "131072"];
            refused(at, &[&["generate", "x", "--device", "cpu"], &size[..]].concat(), 1, &["memory", "--width"])
        }),
        ("wrong_usage_is_one_line", |at| refused(at, &["generate", "x", "--dtype", "f8"], 2, &["f8", "f16", "--help"])),
        ("latents_and_picture_in_one_file_are_refused", |at| {
            refused(at, &["generate", "x", "--output", "a", "--save-latents", "a"], 2, &["--save-latents"])
        }),
        ("an_empty_device_name_fits_none", |at| refused(at, &["generate", "x", "--device", ""], 1, &["--device"])),
        ("a_missing_model_folder_is_named", |at| {
            refused(at, &["generate", "x", "--model", "no/such/model"], 1, &["no/such/model"])
        }),
        ("a_device_that_is_not_there_is_never_replaced", |at| {
            refused(at, &["generate", "x", "--device", "voodoo"], 1, &["voodoo", "--device cpu"])
        }),
        ("two_documents_on_stdout_are_refused", |at| {
            refused(at, &["generate", "x", "--json", "--output", "-"], 2, &["--json"])
        }),
        ("an_output_in_a_missing_folder_is_refused_before_the_work", |at| {
            refused(at, &["generate", "x", "--output", "missing/picture.png"], 1, &["missing/picture.png"])
        }),
        ("a_folder_as_output_is_refused", |at| refused(at, &["generate", "x", "--output", "."], 1, &["."])),
        ("a_full_disk_is_an_error", |at| {
            refused(
                at,
                &["generate", "x", "--steps", "1", "--device", "cpu", "--output", "/dev/full"],
                1,
                &["/dev/full"],
            )
        }),
        ("init_latents_of_another_size_are_refused", init_latents_of_another_size_are_refused),
        ("truncated_weights_are_named", truncated_weights_are_named),
        ("weights_that_are_not_a_number_are_named", weights_that_are_not_a_number_are_named),
        ("a_tensor_of_another_shape_is_named", a_tensor_of_another_shape_is_named),
        ("an_unknown_configuration_value_is_named", an_unknown_configuration_value_is_named),
        ("models_tells_what_a_model_is_and_whether_it_is_whole", models_tells_what_a_model_is),
        ("merges_that_are_empty_are_named", |at| {
            std::fs::write(copy_of_the_model(at)?.join("tokenizer/merges.txt"), "")?;
            refused(at, DRAW_MODEL, 1, &["merges.txt", "empty"])
        }),
        ("forward_shows_shapes_as_the_file_has_them", |at| {
            forward_refuses(at, Tensor::zeros([1, 5, 8, 6]), 2, &["[B, 4, H, W]", "[1, 5, 8, 6]"])
        }),
        ("forward_refuses_an_input_that_is_not_a_number", |at| {
            forward_refuses(at, Tensor::new([1, 4, 1, 1], vec![0.0, 0.0, f32::NAN, 0.0]), 1, &["z", "element 2"])
        }),
        ("a_picture_on_dev_stdout_is_the_only_thing_there", a_picture_on_dev_stdout_is_alone),
        ("an_interrupt_ends_a_long_pass_and_leaves_nothing", an_interrupt_ends_a_long_pass),
        ("forward_lists_the_inputs_that_it_misses", forward_lists_the_inputs_that_it_misses),
        ("a_changed_seed_changes_the_picture_and_the_same_does_not", a_seed_is_a_picture),
        ("another_generator_makes_another_picture_and_is_told", another_generator_is_told),
        ("a_weighted_prompt_of_any_length_is_used_whole", a_weighted_prompt_is_used_whole),
        ("an_embedding_is_used_where_its_name_stands", an_embedding_is_used_where_its_name_stands),
        ("a_pickled_embedding_is_refused_with_how_to_convert_it", |at| {
            std::fs::write(at.join("cat.pt"), "")?;
            refused(at, &["generate", "x", "--embedding", "cat.pt"], 1, &["cat.pt", "pickle", "safetensors.torch"])
        }),
        ("more_skipped_layers_than_there_are_are_refused", |at| {
            refused(at, &["generate", "x", "--device", "cpu", "--clip-skip", "4"], 2, &["--clip-skip 4", "3 layers"])
        }),
        ("a_tiny_autoencoder_decodes_the_same_latents", a_tiny_autoencoder_decodes_the_same_latents),
        ("a_folder_without_an_autoencoder_is_refused", |at| {
            refused(at, &["generate", "x", "--vae", "nowhere"], 1, &["nowhere/config.json", "a VAE alone"])
        }),
        ("a_controlnet_is_told_in_the_picture_and_its_scale_changes_it", a_controlnet_is_told),
        ("a_controlnet_without_its_image_is_refused", |at| {
            let said = ["--control-image is given 0 times and --control once", "in the same order"];
            refused(at, &["generate", "x", "--control", "guide"], 2, &said)
        }),
        ("a_scale_too_many_is_refused", |at| {
            write_picture(&at.join("p.png"))?;
            let arguments = ["generate", "x", "--control", "a", "--control-image", "p.png", "--control-scale", "1"];
            refused(at, &[&arguments[..], &["--control-scale", "2"]].concat(), 2, &["--control-scale is given 2 times"])
        }),
        ("a_controlnet_that_is_not_there_is_named", |at| {
            write_picture(&at.join("p.png"))?;
            let arguments = ["generate", "x", "--control", "nowhere", "--control-image", "p.png"];
            refused(at, &arguments, 1, &["nowhere", "no such file or folder"])
        }),
        ("a_control_image_that_is_none_is_named", |at| {
            std::fs::write(at.join("p.png"), "GIF89a")?;
            let arguments = |image| ["generate", "x", "--control", "guide", "--control-image", image];
            refused(at, &arguments("p.png"), 1, &["p.png", "cannot be read as PNG"])?;
            refused(at, &arguments("q.png"), 1, &["q.png", "give a PNG"])
        }),
        ("a_part_of_the_steps_that_is_none_is_refused", |at| {
            write_for_the_built_in_model(&at.join("guide"))?;
            write_picture(&at.join("p.png"))?;
            let arguments = ["generate", "x", "--control", "guide", "--control-image", "p.png", "--control-start", "1"];
            refused(at, &arguments, 2, &["--control-start 1", "--control-end 1", "start < end"])
        }),
        ("a_controlnet_alone_draws_nothing", |at| {
            write_for_the_built_in_model(&at.join("guide"))?;
            refused(at, &["generate", "x", "--model", "guide"], 1, &["guide: is a ControlNet", "--control"])
        }),
        ("models_tells_a_controlnet", models_tells_a_controlnet),
        ("checking_a_healthy_model_says_nothing_and_changes_nothing", checking_changes_nothing),
        ("an_empty_prompt_makes_a_picture", an_empty_prompt_makes_a_picture),
        ("a_prompt_of_ten_thousand_characters_makes_a_picture_and_a_warning", a_long_prompt_makes_a_picture),
        ("json_is_the_only_thing_on_stdout", json_is_the_only_thing_on_stdout),
        ("a_batch_counts_its_seeds_up_in_the_file_names", a_batch_counts_its_seeds_up),
        ("a_picture_on_stdout_is_a_png", a_picture_on_stdout_is_a_png),
        ("saved_latents_start_another_run", saved_latents_start_another_run),
        ("a_pipe_that_closes_early_is_no_error", a_pipe_that_closes_early_is_no_error),
        ("a_shader_is_printed_for_each_target", a_shader_is_printed_for_each_target),
        ("a_shaders_variants_differ_in_their_constants", a_shaders_variants_differ),
        ("spirv_goes_to_a_file_as_words", spirv_goes_to_a_file),
        ("every_listed_kernel_is_a_file", every_listed_kernel_is_a_file),
        ("an_unknown_shader_is_refused_with_where_the_list_is", |at| {
            refused(at, &["shader", "matmull"], 2, &["matmull", "ornstein shader", "activation"])
        }),
        ("an_unknown_variant_is_refused_with_the_list", |at| {
            refused(at, &["shader", "matmul", "--variant", "nonsense"], 2, &["nonsense", "tile16, tile64"])
        }),
        ("an_unknown_target_is_refused_with_the_list", |at| {
            refused(at, &["shader", "matmul", "--to", "dxil"], 2, &["dxil", "wgsl, spirv, msl, hlsl"])
        }),
        ("a_shared_part_is_not_translated_as_a_kernel", |at| {
            refused(at, &["shader", "shared/flat"], 2, &["shared/flat is no op's kernel"])
        }),
        ("spirv_as_json_is_refused", |at| refused(at, &["shader", "add", "--to", "spirv", "--json"], 2, &["--json"])),
        ("tokens_are_a_json_list", tokens_are_a_json_list),
        ("a_schedule_is_json", a_schedule_is_json),
    ];
    checks
        .iter()
        .map(|(name, check)| {
            let check = *check;
            test(format!("cli::{name}"), move || {
                let folder = tempfile::tempdir()?;
                check(folder.path())
            })
        })
        .collect()
}

pub fn ornstein(at: &Path, arguments: &[&str]) -> Result<Output, Failed> {
    Ok(Command::new(env!("CARGO_BIN_EXE_ornstein")).current_dir(at).args(arguments).stdin(Stdio::null()).output()?)
}

/// A quick picture on the CPU.
pub fn draw(at: &Path, arguments: &[&str]) -> Result<Output, Failed> {
    let mut all = vec!["generate", "--device", "cpu", "--steps", "2"];
    all.extend(arguments);
    let output = ornstein(at, &all)?;
    if output.status.success() { Ok(output) } else { Err(format!("failed: {}", text(&output.stderr)).into()) }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The command ends with this status and one line that holds `words`, and leaves no file that was not there.
pub fn refused(at: &Path, arguments: &[&str], status: i32, words: &[&str]) -> Result<(), Failed> {
    let before = files(at)?;
    let output = ornstein(at, arguments)?;
    let said = text(&output.stderr);
    // The line that tells of the CPU is a notice, not the error.
    let errors: Vec<_> = said.lines().filter(|line| !line.contains("computing on the CPU")).collect();
    ensure(output.status.code() == Some(status), format!("status {:?}: {said}", output.status.code()))?;
    ensure(errors.len() == 1, format!("not one line: {said}"))?;
    for word in words {
        ensure(said.contains(word), format!("{word} is not in: {said}"))?;
    }
    ensure(output.stdout.is_empty(), format!("stdout holds {}", text(&output.stdout)))?;
    ensure(files(at)? == before, format!("files left behind: {:?}", files(at)?))
}

fn files(at: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut files: Vec<_> = std::fs::read_dir(at)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    Ok(files)
}

const DRAW_MODEL: &[&str] = &["generate", "x", "--steps", "1", "--device", "cpu", "--model", "model"];

fn sizes_beyond_any_machine_are_refused(at: &Path) -> Result<(), Failed> {
    for (option, value) in [
        ("--width", "4294967296"),
        ("--width", "18446744073709551612"),
        ("--batch", "1000000000"),
        ("--batch", "18446744073709551615"),
    ] {
        refused(at, &["generate", "x", option, value, "--device", "cpu"], 2, &[value, option])?;
    }
    Ok(())
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

fn models_tells_what_a_model_is(at: &Path) -> Result<(), Failed> {
    let told = |arguments: &[&str]| -> Result<String, Failed> {
        let output = ornstein(at, arguments)?;
        assert!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    assert!(told(&["models", "list"])?.starts_with("shapes"));
    let text = told(&["models", "inspect", "shapes"])?;
    assert!(text.starts_with("shapes: Stable Diffusion 1\npredicts v_prediction\n"), "{text}");
    let found: serde_json::Value = serde_json::from_str(&told(&["models", "inspect", "shapes", "--json"])?)?;
    let parameters = |part: &serde_json::Value| part["dtypes"]["f16"].as_u64();
    let sum: Option<u64> = found["components"].as_array().ok_or("no components")?.iter().map(parameters).sum();
    assert_eq!(sum.map(|n| n / 10_000), Some(482));
    assert_eq!(told(&["models", "verify", "shapes"])?.lines().count(), 3);
    let unet = copy_of_the_model(at)?.join("unet/diffusion_pytorch_model.safetensors");
    change_tensor(&unet, "conv_in.bias", |_| f32::NAN)?;
    refused(at, &["models", "verify", "model"], 1, &["conv_in.bias is NaN or infinite at element 0"])
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
    draw(at, &["x", "--seed", "1", "--width", "32", "--save-latents", "latents.safetensors"])?;
    refused(at, &["generate", "x", "--init-latents", "latents.safetensors", "--device", "cpu"], 2, &["[1, 4, 16, 8]"])
}

fn forward_lists_the_inputs_that_it_misses(at: &Path) -> Result<(), Failed> {
    draw(at, &["x", "--seed", "1", "--save-latents", "latents.safetensors"])?;
    let arguments =
        ["forward", "unet", "--inputs", "latents.safetensors", "--outputs", "out.safetensors", "--device", "cpu"];
    refused(at, &arguments, 2, &["sample", "latents"])
}

fn forward_refuses(at: &Path, z: Tensor, status: i32, words: &[&str]) -> Result<(), Failed> {
    write_tensors(&at.join("z.safetensors"), &[("z", &z)])?;
    let files = ["--inputs", "z.safetensors", "--outputs", "out.safetensors"];
    refused(at, &[&["forward", "vae-decoder", "--device", "cpu"], &files[..]].concat(), status, words)
}

#[cfg(unix)]
fn a_picture_on_dev_stdout_is_alone(at: &Path) -> Result<(), Failed> {
    let file = std::fs::File::create(at.join("x.png"))?;
    let arguments = ["generate", "x", "--steps", "1", "--device", "cpu", "--output", "/dev/stdout"];
    let status = Command::new(env!("CARGO_BIN_EXE_ornstein")).args(arguments).stdout(file).status()?;
    ensure(status.success(), "failed")?;
    ornstein::image::decode_png("x.png", &std::fs::read(at.join("x.png"))?)?;
    Ok(())
}

#[cfg(not(unix))]
fn a_picture_on_dev_stdout_is_alone(_: &Path) -> Result<(), Failed> {
    Ok(())
}

/// One pass of this size takes minutes, so the flag is not looked at in time.
#[cfg(unix)]
fn an_interrupt_ends_a_long_pass(at: &Path) -> Result<(), Failed> {
    let size = ["--width", "1024", "--height", "1024", "--guidance", "1"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_ornstein"))
        .current_dir(at)
        .args([&["generate", "x", "--device", "cpu"], &size[..]].concat())
        .stderr(Stdio::piped())
        .spawn()?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    let start = std::time::Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed().as_secs() > 20 {
            child.kill()?;
            return Err("it goes on".into());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let output = child.wait_with_output()?;
    ensure(output.status.code() == Some(1), format!("{}", output.status))?;
    ensure(text(&output.stderr) == "ornstein: interrupted\n", text(&output.stderr))?;
    ensure(files(at)?.is_empty(), format!("files left behind: {:?}", files(at)?))
}

#[cfg(not(unix))]
fn an_interrupt_ends_a_long_pass(_: &Path) -> Result<(), Failed> {
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

fn another_generator_is_told(at: &Path) -> Result<(), Failed> {
    let mut latents = Vec::new();
    for (rng, name) in [("cpu", "RNG: CPU"), ("cuda", "RNG: NV")] {
        draw(at, &["x", "--seed", "5", "--rng", rng, "-o", "a.png", "--save-latents", "latents.safetensors"])?;
        let picture = decode_png("a.png", &std::fs::read(at.join("a.png"))?)?;
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

fn write_picture(path: &Path) -> Result<(), Failed> {
    let rgb: Vec<u8> = (0..3 * 9 * 7).map(|i| i as u8).collect();
    Ok(std::fs::write(path, encode_png(9, 7, &rgb, "")?)?)
}

fn a_controlnet_is_told(at: &Path) -> Result<(), Failed> {
    write_for_the_built_in_model(&at.join("guide"))?;
    write_picture(&at.join("p.png"))?;
    let guided = |scale| {
        let arguments = ["x", "--control", "guide", "--control-image", "p.png", "--control-scale", scale];
        latents(at, &[&arguments[..], &["--control-end", "0.5"]].concat())
    };
    let ((strong, said), (weak, _)) = (guided("0.75")?, guided("0.25")?);
    ensure(said.is_empty(), said)?;
    ensure(strong != weak, "the scale changes nothing")?;
    let parameters = decode_png("a.png", &std::fs::read(at.join("a.png"))?)?.parameters.unwrap_or_default();
    let told = r#"ControlNet 0: "Module: none, Model: guide, Weight: 0.25, Resize Mode: Just Resize, Guidance Start: 0.0, Guidance End: 0.5""#;
    ensure(parameters.contains(told), parameters)
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
        let latents = latents(at, &[&["x"], extra].concat())?.0;
        Ok::<_, Failed>((latents, decode_png("a.png", &std::fs::read(at.join("a.png"))?)?))
    };
    let (own, tiny) = (draw(&[])?, draw(&["--vae", &vae.display().to_string()])?);
    ensure(own.0 == tiny.0, "it changes the latents")?;
    ensure((own.1.width, own.1.height) == (tiny.1.width, tiny.1.height), "it changes the size")?;
    ensure(own.1.rgb != tiny.1.rgb, "the picture is the full autoencoder's")
}

fn checking_changes_nothing(at: &Path) -> Result<(), Failed> {
    draw(at, &["x", "--seed", "1", "-o", "plain.png"])?;
    let output = draw(at, &["x", "--seed", "1", "-o", "checked.png", "--check"])?;
    ensure(output.stderr.is_empty(), text(&output.stderr))?;
    ensure(std::fs::read(at.join("plain.png"))? == std::fs::read(at.join("checked.png"))?, "the picture changed")
}

fn an_empty_prompt_makes_a_picture(at: &Path) -> Result<(), Failed> {
    draw(at, &["", "--seed", "1"])?;
    ensure(at.join("ornstein-1.png").exists(), "there is no picture")
}

fn a_long_prompt_makes_a_picture(at: &Path) -> Result<(), Failed> {
    let output = draw(at, &[&"circle ".repeat(1429), "--seed", "1"])?;
    ensure(text(&output.stderr).contains("too long"), "there is no warning")
}

fn json_is_the_only_thing_on_stdout(at: &Path) -> Result<(), Failed> {
    let output = draw(at, &["x", "--seed", "9", "--json"])?;
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure(document["images"][0]["path"] == "ornstein-9.png", document.to_string())?;
    ensure(document["images"][0]["seed"] == 9 && document["images"][0]["width"] == 64, document.to_string())?;
    ensure(document["device"] == "cpu" && document["dtype"] == "f32", document.to_string())?;
    let seconds = ["load", "text", "denoise", "decode", "total"];
    ensure(seconds.iter().all(|part| document["seconds"][part].is_number()), document.to_string())?;
    ensure(document["peak_device_bytes"].is_u64(), document.to_string())
}

fn a_batch_counts_its_seeds_up(at: &Path) -> Result<(), Failed> {
    draw(at, &["a blue square", "--seed", "3", "-b", "2", "-o", "many.png"])?;
    draw(at, &["a blue square", "--seed", "4", "-o", "one.png"])?;
    let names: Vec<_> = files(at)?.iter().map(|p| p.file_name().unwrap_or_default().to_owned()).collect();
    ensure(names == ["many-3.png", "many-4.png", "one.png"], format!("{names:?}"))?;
    let (second, alone) = (std::fs::read(at.join("many-4.png"))?, std::fs::read(at.join("one.png"))?);
    let pixels = |file: &[u8]| ornstein::image::decode_png("test", file).map(|picture| picture.rgb);
    let worst = pixels(&second)?.iter().zip(&pixels(&alone)?).map(|(a, b)| a.abs_diff(*b)).max();
    ensure(worst <= Some(1), format!("a picture depends on its batch: {worst:?}"))
}

fn a_picture_on_stdout_is_a_png(at: &Path) -> Result<(), Failed> {
    let output = draw(at, &["a green ring", "--seed", "2", "-o", "-"])?;
    let picture = ornstein::image::decode_png("stdout", &output.stdout)?;
    ensure((picture.width, picture.height) == (64, 64), "another size")?;
    let parameters = picture.parameters.unwrap_or_default();
    ensure(parameters.contains("a green ring") && parameters.contains("Seed: 2"), parameters)
}

fn saved_latents_start_another_run(at: &Path) -> Result<(), Failed> {
    draw(at, &["x", "--seed", "1", "--save-latents", "one.safetensors"])?;
    draw(at, &["x", "--seed", "1", "--init-latents", "one.safetensors", "-o", "next.png"])?;
    ensure(at.join("next.png").exists(), "there is no picture")
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

fn every_listed_kernel_is_a_file(at: &Path) -> Result<(), Failed> {
    let listed = text(&shader(at, &[])?);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let missing = listed.lines().find(|name| !folder.join(format!("{name}.wgsl")).is_file());
    ensure(missing.is_none(), format!("{missing:?} is listed and not there"))?;
    let groups = ["matmul", "shared/gemm", "lab/copy"];
    ensure(groups.iter().all(|name| listed.lines().any(|line| line == *name)), listed)
}
