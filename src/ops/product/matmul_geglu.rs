//! `y[.., i] = p[.., 2i] * gelu(p[.., 2i + 1])` of the product `p = x·w + bias`: x `[.., K]`, w `[K, 2N]`, bias
//! `[2N]`, y `[.., N]`. A [`MatMul`] with the [`Geglu`] after it, whose input is the largest activation of the U-Net
//! and here is never stored. 2N is a multiple of eight, so that halves of vectors make up whole rows of y.

use super::epilogue::Epilogue;
use super::in_blocks;
use super::matmul::{MatMul, matmul_variants};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::ops::geglu::Geglu;
use crate::ops::host::matrix::Matrix;
use crate::ops::{Case, Inputs, Kind, Op, Ty, Variant, Weighted};
use crate::tensor::{Shape, Tensor};

/// A matrix product with a bias, and GEGLU of it; no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatMulGeglu;

/// The product that is gated.
const PRODUCT: MatMul = MatMul { epilogue: Epilogue::bias(true) };

impl MatMulGeglu {
    /// A product with a bias alone and the gate that reads it, in one kernel; `None` if the two are anything else.
    pub fn of(product: &dyn Op, gate: &dyn Op) -> Option<Box<dyn Op>> {
        gate.downcast_ref::<Geglu>()?;
        (*product.downcast_ref::<MatMul>()? == PRODUCT).then(|| Box::new(Self) as _)
    }
}

impl Weighted for MatMulGeglu {
    fn execute_packed(&self, others: &[&Tensor], w: &Matrix, y: &mut Tensor) {
        let &[x, bias] = others else { unreachable!("the graph checked how many inputs there are") };
        let (k, n) = (x.shape.channels(), y.shape.channels());
        in_blocks(&mut y.data, n, k + 2 * n, |first, block, threads| {
            w.gated(block, &x.data[first * k..][..block.len() / n * k], &bias.data, threads);
        });
    }
}

impl Op for MatMulGeglu {
    fn name(&self) -> &'static str {
        "matmul_geglu"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        let product = PRODUCT.output(inputs)?;
        if !product.shape.channels().is_multiple_of(8) {
            let w = &inputs[1].shape;
            return Err(Error::shape(format!("matmul_geglu: w's columns should be a multiple of 8, found {w}")));
        }
        Geglu.output(&[product])
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let pairs = PRODUCT.reference(inputs, &output.with_channels(2 * output.channels()));
        Geglu.reference(&[&pairs], output)
    }

    fn weighted(&self) -> Option<&dyn Weighted> {
        Some(self)
    }

    fn variants(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Vec<Variant>> {
        let product = output.shape.with_channels(2 * output.shape.channels());
        Ok(matmul_variants("matmul_geglu", inputs[0].shape.channels(), &product, PRODUCT.epilogue, caps))
    }

    fn flops(&self, inputs: Inputs, output: &Ty) -> u64 {
        2 * PRODUCT.flops(inputs, output) + Geglu.flops(inputs, output)
    }

    fn sum_length(&self, inputs: Inputs) -> Option<usize> {
        PRODUCT.sum_length(inputs)
    }
}

fn case(x: &[usize], n: usize) -> Case {
    let k = x[x.len() - 1];
    let inputs = [Ty::act(Shape::new(x)), Ty::new(Kind::Weight, [k, n]), Ty::new(Kind::F32, [n])];
    Case::new(MatMulGeglu, inputs)
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    // Just under and over the tiles, few rows and many; SD 1.5's outermost feed-forward.
    vec![
        case(&[1, 5], 8),
        case(&[16, 17], 64),
        case(&[63, 15], 24),
        case(&[65, 33], 136),
        case(&[2, 37, 50], 40),
        case(&[1, 256, 320], 2560),
    ]
}

/// What a full check adds: gated feed-forwards of SD 1.5 and SDXL.
pub(crate) fn largest(_: &Caps) -> Vec<Case> {
    vec![case(&[2, 4096, 320], 2560), case(&[2, 4096, 640], 5120)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::add::Add;

    #[test]
    fn the_product_and_its_bias_are_gated() {
        let x = Tensor::new([1, 1], vec![2.0]);
        let w = Tensor::new([1, 8], vec![1.5, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]);
        let bias = Tensor::new([8], vec![0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
        let y = MatMulGeglu.reference(&[&x, &w, &bias], &[1, 4].into());
        let gelu = 0.841_344_8;
        for (y, wanted) in y.data.iter().zip([3.0 * gelu, 0.0, 0.0, gelu]) {
            assert!((y - wanted).abs() < 1e-6, "{y} should be {wanted}");
        }
    }

    #[test]
    fn a_gate_is_absorbed_by_a_product_with_a_bias_alone() {
        let product = MatMul::new(true);
        assert_eq!(MatMulGeglu::of(&product, &Geglu).unwrap().name(), "matmul_geglu");
        assert!(MatMulGeglu::of(&MatMul::new(false), &Geglu).is_none());
        assert!(MatMulGeglu::of(&*product.absorb(&Add, 0).unwrap(), &Geglu).is_none(), "after a residual");
        assert!(product.absorb(&Geglu, 0).is_none() && MatMulGeglu::of(&product, &Add).is_none());
    }

    #[test]
    fn halves_that_do_not_fill_a_row_are_an_error() {
        let inputs = [Ty::act([2, 3]), Ty::new(Kind::Weight, [3, 12]), Ty::new(Kind::F32, [12])];
        let error = MatMulGeglu.output(&inputs).unwrap_err().to_string();
        assert!(error.contains("a multiple of 8, found [3, 12]"), "{error}");
    }
}
