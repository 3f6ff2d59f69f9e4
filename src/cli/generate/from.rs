//! `--from`: the options that made a picture, from the parameters in its file, as this program and AUTOMATIC1111's web
//! UI write them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use clap::FromArgMatches;
use clap::parser::ValueSource;

use super::{Generate, read_picture};
use crate::cli::{command, one_line, warn};
use crate::error::{Error, Result};
use crate::weights::manifest;

/// What tells of a picture, and makes no other.
const TOLD: &[&str] =
    &["Version", "Model", "Model hash", "VAE", "VAE hash", "Lora hashes", "TI hashes", "Schedule type"];

/// What a file's parameters say.
#[derive(Debug, PartialEq)]
struct Parameters {
    prompt: String,
    negative: Option<String>,
    keys: BTreeMap<String, String>,
}

impl Parameters {
    /// `None` for what is not in this form.
    fn read(text: &str) -> Option<Self> {
        let (texts, line) = match text.trim_end().rsplit_once('\n') {
            Some((texts, line)) => (texts, line),
            None => ("", text.trim_end()),
        };
        let keys = keys(line);
        if !keys.contains_key("Steps") {
            return None;
        }
        const NEGATIVE: &str = "Negative prompt:";
        let (prompt, negative) = match texts.find(NEGATIVE).filter(|at| *at == 0 || texts[..*at].ends_with('\n')) {
            None => (texts, None),
            Some(at) => (&texts[..at], Some(texts[at + NEGATIVE.len()..].trim().to_string())),
        };
        Some(Self { prompt: prompt.trim().into(), negative, keys })
    }

    fn key(&self, name: &str) -> Option<&str> {
        self.keys.get(name).map(String::as_str)
    }

    /// The options that say the same, and the keys that none says.
    fn options(&self) -> (Vec<(&'static str, String)>, Vec<String>) {
        let is_own = self.key("Version").is_some_and(|version| version.starts_with("ornstein"));
        let (prompt, tags) = without_tags(&self.prompt);
        let mut options = vec![("prompt", self.prompt.clone())];
        options.extend(self.negative.clone().map(|negative| ("negative", negative)));
        let brackets = [Some(&self.prompt), self.negative.as_ref()].into_iter().flatten();
        let has_brackets = brackets.into_iter().any(|text| text.contains(['(', '[']));
        let is_weighted = self.key("Emphasis") != Some("None") && (!is_own || has_brackets);
        options.push(("prompt-syntax", if is_weighted { "weighted" } else { "plain" }.into()));
        let mut unread: Vec<String> = Vec::new();
        if !is_weighted {
            // A plain prompt has no tags: they tell of the files that were given with it.
            options[0].1 = prompt;
            unread.extend(tags);
        }
        let hires = self.keys.contains_key("Hires upscale");
        // The web UI draws on the GPU unless it says otherwise.
        let rng = match self.key("RNG") {
            Some("CPU") => "cpu",
            _ => "cuda",
        };
        options.push(("rng", rng.into()));
        options.extend(
            self.key("Schedule type").filter(|name| *name != "Automatic").map(|name| ("schedule", called(name))),
        );
        for (key, value) in &self.keys {
            let option = match key.as_str() {
                "Steps" => "steps",
                "Sampler" => "sampler",
                "CFG scale" => "guidance",
                "CFG rescale" => "guidance-rescale",
                "Image CFG scale" => "image-guidance",
                "Seed" => "seed",
                "Clip skip" => "clip-skip",
                "Timestep spacing" => "spacing",
                "Prediction" => "prediction",
                "Eta" | "Eta DDIM" => "eta",
                "Noise level" => "noise-level",
                "Denoising strength" if hires => "hires-strength",
                "Denoising strength" => "strength",
                "Hires upscale" => "hires",
                "Hires upscaler" => {
                    options.push(("hires-mode", value.to_lowercase()));
                    continue;
                }
                "Mask blur" => "mask-blur",
                "Masked area padding" => "inpaint-full-res",
                "Extended by" => "extend",
                "Variation seed" => "variation-seed",
                "Variation seed strength" => "variation-strength",
                "Refiner switch at" => "refiner-start",
                "Size" => {
                    if let Some((width, height)) = value.split_once('x') {
                        options.extend([("width", width.into()), ("height", height.into())]);
                    }
                    continue;
                }
                "RNG" | "Emphasis" | "Inpaint area" => continue,
                told if TOLD.contains(&told) => continue,
                other => {
                    unread.push(other.into());
                    continue;
                }
            };
            options.push((option, value.clone()));
        }
        (options, unread)
    }
}

/// What says how a given picture is edited, and nothing without one.
const OF_A_PICTURE: &[&str] =
    &["strength", "mask-blur", "inpaint-full-res", "extend", "image-guidance", "noise-level", "refiner-start"];

/// A prompt without its `<lora:..>` tags, and those.
fn without_tags(prompt: &str) -> (String, Vec<String>) {
    let (mut text, mut tags, mut rest) = (String::new(), Vec::new(), prompt);
    while let Some((before, tag)) = rest.split_once("<lora:").and_then(|(before, after)| {
        let (tag, after) = after.split_once('>')?;
        rest = after;
        Some((before, tag))
    }) {
        text += before;
        tags.push(format!("<lora:{tag}>"));
    }
    ((text + rest).trim().into(), tags)
}

/// A schedule's name as `--schedule` has it.
fn called(name: &str) -> String {
    name.to_lowercase().replace([' ', '-'], "_")
}

/// `key: value, ..`, of which a value that would break the line is a JSON string.
fn keys(line: &str) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    let mut rest = line.trim();
    while let Some((key, after)) = rest.split_once(':') {
        let after = after.trim_start();
        let mut quoted = serde_json::Deserializer::from_str(after).into_iter::<String>();
        let (value, used) = match quoted.next() {
            Some(Ok(value)) if after.starts_with('"') => (value, quoted.byte_offset()),
            _ => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().into(), end)
            }
        };
        keys.insert(key.trim().into(), value);
        rest = after[used..].trim_start_matches([',', ' ']);
    }
    keys
}

impl Generate {
    /// The same command with the options that made that picture, unless it has its own.
    ///
    /// # Errors
    /// If the file is not a picture with parameters, or one of them is not known here.
    pub(super) fn like(self, path: &Path) -> Result<Self> {
        let picture = read_picture(path)?;
        let parameters = picture.parameters.as_deref().and_then(Parameters::read).ok_or_else(|| {
            Error::file(path, "holds no parameters of a picture; give one that this program or the web UI has written")
        })?;
        let cli = command();
        let fail = |error: clap::Error| Error::usage(one_line(&error));
        let matches = cli.clone().try_get_matches_from(&self.words).map_err(fail)?;
        let given = matches.subcommand_matches("generate").ok_or_else(|| Error::usage("is not one of generate"))?;
        let generate = cli.find_subcommand("generate").ok_or_else(|| Error::usage("is not one of generate"))?;
        let is_given = |option: &str| {
            let arg = generate.get_arguments().find(|arg| arg.get_long() == Some(option));
            arg.is_some_and(|arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine))
        };
        let has_prompt = self.prompt.is_some() || self.prompt_option.is_some() || self.prompts.is_some();
        let (mut options, mut unread) = parameters.options();
        // What edits a picture needs that picture, and a refiner its model.
        let without = |option: &str| match option {
            "refiner-start" => self.refiner.is_none(),
            _ => self.init_image.is_none(),
        };
        options.retain(|(option, _)| {
            let left = OF_A_PICTURE.contains(option) && without(option);
            unread.extend(left.then(|| format!("--{option}")));
            !left
        });
        options.retain(|(option, _)| !(is_given(option) || has_prompt && *option == "prompt"));
        if let Some(made_with) = parameters.key("Model").filter(|_| !is_given("model")) {
            // The built-in model needs no name.
            let is_known = manifest::entries().iter().any(|entry| entry.name == made_with);
            match is_known {
                true => options.push(("model", made_with.into())),
                false => warn(&format!("{} was made with {made_with:?}; give that as --model", path.display())),
            }
        }
        if !unread.is_empty() {
            warn(&format!("not taken from {}: {}", path.display(), unread.join(", ")));
        }
        let words = options.into_iter().map(|(option, value)| OsString::from(format!("--{option}={value}")));
        let (first, rest) = self.words.split_at(2.min(self.words.len()));
        let words: Vec<_> = first.iter().cloned().chain(words).chain(rest.iter().cloned()).collect();
        let matches = cli.try_get_matches_from(&words).map_err(|error| fail(error).on(path.display()))?;
        let matches = matches.subcommand_matches("generate").ok_or_else(|| Error::usage("is not one of generate"))?;
        Ok(Self { words, ..Self::from_arg_matches(matches).map_err(fail)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> (Vec<String>, Vec<String>) {
        let parameters = Parameters::read(text).unwrap();
        let (options, unread) = parameters.options();
        (options.into_iter().map(|(option, value)| format!("{option}={value}")).collect(), unread)
    }

    #[test]
    fn a_web_uis_picture_says_its_options() {
        let text = "a (cat:1.2),\na dog\nNegative prompt: fog\nSteps: 20, Sampler: DPM++ 2M, Schedule type: \
                    SGM Uniform, CFG scale: 7.5, Seed: 5, Size: 512x768, Model hash: abc, Model: x, \
                    Lora hashes: \"a: b, c: d\", Clip skip: 2, Tiling: True, Version: v1.10.1";
        let (said, unread) = options(text);
        let wanted = [
            "prompt=a (cat:1.2),\na dog",
            "negative=fog",
            "prompt-syntax=weighted",
            "rng=cuda",
            "schedule=sgm_uniform",
            "guidance=7.5",
            "clip-skip=2",
            "sampler=DPM++ 2M",
            "seed=5",
            "width=512",
            "height=768",
            "steps=20",
        ];
        assert_eq!(
            (said.iter().map(String::as_str).collect::<Vec<_>>(), unread),
            (wanted.into(), vec!["Tiling".into()])
        );
    }

    #[test]
    fn the_tags_of_a_plain_prompt_are_not_its_text() {
        let (said, unread) = options("a <lora:x:0.8> cat <lora:y:1>\nSteps: 2, Version: ornstein 0.1.0");
        assert_eq!((said[0].as_str(), unread), ("prompt=a  cat", vec!["<lora:x:0.8>".into(), "<lora:y:1>".into()]));
    }

    #[test]
    fn what_is_not_in_this_form_is_not_taken_for_it() {
        for text in ["", "a cat", "a cat\nSampler: Euler", "{\"prompt\": 1}"] {
            assert_eq!(Parameters::read(text), None, "{text}");
        }
    }
}
