//! Latent diffusion of 2021 against diffusers (`data/make_latent_diffusion.py`): its networks alone, whole pictures,
//! and its texts' tokens.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Result as Opened;
use ornstein::forward::forward;
use ornstein::image::{Picture, decode};
use ornstein::inspect::inspect;
use ornstein::network::Executor;
use ornstein::systems::{Pictures, Request, Studio};
use ornstein::tensor::Tensor;
use ornstein::tokenizer::Tokenizer;
use ornstein::weights::{Changes, Model, read_tensors};
use serde::Deserialize;
use serde_json::json;

use crate::networks::{NETWORK, PICTURE, data, on_each_executor, within};
use crate::support::{ensure, test};

/// A model and a network of it.
const NETWORKS: [(&str, &str); 5] = [
    ("unconditional", "vqvae-encoder"),
    ("unconditional", "vqvae-decoder"),
    ("enlarged", "vqvae-encoder"),
    ("enlarged", "vqvae-decoder"),
    ("text", "bert"),
];
const PROMPT: &str = "A café, two Foxes & 狐";

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (model, pass) in NETWORKS {
        let title = format!("latent_diffusion::{model}::{pass}");
        trials.extend(on_each_executor(&title, move |executor, kind| network(model, pass, executor, NETWORK[kind])));
    }
    for (model, cases) in cases().expect("pictures.json can be read") {
        for name in cases.into_keys() {
            let (title, model) = (format!("latent_diffusion::{model}::{name}"), model.clone());
            trials.extend(on_each_executor(&title, move |executor, kind| {
                picture(&model, &name, executor, PICTURE[kind])
            }));
        }
    }
    trials.extend([
        test("latent_diffusion::a_picture_is_the_decoded_latents", a_picture_is_the_decoded_latents),
        test("latent_diffusion::the_class_decides_the_steps", the_class_decides),
        test("latent_diffusion::a_picture_to_enlarge_is_asked_for", a_picture_is_asked_for),
        test("latent_diffusion::what_a_system_does_not_take_is_refused", what_is_not_taken_is_refused),
        test("latent_diffusion::networks_that_do_not_fit_each_other_are_refused", misfits_are_refused),
        test("latent_diffusion::such_models_are_of_no_family", no_family),
        test("latent_diffusion::texts_become_the_tokens_of_transformers", tokens),
        test("latent_diffusion::a_vocabulary_in_one_file_is_the_same", one_file),
        test("latent_diffusion::a_tokenizers_files_are_named_in_errors", tokenizer_errors),
    ]);
    trials
}

fn folder(model: &str) -> PathBuf {
    data("latent_diffusion").join(model)
}

/// How a picture was drawn.
#[derive(Debug, Deserialize)]
struct Case {
    steps: usize,
    eta: Option<f64>,
    guidance: Option<f32>,
    sampler: Option<String>,
    width: Option<usize>,
    height: Option<usize>,
}

/// Models with their pictures.
type Cases = BTreeMap<String, BTreeMap<String, Case>>;

fn cases() -> Result<Cases, Failed> {
    Ok(serde_json::from_str(&std::fs::read_to_string(folder("pictures.json"))?)?)
}

fn tensors(model: &str, file: &str) -> Result<BTreeMap<String, Tensor>, Failed> {
    let tensors = read_tensors(&folder(model).join(format!("{file}.safetensors")))?;
    Ok(tensors.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
}

fn network(model: &str, pass: &str, executor: &Executor, limit: f64) -> Result<(), Failed> {
    let inputs = tensors(model, &format!("{pass}.inputs"))?;
    let opened = Model::open(&folder(model))?;
    let outputs = pollster::block_on(forward(&opened, &Changes::default(), pass, inputs, executor, &mut |_| {}))?;
    for (name, wanted) in tensors(model, &format!("{pass}.outputs"))? {
        let output = outputs.get(&name).ok_or_else(|| format!("there is no output {name}"))?;
        within(&name, output, &wanted, limit)?;
    }
    Ok(())
}

fn small() -> Result<Picture, Failed> {
    Ok(decode("small.png", &std::fs::read(folder("enlarged/small.png"))?)?)
}

fn draw(model: &str, name: &str, executor: &Executor) -> Result<Pictures, Failed> {
    let case = &cases()?[model][name];
    let request = Request {
        prompt: if model == "text" { PROMPT.into() } else { String::new() },
        steps: Some(case.steps),
        eta: case.eta,
        guidance: case.guidance,
        sampler: case.sampler.clone(),
        width: case.width,
        height: case.height,
        init_image: if model == "enlarged" { Some(small()?) } else { None },
        seed: 7,
        batch: if model == "enlarged" { 1 } else { 2 },
        ..Request::default()
    };
    let studio = Studio::open(Model::open(&folder(model))?)?;
    Ok(pollster::block_on(studio.generate(executor, &request, &AtomicBool::new(false), &mut |_| {}))?)
}

fn picture(model: &str, name: &str, executor: &Executor, limit: f64) -> Result<(), Failed> {
    let wanted = &tensors(model, "pictures")?[&format!("{name}.state")];
    within("state", &draw(model, name, executor)?.latents, wanted, limit)
}

/// By rounding alone: an entry of a codebook that is another would be seen.
fn a_picture_is_the_decoded_latents() -> Result<(), Failed> {
    for model in ["unconditional", "text", "enlarged"] {
        let wanted = tensors(model, "pictures")?["ddim.picture"].to_channels_last()?;
        let drawn = draw(model, "ddim", &Executor::Cpu)?;
        let bytes = drawn.pictures.iter().flat_map(|picture| picture.rgb.iter().copied().map(f32::from));
        let far = bytes.zip(&wanted.data).map(|(byte, value)| (byte - 255.0 * value).abs()).fold(0.0, f32::max);
        ensure(far < 0.6, format!("{model}: a pixel is {far} of 255 off"))?;
    }
    Ok(())
}

fn the_class_decides() -> Result<(), Failed> {
    let image = Request { init_image: Some(small()?), ..Request::default() };
    for (model, request, steps, size) in [
        ("unconditional", Request::default(), 50, [16, 16]),
        ("text", Request { prompt: "x".into(), ..Request::default() }, 50, [32, 32]),
        // Sides of 70 and 35 pixels are cut to multiples of 32 before they are doubled.
        ("enlarged", image, 100, [128, 64]),
    ] {
        let settings = Studio::open(Model::open(&folder(model))?)?.settings(&request)?;
        assert_eq!((settings.sampler.as_str(), settings.steps, settings.guidance), ("ddim", steps, 1.0));
        assert_eq!([settings.width, settings.height], size);
    }
    Ok(())
}

fn refused(model: &str, request: &Request) -> Result<String, Failed> {
    let studio = Studio::open(Model::open(&folder(model))?)?;
    let error = studio.parts(&Executor::Cpu, request).err().ok_or("nothing was refused")?;
    Ok(error.to_string())
}

fn a_picture_is_asked_for() -> Result<(), Failed> {
    let error = refused("enlarged", &Request::default())?;
    ensure(error.contains("enlarges a picture") && error.contains("give init image"), error)?;
    let image = Picture { width: 64, height: 31, rgb: vec![0; 3 * 64 * 31], parameters: None };
    let error = refused("enlarged", &Request { init_image: Some(image), ..Request::default() })?;
    ensure(error.contains("init image is 64x31 pixels; each side needs at least 32"), error)
}

fn what_is_not_taken_is_refused() -> Result<(), Failed> {
    let error = refused("unconditional", &Request { prompt: "x".into(), ..Request::default() })?;
    ensure(error.contains("prompt is not for a LDMPipeline, which takes width, height"), error)?;
    let error = refused("enlarged", &Request { width: Some(64), ..Request::default() })?;
    ensure(error.contains("width is not for a LDMSuperResolutionPipeline, which takes init image"), error)?;
    let error = refused("text", &Request { negative: Some("x".into()), ..Request::default() })?;
    ensure(error.contains("negative is not for a LDMTextToImagePipeline, which takes prompt"), error)?;
    let mut weighted = Request { prompt: "x".into(), ..Request::default() };
    weighted.conditioning.syntax = ornstein::conditioning::Syntax::Weighted;
    let error = refused("text", &weighted)?;
    ensure(error.contains("prompts are plain text"), error)
}

/// The message for a copy of a model of which one key of a configuration is another.
fn changed(model: &str, path: &str, key: &str, value: serde_json::Value) -> Result<String, Failed> {
    let at = tempfile::tempdir()?;
    for part in ["unet", "vqvae", "scheduler", "bert", "tokenizer"].iter().filter(|p| folder(model).join(p).exists()) {
        std::fs::create_dir(at.path().join(part))?;
        for entry in std::fs::read_dir(folder(model).join(part))? {
            let path = entry?.path();
            std::fs::copy(&path, at.path().join(part).join(path.file_name().unwrap_or_default()))?;
        }
    }
    std::fs::copy(folder(model).join("model_index.json"), at.path().join("model_index.json"))?;
    let path = at.path().join(path);
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config[key] = value;
    std::fs::write(&path, config.to_string())?;
    let error = Studio::open(Model::open(at.path())?).err().ok_or("nothing was refused")?;
    Ok(error.to_string())
}

fn misfits_are_refused() -> Result<(), Failed> {
    for (model, path, key, value, said) in [
        ("unconditional", "vqvae/config.json", "latent_channels", json!(4), "need 4 and 4"),
        ("unconditional", "unet/config.json", "num_class_embeds", json!(3), "asks for a class"),
        ("enlarged", "unet/config.json", "in_channels", json!(7), "need 6 and 3"),
        ("text", "unet/config.json", "cross_attention_dim", json!(32), "the text encoder gives 24"),
        ("text", "bert/config.json", "max_position_embeddings", json!(76), "texts have 77 tokens"),
        ("text", "bert/config.json", "architectures", json!(["CLIPTextModel"]), "supported: LDMBertModel"),
    ] {
        let error = changed(model, path, key, value)?;
        ensure(error.contains(said), format!("{path}, {key}: {error}"))?;
    }
    Ok(())
}

fn no_family() -> Result<(), Failed> {
    for (model, class) in [("unconditional", "LDMPipeline"), ("text", "LDMTextToImagePipeline")] {
        let found = inspect(&Model::open(&folder(model))?)?;
        assert_eq!((found.family, found.class.as_deref()), (None, Some(class)));
    }
    Ok(())
}

/// Texts under one way to configure the vocabulary.
#[derive(Debug, Deserialize)]
struct Way {
    options: serde_json::Value,
    cases: Vec<Text>,
}

#[derive(Debug, Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    padded: Vec<u32>,
}

fn ways() -> Result<Vec<Way>, Failed> {
    Ok(serde_json::from_str(&std::fs::read_to_string(folder("tokens.json"))?)?)
}

fn from(files: &[(&str, String)]) -> Opened<Tokenizer> {
    let find = |name: &str| files.iter().find(|(known, _)| *known == name);
    Tokenizer::of_word_pieces("here", |name| Ok(find(name).map(|(_, text)| Cow::Borrowed(text.as_bytes()))))
}

fn vocabulary() -> Result<String, Failed> {
    Ok(std::fs::read_to_string(folder("text/tokenizer/vocab.txt"))?)
}

fn check(tokenizer: &Tokenizer, way: &Way) -> Result<(), Failed> {
    for Text { text, ids, padded } in &way.cases {
        let found = (tokenizer.encode(text)?, tokenizer.encode_padded(text, 77)?.0);
        ensure(
            found == (ids.clone(), padded.clone()),
            format!("{:?}: {text:?} is {found:?}, not {ids:?}", way.options),
        )?;
    }
    Ok(())
}

fn tokens() -> Result<(), Failed> {
    for way in ways()? {
        let options = ("tokenizer_config.json", way.options.to_string());
        check(&from(&[("vocab.txt", vocabulary()?), options])?, &way)?;
    }
    Ok(())
}

fn one_file() -> Result<(), Failed> {
    let ids: BTreeMap<_, _> = vocabulary()?.lines().map(String::from).zip(0..).collect();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].iter().enumerate();
    let added: Vec<_> = special.map(|(id, content)| json!({"id": id, "content": content, "special": true})).collect();
    let file = json!({"added_tokens": added, "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": ids}});
    check(&from(&[("tokenizer.json", file.to_string())])?, &ways()?[0])
}

fn tokenizer_errors() -> Result<(), Failed> {
    let message = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.to_string())).collect();
        from(&files).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(message(&[]).starts_with("here/vocab.txt: no such file, and no tokenizer.json either"));
    assert!(message(&[("vocab.txt", "a\nb\n")]).contains("`[CLS]` is not in the vocabulary"));
    let bpe = r#"{"model": {"type": "BPE", "vocab": {}}}"#;
    assert!(message(&[("tokenizer.json", bpe)]).contains("is a BPE tokenizer; this text encoder's is WordPiece"));
    let config = ("tokenizer_config.json", r#"{"do_lower_case": "no"}"#);
    let error = message(&[("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]"), config]);
    ensure(error.starts_with("here/tokenizer_config.json: cannot be understood"), error)
}
