//! The files in the user's cache folder that tell of one adapter.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use crate::cache;
use crate::caps::Caps;

/// Where what is known of an adapter with its backend and driver is kept.
#[derive(Debug, Clone)]
pub(super) struct Store {
    folder: PathBuf,
    id: u64,
}

impl Store {
    /// None where there is no cache folder.
    pub fn of(caps: &Caps) -> Option<Self> {
        Some(Self::below(folder()?, caps))
    }

    pub fn below(folder: PathBuf, caps: &Caps) -> Self {
        Self { folder, id: hash(&(&caps.name, &caps.backend, &caps.driver)) }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The ending of its files of a kind.
    pub fn ending(&self, kind: &str) -> String {
        format!("{:016x}.{kind}", self.id)
    }

    /// Its file of a kind.
    pub fn file(&self, kind: &str) -> PathBuf {
        self.folder.join(self.ending(kind))
    }

    /// Does what no other process may come between.
    pub fn locked<T>(&self, work: impl FnOnce() -> T) -> T {
        locked(&self.folder, work)
    }
}

/// The folder with the files of all adapters; `None` where there is no cache folder.
pub(super) fn folder() -> Option<PathBuf> {
    Some(cache::folder()?.join("kernels"))
}

/// Does what no other process may come between. Where a folder cannot be locked, it is done without a lock: what is
/// kept there can be found out again.
pub(super) fn locked<T>(folder: &Path, work: impl FnOnce() -> T) -> T {
    let _held = lock(folder).ok();
    work()
}

fn lock(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let file = File::options().create(true).append(true).open(folder.join("lock"))?;
    file.lock()?;
    Ok(file)
}

pub(super) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
