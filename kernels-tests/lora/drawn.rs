//! Pictures with LoRA files, through the command line and the library, by the built-in model.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::Gpu;
use ornstein::image::decode;
use ornstein::network::{Executor, IfWrong};
use ornstein::systems::{Request, Studio};
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::{Model, read_tensors, write_tensors};

use super::lora;
use crate::cli::{draw, refused, text};
use crate::support::{change_tensor, copy_of_the_model, ensure, on_gpu, test};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const TEXT: &str = "text_encoder/model.safetensors";

type Check = fn(&Path) -> Result<(), Failed>;

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let checks: [(&str, Check); 10] = [
        ("a_picture_is_that_of_a_model_with_the_changed_weights", a_picture_is_that_of_the_changed_model),
        ("a_tag_in_a_weighted_prompt_is_the_option", a_tag_is_the_option),
        ("a_tag_finds_files_beside_those_of_the_option", a_tag_finds_files_beside_others),
        ("a_tag_has_a_scale_for_text_encoders_and_unet", a_tag_has_two_scales),
        ("a_tag_in_a_plain_prompt_is_text_with_a_warning", a_tag_in_a_plain_prompt_is_text),
        ("what_a_tag_cannot_name_is_refused_with_what_it_can", strange_tags_are_refused),
        ("options_that_make_no_sense_are_refused", options_are_refused),
        ("each_line_of_a_file_has_its_own", each_line_has_its_own),
        ("networks_that_stay_loaded_are_those_of_their_files", loaded_networks),
        ("a_network_alone_takes_them_too", a_network_alone),
    ];
    let trial =
        |(name, check): (&str, Check)| test(format!("lora::{name}"), move || check(tempfile::tempdir()?.path()));
    let memory = on_gpu("lora::a_device_holds_no_more_with_them".into(), a_device_holds_no_more);
    checks.into_iter().map(trial).chain([memory]).collect()
}

/// A file `NAME.safetensors` that doubles one tensor of the built-in model, exactly.
fn doubling(at: &Path, name: &str, component: &str, end: &str) -> Result<(), Failed> {
    let (tensor, value) = stored(component, end)?;
    let (start, module) = match component {
        UNET => ("lora_unet_", tensor),
        _ => ("lora_te_", format!("text_model.{}", tensor.trim_start_matches("text_model."))),
    };
    let module = format!("{start}{}", module.trim_end_matches(".weight").replace('.', "_"));
    let one = Tensor::new([1, 1], vec![1.0]);
    let names = ["lokr_w1", "lokr_w2"].map(|part| format!("{module}.{part}"));
    write_tensors(&at.join(format!("{name}.safetensors")), &[(&names[0], &one), (&names[1], &value)])?;
    Ok(())
}

/// The name and the values of a tensor of the built-in model.
fn stored(component: &str, end: &str) -> Result<(String, Tensor), Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model").join(component);
    let found = read_tensors(&path)?.into_iter().find(|(name, _)| name.ends_with(end));
    let (name, (_, tensor)) = found.ok_or("there is no such tensor")?;
    Ok((name, tensor))
}

const PROJECTION: &str = "mid_block.attentions.0.proj_in.weight";
const VALUES: &str = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.weight";
const FC1: &str = "encoder.layers.0.mlp.fc1.weight";

/// The latents that are drawn.
fn latents(at: &Path, arguments: &[&str]) -> Result<Tensor, Failed> {
    let fixed =
        ["--seed", "5", "--guidance", "4", "--sampler", "ddim", "-o", "a.png", "--save-latents", "l.safetensors"];
    draw(at, &[arguments, &fixed].concat())?;
    Ok(read_tensors(&at.join("l.safetensors"))?.remove("latents").ok_or("no latents")?.1)
}

fn parameters(at: &Path) -> Result<String, Failed> {
    Ok(decode("a.png", &std::fs::read(at.join("a.png"))?)?.parameters.ok_or("no parameters")?)
}

fn a_picture_is_that_of_the_changed_model(at: &Path) -> Result<(), Failed> {
    let model = copy_of_the_model(at)?;
    for (component, end) in [(UNET, PROJECTION), (UNET, VALUES), (UNET, "conv_in.weight"), (TEXT, FC1)] {
        let name = stored(component, end)?.0;
        doubling(at, "double", component, end)?;
        change_tensor(&model.join(component), &name, |value| 2.0 * value)?;
        let (wanted, plain) = (latents(at, &["red", "-m", "model"])?, latents(at, &["red"])?);
        change_tensor(&model.join(component), &name, |value| value / 2.0)?;
        let found = latents(at, &["red", "--lora", "double.safetensors"])?;
        ensure(found == wanted, format!("{name} is not doubled"))?;
        ensure(found != plain, format!("{name} changes nothing"))?;
    }
    Ok(())
}

fn a_tag_is_the_option(at: &Path) -> Result<(), Failed> {
    std::fs::create_dir(at.join("loras"))?;
    doubling(&at.join("loras"), "style v1.2", UNET, PROJECTION)?;
    let option = latents(at, &["red", "--lora", "loras/style v1.2.safetensors:0.5"])?;
    let shown = parameters(at)?;
    ensure(shown.starts_with("red <lora:style v1.2:0.5>\n"), shown)?;
    let weighted = ["--prompt-syntax", "weighted", "--lora-dir", "loras"];
    let tag = latents(at, &[&["<lora:style v1.2:0.5> red"], &weighted[..]].concat())?;
    let shown = parameters(at)?;
    ensure(shown.starts_with("<lora:style v1.2:0.5> red\n"), shown)?;
    ensure(tag == option, "tag and option differ")?;
    let plain = latents(at, &["red"])?;
    ensure(tag != plain, "it changes nothing")?;
    let none = latents(at, &[&["red <lora:style v1.2:0>"], &weighted[..]].concat())?;
    ensure(none == plain, "nothing of it changes something")?;
    let twice = latents(at, &[&["red <lora:style v1.2:0.25><lora:style v1.2:0.25>"], &weighted[..]].concat())?;
    ensure(twice == option, "two quarters are not a half")
}

fn a_tag_finds_files_beside_others(at: &Path) -> Result<(), Failed> {
    doubling(at, "a", UNET, PROJECTION)?;
    doubling(at, "b", UNET, VALUES)?;
    let both = latents(at, &["red", "--lora", "a.safetensors", "--lora", "b.safetensors:0.5"])?;
    let syntax = ["--prompt-syntax", "weighted"];
    let beside = latents(at, &[&["red<lora:b:0.5>", "--lora", "a.safetensors"], &syntax[..]].concat())?;
    ensure(both == beside, "it is another picture")
}

fn a_tag_has_two_scales(at: &Path) -> Result<(), Failed> {
    doubling(at, "unet", UNET, PROJECTION)?;
    doubling(at, "text", TEXT, FC1)?;
    let weighted = |prompt: &str| latents(at, &[prompt, "--prompt-syntax", "weighted", "--lora-dir", "."]);
    let plain = latents(at, &["red"])?;
    ensure(weighted("red<lora:unet:1:0>")? == plain, "the UNet is changed")?;
    ensure(weighted("red<lora:text:te=0:unet=1>")? == plain, "the text encoder is changed")?;
    ensure(weighted("red<lora:unet:0:1>")? == weighted("red<lora:unet>")?, "the UNet has not its own scale")?;
    ensure(weighted("red<lora:text:1:0>")? == weighted("red<lora:text>")?, "the text encoder has not its own scale")
}

fn a_tag_in_a_plain_prompt_is_text(at: &Path) -> Result<(), Failed> {
    doubling(at, "style", UNET, PROJECTION)?;
    let output = draw(at, &["red <lora:style:1>", "--seed", "5", "-o", "a.png", "--lora-dir", "."])?;
    let said = text(&output.stderr);
    ensure(said.contains("plain prompt is text") && said.contains("--prompt-syntax weighted"), said)
}

fn strange_tags_are_refused(at: &Path) -> Result<(), Failed> {
    let folder = at.join("loras");
    std::fs::create_dir(&folder)?;
    doubling(&folder, "style", UNET, PROJECTION)?;
    doubling(at, "outside", UNET, PROJECTION)?;
    let refused = |prompt: &str, words: &[&str]| {
        let options = ["--prompt-syntax", "weighted", "--lora-dir", "loras", "--device", "cpu"];
        refused(at, &[&["generate", prompt], &options[..]].concat(), 2, words)
    };
    refused("<lora:stile:1>", &["<lora:stile> in the prompt", "no file of this name", "have style"])?;
    refused("<lora:../outside:1>", &["<lora:../outside> in the prompt", "no file of this name"])?;
    refused("<lora:style:much>", &["<lora:style:much>", "\"much\" is not a number"])
}

fn options_are_refused(at: &Path) -> Result<(), Failed> {
    doubling(at, "style", UNET, PROJECTION)?;
    let weighted = ["generate", "<lora:style:1>", "--prompt-syntax", "weighted", "--device", "cpu"];
    refused(at, &weighted, 2, &["<lora:style> in the prompt", "--lora-dir"])?;
    refused(
        at,
        &[&weighted[..], &["--lora-dir", "nowhere"]].concat(),
        1,
        &["nowhere", "is not a folder", "--lora-dir"],
    )?;
    let option = |value: &str, status, words: &[&str]| {
        refused(at, &["generate", "red", "--device", "cpu", "--lora", value], status, words)
    };
    option("style.safetensors:inf", 2, &["--lora style.safetensors:inf", "not a scale"])?;
    option("style.safetensors:much", 2, &["\"much\" is not a scale; give a number, as style.safetensors:0.8"])?;
    std::fs::write(at.join("old.pt"), b"PK\x03\x04")?;
    option("old.pt:0.5", 1, &["old.pt: is a PyTorch pickle"])
}

fn each_line_has_its_own(at: &Path) -> Result<(), Failed> {
    doubling(at, "a", UNET, PROJECTION)?;
    doubling(at, "b", TEXT, FC1)?;
    let lines = ["red <lora:a:1>", "red", "red <lora:b:1>", "red <lora:a:0.5><lora:b:1>"];
    std::fs::write(at.join("prompts.txt"), lines.join("\n"))?;
    let options = ["--prompt-syntax", "weighted", "--lora-dir", ".", "--seed", "5"];
    let output = draw(at, &[&["--prompts", "prompts.txt", "-o", "many.png", "-v"], &options[..]].concat())?;
    let said = text(&output.stderr);
    ensure(said.matches("merging LoRAs").count() == 3, said)?;
    for (number, line) in (1..).zip(lines) {
        draw(at, &[&[line, "-o", "one.png"], &options[..]].concat())?;
        let read = |name: &str| std::fs::read(at.join(name));
        ensure(read(&format!("many-{number}-5.png"))? == read("one.png")?, format!("line {number} differs"))?;
    }
    Ok(())
}

fn loaded_networks(at: &Path) -> Result<(), Failed> {
    doubling(at, "a", UNET, PROJECTION)?;
    doubling(at, "b", TEXT, FC1)?;
    let pipeline = Studio::open(Model::builtin())?;
    let mut loaded = pipeline.load(&Executor::Cpu);
    for used in [&[][..], &[("a", 1.0)], &[("a", 0.5)], &[("a", 0.5), ("b", 1.0)], &[("b", 1.0)], &[]] {
        let loras = used.iter().map(|(name, scale)| lora(&at.join(format!("{name}.safetensors")), *scale));
        let loras = loras.collect::<Result<_, _>>()?;
        let request = Request { prompt: "x".into(), steps: Some(1), batch: 1, loras, ..Request::default() };
        let never = AtomicBool::new(false);
        let kept = pollster::block_on(loaded.generate(&request, &never, &mut |_| {}))?;
        let fresh = pollster::block_on(pipeline.generate(&Executor::Cpu, &request, &never, &mut |_| {}))?;
        ensure(kept.latents == fresh.latents, format!("{used:?} differs"))?;
    }
    Ok(())
}

/// Changed matrices are as small there as others: nothing of the old ones or of the changes stays.
fn a_device_holds_no_more(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    doubling(folder.path(), "a", UNET, PROJECTION)?;
    doubling(folder.path(), "b", TEXT, FC1)?;
    let pipeline = Studio::open(Model::builtin())?;
    let executor = Executor::Gpu(Arc::clone(gpu), DType::F16, IfWrong::UseAnyway);
    let held = |names: &[&str]| -> Result<u64, Failed> {
        let loras = names.iter().map(|name| lora(&folder.path().join(format!("{name}.safetensors")), 0.1));
        let loras = loras.collect::<Result<_, _>>()?;
        let request = Request { prompt: "x".into(), steps: Some(1), batch: 1, loras, ..Request::default() };
        let mut loaded = pipeline.load(&executor);
        Ok(pollster::block_on(loaded.generate(&request, &AtomicBool::new(false), &mut |_| {}))?.peak_device_bytes)
    };
    let (plain, changed) = (held(&[])?, held(&["a", "b"])?);
    ensure(plain == changed && plain > 0, format!("{plain} bytes, and {changed} with them"))
}

fn a_network_alone(at: &Path) -> Result<(), Failed> {
    doubling(at, "style", TEXT, FC1)?;
    let ids = Tensor::new([1, 3], vec![1.0, 2.0, 3.0]);
    write_tensors(&at.join("in.safetensors"), &[("input_ids", &ids)])?;
    let forward = |more: &[&str]| -> Result<Tensor, Failed> {
        let files = ["--inputs", "in.safetensors", "--outputs", "out.safetensors", "--device", "cpu"];
        crate::cli::ornstein(at, &[&["forward", "text-encoder"], &files[..], more].concat())?;
        Ok(read_tensors(&at.join("out.safetensors"))?.remove("last_hidden_state").ok_or("no output")?.1)
    };
    let plain = forward(&[])?;
    ensure(forward(&["--lora", "style.safetensors"])? != plain, "it changes nothing")?;
    ensure(forward(&["--lora", "style.safetensors:0"])? == plain, "nothing of it changes something")
}
