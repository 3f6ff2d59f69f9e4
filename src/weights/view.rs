//! How a tensor that a network asks for lies in the tensor that the file stores.

use std::borrow::Cow;

use crate::tensor::{RawTensor, Shape};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    Whole,
    /// The first, second or last third of its rows: queries, keys or values that are stored as one.
    Third(usize),
    /// A matrix stored as `[in, out]`, where PyTorch's linear layers have `[out, in]`.
    Transposed,
}

impl View {
    /// The shape of a tensor of `stored` seen this way.
    pub fn shape(self, stored: &Shape) -> Shape {
        match (self, stored.dims()) {
            (Self::Third(_), &[rows, ..]) if rows % 3 == 0 => stored.with_batch(rows / 3),
            (Self::Transposed, &[rows, columns]) => [columns, rows].into(),
            _ => stored.clone(),
        }
    }

    /// The tensor seen this way. What is not of a shape that can be seen so stays whole, and is found misshapen.
    pub fn of<'a>(self, raw: RawTensor<'a>) -> RawTensor<'a> {
        match (self, raw.shape.dims()) {
            (Self::Third(third), &[rows, ..]) if rows % 3 == 0 => {
                let (shape, len) = (self.shape(&raw.shape), raw.bytes.len() / 3);
                let bytes = match raw.bytes {
                    Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[third * len..][..len]),
                    Cow::Owned(bytes) => Cow::Owned(bytes[third * len..][..len].to_vec()),
                };
                RawTensor { shape, bytes, ..raw }
            }
            (Self::Transposed, &[rows, columns]) => {
                let size = raw.dtype.size();
                let element = |row: usize, column: usize| &raw.bytes[(row * columns + column) * size..][..size];
                let mut bytes = Vec::with_capacity(raw.bytes.len());
                for column in 0..columns {
                    (0..rows).for_each(|row| bytes.extend_from_slice(element(row, column)));
                }
                RawTensor { dtype: raw.dtype, shape: self.shape(&raw.shape), bytes: Cow::Owned(bytes) }
            }
            _ => raw,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn raw(shape: Shape) -> RawTensor<'static> {
        let bytes = (0..shape.len()).flat_map(|i| (i as f32).to_le_bytes()).collect();
        RawTensor { dtype: DType::F32, shape, bytes: Cow::Owned(bytes) }
    }

    #[test]
    fn a_third_is_a_third_of_the_rows() {
        let middle = View::Third(1).of(raw([6, 2].into()));
        assert_eq!((middle.shape.dims(), middle.to_f32()), (&[2, 2][..], vec![4., 5., 6., 7.]));
        assert_eq!(View::Third(2).of(raw([3].into())).to_f32(), [2.0]);
    }

    #[test]
    fn a_transposed_matrix_has_its_columns_as_rows() {
        let matrix = View::Transposed.of(raw([2, 3].into()));
        assert_eq!((matrix.shape.dims(), matrix.to_f32()), (&[3, 2][..], vec![0., 3., 1., 4., 2., 5.]));
    }

    #[test]
    fn what_cannot_be_seen_so_stays_whole() {
        assert_eq!(View::Third(0).of(raw([4].into())).shape.dims(), [4]);
        assert_eq!(View::Transposed.of(raw([4].into())).shape.dims(), [4]);
        assert_eq!(View::Third(0).of(raw(Shape::default())).shape.rank(), 0);
    }
}
