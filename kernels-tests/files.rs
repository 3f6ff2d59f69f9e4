//! Models as folders: what is found in them, under which names, and what is said about broken ones.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::inspect::inspect;
use ornstein::systems::{Request, Studio};
use ornstein::tensor::{DType, Tensor, Weights};
use ornstein::tokenizer::Tokenizer;
use ornstein::weights::{Model, read_tensors, write_tensors};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

use crate::allocated::most;
use crate::support::copy_of_the_model;

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let tests = [
        ("the built-in model is the one in assets", the_builtin_model as fn() -> Result<(), Failed>),
        ("text encoders with and without their prefix", text_encoders),
        ("the vae's old attention names", old_vae_names),
        ("full precision goes before f16", full_precision_first),
        ("any single variant is read, and several are asked for", variants),
        ("a folder of hugging face's cache is the model", hub),
        ("a link that leads nowhere is named", dangling),
        ("shards", shards),
        ("a missing shard is named", missing_shard),
        ("a tensor that its shard lacks is named", lacking_shard),
        ("a shard outside of the folder is refused", shard_outside),
        ("absent weights say why", absent_weights),
        ("a truncated file is named", truncated),
        ("a configuration that is no json is named", broken_json),
        ("every element type is read", element_types),
        ("texts with a byte order mark and other line ends", texts_from_windows),
        ("a vocabulary in gguf takes no memory", vocabulary_in_gguf),
    ];
    tests.into_iter().map(|(name, test)| Trial::test(format!("files: {name}"), test)).collect()
}

/// A model's folder with these files; a path that ends in `.safetensors` holds the named tensors, all `[1]` and 1.
fn model(files: &[(&str, &str)]) -> (TempDir, Model) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model_index.json"), "{}").unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.extension().is_some_and(|ending| ending == "safetensors") {
            let one = Tensor::new([1], vec![1.0]);
            let tensors: Vec<_> = content.split_whitespace().map(|name| (name, &one)).collect();
            write_tensors(&path, &tensors).unwrap();
        } else {
            fs::write(path, content).unwrap();
        }
    }
    let model = Model::open(folder.path()).unwrap();
    (folder, model)
}

fn names(model: &Model, component: &str) -> Result<Vec<String>, Failed> {
    let weights = model.weights(component)?;
    let names = weights.names();
    assert!(names.iter().all(|name| weights.get(name).is_some_and(|tensor| tensor.to_f32() == [1.0])));
    Ok(names)
}

/// The error of a component, checked to name its folder.
fn message(model: &Model, component: &str) -> String {
    let text = model.weights(component).err().expect("an error").to_string();
    assert!(text.starts_with(model.path(component).to_str().unwrap()) && !text.contains('\n'), "{text}");
    text
}

fn the_builtin_model() -> Result<(), Failed> {
    let (inside, outside) =
        (Model::builtin(), Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo-model")))?);
    for path in ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "tokenizer/merges.txt"] {
        assert_eq!(inside.text(path)?, outside.text(path)?, "{path}");
    }
    let mut parameters = 0;
    for component in ["text_encoder", "unet", "vae"] {
        let (inside, outside) = (inside.weights(component)?, outside.weights(component)?);
        assert_eq!(inside.names(), outside.names());
        for name in inside.names() {
            let (a, b) = (inside.get(&name).ok_or("inside")?, outside.get(&name).ok_or("outside")?);
            assert!((a.dtype, &a.shape, &a.bytes) == (DType::F16, &b.shape, &b.bytes), "{component} {name}");
            parameters += a.shape.len();
        }
    }
    assert_eq!(parameters / 10_000, 482);
    assert!(inside.has("unet") && !inside.has("text_encoder_2") && !inside.has("un") && !inside.has("golden"));
    Ok(())
}

fn text_encoders() -> Result<(), Failed> {
    let stored = [
        ("text_encoder/model.safetensors", "text_model.embeddings.a text_model.embeddings.position_ids"),
        ("text_encoder_2/model.safetensors", "embeddings.a text_projection.weight"),
    ];
    let (_folder, model) = model(&stored);
    let canonical = ["text_model.embeddings.a", "text_model.embeddings.position_ids"];
    assert_eq!(names(&model, "text_encoder")?, canonical);
    assert_eq!(names(&model, "text_encoder_2")?, ["text_model.embeddings.a", "text_projection.weight"]);
    Ok(())
}

fn old_vae_names() -> Result<(), Failed> {
    let attention = "encoder.mid_block.attentions.0";
    let stored = format!("{attention}.query.weight {attention}.proj_attn.bias conv_in.weight");
    let (_folder, model) = model(&[("vae/diffusion_pytorch_model.safetensors", &stored)]);
    let canonical = ["conv_in.weight".into(), format!("{attention}.to_out.0.bias"), format!("{attention}.to_q.weight")];
    assert_eq!(names(&model, "vae")?, canonical);
    Ok(())
}

fn full_precision_first() -> Result<(), Failed> {
    let half = ("unet/diffusion_pytorch_model.fp16.safetensors", "half");
    assert_eq!(names(&model(&[half]).1, "unet")?, ["half"]);
    let full = ("unet/diffusion_pytorch_model.safetensors", "full");
    assert_eq!(names(&model(&[half, full]).1, "unet")?, ["full"]);
    Ok(())
}

fn variants() -> Result<(), Failed> {
    let file = |variant: &'static str| (format!("unet/diffusion_pytorch_model.{variant}.safetensors"), variant);
    let with = |variants: &[&'static str]| {
        let files: Vec<_> = variants.iter().map(|variant| file(variant)).collect();
        model(&files.iter().map(|(path, name)| (path.as_str(), *name)).collect::<Vec<_>>())
    };
    for variant in ["bf16", "fp32", "non_ema"] {
        assert_eq!(names(&with(&[variant]).1, "unet")?, [variant]);
    }
    let (_folder, several) = with(&["bf16", "non_ema"]);
    assert!(message(&several, "unet").contains("several variants of its weights: bf16, non_ema; try variant bf16"));
    fs::write(_folder.path().join("unet/config.json"), "{}")?;
    assert_eq!(names(&several.with_variant("non_ema")?, "unet")?, ["non_ema"]);
    let several = Model::open(_folder.path())?;
    let text = several.with_variant("fp8").err().ok_or("there is one")?.to_string();
    assert!(text.contains("fp8 is not among the variants") && text.contains("bf16, non_ema"), "{text}");
    Ok(())
}

fn hub() -> Result<(), Failed> {
    let (folder, _) = model(&[("scheduler/scheduler_config.json", "{}")]);
    let hub = tempfile::tempdir()?;
    let repository = hub.path().join("hub/models--somebody--something");
    fs::create_dir_all(repository.join("snapshots"))?;
    fs::create_dir(repository.join("refs"))?;
    fs::rename(folder.path(), repository.join("snapshots/abc"))?;
    let opened = |path: &Path| Model::open(path).map_err(|error| error.to_string());
    let named = |path: &Path| opened(path).map(|model| model.name());
    assert_eq!(named(&repository)?, "somebody/something");
    fs::write(repository.join("refs/main"), "abc\n")?;
    assert!(opened(&repository)?.has("scheduler"));
    assert!(named(&hub.path().join("hub")).is_err_and(|text| text.contains("give the folder of one model, as")));
    for outside in ["def", "../snapshots", ""] {
        fs::write(repository.join("refs/main"), outside)?;
        assert!(named(&repository).is_err_and(|text| text.contains("refs/main: names the snapshot")), "{outside}");
    }
    Ok(())
}

#[cfg(unix)]
fn dangling() -> Result<(), Failed> {
    let (folder, model) = model(&[("unet/config.json", "{}")]);
    let at = |path: &str| folder.path().join(path);
    for path in ["unet/model.safetensors", "vae"] {
        std::os::unix::fs::symlink("../blobs/x", at(path))?;
    }
    assert!(message(&model, "unet").contains("model.safetensors: is a link to ../blobs/x, which is not there"));
    let text = model.text("vae/config.json").unwrap_err().to_string();
    assert!(text.contains("no such file"), "{text}");
    fs::remove_file(at("unet/config.json"))?;
    std::os::unix::fs::symlink("../blobs/y", at("unet/config.json"))?;
    let text = model.text("unet/config.json").unwrap_err().to_string();
    assert!(text.contains("unet/config.json: is a link to ../blobs/y, which is not there"), "{text}");
    Ok(())
}

#[cfg(not(unix))]
fn dangling() -> Result<(), Failed> {
    Ok(())
}

const INDEX: &str = "unet/diffusion_pytorch_model.safetensors.index.json";

fn shards() -> Result<(), Failed> {
    let first = ("unet/s-1.safetensors", "a b");
    let second = ("unet/s-2.safetensors", "c");
    let map = r#"{"weight_map": {"c": "s-2.safetensors", "a": "s-1.safetensors", "b": "s-1.safetensors"}}"#;
    assert_eq!(names(&model(&[first, second, (INDEX, map)]).1, "unet")?, ["a", "b", "c"]);
    for of_half in ["safetensors.index.fp16.json", "fp16.safetensors.index.json"] {
        let of_half = format!("unet/diffusion_pytorch_model.{of_half}");
        let (names_of, second) = (["-00001-of-00002.fp16", ".fp16-00001-of-00002"], second);
        for shard in names_of.map(|name| format!("unet/diffusion_pytorch_model{name}.safetensors")) {
            let map = map.replace("s-1.safetensors", shard.strip_prefix("unet/").unwrap_or_default());
            assert_eq!(names(&model(&[(&shard, "a b"), second, (&of_half, &map)]).1, "unet")?, ["a", "b", "c"]);
        }
    }
    Ok(())
}

fn missing_shard() -> Result<(), Failed> {
    let map = r#"{"weight_map": {"a": "s-1.safetensors", "b": "s-2.safetensors"}}"#;
    let (_folder, model) = model(&[("unet/s-1.safetensors", "a"), (INDEX, map)]);
    assert!(message(&model, "unet").contains("shards that are not there: s-2.safetensors"));
    Ok(())
}

fn lacking_shard() -> Result<(), Failed> {
    let map = r#"{"weight_map": {"a": "s-1.safetensors", "b": "s-1.safetensors"}}"#;
    let (_folder, model) = model(&[("unet/s-1.safetensors", "a"), (INDEX, map)]);
    assert!(message(&model, "unet").contains("tensors that their shards lack: b (s-1.safetensors)"));
    Ok(())
}

fn shard_outside() -> Result<(), Failed> {
    for outside in ["../vae/x.safetensors", "/etc/x.safetensors", ".."] {
        let map = format!(r#"{{"weight_map": {{"a": "{outside}"}}}}"#);
        let (_folder, model) = model(&[(INDEX, &map)]);
        assert!(message(&model, "unet").contains("not a file beside it"));
    }
    Ok(())
}

fn absent_weights() -> Result<(), Failed> {
    let (folder, model) = model(&[("unet/diffusion_pytorch_model.bin", "x"), ("text_encoder/config.json", "{}")]);
    fs::create_dir(folder.path().join("text_encoder_2"))?;
    assert!(message(&model, "unet").contains("`diffusion_pytorch_model.bin` is a PyTorch pickle"));
    assert!(message(&model, "vae").contains("no such folder"));
    assert!(message(&model, "text_encoder").contains("it has config.json"));
    assert!(message(&model, "text_encoder_2").contains("it is empty"));
    Ok(())
}

fn truncated() -> Result<(), Failed> {
    let (folder, model) = model(&[("unet/diffusion_pytorch_model.safetensors", "a b")]);
    let path = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&path)?;
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length])?;
        let text = message(&model, "unet");
        let reason = if length == 0 { "is empty" } else { "truncated" };
        assert!(text.contains(reason) || length < 9, "{length}: {text}");
    }
    fs::remove_file(&path)?;
    fs::create_dir(&path)?;
    assert!(message(&model, "unet").contains("is a folder"));
    Ok(())
}

fn broken_json() -> Result<(), Failed> {
    let (_folder, model) = model(&[("unet/config.json", "{\"a\": ")]);
    let text = model.json::<serde_json::Value>("unet/config.json").unwrap_err().to_string();
    assert!(text.contains("unet/config.json: cannot be understood"), "{text}");
    let text = model.text("vae/config.json").unwrap_err().to_string();
    assert!(text.contains("vae/config.json: no such file"), "{text}");
    Ok(())
}

fn element_types() -> Result<(), Failed> {
    let f16s = [1.5, -2.0].map(|x| f16::from_f32(x).to_le_bytes()).concat();
    let bf16s = [0.5, 3.0].map(|x| bf16::from_f32(x).to_le_bytes()).concat();
    let (i32s, i64s) = ((-7i32).to_le_bytes(), 49407i64.to_le_bytes());
    let given = [
        ("bf16", Dtype::BF16, vec![1, 2], &bf16s[..]),
        ("f16", Dtype::F16, vec![2], &f16s[..]),
        ("i32", Dtype::I32, vec![1], &i32s[..]),
        ("scalar", Dtype::I64, vec![], &i64s[..]),
    ];
    let views = given.map(|(name, dtype, shape, bytes)| (name, TensorView::new(dtype, shape, bytes).unwrap()));
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("inputs.safetensors");
    fs::write(&path, safetensors::serialize(views, None)?)?;
    let read = read_tensors(&path)?;
    assert_eq!(read["bf16"], (DType::BF16, Tensor::new([1, 2], vec![0.5, 3.0])));
    assert_eq!(read["f16"], (DType::F16, Tensor::new([2], vec![1.5, -2.0])));
    assert_eq!(read["i32"], (DType::I32, Tensor::new([1], vec![-7.0])));
    assert_eq!(read["scalar"], (DType::I64, Tensor::new([], vec![49407.0])));
    Ok(())
}

fn texts_from_windows() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = copy_of_the_model(folder.path())?;
    let mut folders = vec![path.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "json" || ending == "txt") {
                let text = fs::read_to_string(&path)?.replace('\n', "\r\n");
                fs::write(&path, format!("\u{feff}{text}"))?;
            }
        }
    }
    let (own, theirs) = (Model::builtin(), Model::open(&path)?);
    assert_eq!(inspect(&theirs)?.components.len(), 3);
    let settings = |model| Studio::open(model)?.settings(&Request { batch: 1, ..Request::default() });
    assert_eq!(settings(theirs)?.sampler, "ddim");
    let files = |name: &str| own.bytes(&format!("tokenizer/{name}"));
    let text = "a red circle <|endoftext|>";
    let wanted = Tokenizer::from_files("tokenizer", files)?.encode(text)?;
    assert_eq!(Tokenizer::from_folder(&path.join("tokenizer"))?.encode(text)?, wanted);
    let index = "\u{feff}{\"weight_map\": {\"a\": \"one.safetensors\"}}";
    let (_folder, sharded) =
        model(&[("unet/diffusion_pytorch_model.safetensors.index.json", index), ("unet/one.safetensors", "a")]);
    assert_eq!(names(&sharded, "unet")?, ["a"]);
    Ok(())
}

/// Lists of numbers and of texts, which no network reads.
fn vocabulary_in_gguf() -> Result<(), Failed> {
    const COUNT: u64 = 1 << 20;
    let mut bytes = [&b"GGUF\x03\0\0\0"[..], &0u64.to_le_bytes(), &3u64.to_le_bytes()].concat();
    for (key, kind, each) in
        [("a.bytes", 0u32, &[1u8][..]), ("b.scores", 6, &[0; 4]), ("c.tokens", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 120])]
    {
        bytes.extend([&(key.len() as u64).to_le_bytes()[..], key.as_bytes(), &9u32.to_le_bytes()].concat());
        bytes.extend([&kind.to_le_bytes()[..], &COUNT.to_le_bytes(), &each.repeat(COUNT as usize)].concat());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes)?;
    let (opened, bytes) = most(|| Model::open(&path).err().map(|error| error.to_string()));
    let said = opened.unwrap_or_default();
    assert!(said.contains("it has no tensors") && bytes < 1 << 20, "{bytes} bytes: {said}");
    Ok(())
}
