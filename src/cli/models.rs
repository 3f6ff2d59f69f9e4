//! `ornstein models`

mod list;

use std::ffi::OsString;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::json;

use super::{flag, print, print_json};
use crate::error::{Error, Field, Result, are, counted, instead, message, short, ten};
use crate::image::Picture;
use crate::inspect::{Inspection, inspect, verify};
use crate::network::Executor;
use crate::systems::{Part, Request, Settings, Studio};
use crate::weights::Model;
use crate::weights::fetch::{self, HUB, Hub, Patience, Progress};
use crate::weights::manifest;

#[derive(Debug, Args)]
pub(super) struct Models {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the models that have a name: size, memory to draw, licence, and which of them are on this machine: every
    /// file of the right size and kind
    List {
        /// One JSON document instead of text
        #[arg(long)]
        json: bool,
    },
    /// Download a model that has a name into the folder of models, $ORNSTEIN_MODELS or ~/.cache/ornstein/models
    ///
    /// What was interrupted goes on where it stopped, and what is damaged is fetched again. HF_ENDPOINT names a mirror
    /// of https://huggingface.co to take instead; HF_TOKEN is sent to huggingface.co alone, for models that ask who
    /// you are. The empty file .lock in the model's folder keeps two runs from fetching into it at once.
    Fetch {
        /// A name from `ornstein models list`, as sd15-checkpoint-fp16 or sdxl-checkpoint
        name: Option<String>,
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
            Command::List { json } => list::list(json),
            Command::Fetch { name } => fetch_named(name.as_deref()),
            Command::Inspect { model, json } => {
                let model = Model::resolve(Some(&model))?;
                let found = inspect(&model)?;
                if json { print_json(&json!(found)) } else { print((text(&found) + &drawing(model)).as_bytes()) }
            }
            Command::Verify { model } => {
                // Printed once all is known: a model that is not whole is an error and nothing else.
                let mut lines = String::new();
                verify(&Model::resolve(Some(&model))?, &mut |part| {
                    lines += &format!("{:<15} {} whole\n", part.component, are(part.tensors, "tensor"));
                })?;
                print(lines.as_bytes())
            }
        }
    }
}

fn fetch_named(name: Option<&str>) -> Result<()> {
    let name = name.ok_or_else(|| {
        let begin = list::BEGIN.join(" or ");
        Error::usage(format!("which model? give {begin} to begin with, or another name from `ornstein models list`"))
    })?;
    let entry = manifest::find(name).ok_or_else(|| {
        let names = manifest::entries().iter().map(|entry| entry.name.as_str());
        Error::usage(format!("no model is called {name}; {}", instead(name, names)))
    })?;
    if entry.repository.is_none() {
        // Where it is not, the error says where it comes from.
        Model::resolve(Some(name.as_ref()))?;
        super::tell(&format!("{name} is here: there is nothing to fetch"));
        return Ok(());
    }
    let folder = manifest::models_folder()
        .ok_or_else(|| Error::usage("this machine names no home folder; set ORNSTEIN_MODELS to a folder for models"))?;
    let folder = folder.join(&entry.name);
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let url = variable("HF_ENDPOINT").unwrap_or_else(|| HUB.into());
    let token = variable("HF_TOKEN");
    let hub = Hub { url: url.trim_end_matches('/').into(), token, patience: Patience::default() };
    let bar = super::bar(0, "{bar:32} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left, {msg}");
    let fetched = fetch::fetch(entry, &folder, &hub, &mut |progress| show(progress, &bar));
    bar.finish_and_clear();
    fetched?;
    print(format!("{}\n", folder.display()).as_bytes())
}

fn show(progress: Progress, bar: &ProgressBar) {
    let line = match progress {
        Progress::Bytes(path, done, all) => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            bar.set_message(short(file.trim_end_matches(".part")));
            bar.set_length(all.unwrap_or(done));
            bar.set_position(done);
            return;
        }
        Progress::Waits(folder) => format!("another process fetches into {}: waiting for it", folder.display()),
        Progress::Checks(path) => format!("{}: computing its SHA-256", path.display()),
        Progress::Here(path) => format!("{} is here", path.display()),
        Progress::Replaces(path, fault) => format!("{}: {fault}; it is fetched again", path.display()),
        Progress::Again(path, pause, why) => format!("{}: {why}; asking again in {pause:.0?}", path.display()),
    };
    bar.suspend(|| super::tell(&line));
}

/// What a picture by the model's defaults runs, if it draws any.
fn drawing(model: Model) -> String {
    let draws = model.has("unet");
    let open = || {
        let studio = Studio::open(model)?;
        let mut request = Request::default();
        if studio.settings(&request).is_err() && studio.row().takes(Field::InitImage) {
            // What works on a picture is shown one.
            let side = 512;
            request.init_image =
                Some(Picture { width: side, height: side, rgb: vec![0; 3 * side * side], parameters: None });
        }
        let Settings { width, height, steps, sampler, .. } = studio.settings(&request)?;
        let parts = studio.parts(&Executor::Cpu, &request)?;
        Ok::<_, Error>((
            studio.row().classes[0],
            format!("{width}x{height}, {} of {sampler}", counted(steps, "step")),
            parts,
        ))
    };
    let (class, settings, parts) = match open() {
        Ok(drawing) => drawing,
        Err(error) => {
            return if draws { format!("draws nothing by default: {}\n", error.said(flag)) } else { String::new() };
        }
    };
    let part = |part: &Part| match part.times {
        1 => part.what.clone(),
        times => format!("{} x{times}", part.what),
    };
    let parts = parts.iter().map(part).collect::<Vec<_>>().join(", ");
    format!("draws as {class}, by default {settings}: {parts}\n")
}

fn text(found: &Inspection) -> String {
    let what = found.family.or(found.class.as_deref()).unwrap_or("a part of a model");
    let mut text = format!("{}: {}\n", short(&found.model), short(what));
    if let Some(prediction) = &found.prediction {
        let because = found.prediction_because.as_ref().map(|why| format!(", because {}", message(why)));
        text += &format!("predicts {}{}\n", short(prediction), because.unwrap_or_default());
    }
    if found.ends_in_pure_noise {
        text += "its noise schedule ends in pure noise\n";
    }
    for part in &found.components {
        let millions = part.parameters as f64 / 1e6;
        let dtypes = part.dtypes.keys().cloned().collect::<Vec<_>>().join(", ");
        text += &format!("{:<15} {millions:8.1} M  {dtypes:<9} {}\n", part.component, part.about);
    }
    for (folder, class) in &found.others {
        text += &format!("{folder:<15} {class}, which is not built\n");
    }
    if found.left_out > 0 {
        text += &format!("{} left out, which no network of this family reads\n", are(found.left_out, "tensor"));
    }
    if !found.unknown.is_empty() {
        text += &format!("{} not known: {}\n", are(found.unknown.len(), "tensor"), message(ten(&found.unknown)));
    }
    text
}
