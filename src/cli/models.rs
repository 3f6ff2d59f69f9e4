//! `ornstein models`

use std::ffi::OsString;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{print, print_json};
use crate::error::{Error, Result, ten};
use crate::inspect::{Inspection, inspect, verify};
use crate::weights::Model;
use crate::weights::fetch::{HUB, Hub, Progress, fetch};
use crate::weights::manifest::{self, Kind};

#[derive(Debug, Args)]
pub(super) struct Models {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the models that have a name, and which of them are on this machine
    List {
        /// One JSON document instead of text
        #[arg(long)]
        json: bool,
    },
    /// Download a model that has a name into the folder of models, $ORNSTEIN_MODELS or ~/.cache/ornstein/models
    ///
    /// What was interrupted goes on where it stopped. HF_ENDPOINT names a mirror of https://huggingface.co to take
    /// instead; HF_TOKEN is sent to huggingface.co alone, for models that ask who you are.
    Fetch {
        /// A name from `ornstein models list`
        name: String,
    },
    /// Tell what a model is: its family, components, parameters and their types
    Inspect {
        /// A checkpoint, a diffusers folder, or a name from `ornstein models list`
        model: OsString,
        /// One JSON document instead of text
        #[arg(long)]
        json: bool,
    },
    /// Look at every tensor of a model: whether it is there, of the right shape, and finite
    Verify {
        /// A checkpoint, a diffusers folder, or a name from `ornstein models list`
        model: OsString,
    },
}

impl Models {
    pub(super) fn run(self) -> Result<()> {
        match self.command {
            Command::List { json } => list(json),
            Command::Fetch { name } => fetch_named(&name),
            Command::Inspect { model, json } => {
                let found = inspect(&Model::resolve(Some(&model))?)?;
                if json { print_json(&json!(found)) } else { print(text(&found).as_bytes()) }
            }
            Command::Verify { model } => {
                // Printed once all is known: a model that is not whole is an error and nothing else.
                let mut lines = String::new();
                verify(&Model::resolve(Some(&model))?, &mut |part| {
                    lines += &format!("{:<15} {} tensors are whole\n", part.component, part.tensors);
                })?;
                print(lines.as_bytes())
            }
        }
    }
}

/// Whether the model of this name can be opened, with the weights that every model has.
fn is_here(name: &str) -> bool {
    let whole = |model: Model| ["text_encoder", "unet", "vae"].iter().all(|component| model.weights(component).is_ok());
    Model::resolve(Some(name.as_ref())).is_ok_and(whole)
}

fn list(as_json: bool) -> Result<()> {
    if as_json {
        let row =
            |entry: &manifest::Entry| json!({"name": entry.name, "about": entry.about, "here": is_here(&entry.name)});
        return print_json(&json!({"models": manifest::entries().iter().map(row).collect::<Vec<_>>()}));
    }
    let row = |entry: &manifest::Entry| {
        let here = if is_here(&entry.name) { "here" } else { "" };
        format!("{:<32} {here:<5} {}\n", entry.name, entry.about)
    };
    print(manifest::entries().iter().map(row).collect::<String>().as_bytes())
}

fn fetch_named(name: &str) -> Result<()> {
    let entry = manifest::find(name).ok_or_else(|| {
        let names: Vec<&str> = manifest::entries().iter().map(|entry| entry.name.as_str()).collect();
        Error::usage(format!("no model is called {name}; known are {}", names.join(", ")))
    })?;
    if entry.kind == Kind::BuiltIn {
        super::tell(&format!("{name} is part of the program: there is nothing to fetch"));
        return Ok(());
    }
    let folder = manifest::models_folder().ok_or_else(|| {
        Error::usage("this machine names no home folder; set ORNSTEIN_MODELS to the folder that shall hold your models")
    })?;
    let folder = folder.join(&entry.name);
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let url = variable("HF_ENDPOINT").unwrap_or_else(|| HUB.into());
    let hub = Hub { url: url.trim_end_matches('/').into(), token: variable("HF_TOKEN") };
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{bar:32} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left, {msg}")
            .unwrap_or(ProgressStyle::default_bar()),
    );
    let mut tell = |progress: Progress| match progress {
        Progress::Here(path) => bar.suspend(|| super::tell(&format!("{} is here", path.display()))),
        Progress::Bytes(path, done, all) => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            bar.set_message(file.trim_end_matches(".part").to_string());
            bar.set_length(all.unwrap_or(done));
            bar.set_position(done);
        }
    };
    let fetched = fetch(entry, &folder, &hub, &mut tell);
    bar.finish_and_clear();
    fetched?;
    print(format!("{}\n", folder.display()).as_bytes())
}

fn text(found: &Inspection) -> String {
    let mut text = format!("{}: {}\n", found.model, found.family.unwrap_or("a part of a model"));
    if let Some(prediction) = &found.prediction {
        let because = found.prediction_because.as_ref().map(|why| format!(", because {why}")).unwrap_or_default();
        text += &format!("predicts {prediction}{because}\n");
    }
    for part in &found.components {
        let millions = part.parameters as f64 / 1e6;
        let dtypes = part.dtypes.keys().cloned().collect::<Vec<_>>().join(", ");
        text += &format!("{:<15} {millions:8.1} M  {dtypes:<9} {}\n", part.component, part.about);
    }
    if found.left_out > 0 {
        text += &format!("{} tensors are left out: no network of this family reads them\n", found.left_out);
    }
    if !found.unknown.is_empty() {
        text += &format!("{} tensors are not known: {}\n", found.unknown.len(), ten(&found.unknown));
    }
    text
}
