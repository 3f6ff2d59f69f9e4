//! A diffusers folder written anew: its weights converted, the rest as it is.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Encoding, file};
use crate::error::{Error, Result};
use crate::files::{Temporary, read_text, unless_ending, unreadable};
use crate::weights::output::{check_writable, unwritable, write_atomically, write_with};

/// All is written into a new folder, which then takes the name, or whose files then replace those of a folder that is
/// there: so nothing is changed by what fails or is interrupted.
pub(super) fn convert(from: &Path, to: &Path, encoding: Encoding) -> Result<()> {
    let whole = from.canonicalize().map_err(|error| unreadable(from, &error))?;
    let target = std::path::absolute(to).map_err(|error| unwritable(to, &error))?;
    let Some((existing, there)) = target.ancestors().find_map(|folder| Some((folder, folder.canonicalize().ok()?)))
    else {
        return Err(Error::file(to, "cannot be made: no folder above it is there"));
    };
    // What is written would be read as well.
    if there.starts_with(&whole) {
        return Err(Error::file(to, format!("lies in {}; give a folder outside of it", from.display())));
    }
    if !existing.is_dir() {
        return Err(Error::file(to, format!("cannot be made: {} is not a folder", existing.display())));
    }
    let made = Temporary::folder(existing).map_err(|error| unwritable(to, &error))?;
    Conversion { whole: &repository(&whole), encoding }.write(from, made.path())?;
    if existing != target {
        let parent = target.parent().unwrap_or(existing);
        let named = fs::create_dir_all(parent).and_then(|()| made.rename(&target));
        return named.map_err(|error| unwritable(to, &error));
    }
    let mut files = Vec::new();
    list(made.path(), Path::new(""), &mut files).map_err(|error| unwritable(to, &error))?;
    for file in &files {
        fs::create_dir_all(to.join(file).parent().unwrap_or(to)).map_err(|error| unwritable(to, &error))?;
        check_writable(&to.join(file))?;
    }
    let replace = |file: &PathBuf| {
        fs::rename(made.path().join(file), to.join(file)).map_err(|error| unwritable(&to.join(file), &error))
    };
    unless_ending(|| files.iter().try_for_each(replace))
}

/// The folder that links may lead to: the model's own or, of one in Hugging Face's cache (`models--OWNER--NAME`, whose
/// `snapshots/REVISION` links to its `blobs`), all of that model.
fn repository(model: &Path) -> PathBuf {
    let cached =
        |folder: &&Path| folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"models--"));
    let snapshots = model.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "snapshots"));
    snapshots.and_then(Path::parent).filter(cached).unwrap_or(model).to_path_buf()
}

/// The files in a folder and those in it, by their paths from there.
fn list(folder: &Path, below: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() { list(folder, &path, files)? } else { files.push(path) }
    }
    Ok(())
}

struct Conversion<'a> {
    /// What no link leads out of.
    whole: &'a Path,
    encoding: Encoding,
}

impl Conversion<'_> {
    /// Every file of a folder and of those in it: weights anew, the rest as it is. Of weights that are there twice,
    /// those of full precision; pickles stay behind.
    fn write(&self, from: &Path, to: &Path) -> Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(from).map_err(|error| unreadable(from, &error))? {
            names.push(entry.map_err(|error| unreadable(from, &error))?.file_name());
        }
        names.sort();
        for name in names {
            let (path, text) = (from.join(&name), name.to_string_lossy());
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if self.is_folder(&path)? {
                unless_ending(|| fs::create_dir(to.join(&name)))
                    .map_err(|error| unwritable(&to.join(&name), &error))?;
                self.write(&path, &to.join(&name))?;
            } else if ending == "safetensors" {
                if !text.contains("fp16") || !from.join(text.replace(".fp16", "")).exists() {
                    let ending = if self.encoding == Encoding::F16 { "safetensors" } else { "gguf" };
                    file(&path, &to.join(&name).with_extension(ending), self.encoding)?;
                }
            } else if text.ends_with(".index.json") && self.encoding != Encoding::F16 {
                let index = read_text(&path)?.replace(".safetensors\"", ".gguf\"");
                write_atomically(&to.join(&name), index.as_bytes())?;
            } else if !["bin", "ckpt", "pt", "pth"].contains(&ending) {
                copy(&path, &to.join(&name))?;
            }
        }
        Ok(())
    }

    /// Whether this is a folder.
    ///
    /// # Errors
    /// If it is neither that nor a regular file, leads out of the model, or is a folder that it lies in.
    fn is_folder(&self, path: &Path) -> Result<bool> {
        let found = fs::metadata(path).and_then(|metadata| Ok((metadata, path.canonicalize()?)));
        let (metadata, whole) = found.map_err(|error| unreadable(path, &error))?;
        if !whole.starts_with(self.whole) {
            let what = format!("leads to {}, out of the model's folder; put a copy of it there", whole.display());
            return Err(Error::file(path, what));
        }
        let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
        if parent.is_some_and(|parent| metadata.is_dir() && parent.starts_with(&whole)) {
            return Err(Error::file(path, "leads to a folder that it lies in; remove the link"));
        }
        if !metadata.is_dir() && !metadata.is_file() {
            return Err(Error::file(path, "is neither a file nor a folder; remove it"));
        }
        Ok(metadata.is_dir())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut file = File::open(from).map_err(|error| unreadable(from, &error))?;
    write_with(to, |out| io::copy(&mut file, out).map(drop))
}
