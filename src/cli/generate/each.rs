//! Options that differ from picture to picture: those of a line of a prompts file, or of a place in a grid.

use clap::FromArgMatches;
use clap::error::ErrorKind;
use clap::parser::ValueSource;

use super::Generate;
use crate::cli::{command, one_line};
use crate::error::{Error, Result};

/// Those that may: they are the request's, and not the model's, the device's or the files'.
pub(super) const OWN: &[&str] = &[
    "class",
    "clip-skip",
    "eta",
    "extend",
    "guidance",
    "guidance-rescale",
    "height",
    "hires",
    "hires-mode",
    "hires-strength",
    "image-guidance",
    "init-image",
    "init-latents",
    "inpaint-full-res",
    "mask",
    "mask-blur",
    "mask-invert",
    "negative",
    "noise-level",
    "prediction",
    "refiner-start",
    "rng",
    "sampler",
    "schedule",
    "seed",
    "spacing",
    "steps",
    "strength",
    "variation-seed",
    "variation-strength",
    "width",
];

impl Generate {
    /// The same command with these options behind its own, which they replace.
    ///
    /// # Errors
    /// If one is not an option, its value is none, or it cannot differ from picture to picture.
    pub(super) fn with(&self, options: &[String]) -> Result<Self> {
        let cli = command().mut_subcommand("generate", |command| command.args_override_self(true));
        let fail = |error: clap::Error| match error.kind() {
            ErrorKind::DisplayHelp => Error::usage("--help stands on the command line alone"),
            _ => Error::usage(one_line(&error)),
        };
        // What they lack may stand on the command line; what is wrong with them is said below.
        let alone = ["ornstein", "generate"].into_iter().chain(options.iter().map(String::as_str));
        let given = cli.clone().ignore_errors(true).try_get_matches_from(alone).map_err(fail)?;
        let given = given.subcommand_matches("generate").ok_or_else(|| Error::usage("is not one of generate"))?;
        for arg in cli.find_subcommand("generate").into_iter().flat_map(|command| command.get_arguments()) {
            let is_set = given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
            match arg.get_long() {
                Some(name) if is_set && !OWN.contains(&name) => {
                    let what =
                        format!("--{name} is the same for all pictures of a call: it stands on the command line");
                    return Err(Error::usage(what));
                }
                None if is_set => {
                    let what = "there is text behind the options: the prompt comes first, in a line without quotes";
                    return Err(Error::usage(what));
                }
                _ => {}
            }
        }
        // What was drawn by chance stays; what is behind `--` is not an option.
        let own = self.words.iter().position(|word| word == "--").unwrap_or(self.words.len());
        let mut words = self.words[..own].to_vec();
        words.push(format!("--seed={}", self.seed).into());
        words.extend(self.editing.seed_of_variation().map(|seed| format!("--variation-seed={seed}").into()));
        words.extend(options.iter().map(Into::into));
        words.extend_from_slice(&self.words[own..]);
        let matches = cli.try_get_matches_from(&words).map_err(fail)?;
        let matches = matches.subcommand_matches("generate").ok_or_else(|| Error::usage("is not one of generate"))?;
        let own = Self::from_arg_matches(matches).map_err(fail)?;
        Ok(Self { words: self.words.clone(), ..own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_differ_is_an_option() {
        let cli = command();
        let options: Vec<_> =
            cli.find_subcommand("generate").unwrap().get_arguments().filter_map(|arg| arg.get_long()).collect();
        let missing: Vec<_> = OWN.iter().filter(|name| !options.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
