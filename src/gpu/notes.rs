//! Notes of what a process is about to give a driver. They are taken back when that has gone well, so a note whose
//! process is gone names the kernels that it did not survive.
//!
//! A process has a file of its own for each device that it opens, and holds its lock for as long as it lives. So a file
//! that can be locked is of a process that is dead. It gets the name by which others find it after it was locked.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use super::store::Store;
use super::verdicts::Id;
use crate::files::{TEXT, Temporary, read_from};

/// How the files' names end.
pub(super) const KIND: &str = "running";

/// A process's notes on one device.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// None where they cannot be kept.
    store: Option<Store>,
    /// Whether they outlast the machine too, which a hardware device may bring down.
    durable: bool,
    file: Option<(Temporary, File)>,
    /// What runs now, as often as it does.
    running: Vec<Id>,
    /// Bytes of the longest text so far.
    longest: usize,
}

impl Notes {
    pub fn new(store: Option<Store>, durable: bool) -> Self {
        Self { store, durable, ..Self::default() }
    }

    /// Notes that these are about to run.
    pub fn add(&mut self, ids: &[Id]) {
        let new = ids.iter().any(|id| !self.running.contains(id));
        self.running.extend_from_slice(ids);
        if new {
            self.write();
        }
    }

    /// Takes it back.
    pub fn take_back(&mut self, ids: &[Id]) {
        for id in ids {
            if let Some(place) = self.running.iter().position(|running| running == id) {
                self.running.swap_remove(place);
            }
        }
        if ids.iter().any(|id| !self.running.contains(id)) {
            self.write();
        }
    }

    /// Lets go of the file as a process does that dies.
    #[cfg(test)]
    pub fn abandon(self) {
        if let Some((temporary, _)) = self.file {
            std::mem::forget(temporary);
        }
    }

    /// Nothing can be done where it fails: without notes a crash is not remembered.
    fn write(&mut self) {
        if self.file.is_none() {
            self.file = self.store.as_ref().and_then(|store| create(store, self.durable).ok());
        }
        let (Some((_, file)), Ok(mut text)) = (&mut self.file, serde_json::to_vec(&self.running)) else { return };
        // One call writes the whole, so that another thread's crash does not come between the old and the new text.
        self.longest = self.longest.max(text.len());
        text.resize(self.longest, b' ');
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&text));
        if self.durable && written.is_ok() {
            _ = file.sync_data();
        }
    }
}

fn create(store: &Store, durable: bool) -> io::Result<(Temporary, File)> {
    fs::create_dir_all(store.folder())?;
    let (temporary, file) = Temporary::file(store.folder())?;
    file.try_lock()?;
    let name = temporary.path().with_extension(store.ending(KIND));
    let named = temporary.called(&name)?;
    if durable {
        // The name too, where folders can be opened.
        _ = File::open(store.folder()).and_then(|folder| folder.sync_all());
    }
    Ok((named, file))
}

/// Hands over what the notes of dead processes name, then removes them: those in files whose names end so. The folder
/// must be locked.
pub(super) fn of_the_dead(folder: &Path, ending: &str, mut hand_over: impl FnMut(Id)) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if !path.to_string_lossy().ends_with(ending) {
            continue;
        }
        // The process of a file that is locked lives.
        let Some(file) = File::open(&path).ok().filter(|file| file.try_lock().is_ok()) else { continue };
        let names = read_from(&file, &path, TEXT).ok().and_then(|text| serde_json::from_slice(&text).ok());
        names.unwrap_or_else(Vec::new).into_iter().for_each(&mut hand_over);
        _ = fs::remove_file(&path);
    }
}
