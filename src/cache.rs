//! The folder in which this program keeps what it can make again or fetch again.
//!
//! Floor 0: may import floor 0.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::files::Temporary;

/// `ornstein` in the user's cache folder; `None` where the environment names no home.
pub fn folder() -> Option<PathBuf> {
    folder_from(variable)
}

/// Keeps these bytes in a file of that folder, as a whole or not at all, and on a best-effort basis: what is not kept
/// is made again. Whether they were.
pub fn keep(path: &Path, bytes: &[u8]) -> bool {
    let write = || {
        let folder = path.parent()?;
        std::fs::create_dir_all(folder).ok()?;
        let (beside, mut file) = Temporary::file(folder).ok()?;
        file.write_all(bytes).ok()?;
        beside.rename(path).ok()
    };
    write().is_some()
}

/// An environment variable that names a path.
pub fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// [`folder`], with a way to look at the environment.
pub fn folder_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let cache = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    cache.map(|cache| cache.join("ornstein"))
}
