//! The matrix that an op multiplies by, for the CPU: as any tensor, or packed.

use std::ops::Range;

use super::Op;
use super::host::matrix::Matrix;
use super::product::{Mat, MatMut, Threads, product};
use crate::tensor::{Shape, Tensor};

/// An op whose second input is a matrix, which the CPU executor packs where it is a parameter.
pub trait Weighted: Op {
    /// [`Op::execute`], with w apart from the other inputs.
    fn execute_packed(&self, others: &[&Tensor], w: &Matrix, y: &mut Tensor);
}

/// `[.., C, N]`, seen as `[K, N]`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weight<'a> {
    Plain(&'a Tensor),
    Packed(&'a Matrix),
}

impl<'a> Weight<'a> {
    pub(crate) fn shape(self) -> &'a Shape {
        match self {
            Self::Plain(tensor) => &tensor.shape,
            Self::Packed(matrix) => matrix.shape(),
        }
    }

    /// The columns from `first`, a multiple of 16, on of a row, as many as there are in `columns`.
    #[inline(always)]
    pub(crate) fn copy_row(self, row: usize, first: usize, columns: &mut [f32]) {
        match self {
            Self::Plain(w) => columns.copy_from_slice(&w.data[row * w.shape.channels() + first..][..columns.len()]),
            Self::Packed(matrix) => matrix.copy_row(row, first, columns),
        }
    }

    /// `c = x·w` or, to `add`, `c += x·w`, with some of w's rows alone: x `[M, rows]`, c `[M, N]`.
    ///
    /// # Panics
    /// If the dimensions do not fit each other.
    pub(crate) fn product(self, c: &mut [f32], add: bool, x: &[f32], rows: Range<usize>, threads: Threads) {
        match self {
            Self::Plain(w) => {
                let (k, n) = (rows.len(), w.shape.channels());
                let w = Mat::new(&w.data[rows.start * n..rows.end * n], k, n);
                let (m, so_far) = (c.len() / n, if add { 1.0 } else { 0.0 });
                product(MatMut::new(c, m, n), so_far, Mat::new(x, m, k), w, 1.0, threads);
            }
            Self::Packed(matrix) => matrix.product(c, add, x, rows, threads),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::TABLE;
    use crate::ops::case::compare;
    use crate::pack::Pack;
    use crate::tensor::{DType, RawTensor};

    /// `[.., C, N]` through a file, which has `[N, C, ..]`.
    fn packed(w: &Tensor) -> Matrix {
        let (c, n) = (w.shape.dims()[w.shape.rank() - 2], w.shape.channels());
        let taps = w.shape.rows() / c;
        let value = |i: usize| w.data[(i % taps * c + i / taps % c) * n + i / taps / c];
        let bytes: Vec<u8> = (0..w.shape.len()).flat_map(|i| value(i).to_le_bytes()).collect();
        let (pack, file) = match *w.shape.dims() {
            [height, width, ..] if w.shape.rank() == 4 => (Pack::Conv, Shape::from([n, c, height, width])),
            _ => (Pack::Linear, [n, c].into()),
        };
        Matrix::new(pack, &RawTensor { dtype: DType::F32, shape: file.clone(), bytes: bytes.into() }, &file).unwrap()
    }

    #[test]
    fn an_op_computes_the_same_with_a_packed_matrix() {
        let mut weighted = Vec::new();
        for case in TABLE.iter().flat_map(|(_, cases)| cases()) {
            let Some(op) = case.op.weighted() else { continue };
            let (types, tensors) = (case.types(), case.tensors(3, DType::F32, DType::F32));
            let inputs: Vec<&Tensor> = tensors.iter().collect();
            let wanted = case.op.reference(&inputs, &case.op.output(&types).unwrap().shape);
            let w = packed(inputs[1]);
            let mut y = Tensor::new(wanted.shape.clone(), vec![f32::NAN; wanted.shape.len()]);
            op.execute_packed(&[&inputs[..1], &inputs[2..]].concat(), &w, &mut y);
            let difference = compare(&y, &wanted);
            assert!(difference.relative < 1e-5, "{}: {difference:?}", case.name());
            weighted.push(case.op.name());
        }
        weighted.dedup();
        assert_eq!(weighted, ["matmul", "matmul_geglu", "conv2d"]);
    }
}
