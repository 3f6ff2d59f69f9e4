//! Data types, shapes and host tensors, and the layout decision.
//!
//! Activations are channels-last: `[batch, height, width, channels]`, or `[batch, tokens, channels]`, which is the
//! same memory with one dimension fewer. On a GPU every buffer is a list of rows (the last dimension) that are padded
//! with zeros to a multiple of four, so that every kernel reads and writes vectors of four; on the host nothing is
//! padded. PyTorch's `[batch, channels, height, width]` exists at the files' border alone.
//!
//! Floor 0: may import floor 0.

use std::borrow::Cow;
use std::fmt;

use half::{bf16, f16};

use crate::error::{Error, Result};

pub(crate) mod elements;

pub use elements::Elements;

/// An element type, of a file or of a device buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// Eight bits, four of them the exponent's, without infinities (Micikevicius et al. 2022).
    F8E4M3,
    /// The upper half of an f16.
    F8E5M2,
    /// Of indices in files.
    I64,
    /// Of indices in files.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::F8E4M3 | Self::F8E5M2 => 1,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F8E4M3 => "f8_e4m3",
            Self::F8E5M2 => "f8_e5m2",
            Self::I64 => "i64",
            Self::I32 => "i32",
        })
    }
}

/// The dimensions of a tensor, outermost first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// Of these dimensions, the outermost first.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Self(dims.into())
    }

    /// The outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// How many dimensions there are.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements; 1 for a scalar.
    pub fn len(&self) -> usize {
        self.0.iter().product()
    }

    /// Whether there are no elements: a dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where an element is, as `[batch, row, column, channel]` or what the dimensions are.
    pub fn place(&self, index: usize) -> String {
        let mut place = self.0.clone();
        let mut rest = index;
        for dim in place.iter_mut().rev() {
            let size = (*dim).max(1);
            (*dim, rest) = (rest % size, rest / size);
        }
        format!("{place:?}")
    }

    /// The last dimension: channels of an activation, columns of a matrix. 1 for a scalar.
    pub fn channels(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// Product of all dimensions but the last: rows of a matrix, pixels or tokens of an activation.
    pub fn rows(&self) -> usize {
        self.0.split_last().map_or(1, |(_, rest)| rest.iter().product())
    }

    /// The first dimension, or 1 for a scalar.
    pub fn batch(&self) -> usize {
        self.0.first().copied().unwrap_or(1)
    }

    /// The same with another last dimension.
    pub fn with_channels(&self, channels: usize) -> Self {
        let mut dims = self.0.clone();
        match dims.last_mut() {
            Some(last) => *last = channels,
            None => dims.push(channels),
        }
        Self(dims)
    }

    /// The same with another first dimension.
    pub fn with_batch(&self, batch: usize) -> Self {
        let mut dims = self.0.clone();
        if let Some(first) = dims.first_mut() {
            *first = batch;
        }
        Self(dims)
    }

    /// `[B, H, W, C]`, or an error that says what was found.
    pub fn image(&self) -> Result<[usize; 4]> {
        let image = self.0.as_slice().try_into();
        image.map_err(|_| Error::shape(format!("expected [batch, height, width, channels], found {self}")))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Self(dims.to_vec())
    }
}

/// The next multiple of four: the length of a row on a GPU.
pub fn pad4(n: usize) -> usize {
    n.next_multiple_of(4)
}

/// A tensor in host memory, in f32 whatever its file held. Token ids are whole numbers here (exact up to 2^24).
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Channels last.
    pub shape: Shape,
    /// Row by row, without padding.
    pub data: Vec<f32>,
}

impl Tensor {
    /// # Panics
    /// If the number of elements is not the shape's: a mistake of the caller, never of a file.
    pub fn new(shape: impl Into<Shape>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.len(), data.len(), "shape {shape} does not hold {} elements", data.len());
        Self { shape, data }
    }

    /// All zero.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let data = vec![0.0; shape.len()];
        Self { shape, data }
    }

    /// `[B, C, H, W]` to `[B, H, W, C]`.
    pub fn to_channels_last(&self) -> Result<Self> {
        let [b, c, h, w] = self.shape.image()?;
        Ok(Self::new([b, h, w, c], swap_inner(&self.data, b, c, h * w)))
    }

    /// `[B, H, W, C]` to `[B, C, H, W]`.
    pub fn to_channels_first(&self) -> Result<Self> {
        let [b, h, w, c] = self.shape.image()?;
        Ok(Self::new([b, c, h, w], swap_inner(&self.data, b, h * w, c)))
    }

    /// The index of the first element that is infinite or NaN.
    pub fn first_not_finite(&self) -> Option<usize> {
        self.data.iter().position(|v| !v.is_finite())
    }
}

/// `[batch, rows, columns]` to `[batch, columns, rows]`.
fn swap_inner(data: &[f32], batch: usize, rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(data.len());
    for b in 0..batch {
        let block = &data[b * rows * columns..][..rows * columns];
        for column in 0..columns {
            out.extend((0..rows).map(|row| block[row * columns + column]));
        }
    }
    out
}

/// A tensor as its file stores it, usually a window of a memory map. Little-endian, row-major.
#[derive(Debug, Clone)]
pub struct RawTensor<'a> {
    /// Type of its elements.
    pub dtype: DType,
    /// As the file has it.
    pub shape: Shape,
    /// The elements, little-endian, row by row.
    pub bytes: Cow<'a, [u8]>,
}

impl RawTensor<'_> {
    /// The elements as f32, in order. Integers are converted, not reinterpreted.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            DType::F16 => self.bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            DType::BF16 => self.bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            DType::F8E4M3 => self.bytes.iter().map(|b| elements::e4m3(*b)).collect(),
            DType::F8E5M2 => self.bytes.iter().map(|b| elements::e5m2(*b)).collect(),
            DType::I32 => self.bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as f32).collect(),
            DType::I64 => self.bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
        }
    }
}

/// A network's parameters by name. The names are the checkpoint's own, relative to the network:
/// `down_blocks.0.resnets.1.conv1.weight`.
pub trait Weights: Send + Sync {
    /// What an error message calls the place the tensors come from.
    fn place(&self) -> String;

    /// The tensor of that name, or `None`.
    fn get(&self, name: &str) -> Option<RawTensor<'_>>;

    /// Whose tensor it is, and what it is called there, where these weights only pass it on.
    fn passed_on<'n>(&self, _name: &'n str) -> Option<(&dyn Weights, &'n str)> {
        None
    }

    /// Its shape, which may be known without reading it.
    fn shape(&self, name: &str) -> Option<Shape> {
        match self.passed_on(name) {
            Some((weights, name)) => weights.shape(name),
            None => self.get(name).map(|tensor| tensor.shape),
        }
    }

    /// Its type, likewise.
    fn dtype(&self, name: &str) -> Option<DType> {
        match self.passed_on(name) {
            Some((weights, name)) => weights.dtype(name),
            None => self.get(name).map(|tensor| tensor.dtype),
        }
    }

    /// Every name there is, for listing what a network did not ask for.
    fn names(&self) -> Vec<String>;

    /// How the tensor's blocks are laid out, if it is a matrix kept in blocks of a few bits each.
    fn layout(&self, name: &str) -> Option<BlockLayout> {
        let (weights, name) = self.passed_on(name)?;
        weights.layout(name)
    }

    /// The same tensor as it is kept, where there is a layout.
    fn quantized(&self, name: &str) -> Option<Quantized> {
        let (weights, name) = self.passed_on(name)?;
        weights.quantized(name)
    }
}

/// Blocks of a few bits for each weight, which share a scale and perhaps a minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockLayout {
    /// Of a weight: 4 or 8.
    pub bits: usize,
    /// Weights of a block, along a row.
    pub block: usize,
    /// Whether each block has a minimum too.
    pub minimum: bool,
}

impl BlockLayout {
    /// What every weight's bits are counted from: half their range, unless there are minima.
    pub fn zero(self) -> f32 {
        match (self.bits, self.minimum) {
            (8, _) => 128.0,
            (_, false) => 8.0,
            (_, true) => 0.0,
        }
    }
}

/// A matrix `[N, K]` in blocks along its rows, taken apart: weights are `(quant - zero) * scale - minimum`.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// How the blocks are made.
    pub layout: BlockLayout,
    /// `[N, K * bits / 8]`: of four bits, the even weights are the low halves.
    pub quants: Vec<u8>,
    /// `[N, K / block]`.
    pub scales: Vec<f32>,
    /// The same, or nothing.
    pub minima: Vec<f32>,
}

/// No parameters at all: for graphs of inputs and constants alone.
#[derive(Debug, Clone, Copy)]
pub struct NoWeights;

impl Weights for NoWeights {
    fn place(&self) -> String {
        "no weights".into()
    }

    fn get(&self, _: &str) -> Option<RawTensor<'_>> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_found_by_its_dimensions() {
        let place = |dims: &[usize], index| Shape::new(dims).place(index);
        assert_eq!(
            (place(&[2, 3, 4], 23), place(&[5], 3), place(&[], 0)),
            ("[1, 2, 3]".into(), "[3]".into(), "[]".into())
        );
    }

    #[test]
    fn channels_last_and_back_is_the_identity() {
        let x = Tensor::new([2, 3, 2, 5], (0..60).map(|i| i as f32).collect());
        let last = x.to_channels_last().unwrap();
        assert_eq!(last.shape, Shape::from([2, 2, 5, 3]));
        assert_eq!(last.data[..4], [0.0, 10.0, 20.0, 1.0]);
        assert_eq!(last.to_channels_first().unwrap(), x);
    }

    #[test]
    fn every_file_type_converts_to_f32() {
        let raw = |dtype, bytes: &[u8]| RawTensor { dtype, shape: [1].into(), bytes: Cow::Owned(bytes.to_vec()) };
        assert_eq!(raw(DType::F16, &f16::from_f32(1.5).to_le_bytes()).to_f32(), [1.5]);
        assert_eq!(raw(DType::BF16, &bf16::from_f32(-2.0).to_le_bytes()).to_f32(), [-2.0]);
        assert_eq!(raw(DType::I64, &7i64.to_le_bytes()).to_f32(), [7.0]);
        assert_eq!(raw(DType::I32, &(-3i32).to_le_bytes()).to_f32(), [-3.0]);
    }
}
