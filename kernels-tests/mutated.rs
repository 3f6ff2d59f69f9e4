//! Configurations of models with values changed by chance: each opens, or is an error in one printable line. None is a
//! panic, and none takes much time or memory.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Result as Opened;
use ornstein::inspect::inspect;
use ornstein::models::autoencoder::Autoencoder;
use ornstein::models::config::NetworkConfig;
use ornstein::models::{clip, controlnet, ldm_bert, unet};
use ornstein::rng::Generator;
use ornstein::samplers;
use ornstein::systems::{Request, Studio};
use ornstein::tokenizer::Tokenizer;
use ornstein::weights::Model;
use serde_json::{Map, Value, json};

use crate::allocated::most;
use crate::controlnet::write_for_the_built_in_model;
use crate::networks::data;
use crate::support::{copy_of_the_model, ensure, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        test("mutated::configurations_of_networks_open_or_say_why", configurations_of_networks),
        test("mutated::schedules_are_finite_or_say_why", schedules),
        test("mutated::tokenizers_open_or_say_why", tokenizers),
        test("mutated::model_folders_open_or_say_why", model_folders),
    ]
}

/// Decisions by chance, the same in every run.
struct Chance(Generator);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        // The last bits of a normal are as good as uniform.
        self.0.normal(1)[0].to_bits() as usize % 4093 % n.max(1)
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// A value that a file should not have, or seldom has. What JSON does not have stands between `@`.
    fn odd(&mut self, old: &Value) -> Value {
        let number = old.as_f64().unwrap_or(1.0);
        let values = [
            json!([null, true, false, {}, [], [[]], [null], [0], [1, 2, 3], {"a": {"b": [1, "x"]}}]),
            json!([
                0,
                1,
                2,
                -1,
                0.5,
                1e-300,
                1e300,
                -1e300,
                1_000_000,
                1 << 20,
                (1 << 20) + 1,
                1_u64 << 32,
                u64::MAX,
                i64::MIN
            ]),
            json!([
                "",
                "x",
                "@NaN@",
                "@Infinity@",
                "@-Infinity@",
                "NaN",
                "Infinity",
                "\u{1b}[31m\n\0\u{202e}",
                "x".repeat(20_000)
            ]),
            json!([
                [0, 1],
                [1, 0],
                vec![0; 1000],
                vec![1; 17],
                vec!["x"; 300],
                [1e300, -1e300],
                [old, old],
                {"x": old}
            ]),
            json!([number * 2.0, -number, number / 3.0, old.as_i64().unwrap_or(1) + 1, old.as_i64().unwrap_or(1) * 2]),
        ];
        let kind = self.one_of(&values).as_array().cloned().unwrap_or_default();
        self.one_of(&kind).clone()
    }

    /// Changes one value, or one inside of it, or takes it away.
    fn change(&mut self, value: &mut Value) {
        match value {
            Value::Object(entries) if !entries.is_empty() && self.below(8) > 0 => {
                let keys: Vec<String> = entries.keys().cloned().collect();
                let key = self.one_of(&keys).clone();
                match self.below(8) {
                    0 => _ = entries.remove(&key),
                    1 => _ = entries.insert("surprise\u{1b}".into(), self.odd(&Value::Null)),
                    _ => self.change(&mut entries[&key]),
                }
            }
            Value::Array(list) if !list.is_empty() && self.below(3) > 0 => {
                let place = self.below(list.len());
                match self.below(8) {
                    0 => _ = list.remove(place),
                    _ => self.change(&mut list[place]),
                }
            }
            value => *value = self.odd(value),
        }
    }

    /// The text of a file with one to three changes, of an object's own entries rather than of all.
    fn changed(&mut self, text: &str) -> String {
        let mut file: Value = serde_json::from_str(text).expect("a file of the tests can be understood");
        for _ in 0..=self.below(3) {
            match &mut file {
                Value::Object(entries) if !entries.is_empty() => {
                    let keys: Vec<String> = entries.keys().cloned().collect();
                    let key = self.one_of(&keys);
                    match self.below(20) {
                        0 => self.change(&mut file),
                        _ => self.change(&mut entries[key]),
                    }
                }
                file => self.change(file),
            }
        }
        let mut text = file.to_string().replace("\"@", "").replace("@\"", "");
        if self.below(20) == 0 {
            text.truncate(text.floor_char_boundary(self.below(text.len())));
        }
        text
    }
}

/// Opens something `rounds` times with a change each.
fn each(
    rounds: u64,
    mut open: impl FnMut(&mut Chance) -> (String, Box<dyn FnOnce() -> Opened<()>>),
) -> Result<(), Failed> {
    let mut opened = 0;
    for seed in 0..rounds {
        let (changed, open) = open(&mut Chance(Generator::new(seed)));
        opened += u64::from(judge(open).map_err(|what| format!("{what}, of {seed}: {changed:.3000}"))?);
    }
    ensure(0 < opened && opened < rounds, format!("{opened} of {rounds} open: nothing is tried"))
}

/// Whether it opens, or what is wrong with how it does not.
fn judge(open: impl FnOnce() -> Opened<()>) -> Result<bool, String> {
    let begun = Instant::now();
    let (outcome, bytes) = most(|| catch_unwind(AssertUnwindSafe(open)));
    let error = outcome.map_err(|_| "a panic")?.err().map(|error| error.to_string());
    let said = error.as_deref().unwrap_or("x");
    let unprintable = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
    if said.is_empty() || said.len() >= 2048 || said.contains(unprintable) {
        return Err(format!("a message of {} bytes: {said:?}", said.len()));
    }
    // It takes milliseconds, but for a busy machine.
    if begun.elapsed() > Duration::from_secs(20) || bytes > 256 << 20 {
        return Err(format!("{:?} and {} MiB", begun.elapsed(), bytes >> 20));
    }
    Ok(error.is_none())
}

fn text(path: impl AsRef<Path>) -> Result<String, Failed> {
    let path = path.as_ref();
    Ok(std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?)
}

fn built_in(path: &str) -> Result<String, Failed> {
    Ok(Model::builtin().text(path)?)
}

/// Every network that the configuration describes, as a graph.
fn graphs(component: &str, text: &str) -> Opened<()> {
    match component {
        "unet" => _ = unet::Config::from_json(text, "x")?.graph(1, 8, 8, 1)?.wanted(),
        "controlnet" => _ = controlnet::Config::from_json(text, "x")?.graph(1, 8, 8, 1)?.wanted(),
        "bert" => _ = ldm_bert::Config::from_json(text, "x")?.graph(component, 1, 1)?.wanted(),
        "vae" => _ = Autoencoder::from_json(text, "x")?.wanted("vae")?,
        _ => _ = clip::Config::from_json(text, "x")?.graph(component, 1, 1)?.wanted(),
    }
    Ok(())
}

fn configurations_of_networks() -> Result<(), Failed> {
    let guide = tempfile::tempdir()?;
    write_for_the_built_in_model(&guide.path().join("guide"))?;
    let mut files = vec![("controlnet", text(guide.path().join("guide/config.json"))?)];
    files.push(("vae", text(data("cases/taesd/vae/config.json"))?));
    files.push(("text_encoder_2", text(data("cases/sdxl/text_encoder_2/config.json"))?));
    files.push(("bert", text(data("latent_diffusion/text/bert/config.json"))?));
    files.push(("vae", text(data("latent_diffusion/enlarged/vqvae/config.json"))?));
    for component in ["unet", "vae", "text_encoder"] {
        files.push((component, built_in(&format!("{component}/config.json"))?));
        for family in ["sd1", "sd2", "sdxl"] {
            files.push((component, text(data("cases").join(family).join(component).join("config.json"))?));
        }
    }
    for (component, file) in files {
        graphs(component, &file)?;
        each(150, |chance| {
            let text = chance.changed(&file);
            (format!("{component} {text}"), Box::new(move || graphs(component, &text)))
        })?;
    }
    Ok(())
}

/// The whole schedule in numbers, and what one step makes of others.
fn numbers(name: &str, config: &samplers::Config, steps: usize) -> Opened<Vec<f32>> {
    let mut sampler = samplers::sampler(name, config, steps)?;
    let mut all = [sampler.timesteps(), sampler.sigmas().unwrap_or_default(), &[sampler.init_noise_sigma()]].concat();
    for index in 0..sampler.timesteps().len() {
        all.push(sampler.input_scale(index));
        all.extend(sampler.step(index, &[-0.3, 1.2], &[0.7, 1.1], &mut |n| vec![0.4; n]));
    }
    Ok(all)
}

fn schedules() -> Result<(), Failed> {
    let mut files = vec![built_in("scheduler/scheduler_config.json")?];
    for family in ["sd1", "sd2", "sdxl"] {
        files.push(text(data("cases").join(family).join("scheduler/scheduler_config.json"))?);
    }
    // Keys that these files do not have, of the classes that take the most.
    let more = json!({
        "trained_betas": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "rescale_betas_zero_snr": true, "use_karras_sigmas": true,
        "sigma_min": 0.03, "sigma_max": 14.6, "final_sigmas_type": "zero", "timestep_spacing": "trailing",
        "lambda_min_clipped": -5.1, "solver_order": 2, "algorithm_type": "dpmsolver++", "thresholding": true,
        "sample_max_value": 1.0, "dynamic_thresholding_ratio": 0.995, "original_inference_steps": 50,
    });
    // Without a name it is the file's own.
    let samplers: Vec<&str> = samplers::names().chain([""]).collect();
    each(1500, |chance| {
        let mut file: Map<String, Value> = serde_json::from_str(chance.one_of::<String>(&files)).expect("a schedule");
        for (key, value) in more.as_object().into_iter().flatten() {
            if chance.below(4) == 0 {
                file.insert(key.clone(), value.clone());
            }
        }
        let text = chance.changed(&Value::Object(file).to_string());
        let name = chance.one_of(&samplers).to_string();
        let steps = *chance.one_of(&[1, 2, 5, 6, 20, 999, 1000]);
        let open = {
            let (text, name) = (text.clone(), name.clone());
            move || {
                let config = samplers::Config::from_json(&text, "x")?;
                let name = if name.is_empty() { config.default_sampler()? } else { &name };
                let numbers = numbers(name, &config, steps)?;
                assert!(numbers.iter().all(|number| number.is_finite()), "numbers that are not finite");
                Ok(())
            }
        };
        (format!("{name}, {steps} steps: {text}"), Box::new(open))
    })
}

fn tokenizers() -> Result<(), Failed> {
    let read = |name: &str| built_in(&format!("tokenizer/{name}"));
    let mut files = Vec::new();
    for name in ["vocab.json", "tokenizer_config.json", "special_tokens_map.json"] {
        files.push((name, read(name)?));
    }
    files.push(("added_tokens.json", json!({"<cat>": 2048, "<dog>": 2049}).to_string()));
    let merges = read("merges.txt")?;
    let pairs: Vec<&str> = merges.lines().filter(|line| !line.starts_with('#')).collect();
    let vocabulary: Value = serde_json::from_str(&read("vocab.json")?)?;
    let added = json!([{"id": 2048, "content": "<cat>", "special": false, "lstrip": true}]);
    let whole = json!({"model": {"type": "BPE", "vocab": vocabulary, "merges": pairs}, "added_tokens": added});
    files.push(("tokenizer.json", whole.to_string()));
    each(300, |chance| {
        let (changed, file) = chance.one_of(&files).clone();
        let text = chance.changed(&file);
        let others: Vec<(&str, String)> =
            files.iter().filter(|(name, _)| *name != changed && *name != "tokenizer.json").cloned().collect();
        let (merges, shown) = (merges.clone(), format!("{changed} {text}"));
        let open = move || {
            let tokenizer = Tokenizer::from_files("x", |name| {
                let other = || others.iter().find(|(other, _)| *other == name).map(|(_, text)| text);
                let text = if name == changed {
                    Some(&text)
                } else if name == "merges.txt" {
                    Some(&merges)
                } else {
                    other()
                };
                Ok(text.map(|text| Cow::Owned(text.clone().into_bytes())))
            })?;
            tokenizer.encode_padded("a <cat> red circle <|endoftext|>", 77).map(drop)
        };
        (shown, Box::new(open))
    })
}

fn model_folders() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let model = copy_of_the_model(folder.path())?;
    let mut files = Vec::new();
    for name in ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json"] {
        files.push((name, text(model.join(name))?));
    }
    each(200, |chance| {
        let (name, file) = chance.one_of(&files).clone();
        let (text, model) = (chance.changed(&file), model.clone());
        let shown = format!("{name} {text}");
        let open = move || {
            std::fs::write(model.join(name), text).expect("a file for a test");
            let opened = (|| {
                inspect(&Model::open(&model)?)?;
                let pipeline = Studio::open(Model::open(&model)?)?;
                pipeline.settings(&Request { batch: 1, ..Request::default() }).map(drop)
            })();
            std::fs::write(model.join(name), file).expect("a file for a test");
            opened
        };
        (shown, Box::new(open))
    })
}
