//! Ops that multiply by a matrix of parameters, on the CPU.

use super::Op;
use super::host::matrix::Matrix;
use crate::tensor::Tensor;

/// An op whose second input is a matrix, which the CPU executor packs where it is a parameter.
pub trait Weighted: Op {
    /// [`Op::execute`], with w apart from the other inputs.
    fn execute_packed(&self, others: &[&Tensor], w: &Matrix, y: &mut Tensor);
}

/// The inputs of such an op, with w apart from the others and packed for this once.
pub(crate) fn packed<'a>(inputs: &[&'a Tensor]) -> (Vec<&'a Tensor>, Matrix) {
    ([&inputs[..1], &inputs[2..]].concat(), Matrix::of(inputs[1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::case::compare;
    use crate::ops::{Row, TABLE};
    use crate::pack::Pack;
    use crate::tensor::{DType, RawTensor, Shape};

    /// `[.., C, N]` through a file, which has `[N, C, ..]`.
    fn through_a_file(w: &Tensor) -> Matrix {
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
        for case in TABLE.iter().flat_map(Row::cases) {
            let Some(op) = case.op.weighted() else { continue };
            let (types, tensors) = (case.types(), case.tensors(3, DType::F32, DType::F32));
            let inputs: Vec<&Tensor> = tensors.iter().collect();
            let wanted = case.op.reference(&inputs, &case.op.output(&types).unwrap().shape);
            let w = through_a_file(inputs[1]);
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
