//! Models written anew with smaller weights: matrices of linear layers in blocks of a few bits, the rest in f16.

mod folder;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;
use std::{fs, iter};

use half::f16;
use safetensors::tensor::{Metadata, TensorInfo};

use super::file::TensorFile;
use super::format::safetensors::TYPES;
use super::format::{Blocks, Form, gguf};
use super::output::write_with;
use super::unreadable;
use crate::error::{Error, Result};
use crate::files::identity;
use crate::tensor::{DType, RawTensor, Shape};

/// What matrices are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 16 bits a weight.
    F16,
    /// 8.5 bits a weight: 8, and a scale in f16 for every 32.
    Q8_0,
    /// 4.5 bits a weight: 4, and a scale in f16 for every 32.
    Q4_0,
}

impl Encoding {
    /// The blocks of a tensor, if it goes into blocks: matrices whose rows are whole ones. Tables of embeddings do
    /// not, which are looked up and never multiplied.
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
fn form(encoding: Encoding, name: &str, raw: &RawTensor) -> Form {
    if matches!(raw.dtype, DType::I32 | DType::I64) {
        return Form::Plain(raw.dtype);
    }
    if let Some(blocks) = encoding.blocks(name, raw) {
        return Form::Blocks(blocks);
    }
    // Vectors are small, and what f16 cannot hold stays as it is.
    let fits = raw.shape.rank() >= 2 && raw.to_f32().iter().all(|v| v.abs() <= f16::MAX.to_f32());
    Form::Plain(if fits { DType::F16 } else { DType::F32 })
}

fn encoded(form: Form, raw: &RawTensor) -> Vec<u8> {
    match form {
        Form::Plain(DType::F16) => raw.to_f32().into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
        Form::Plain(DType::I32 | DType::I64) => raw.bytes.to_vec(),
        Form::Plain(_) => raw.to_f32().into_iter().flat_map(f32::to_le_bytes).collect(),
        Form::Blocks(blocks) => blocks.encoded(&raw.to_f32()),
    }
}

/// Writes a model anew: a checkpoint as one file, `.gguf` or, in f16, `.safetensors`; a diffusers folder as a folder,
/// with whatever else it has. The folder is there once all of it is.
///
/// # Errors
/// If the model cannot be read, the output cannot be written, is the input or a folder in it, an ending does not fit
/// the encoding, or a link in the folder leads out of it.
pub fn convert(from: &Path, to: &Path, encoding: Encoding) -> Result<()> {
    let metadata = fs::metadata(from).map_err(|error| unreadable(from, &error))?;
    if metadata.is_dir() {
        return folder::convert(from, to, encoding);
    }
    if identity(from) == identity(to) {
        return Err(Error::file(to, "is the file to convert: give another name to write to"));
    }
    file(from, to, encoding)
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

/// A tensor to be written: its name, its shape and how.
type Written<'a> = (&'a str, &'a Shape, Form);

/// The tensors of a file, by name.
fn plan(file: &TensorFile, encoding: Encoding) -> Vec<Written<'_>> {
    let entry = |name| Some((name, file.shape(name)?, form(encoding, name, &file.get(name)?)));
    file.names().filter_map(entry).collect()
}

fn as_gguf(file: &TensorFile, to: &Path, encoding: Encoding) -> Result<()> {
    let tensors = plan(file, encoding);
    write_tensors(file, to, &gguf::header(file.all_metadata(), &tensors), &tensors, gguf::padding)
}

/// The format wants the elements of each tensor where they are aligned: so the wide ones are first.
fn as_safetensors(file: &TensorFile, to: &Path) -> Result<()> {
    let mut tensors = plan(file, Encoding::F16);
    tensors.sort_by_key(|(_, _, form)| Reverse(form.bytes(1)));
    let mut end = 0;
    let infos = tensors.iter().map(|(name, shape, form)| {
        let start = end;
        end += form.bytes(shape.len());
        let known = TYPES.iter().find(|(_, dtype)| Form::Plain(*dtype) == *form);
        let dtype = known.map_or(safetensors::Dtype::F32, |(stored, _)| *stored);
        let info = TensorInfo { dtype, shape: shape.dims().to_vec(), data_offsets: (start, end) };
        ((*name).to_string(), info)
    });
    let metadata = file.all_metadata().map(|(key, value)| (key.to_string(), value.to_string()));
    let metadata: HashMap<_, _> = metadata.collect();
    // safetensors 0.8 makes no JSON of an empty table in a file without tensors.
    let metadata = Some(metadata).filter(|metadata| !metadata.is_empty());
    let header = Metadata::new(metadata, infos.collect()).map_err(|error| error.to_string());
    let header = header.and_then(|header| serde_json::to_string(&header).map_err(|error| error.to_string()));
    let mut header = header.map_err(|error| Error::file(to, format!("cannot be written as safetensors: {error}")))?;
    header.extend(iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let header = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    write_tensors(file, to, &header, &tensors, |_| 0)
}

/// A header and the tensors behind it, encoded one by one, so that no two of them are held at once.
fn write_tensors(
    file: &TensorFile,
    to: &Path,
    header: &[u8],
    tensors: &[Written<'_>],
    padding: fn(usize) -> usize,
) -> Result<()> {
    write_with(to, |out| {
        out.write_all(header)?;
        for (name, _, form) in tensors {
            let bytes = file.get(name).map(|raw| encoded(*form, &raw)).unwrap_or_default();
            out.write_all(&bytes)?;
            out.write_all(&vec![0; padding(bytes.len())])?;
        }
        Ok(())
    })
}
