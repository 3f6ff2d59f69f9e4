//! A place with a model's files, whatever it is: what components are read from.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::file::TensorFile;
use crate::error::{Error, Result};
use crate::files::{TEXT, read, text};

/// Files by their paths in a model: `unet/config.json`.
pub(super) trait Files {
    /// What error messages call a file; the empty path is the place itself.
    fn path(&self, path: &str) -> PathBuf;

    /// Whether there is this file or folder.
    fn has(&self, path: &str) -> bool;

    /// The contents of a file, `None` if there is none.
    fn bytes(&self, path: &str) -> Result<Option<Cow<'static, [u8]>>>;

    /// One safetensors or GGUF file.
    fn tensors(&self, path: &str) -> Result<TensorFile>;

    /// The names in a folder, sorted; none where it cannot be read. The empty path is the place itself.
    fn list(&self, folder: &str) -> Vec<String>;

    /// Which variant of weights is asked for, where files have several: `fp16`.
    fn variant(&self) -> Option<&str> {
        None
    }
}

/// A JSON file that must be there.
pub(super) fn json<T: DeserializeOwned>(files: &dyn Files, path: &str) -> Result<T> {
    let place = files.path(path);
    let Some(bytes) = files.bytes(path)? else { return Err(Error::file(place, "no such file; download it again")) };
    let text = text(&place, bytes.into_owned())?;
    serde_json::from_str(&text).map_err(|error| Error::file(&place, format!("cannot be understood: {error}")))
}

/// What is left of a path within a folder; nothing of the folder's own. The empty path is the place that all are in.
pub(super) fn within<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(folder)?;
    if rest.is_empty() || folder.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// A folder on the disk: a model's, or that of one component alone, seen as the folder of a model that has only this.
pub(super) struct Folder {
    pub path: PathBuf,
    /// The component, where it is the folder of one: a path in a model, or the empty one.
    pub component: &'static str,
    /// See [`Files::variant`].
    pub variant: Option<String>,
}

impl Folder {
    /// The folder of a model.
    pub fn of_model(path: &Path) -> Self {
        Self::of_component(path, "")
    }

    /// The folder of one component.
    pub fn of_component(path: &Path, component: &'static str) -> Self {
        Self { path: path.to_path_buf(), component, variant: None }
    }

    /// Whether a path in the model is one in this folder.
    pub fn holds(&self, path: &str) -> bool {
        within(path, self.component).is_some()
    }
}

impl Files for Folder {
    fn path(&self, path: &str) -> PathBuf {
        let path = within(path, self.component).unwrap_or(path);
        if path.is_empty() { self.path.clone() } else { self.path.join(path) }
    }

    fn has(&self, path: &str) -> bool {
        // A link that leads nowhere is there, and is named by the error of reading it.
        self.holds(path) && self.path(path).symlink_metadata().is_ok()
    }

    fn bytes(&self, path: &str) -> Result<Option<Cow<'static, [u8]>>> {
        if !self.has(path) {
            return Ok(None);
        }
        Ok(Some(Cow::Owned(read(&self.path(path), TEXT)?)))
    }

    fn tensors(&self, path: &str) -> Result<TensorFile> {
        TensorFile::open_any(&self.path(path))
    }

    fn list(&self, folder: &str) -> Vec<String> {
        if !self.holds(folder) {
            return vec![self.component.into()];
        }
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }
}
