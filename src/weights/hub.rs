//! Folders of Hugging Face's cache: `models--OWNER--NAME` has `refs/BRANCH`, which name a folder in `snapshots`, whose
//! files are links to `blobs`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::read_text;

/// What names of such folders begin with.
const START: &str = "models--";

/// The snapshot that a model's folder in the cache means; `None` of other folders.
///
/// # Errors
/// If it has none, or several and no main branch; or it is the cache itself.
pub(super) fn snapshot(folder: &Path) -> Result<Option<PathBuf>> {
    let (snapshots, main) = (folder.join("snapshots"), folder.join("refs/main"));
    if !snapshots.is_dir() {
        let models = listed(folder).into_iter().filter(|path| name(path).is_some());
        return match models.min() {
            Some(model) if folder.file_name().is_some_and(|name| name == "hub") => {
                let what = format!("is Hugging Face's cache; give the folder of one model, as {}", model.display());
                Err(Error::file(folder, what))
            }
            _ => Ok(None),
        };
    }
    if main.exists() {
        let path = snapshots.join(read_text(&main)?.trim());
        let inside = path.parent() == Some(&snapshots) && path.is_dir();
        let what = format!("names the snapshot {}, which is not there; download the model again", path.display());
        return if inside { Ok(Some(path)) } else { Err(Error::file(main, what)) };
    }
    match &listed(&snapshots)[..] {
        [one] => Ok(Some(one.clone())),
        [] => Err(Error::file(snapshots, "is empty; download the model again")),
        [first, ..] => {
            let what = format!("has several snapshots, and there is no refs/main; give one, as {}", first.display());
            Err(Error::file(snapshots, what))
        }
    }
}

/// The model's name, of its folder in the cache.
pub(super) fn name(folder: &Path) -> Option<String> {
    Some(folder.file_name()?.to_str()?.strip_prefix(START)?.replace("--", "/"))
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
