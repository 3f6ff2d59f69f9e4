//! `--schedule`: a name, or a file of sigmas.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Field, Remedy, Result, instead};
use crate::files::read_text_of;
use crate::samplers::{self, SPACINGS, Sigmas};

#[derive(Debug, Args)]
pub(super) struct SigmasArg {
    #[arg(long, value_name = "NAME|FILE", help = help())]
    schedule: Option<PathBuf>,
}

fn help() -> String {
    let names = Sigmas::names().collect::<Vec<_>>().join(", ");
    format!(
        "How noise falls from step to step: {names}; {}, as --spacing; or a text file of sigmas, one for each step \
         [default: the model's]",
        SPACINGS.join(", ")
    )
}

impl SigmasArg {
    /// The sigmas, or a spacing of timesteps.
    ///
    /// # Errors
    /// If it is not a name, and not a file of sigmas.
    pub fn read(&self) -> Result<(Option<Sigmas>, Option<&str>)> {
        let Some(given) = &self.schedule else { return Ok((None, None)) };
        let name = given.to_str().unwrap_or_default();
        if let Some(spacing) = SPACINGS.into_iter().find(|spacing| *spacing == name.to_lowercase()) {
            return Ok((None, Some(spacing)));
        }
        if let Some(sigmas) = Sigmas::called(name) {
            return Ok((Some(sigmas), None));
        }
        if !given.exists() && given.components().count() == 1 && given.extension().is_none() {
            if let Ok((sampler, _)) = samplers::called(name) {
                let what = format!("{name} is a sampler");
                return Err(Error::usage(what).of(Field::Schedule).remedies([Remedy::set(Field::Sampler, sampler)]));
            }
            let names: Vec<String> = Sigmas::names().collect();
            let known = instead(name, names.iter().map(String::as_str).chain(SPACINGS));
            let what = format!("{name:?} is not the name of a schedule, and there is no such file; {known}");
            return Err(Error::usage(what).of(Field::Schedule));
        }
        let listed = Sigmas::listed(&read_text_of(given, "a name, or a text file of sigmas, one for each step")?);
        Ok((Some(listed.map_err(|error| error.on(given.display()))?), None))
    }
}
