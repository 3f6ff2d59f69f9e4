//! What a value is, kind and shape, and the checks on them that shape rules are made of.

use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, pad4};

/// What a value holds, and hence how a device stores it. Each is rows padded to a multiple of four, bound as vectors
/// of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Activations, in the session's element type: `elem4` in a kernel.
    Act,
    /// A matrix of parameters, in the type that the weights are kept in: `weight4` in a kernel.
    Weight,
    /// Vectors of parameters, statistics, timesteps: always `vec4f`.
    F32,
    /// Indices: `vec4u` in a kernel, whole numbers in an f32 host tensor.
    U32,
    /// Whole numbers below 256, four to a `u32` in a kernel: weights of a few bits.
    Bytes,
}

impl Kind {
    /// The type of its elements where activations are held in `act` and matrices of parameters in `weight`.
    pub fn dtype(self, act: DType, weight: DType) -> DType {
        match self {
            Self::Act => act,
            Self::Weight => weight,
            Self::F32 | Self::U32 | Self::Bytes => DType::F32,
        }
    }
}

/// A value's kind and logical (unpadded) shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ty {
    /// What it holds.
    pub kind: Kind,
    /// Without padding, channels last.
    pub shape: Shape,
}

impl Ty {
    /// Of this kind and shape.
    pub fn new(kind: Kind, shape: impl Into<Shape>) -> Self {
        Self { kind, shape: shape.into() }
    }

    /// Activations of this shape.
    pub fn act(shape: impl Into<Shape>) -> Self {
        Self::new(Kind::Act, shape)
    }

    /// A device buffer as (blocks, rows of a block, rows of a block with padding). Only a matrix of parameters pads
    /// its rows: it is the dimension that a product sums over, and that is padded in the activations.
    pub fn device_blocks(&self) -> (usize, usize, usize) {
        match (self.kind, self.shape.dims()) {
            (Kind::Weight, &[.., rows, _]) => (self.shape.rows() / rows.max(1), rows, pad4(rows)),
            _ => (1, self.shape.rows(), self.shape.rows()),
        }
    }

    /// Elements of a device buffer, padding counted in.
    pub fn device_len(&self) -> usize {
        let (blocks, _, rows) = self.device_blocks();
        blocks * rows * pad4(self.shape.channels())
    }
}

/// Input types without the attributes' meaning: what [`Op`](super::Op)'s methods look at.
pub type Inputs<'a> = &'a [Ty];

/// `Ok` if there are `count` inputs.
pub fn expect_inputs(op: &str, inputs: Inputs, count: usize) -> Result<()> {
    if inputs.len() == count {
        return Ok(());
    }
    Err(Error::shape(format!("{op} takes {count} inputs, found {}", inputs.len())))
}

/// `Ok` if the op `op` got these inputs: what each is called in the message, and its kind.
///
/// # Errors
/// [`Error::Shape`], which names the op and the first that is another, or how many there are.
pub fn expect(op: &str, inputs: Inputs, wanted: &[(&str, Kind)]) -> Result<()> {
    expect_inputs(op, inputs, wanted.len())?;
    let mut each = (0..).zip(wanted);
    each.try_for_each(|(index, (what, kind))| expect_kind(inputs, index, &format!("{op}: {what}"), *kind))
}

/// `Ok` if input `index` (called `what`) is of this kind and has elements.
pub fn expect_kind(inputs: Inputs, index: usize, what: &str, wanted: Kind) -> Result<()> {
    let Ty { kind, shape } = &inputs[index];
    if *kind != wanted {
        return Err(Error::shape(format!("{what} should be {wanted:?}, found {kind:?}")));
    }
    if shape.is_empty() {
        return Err(Error::shape(format!("{what} is empty: {shape}")));
    }
    Ok(())
}

/// `Ok` if input `index` (called `what`) has exactly this shape.
pub fn expect_shape(inputs: Inputs, index: usize, what: &str, wanted: &Shape) -> Result<()> {
    let found = &inputs[index].shape;
    if found == wanted {
        return Ok(());
    }
    Err(Error::shape(format!("{what} should be {wanted}, found {found}")))
}
