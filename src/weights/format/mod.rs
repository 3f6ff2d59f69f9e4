//! The formats of files of tensors: one file each, which reads a header, told by the file's first bytes.

mod blocks;
pub mod gguf;
pub mod safetensors;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

pub use blocks::Blocks;

use crate::tensor::{DType, Shape};

/// Where a tensor is, and what.
#[derive(Debug)]
pub struct Stored {
    /// What its elements are read as.
    pub dtype: DType,
    /// PyTorch's order of dimensions.
    pub shape: Shape,
    /// Bytes from the start of the file.
    pub range: Range<usize>,
    /// How its elements are stored, if not each by itself.
    pub blocks: Option<Blocks>,
}

/// What a file says of itself.
#[derive(Debug, Default)]
pub struct Header {
    pub index: BTreeMap<String, Stored>,
    /// Tensors of a type that cannot be read, and that type.
    pub unknown: BTreeMap<String, String>,
    pub metadata: HashMap<String, String>,
    /// Behind the last tensor and its padding, where the types of all are known.
    pub end: Option<usize>,
}

/// How a tensor's elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Plain(DType),
    Blocks(Blocks),
}

impl Form {
    /// Bytes of so many elements.
    pub fn bytes(self, len: usize) -> usize {
        match self {
            Self::Plain(dtype) => len * dtype.size(),
            Self::Blocks(blocks) => len / blocks.elements() * blocks.bytes(),
        }
    }
}

/// Reads a file's header.
///
/// # Errors
/// What is wrong with the file, and what to do.
pub fn parse(data: &[u8]) -> Result<Header, String> {
    if data.starts_with(gguf::MAGIC) { gguf::parse(data) } else { safetensors::parse(data) }
}
