//! Models written anew with smaller weights: matrices of linear layers in blocks of a few bits, the rest in f16.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::f16;
use safetensors::tensor::TensorView;

use super::file::TensorFile;
use super::gguf;
use super::output::{write_atomically, write_with};
use super::quant::Blocks;
use super::unreadable;
use crate::error::{Error, Result};
use crate::tensor::{DType, RawTensor};

/// What matrices are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    F16,
    /// 8 bits and a sixteenth of an f16 scale's cost: 8.5 bits a weight.
    Q8_0,
    /// 4.5 bits a weight.
    Q4_0,
}

impl Encoding {
    /// The blocks of a tensor, if it goes into blocks: matrices whose rows are whole ones. Tables of embeddings do not,
    /// which are looked up and never multiplied.
    fn blocks(self, name: &str, raw: &RawTensor) -> Option<Blocks> {
        let blocks = match self {
            Self::F16 => return None,
            Self::Q8_0 => Blocks::Q8_0,
            Self::Q4_0 => Blocks::Q4_0,
        };
        let whole = raw.shape.rank() == 2 && raw.shape.channels().is_multiple_of(blocks.elements());
        (whole && !name.contains("embedding")).then_some(blocks)
    }
}

/// How a tensor is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Plain(DType),
    Blocks(Blocks),
}

impl Stored {
    fn of(encoding: Encoding, name: &str, raw: &RawTensor) -> Self {
        if matches!(raw.dtype, DType::I32 | DType::I64) {
            return Self::Plain(raw.dtype);
        }
        if let Some(blocks) = encoding.blocks(name, raw) {
            return Self::Blocks(blocks);
        }
        // Vectors are small, and what f16 cannot hold stays as it is.
        let fits = raw.shape.rank() >= 2 && raw.to_f32().iter().all(|v| v.abs() <= f16::MAX.to_f32());
        Self::Plain(if fits { DType::F16 } else { DType::F32 })
    }

    /// Bytes of so many elements.
    pub fn bytes(self, len: usize) -> usize {
        match self {
            Self::Plain(dtype) => len * dtype.size(),
            Self::Blocks(blocks) => len / blocks.elements() * blocks.bytes(),
        }
    }

    fn encode(self, raw: &RawTensor) -> Vec<u8> {
        match self {
            Self::Plain(DType::F16) => raw.to_f32().into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
            Self::Plain(DType::I32 | DType::I64) => raw.bytes.to_vec(),
            Self::Plain(_) => raw.to_f32().into_iter().flat_map(f32::to_le_bytes).collect(),
            Self::Blocks(blocks) => blocks.encoded(&raw.to_f32()),
        }
    }
}

/// Writes a model anew: a checkpoint as one file, `.gguf` or, in f16, `.safetensors`; a diffusers folder as a folder, with
/// whatever else it has.
///
/// # Errors
/// If the model cannot be read, the output cannot be written, or an ending does not fit the encoding.
pub fn convert(from: &Path, to: &Path, encoding: Encoding) -> Result<()> {
    let metadata = fs::metadata(from).map_err(|error| unreadable(from, &error))?;
    if metadata.is_dir() { folder(from, to, encoding) } else { file(from, to, encoding) }
}

fn file(from: &Path, to: &Path, encoding: Encoding) -> Result<()> {
    let ending = to.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match (ending, encoding) {
        ("gguf", _) => as_gguf(&TensorFile::open(from)?, to, encoding),
        ("safetensors", Encoding::F16) => as_safetensors(&TensorFile::open(from)?, to),
        ("safetensors", _) => Err(Error::file(to, "cannot hold blocks: give a name that ends in .gguf")),
        _ => Err(Error::file(to, "should end in .gguf or .safetensors, which tells what to write")),
    }
}

/// Each tensor with how it is to be written.
fn plan(file: &TensorFile, encoding: Encoding) -> BTreeMap<&str, Stored> {
    let stored = |name| Some((name, Stored::of(encoding, name, &file.get(name)?)));
    file.names().filter_map(stored).collect()
}

fn as_gguf(file: &TensorFile, to: &Path, encoding: Encoding) -> Result<()> {
    let plan = plan(file, encoding);
    let tensors = plan.iter().filter_map(|(name, stored)| Some((*name, file.shape(name)?, *stored)));
    let header = gguf::header(file.all_metadata(), &tensors.collect::<Vec<_>>());
    write_with(to, |out| {
        out.write_all(&header)?;
        for (name, stored) in &plan {
            let bytes = file.get(name).map(|raw| stored.encode(&raw)).unwrap_or_default();
            out.write_all(&bytes)?;
            out.write_all(&vec![0; gguf::padding(bytes.len())])?;
        }
        Ok(())
    })
}

fn as_safetensors(file: &TensorFile, to: &Path) -> Result<()> {
    let fail = |error| Error::file(to, format!("cannot be written as safetensors: {error}"));
    let mut tensors = Vec::new();
    for (name, stored) in plan(file, Encoding::F16) {
        let Some(raw) = file.get(name) else { continue };
        let dtype = match stored {
            Stored::Plain(DType::F16) => safetensors::Dtype::F16,
            Stored::Plain(DType::I32) => safetensors::Dtype::I32,
            Stored::Plain(DType::I64) => safetensors::Dtype::I64,
            _ => safetensors::Dtype::F32,
        };
        tensors.push((name, dtype, raw.shape.dims().to_vec(), stored.encode(&raw)));
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| TensorView::new(*dtype, shape.clone(), bytes).map(|view| (*name, view)));
    let views = views.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    let metadata = file.all_metadata().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    write_atomically(to, &safetensors::serialize(views, Some(metadata)).map_err(fail)?)
}

/// Every file of a folder and of those in it: weights anew, the rest as it is. Of weights that are there twice, those of
/// full precision; pickles stay behind.
fn folder(from: &Path, to: &Path, encoding: Encoding) -> Result<()> {
    let unwritable = |error: std::io::Error| Error::file(to, format!("cannot be made: {error}"));
    fs::create_dir_all(to).map_err(unwritable)?;
    let mut names: Vec<_> = fs::read_dir(from)
        .map_err(|error| unreadable(from, &error))?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    for name in names {
        let (path, text) = (from.join(&name), name.to_string_lossy().into_owned());
        if path.is_dir() {
            folder(&path, &to.join(&name), encoding)?;
        } else if let Some(stem) = text.strip_suffix(".safetensors") {
            if !stem.contains("fp16") || !from.join(text.replace(".fp16", "")).exists() {
                let ending = if encoding == Encoding::F16 { "safetensors" } else { "gguf" };
                file(&path, &to.join(format!("{stem}.{ending}")), encoding)?;
            }
        } else if text.ends_with(".index.json") && encoding != Encoding::F16 {
            let index = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
            write_atomically(&to.join(&name), index.replace(".safetensors\"", ".gguf\"").as_bytes())?;
        } else if ![".bin", ".ckpt", ".pt", ".pth"].iter().any(|pickle| text.ends_with(pickle)) {
            let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
            write_atomically(&to.join(&name), &bytes)?;
        }
    }
    Ok(())
}
