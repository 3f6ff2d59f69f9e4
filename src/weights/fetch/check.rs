//! Whether a file is the one that the manifest means.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::body::Size;
use crate::error::{Error, Result};
use crate::files;
use crate::files::{Stranger, stranger};
use crate::weights::file::TensorFile;
use crate::weights::format::gguf;
use crate::weights::{manifest, unreadable};

/// Files of text are small; a vocabulary has a few MB.
const MOST_TEXT: u64 = 64 << 20;
/// The largest checkpoints have a few GB.
const MOST_WEIGHTS: u64 = 64 << 30;

/// How large the file is, or can be at most.
pub fn size(file: &manifest::File) -> Size {
    match (file.bytes, ending(file)) {
        (Some(bytes), _) => Size::Exactly(bytes),
        (None, "safetensors" | "gguf") => Size::AtMost(MOST_WEIGHTS),
        (None, _) => Size::AtMost(MOST_TEXT),
    }
}

/// What is wrong with the file at `path`, as its SHA-256 tells, or its size and structure where the manifest has none.
/// `sums` is called before a sum is computed, which takes a while.
///
/// # Errors
/// If it cannot be read.
pub fn fault(file: &manifest::File, path: &Path, sums: impl FnOnce()) -> Result<Option<String>> {
    let Some(wanted) = &file.sha256 else { return quick_fault(file, path) };
    let fault = first_fault(file, path)?;
    if fault.is_some() {
        return Ok(fault);
    }
    sums();
    let sum = sha256(path)?;
    Ok((*wanted != sum).then(|| format!("has the SHA-256 {sum}, and the manifest's file {wanted}")))
}

/// The same without a sum: by its size and structure alone.
///
/// # Errors
/// As [`fault`].
pub fn quick_fault(file: &manifest::File, path: &Path) -> Result<Option<String>> {
    let fault = first_fault(file, path)?;
    if fault.is_some() {
        return Ok(fault);
    }
    let read = || files::read(path, files::TEXT);
    Ok(match ending(file) {
        "json" => {
            let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(&read()?);
            parsed.err().map(|error| format!("is not JSON: {error}"))
        }
        "txt" => std::str::from_utf8(&read()?).err().map(|_| "is not text in UTF-8".into()),
        "safetensors" => tensors_fault(path, false),
        "gguf" => tensors_fault(path, true),
        _ => None,
    })
}

/// What its length and its first bytes tell.
fn first_fault(file: &manifest::File, path: &Path) -> Result<Option<String>> {
    let bytes = fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    let first = first_bytes(path, 512)?;
    Ok(match (stranger(&first), size(file)) {
        _ if bytes == 0 => Some("is empty".into()),
        (Some(Stranger::LfsPointer), _) => Some("is a git-lfs pointer".into()),
        (Some(Stranger::WebPage), _) => Some("is a web page".into()),
        (Some(Stranger::Picture), _) => Some("is a picture".into()),
        (None, Size::Exactly(wanted)) if bytes != wanted => {
            Some(format!("has {bytes} bytes, and the manifest's file {wanted}"))
        }
        (None, Size::AtMost(most)) if bytes > most => {
            Some(format!("has {bytes} bytes, and a file of its kind at most {most}"))
        }
        _ => None,
    })
}

/// Whether the header can be read, and describes the file to its last byte.
fn tensors_fault(path: &Path, is_gguf: bool) -> Option<String> {
    match first_bytes(path, gguf::MAGIC.len() as u64).and_then(|first| Ok((first, TensorFile::open_any(path)?))) {
        Ok((first, _)) if (first == gguf::MAGIC) != is_gguf => Some("is of another format than its name says".into()),
        Ok((_, tensors)) if tensors.left_over() > 0 => {
            Some(format!("has {} bytes after its last tensor", tensors.left_over()))
        }
        Ok(_) => None,
        Err(Error::File(what)) => Some(what.what),
        Err(error) => Some(error.to_string()),
    }
}

fn ending(file: &manifest::File) -> &str {
    file.path.rsplit_once('.').map_or("", |(_, ending)| ending)
}

fn first_bytes(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}

/// In lower-case hexadecimal.
fn sha256(path: &Path) -> Result<String> {
    let fail = |error| unreadable(path, &error);
    let mut file = File::open(path).map_err(fail)?;
    let mut hasher = Sha256::new();
    let mut buffer = Vec::new();
    while file.by_ref().take(1 << 16).read_to_end(&mut buffer).map_err(fail)? > 0 {
        hasher.update(&buffer);
        buffer.clear();
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with these bytes under this name.
    fn fault_of(name: &str, bytes: &[u8], size: Option<u64>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.part");
        fs::write(&path, bytes).unwrap();
        let file = manifest::File { path: name.into(), bytes: size, sha256: None, agree: None, source: None };
        quick_fault(&file, &path).unwrap().unwrap_or_default()
    }

    /// A safetensors file of two halves.
    fn tensors() -> Vec<u8> {
        let header = br#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#;
        [&(header.len() as u64).to_le_bytes(), &header[..], &[0; 4]].concat()
    }

    #[test]
    fn files_are_what_their_names_say() {
        assert_eq!(fault_of("a/config.json", b"{}", None), "");
        assert_eq!(fault_of("a/merges.txt", "#version: 0.2\né a".as_bytes(), None), "");
        assert_eq!(fault_of("a.safetensors", &tensors(), None), "");
        assert_eq!(fault_of("a.gguf", &gguf_file(0), None), "");
        assert_eq!(fault_of("a.bin", b"x", Some(1)), "");
    }

    #[test]
    fn what_is_not_is_named() {
        for name in ["a.json", "a.txt", "a.safetensors", "a.gguf", "a.bin"] {
            assert_eq!(fault_of(name, b"", None), "is empty");
            assert_eq!(fault_of(name, b"<!DOCTYPE html>", None), "is a web page");
            assert_eq!(fault_of(name, b"version https://git-lfs.github.com/spec/v1", None), "is a git-lfs pointer");
            assert_eq!(fault_of(name, b"x", Some(2)), "has 1 bytes, and the manifest's file 2");
        }
        assert!(fault_of("a.json", b"{\"a\": ", None).starts_with("is not JSON"));
        assert_eq!(fault_of("a.txt", b"\xff\xfe", None), "is not text in UTF-8");
        assert!(fault_of("a.safetensors", &tensors()[..60], None).starts_with("is truncated"));
        assert!(fault_of("a.safetensors", &[&tensors()[..], b"x"].concat(), None).contains("after its last tensor"));
        assert!(fault_of("a.safetensors", &gguf_file(0), None).contains("another format"));
        assert!(fault_of("a.gguf", &tensors(), None).contains("another format"));
        assert!(fault_of("a.gguf", &gguf_file(0)[..70], None).contains("beyond the end"));
        assert_eq!(fault_of("a.gguf", &gguf_file(3), None), "has 3 bytes after its last tensor");
    }

    /// A GGUF file of one tensor of two numbers, and zeros after its padding.
    fn gguf_file(more: usize) -> Vec<u8> {
        let number = |n: u64| n.to_le_bytes();
        let counts = [&3u32.to_le_bytes()[..], &number(1), &number(0)].concat();
        let tensor = [&number(1)[..], b"t", &1u32.to_le_bytes(), &number(2), &0u32.to_le_bytes(), &number(0)].concat();
        let mut file = [gguf::MAGIC, &counts, &tensor].concat();
        file.resize(file.len().next_multiple_of(32) + 32 + more, 0);
        file
    }
}
