//! The command line as a careless user meets it: exit status, one helpful line, no half-written file.

mod drawn;
mod hints;
mod many;
mod misplaced;
mod outputs;
mod refused;
#[cfg(unix)]
mod signals;
mod told;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};
use ornstein::image::encode_png;

use crate::support::{ensure, test};

/// Gets an empty folder.
type Check = fn(&Path) -> Result<(), Failed>;

/// The tests of a list, by name.
fn in_folders(checks: &[(&str, Check)]) -> Vec<Trial> {
    let in_a_folder = |(name, check): &(&str, Check)| {
        let check = *check;
        test(format!("cli::{name}"), move || {
            let folder = tempfile::tempdir()?;
            check(folder.path())
        })
    };
    checks.iter().map(in_a_folder).collect()
}

pub fn ornstein(at: &Path, arguments: &[&str]) -> Result<Output, Failed> {
    Ok(command(at, arguments).output()?)
}

fn command(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
    // Without the defaults of whoever runs the tests.
    command.current_dir(at).args(arguments).stdin(Stdio::null()).env("ORNSTEIN_CONFIG", "");
    command
}

/// A quick picture on the CPU.
pub fn draw(at: &Path, arguments: &[&str]) -> Result<Output, Failed> {
    let mut all = vec!["generate", "--device", "cpu", "--steps", "2"];
    all.extend(arguments);
    let output = ornstein(at, &all)?;
    if output.status.success() { Ok(output) } else { Err(format!("failed: {}", text(&output.stderr)).into()) }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The command ends with this status and one line that holds `words`, and leaves no file that was not there.
pub fn refused(at: &Path, arguments: &[&str], status: i32, words: &[&str]) -> Result<(), Failed> {
    let before = files(at)?;
    let output = ornstein(at, arguments)?;
    let said = text(&output.stderr);
    // The line that tells of the CPU is a notice, not the error.
    let errors: Vec<_> = said.lines().filter(|line| !line.contains("computing on the CPU")).collect();
    ensure(output.status.code() == Some(status), format!("status {:?}: {said}", output.status.code()))?;
    ensure(errors.len() == 1, format!("not one line: {said}"))?;
    let printable = |line: &&str| line.len() < 2048 && !line.contains(char::is_control);
    ensure(errors.iter().all(printable), format!("not printable: {said:?}"))?;
    for word in words {
        ensure(said.contains(word), format!("{word} is not in: {said}"))?;
    }
    ensure(output.stdout.is_empty(), format!("stdout holds {}", text(&output.stdout)))?;
    ensure(files(at)? == before, format!("files left behind: {:?}", files(at)?))
}

fn files(at: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut files: Vec<_> = std::fs::read_dir(at)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    Ok(files)
}

fn write_picture(path: &Path) -> Result<(), Failed> {
    let rgb: Vec<u8> = (0..3 * 9 * 7).map(|i| i as u8).collect();
    Ok(std::fs::write(path, encode_png(9, 7, &rgb, "")?)?)
}
