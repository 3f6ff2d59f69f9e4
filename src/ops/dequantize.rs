//! `y[k, n] = (q[k, n] - zero) * scale[k / block, n] - minimum[k / block, n]`: a matrix of weights `[K, N]` out of
//! blocks along K, as ggml's formats have them (its `ggml-quants.c`), for the product that reads it. q is bytes
//! `[K, N]` with zero 128; or, of four bits, bytes `[K/2, N]` whose low halves are the even rows, with zero 8, or 0
//! where there are minima.

use super::{Case, Fill, Inputs, Kind, Launch, Op, Ty, expect_inputs, expect_kind, expect_shape};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::tensor::{BlockLayout, Shape, Tensor, pad4};

/// A matrix out of blocks of this layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dequantize(pub BlockLayout);

impl Dequantize {
    /// Rows of weights in a row of bytes.
    fn packed(&self) -> usize {
        8 / self.0.bits
    }
}

impl Op for Dequantize {
    fn name(&self) -> &'static str {
        "dequantize"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect_inputs("dequantize", inputs, 2 + usize::from(self.0.minimum))?;
        expect_kind(inputs, 0, "dequantize: q", Kind::Bytes)?;
        let q = &inputs[0].shape;
        let &[rows, n] = q.dims() else {
            return Err(Error::shape(format!("dequantize: q should be a matrix, found {q}")));
        };
        let k = rows * self.packed();
        if ![4, 8].contains(&self.0.bits) || self.0.block == 0 || !k.is_multiple_of(self.0.block) {
            let what = format!("{k} rows of {} bits do not divide into blocks of {}", self.0.bits, self.0.block);
            return Err(Error::shape(format!("dequantize: {what}")));
        }
        for (index, what) in [(1, "dequantize: scales"), (2, "dequantize: minima")].into_iter().take(inputs.len() - 1) {
            expect_kind(inputs, index, what, Kind::Weight)?;
            expect_shape(inputs, index, what, &[k / self.0.block, n].into())?;
        }
        Ok(Ty::act([k, n]))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let n = output.channels();
        let weight = |i: usize| {
            let (k, column) = (i / n, i % n);
            let byte = inputs[0].data[k / self.packed() * n + column] as u8;
            let q = match self.0.bits {
                8 => byte,
                _ => byte >> (4 * (k % 2)) & 15,
            };
            let of_block = |input: &&Tensor| input.data[k / self.0.block * n + column];
            (f32::from(q) - self.0.zero()) * of_block(&inputs[1]) - inputs.get(2).map_or(0.0, of_block)
        };
        Tensor::new(output.clone(), (0..output.len()).map(weight).collect())
    }

    fn launch(&self, inputs: Inputs, _output: &Ty, caps: &Caps) -> Result<Launch> {
        let q = &inputs[0].shape;
        let n4 = pad4(q.channels()) / 4;
        let words = q.rows() * n4;
        Ok(Launch::new("dequantize", 2)
            .optional(self.0.minimum)
            .constant("BITS", self.0.bits as u32)
            .constant("HAS_MINIMUM", self.0.minimum)
            .param("words", words)
            .param("n4", n4)
            .param("rows", self.0.block / self.packed())
            .threads(words, caps))
    }

    /// A subtraction and a multiplication each.
    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        (2 + u64::from(self.0.minimum)) * output.shape.len() as u64
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |bits: usize, block: usize, minimum: bool, [k, n]: [usize; 2]| {
        let q = Ty::new(Kind::Bytes, [k * bits / 8, n]);
        let of_blocks = (0..1 + usize::from(minimum)).map(|_| Ty::new(Kind::Weight, [k / block, n]));
        let op = Dequantize(BlockLayout { bits, block, minimum });
        let case = Case::new(op, [q].into_iter().chain(of_blocks));
        (1..2 + usize::from(minimum)).fold(case, |case, index| case.fill(index, Fill::Normal(0.01)))
    };
    vec![
        case(8, 32, false, [32, 1]),
        case(8, 32, false, [96, 7]),
        case(8, 16, false, [48, 66]),
        case(4, 32, false, [32, 3]),
        case(4, 32, false, [96, 65]),
        case(4, 32, true, [64, 10]),
        case(8, 32, true, [64, 7]),
        case(4, 16, true, [48, 5]),
        case(8, 32, false, [320, 1280]),
        case(4, 32, true, [768, 320]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(shape: [usize; 2], data: &[u8]) -> Tensor {
        Tensor::new(shape, data.iter().map(|byte| f32::from(*byte)).collect())
    }

    #[test]
    fn bytes_are_centred_and_scaled_by_their_block() {
        let (q, scales) = (bytes([4, 1], &[128, 129, 0, 255]), Tensor::new([2, 1], vec![2.0, 0.5]));
        let op = Dequantize(BlockLayout { bits: 8, block: 2, minimum: false });
        assert_eq!(op.reference(&[&q, &scales], &[4, 1].into()).data, [0.0, 2.0, -64.0, 63.5]);
    }

    #[test]
    fn a_byte_holds_an_even_row_and_the_odd_one_after_it() {
        let (q, scales) = (bytes([2, 1], &[0x90, 0x8f]), Tensor::new([1, 1], vec![1.0]));
        let plain = BlockLayout { bits: 4, block: 4, minimum: false };
        assert_eq!(Dequantize(plain).reference(&[&q, &scales], &[4, 1].into()).data, [-8.0, 1.0, 7.0, 0.0]);
        let with_minimum = Dequantize(BlockLayout { minimum: true, ..plain });
        let minima = Tensor::new([1, 1], vec![3.0]);
        let y = with_minimum.reference(&[&q, &scales, &minima], &[4, 1].into());
        assert_eq!(y.data, [-3.0, 6.0, 12.0, 5.0]);
    }

    #[test]
    fn rows_that_are_no_whole_blocks_are_an_error() {
        let inputs = [Ty::new(Kind::Bytes, [24, 4]), Ty::new(Kind::Weight, [1, 4])];
        let error =
            Dequantize(BlockLayout { bits: 4, block: 32, minimum: false }).output(&inputs).unwrap_err().to_string();
        assert!(error.contains("48 rows of 4 bits do not divide into blocks of 32"), "{error}");
    }
}
