//! `y[b, .., c] = x[b, .., c] + row[b, c]`: x `[B, .., C]`, one row of C channels a batch entry. Adds the time
//! embedding to a U-Net block's pixels (diffusers `ResnetBlock2D`, `temb`). As a rule it runs in the epilogue of the
//! convolution that made x.

use rayon::prelude::*;

use super::{Case, Fill, Inputs, Launch, Op, Ty, UNET, expect_inputs, expect_shape, large};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor, pad4};

/// `y = x` plus a row for each batch entry; no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddRow;

impl Op for AddRow {
    fn name(&self) -> &'static str {
        "add_row"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect_inputs("add_row", inputs, 2)?;
        let x = &inputs[0].shape;
        if x.rank() < 2 {
            return Err(Error::shape(format!("add_row takes [batch, .., channels], found {x}")));
        }
        expect_shape(inputs, 1, "the row to add", &[x.batch(), x.channels()].into())?;
        Ok(inputs[0].clone())
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let mut y = inputs[0].clone();
        let (channels, rows_per_batch) = (output.channels(), output.rows() / output.batch().max(1));
        y.data.par_chunks_mut(channels.max(1)).with_min_len(64).enumerate().for_each(|(index, pixel)| {
            let row = &inputs[1].data[index / rows_per_batch * channels..][..channels];
            pixel.iter_mut().zip(row).for_each(|(y, r)| *y += r);
        });
        y
    }

    fn launch(&self, _inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let shape = &output.shape;
        let n4 = pad4(shape.channels()) / 4;
        let vectors = shape.rows() * n4;
        Ok(Launch::flat("add_row", 2, vectors, caps)
            .param("n4", n4)
            .param("vectors_per_batch", vectors / shape.batch().max(1)))
    }

    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        output.shape.len() as u64
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |shape: &[usize]| {
        let shape = Shape::new(shape);
        let row = Ty::act([shape.batch(), shape.channels()]);
        Case::new(AddRow, [Ty::act(shape), row])
    };
    let over = case(&[2, 9, 5]).fill(0, Fill::With(large)).fill(1, Fill::With(large));
    vec![case(&[1, 1]), case(&[3, 7, 5]), case(&[2, 5, 3, 6]), case(&[2, 16, 16, 320]), over]
}

/// What a full check adds: two latents of SDXL.
pub(super) fn largest(_: &Caps) -> Vec<Case> {
    vec![Case::new(AddRow, [Ty::act(UNET), Ty::act([UNET[0], UNET[3]])])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_entry_gets_its_own_row() {
        let x = Tensor::zeros([2, 2, 1]);
        let row = Tensor::new([2, 1], vec![1.0, 2.0]);
        assert_eq!(AddRow.reference(&[&x, &row], &x.shape).data, [1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn a_row_of_another_batch_is_an_error() {
        let error = AddRow.output(&[Ty::act([2, 9, 3]), Ty::act([1, 3])]).unwrap_err().to_string();
        assert!(error.contains("the row to add should be [2, 3], found [1, 3]"), "{error}");
    }
}
