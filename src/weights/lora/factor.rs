//! The matrices that a change is made of, each a product of smaller ones.
//!
//! A convolution's weights `[N, I, KH, KW]` are the matrix `[N, I * KH * KW]` here.

use rayon::prelude::*;

use crate::ops::host::matrix::Matrix as Packed;
use crate::ops::product::Threads;
use crate::tensor::{Shape, Tensor};
use crate::weights::file::TensorFile;

/// A matrix by the names of the tensors that it is made of.
#[derive(Debug)]
pub(super) enum Factor {
    Whole(String),
    /// `left [N, R] * right [R, K]`.
    Pair {
        left: String,
        right: String,
    },
    /// A convolution in three (CP or Tucker decomposition): the sum over p and q of `left [N, P]`,
    /// `core [P, Q, KH, KW]` and `right [Q, I]`. LyCORIS stores LoHa's and LoKr's left one as `[P, N]`, and LoRA's as
    /// it is.
    Core {
        core: String,
        left: String,
        right: String,
        left_transposed: bool,
    },
}

/// No trainer has ranks beyond this: what stands between a core and its inputs then fits any memory.
const LARGEST_CORE: usize = 1 << 12;

/// Rows one after the other.
pub(super) struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub data: Vec<f32>,
}

impl Factor {
    /// Rows and columns, and the rank if it has one.
    ///
    /// # Errors
    /// Which tensors do not fit each other.
    pub fn size(&self, file: &TensorFile) -> Result<([usize; 2], Option<usize>), String> {
        match self {
            Self::Whole(name) => Ok((flat(file, name)?, None)),
            Self::Pair { left, right } => {
                let ([rows, rank], [inner, columns]) = (flat(file, left)?, flat(file, right)?);
                if rank != inner {
                    return Err(misfit(file, &[left, right]));
                }
                Ok(([rows, columns], Some(rank)))
            }
            Self::Core { core, left, right, left_transposed } => {
                let ([p, rest], [q, inputs]) = (flat(file, core)?, flat(file, right)?);
                let [a, b] = flat(file, left)?;
                let (rows, inner) = if *left_transposed { (b, a) } else { (a, b) };
                let second = file.shape(core).and_then(|shape| shape.dims().get(1));
                if inner != p || second != Some(&q) || p > LARGEST_CORE {
                    return Err(misfit(file, &[left, core, right]));
                }
                Ok(([rows, inputs * (rest / q)], Some(q)))
            }
        }
    }

    /// Its values, of tensors that [`Factor::size`] found to fit.
    pub fn matrix(&self, file: &TensorFile) -> Matrix {
        let [rows, columns] = match (self, self.size(file)) {
            (Self::Whole(name), _) => return read(file, name),
            (_, size) => size.map(|(size, _)| size).unwrap_or_default(),
        };
        let mut data = vec![0.0; rows * columns];
        self.add_to(file, 1.0, &mut data);
        Matrix { rows, columns, data }
    }

    /// Adds its values times `scale` to a matrix of its size.
    pub fn add_to(&self, file: &TensorFile, scale: f32, sum: &mut [f32]) {
        match self {
            Self::Whole(name) => {
                let values = read(file, name).data;
                sum.par_iter_mut().zip(values).for_each(|(sum, value)| *sum += scale * value);
            }
            Self::Pair { left, right } => {
                read(file, left).times(scale).add_product(&read(file, right).packed(), sum);
            }
            Self::Core { core, left, right, left_transposed } => {
                let (left, core, right) = (read(file, left), read(file, core), read(file, right));
                let (p, q, inputs) = (core.rows, right.rows, right.columns);
                let taps = core.columns / q;
                let mut inner = Matrix { rows: p, columns: inputs * taps, data: vec![0.0; p * inputs * taps] };
                let right = right.transposed();
                // For each p `[inputs, q] * [q, taps]`.
                for (inner, core) in inner.data.chunks_exact_mut(inputs * taps).zip(core.data.chunks_exact(q * taps)) {
                    let core = Matrix { rows: q, columns: taps, data: core.to_vec() };
                    right.add_product(&core.packed(), inner);
                }
                let left = if *left_transposed { left.transposed() } else { left };
                left.times(scale).add_product(&inner.packed(), sum);
            }
        }
    }
}

impl Matrix {
    fn times(mut self, scale: f32) -> Self {
        self.data.iter_mut().for_each(|value| *value *= scale);
        self
    }

    fn transposed(&self) -> Self {
        let Self { rows, columns, ref data } = *self;
        let data = (0..rows * columns).map(|i| data[i % rows * columns + i / rows]).collect();
        Self { rows: columns, columns: rows, data }
    }

    fn packed(self) -> Packed {
        Packed::of(&Tensor::new([self.rows, self.columns], self.data))
    }

    /// `sum += self * right`.
    fn add_product(&self, right: &Packed, sum: &mut [f32]) {
        right.product(sum, true, &self.data, 0..self.columns, Threads::All);
    }
}

fn read(file: &TensorFile, name: &str) -> Matrix {
    let raw = file.get(name);
    let [rows, columns] = raw.as_ref().and_then(|raw| as_matrix(&raw.shape)).unwrap_or_default();
    Matrix { rows, columns, data: raw.map(|raw| raw.to_f32()).unwrap_or_default() }
}

/// The first dimension, and all others as one.
fn as_matrix(shape: &Shape) -> Option<[usize; 2]> {
    let (rows, rest) = shape.dims().split_first()?;
    (!shape.is_empty()).then(|| [*rows, rest.iter().product()])
}

fn flat(file: &TensorFile, name: &str) -> Result<[usize; 2], String> {
    file.shape(name).and_then(as_matrix).ok_or_else(|| misfit(file, &[name]))
}

/// What is said of tensors whose shapes do not fit each other.
fn misfit(file: &TensorFile, names: &[impl AsRef<str>]) -> String {
    let one = |name: &str| format!("{name} {}", file.shape(name).cloned().unwrap_or_default());
    names.iter().map(|name| one(name.as_ref())).collect::<Vec<_>>().join(" with ")
}
