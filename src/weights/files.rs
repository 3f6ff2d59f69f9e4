//! A place with a model's files, whatever it is: what components are read from.

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;

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
}

/// A JSON file that must be there.
pub(super) fn json<T: DeserializeOwned>(files: &dyn Files, path: &str) -> Result<T> {
    let place = files.path(path);
    let Some(bytes) = files.bytes(path)? else { return Err(Error::file(place, "no such file; download it again")) };
    let text = text(&place, bytes.into_owned())?;
    serde_json::from_str(&text).map_err(|error| Error::file(&place, format!("cannot be understood: {error}")))
}

/// A folder on the disk.
pub(super) struct Folder(pub PathBuf);

impl Files for Folder {
    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.0.clone() } else { self.0.join(path) }
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    fn bytes(&self, path: &str) -> Result<Option<Cow<'static, [u8]>>> {
        let path = self.path(path);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(Cow::Owned(read(&path, TEXT)?)))
    }

    fn tensors(&self, path: &str) -> Result<TensorFile> {
        TensorFile::open(&self.path(path))
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// The folder of one component alone, seen as the folder of a model that has only this.
pub(super) struct Alone {
    pub folder: Folder,
    pub component: &'static str,
}

impl Alone {
    /// A path in the model's folder as one in the component's.
    pub fn inside<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.component)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }
}

impl Files for Alone {
    fn path(&self, path: &str) -> PathBuf {
        self.folder.path(self.inside(path).unwrap_or(path))
    }

    fn has(&self, path: &str) -> bool {
        self.inside(path).is_some_and(|path| self.folder.has(path))
    }

    fn bytes(&self, path: &str) -> Result<Option<Cow<'static, [u8]>>> {
        self.inside(path).map_or(Ok(None), |path| self.folder.bytes(path))
    }

    fn tensors(&self, path: &str) -> Result<TensorFile> {
        self.folder.tensors(self.inside(path).unwrap_or(path))
    }

    fn list(&self, folder: &str) -> Vec<String> {
        match self.inside(folder) {
            Some(folder) => self.folder.list(folder),
            None => vec![self.component.into()],
        }
    }
}
