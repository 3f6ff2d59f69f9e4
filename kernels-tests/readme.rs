//! The commands of the README, as a reader types them: what needs no download runs, the rest gets as far as the file or
//! the model that is not there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;

use crate::cli::text;
use crate::support::{ensure, test};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// How a command line of the README begins.
const BEGINNINGS: [&str; 2] = ["    ornstein ", "    cargo run --release -- "];
/// Words of a command that takes minutes or needs a device: only its options are checked.
const LONG: [&str; 3] = ["validate", "bench", "vulkan"];
/// Words of a command that needs a model or a file that is not in the repository.
const ABSENT: [&str; 5] = ["-m", "--lora", "fetch", "inspect", "convert"];
/// How a message says so.
const MISSING: [&str; 3] = ["no such file or folder", "is a known model, but", "cannot be reached"];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![test("readme::its_commands_run", its_commands_run)]
}

fn its_commands_run() -> Result<(), Failed> {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md"))?;
    let commands: Vec<&str> =
        readme.lines().filter_map(|line| BEGINNINGS.iter().find_map(|start| line.strip_prefix(start))).collect();
    ensure(commands.len() > 20, format!("only {} commands were found", commands.len()))?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("prompts.txt"), "a red circle\n")?;
    let wrong: Vec<_> = commands.iter().filter_map(|command| check(folder.path(), command).err()).collect();
    ensure(wrong.is_empty(), wrong.iter().filter_map(Failed::message).collect::<Vec<_>>().join("\n"))
}

fn check(at: &Path, command: &str) -> Result<(), Failed> {
    let mut words = words(command);
    let has = |of: &[&str]| words.iter().any(|word| of.contains(&word.as_str()));
    let long = has(&LONG);
    let absent = !long && has(&ABSENT);
    if long {
        words.push("--help".into());
    }
    let output = run(at, &words)?;
    let said = text(&output.stderr);
    let expected = if absent {
        output.status.code() == Some(1) && MISSING.iter().any(|missing| said.contains(missing))
    } else {
        output.status.success()
    };
    ensure(expected, format!("{command}: {}: {said}", output.status))
}

/// A run that finds no model of the user's, and reaches no hub.
fn run(at: &Path, words: &[String]) -> Result<Output, Failed> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
    command.current_dir(at).args(words).stdin(Stdio::null());
    Ok(command.env("ORNSTEIN_MODELS", at.join("models")).env("HF_ENDPOINT", "http://127.0.0.1:9").output()?)
}

/// The words of a command line in which double quotes keep blanks together.
fn words(command: &str) -> Vec<String> {
    let quoted = |(i, part): (usize, &str)| -> Vec<String> {
        if i % 2 == 1 { vec![part.into()] } else { part.split_whitespace().map(String::from).collect() }
    };
    command.split('"').enumerate().flat_map(quoted).collect()
}
