//! `ornstein models`

use clap::{Args, Subcommand};
use serde_json::json;

use super::{print, print_json};
use crate::error::{Result, ten};
use crate::inspect::{Inspection, inspect, verify};
use crate::weights::Model;
use crate::weights::manifest;

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
    /// Tell what a model is: its family, components, parameters and their types
    Inspect {
        /// A checkpoint, a diffusers folder, or a name from `ornstein models list`
        model: String,
        /// One JSON document instead of text
        #[arg(long)]
        json: bool,
    },
    /// Look at every tensor of a model: whether it is there, of the right shape, and finite
    Verify {
        /// A checkpoint, a diffusers folder, or a name from `ornstein models list`
        model: String,
    },
}

impl Models {
    pub(super) fn run(self) -> Result<()> {
        match self.command {
            Command::List { json } => list(json),
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

fn list(as_json: bool) -> Result<()> {
    let is_here = |name: &str| Model::resolve(Some(name)).is_ok();
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
