//! Downloading the files of a known model.
//!
//! A file grows beside its place under a name that ends in `.part`, and takes its own once it is the manifest's: by
//! its SHA-256, or where that is not known by its size and structure (`check`). What was interrupted goes on where it
//! stopped, if there is a sum or a revision to tell that both halves are of one file. One process at a time works on a
//! model (`lock`). What a server answers is interpreted in [`answer`] and [`body`], which know no network.

pub mod answer;
pub mod body;
mod check;
mod lock;
mod receive;

use std::fs;
use std::path::Path;
use std::time::Duration;

use self::receive::{Client, Download};
use super::manifest::Entry;
use super::output::unwritable;
use crate::error::{Error, Result};

/// Where models are published, if nothing else is said.
pub const HUB: &str = "https://huggingface.co";

/// A place that models are downloaded from.
#[derive(Debug, Clone)]
pub struct Hub {
    /// [`HUB`], or a mirror of it.
    pub url: String,
    /// What tells the hub who asks. It is sent to huggingface.co alone.
    pub token: Option<String>,
    /// When to give up.
    pub patience: Patience,
}

/// How long a hub that does not answer well is borne with.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Without a byte for this long, a connection is given up.
    pub idle: Duration,
    /// How often a file is asked for again without one more byte of it.
    pub tries: u32,
    /// Before the first of these; each next one is twice as long.
    pub pause: Duration,
    /// The longest time to wait that a hub may ask for.
    pub wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { idle: seconds(60), tries: 5, pause: seconds(1), wait: seconds(600) }
    }
}

/// What happens on the way, for the one who shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Another process fetches into this folder; this one goes on after it.
    Waits(&'a Path),
    /// The SHA-256 of this file is computed, which takes a while.
    Checks(&'a Path),
    /// This file is here already.
    Here(&'a Path),
    /// What lies under the name of this file is not it, for this reason, and will be replaced.
    Replaces(&'a Path, &'a str),
    /// This many bytes of this file are here, of this many if that is known.
    Bytes(&'a Path, u64, Option<u64>),
    /// This file is asked for again after this time, for this reason.
    Again(&'a Path, Duration, &'a str),
}

/// Downloads into `folder` those of a model's files that are not there yet, or are not what the manifest says.
///
/// # Errors
/// If the hub cannot be reached or does not give a file, a file is not what the manifest says, or it cannot be
/// written.
pub fn fetch(entry: &Entry, folder: &Path, hub: &Hub, tell: &mut dyn FnMut(Progress)) -> Result<()> {
    let _lock = lock::lock(folder, || tell(Progress::Waits(folder)))?;
    let client = Client::new(hub);
    for file in &entry.files {
        let path = folder.join(&file.path);
        if path.exists() {
            match check::fault(file, &path, || tell(Progress::Checks(&path)))? {
                None => {
                    tell(Progress::Here(&path));
                    continue;
                }
                Some(fault) => tell(Progress::Replaces(&path, &plain(&fault))),
            }
        }
        let url = entry.url(&hub.url, file).ok_or_else(|| Error::file(&entry.name, "is published nowhere"))?;
        let part = path.with_added_extension("part");
        // Otherwise nothing tells that two halves are of one file.
        let resumable = file.sha256.is_some() || entry.revision.is_some();
        Download { client: &client, file, url: &url, part: &part, resumable }.run(tell)?;
        fs::rename(&part, &path).map_err(|error| unwritable(&path, &error))?;
    }
    Ok(())
}

/// Whether a folder has all of a model's files, of the right sizes and structures. Their sums would take too long.
pub fn is_here(entry: &Entry, folder: &Path) -> bool {
    entry.files.iter().all(|file| matches!(check::quick_fault(file, &folder.join(&file.path)), Ok(None)))
}

/// A text that comes from elsewhere, as a part of a message: without control characters, and not too long.
fn plain(text: &str) -> String {
    const MOST: usize = 600;
    let mut plain: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        plain.push_str("..");
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_elsewhere_is_short_and_of_one_line() {
        assert_eq!(plain("a\r\n\u{1b}[2Jb"), "a???[2Jb");
        assert!(plain(&"é".repeat(100_000)).len() < 1500);
    }
}
