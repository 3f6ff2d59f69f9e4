//! One file of tensors, of whatever format, read through a memory map.

mod scaled;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::format::{self, Blocks, Header};
use super::unreadable;
use crate::error::{Error, Result, ten};
use crate::files::{DATA, read};
use crate::tensor::{DType, RawTensor, Shape};

/// The tensors of one file by their stored names.
pub struct TensorFile {
    path: PathBuf,
    bytes: Bytes,
    header: Header,
    /// What weights of eight bits are to be multiplied by.
    scales: BTreeMap<String, Vec<f32>>,
}

/// Those in the binary, a map of the file, or what came through a pipe, of at most [`DATA`] bytes.
type Bytes = Box<dyn AsRef<[u8]> + Send + Sync>;

impl TensorFile {
    /// Maps the file and reads its header.
    ///
    /// # Errors
    /// A file that is missing, unreadable, empty, truncated, no safetensors, or of an element type that is not known.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Self::open_any(path)?;
        file.refuse_unknown_types(|_| true)?;
        Ok(file)
    }

    /// The same, whatever the elements' types: those that are not known are only named.
    pub fn open_any(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if metadata.is_dir() {
            return Err(Error::file(path, "is a folder where a safetensors file is expected"));
        }
        let bytes = if metadata.is_file() { map(path)? } else { Box::new(read(path, DATA)?) };
        Self::parse(path.to_path_buf(), bytes)
    }

    /// The same for a file inside the binary; `path` is what error messages call it.
    pub fn embedded(path: PathBuf, bytes: &'static [u8]) -> Result<Self> {
        Self::parse(path, Box::new(bytes))
    }

    fn parse(path: PathBuf, bytes: Bytes) -> Result<Self> {
        let data = (*bytes).as_ref();
        let mut header = format::parse(data).map_err(|what| Error::file(&path, what))?;
        let scales = scaled::take(&mut header, data);
        Ok(Self { path, bytes, header, scales })
    }

    fn data(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// # Errors
    /// If a tensor that is wanted has a type that is not known.
    pub fn refuse_unknown_types(&self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let found = self.header.unknown.iter().filter(|(name, _)| wanted(name));
        let found: Vec<_> = found.map(|(name, dtype)| format!("{name} ({dtype})")).collect();
        if found.is_empty() {
            return Ok(());
        }
        let what =
            format!("has tensors of a type that is not supported: {}; convert them to f16, bf16 or f32", ten(&found));
        Err(Error::file(&self.path, what))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes lie behind all that the header describes.
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "downloads are checked by it"))]
    pub fn left_over(&self) -> usize {
        self.header.end.map_or(0, |end| self.data().len().saturating_sub(end))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.index.keys().map(String::as_str)
    }

    /// The names of tensors of unknown types too.
    pub fn all_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.header.index.keys().chain(self.header.unknown.keys()).map(String::as_str)
    }

    /// An entry of the header's own table.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata.get(key).map(String::as_str)
    }

    /// Every entry of that table.
    pub fn all_metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.header.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is a tensor of that name, of whatever type.
    pub fn has_any(&self, name: &str) -> bool {
        self.has(name) || self.header.unknown.contains_key(name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.header.index.contains_key(name)
    }

    pub fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        let entry = self.header.index.get(name)?;
        let stored = &self.data()[entry.range.clone()];
        let bytes = entry.blocks.map_or(Cow::Borrowed(stored), |blocks| Cow::Owned(blocks.to_f32(stored)));
        let raw = RawTensor { dtype: entry.dtype, shape: entry.shape.clone(), bytes };
        match self.scales.get(name) {
            Some(scales) => Some(scaled::multiplied(&raw, scales)),
            None => Some(raw),
        }
    }

    /// A tensor's kind of blocks and its bytes, if it is kept in blocks.
    pub fn blocks(&self, name: &str) -> Option<(Blocks, &[u8])> {
        let entry = self.header.index.get(name)?;
        Some((entry.blocks?, &self.data()[entry.range.clone()]))
    }

    pub fn shape(&self, name: &str) -> Option<&Shape> {
        Some(&self.header.index.get(name)?.shape)
    }

    pub fn dtype(&self, name: &str) -> Option<DType> {
        let stored = self.header.index.get(name)?.dtype;
        Some(if self.scales.contains_key(name) { DType::F32 } else { stored })
    }

    /// What its elements are called: `f16`, `q8_0`.
    pub fn stored_as(&self, name: &str) -> Option<String> {
        let entry = self.header.index.get(name)?;
        Some(entry.blocks.map_or_else(|| entry.dtype.to_string(), |blocks| blocks.name().to_string()))
    }
}

fn map(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    // SAFETY: the map is read-only and private to this process, and lives as long as the slices taken from it. What
    // the type system cannot hold is that no other process shortens or rewrites the file meanwhile: rewritten bytes
    // are read as other numbers (every element type accepts any bytes), a shortened file ends this process with
    // SIGBUS, as it does in every program that maps its weights. This program itself never writes into an existing
    // file: it renames a new one over it, which leaves the mapped one whole.
    let map = unsafe { Mmap::map(&file) }.map_err(|error| unreadable(path, &error))?;
    Ok(Box::new(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
    }

    fn message(bytes: Vec<u8>) -> String {
        let file = TensorFile::parse("x.safetensors".into(), Box::new(bytes));
        file.and_then(|file| file.refuse_unknown_types(|_| true)).err().unwrap().to_string()
    }

    const HEADER: &str = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;

    #[test]
    fn a_tensor_is_a_window_of_the_file() {
        let mut data = bytes(HEADER, 24);
        let end = data.len();
        data[end - 4..].copy_from_slice(&1.5f32.to_le_bytes());
        let file = TensorFile::parse("x".into(), Box::new(data)).unwrap();
        let tensor = file.get("a").unwrap();
        assert_eq!((tensor.dtype, tensor.shape.dims()), (DType::F32, &[2, 3][..]));
        assert_eq!(tensor.to_f32(), [0.0, 0.0, 0.0, 0.0, 0.0, 1.5]);
        assert!(file.get("b").is_none());
    }

    #[test]
    fn a_truncated_file_says_how_long_it_should_be() {
        let whole = bytes(HEADER, 24).len();
        let text = message(bytes(HEADER, 20));
        assert!(text.contains(&format!("is truncated: its header describes {whole} bytes, there are {}", whole - 4)));
        assert!(message(bytes(HEADER, 0)[..20].to_vec()).contains("is truncated"));
    }

    #[test]
    fn other_kinds_of_files_are_named() {
        assert!(message(Vec::new()).contains("is empty"));
        for start in [b"PK\x03\x04....", b"\x80\x02\x8a\nl\xfc\x9cF"] {
            let text = message(start.to_vec());
            assert!(text.contains("can run any code") && text.contains("safetensors.torch.save_file"), "{text}");
        }
        assert!(message(b"GGUF\x03\0\0\0".to_vec()).contains("is truncated"));
        assert!(message(b"version https://git-lfs.github.com/spec/v1".to_vec()).contains("git-lfs pointer"));
        assert!(message(b"<!DOCTYPE html>".to_vec()).contains("web page"));
        assert!(message(b"abc".to_vec()).contains("not a safetensors file"));
        assert!(message(vec![0xff; 64]).contains("not a safetensors file"));
        assert!(message(bytes("{]", 0)).contains("not a safetensors file"));
    }

    #[test]
    fn an_unknown_element_type_names_its_tensor() {
        let header = r#"{"a.b":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}"#;
        assert!(message(bytes(header, 8)).contains("a.b (F64)"));
        let file = TensorFile::parse("x".into(), Box::new(bytes(header, 8))).unwrap();
        assert!(file.refuse_unknown_types(|name| name != "a.b").is_ok());
    }

    #[test]
    fn a_header_that_contradicts_itself_is_refused() {
        let header = r#"{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,24]}}"#;
        assert!(message(bytes(header, 24)).contains("not a safetensors file"));
        let huge = r#"{"a":{"dtype":"F32","shape":[9223372036854775807,9],"data_offsets":[0,24]}}"#;
        assert!(message(bytes(huge, 24)).contains("not a safetensors file"));
    }
}
