//! `y[b, ..] = x[b, ..] + s[b] * r[b, ..]`: x and r of one shape `[B, .., C]`, s `[B, 1]` a number for each batch
//! entry. Adds a ControlNet's residual, times its scale, to what a UNet keeps for its way up (diffusers
//! `UNet2DConditionModel`, `down_block_additional_residuals`). The scale is an input, since it may change from step to
//! step.

use rayon::prelude::*;

use super::{Case, Inputs, Kind, Launch, Op, Ty, expect_inputs, expect_kind, expect_shape};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::ops::case::{Fill, large, subnormal};
use crate::ops::largest::UNET;
use crate::tensor::{Shape, Tensor};

/// `y = x + s r`, s a number for each batch entry; no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddScaled;

impl Op for AddScaled {
    fn name(&self) -> &'static str {
        "add_scaled"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect_inputs("add_scaled", inputs, 3)?;
        let x = &inputs[0].shape;
        if x.rank() < 2 {
            return Err(Error::shape(format!("add_scaled takes [batch, .., channels], found {x}")));
        }
        expect_shape(inputs, 1, "the summand to scale", x)?;
        expect_kind(inputs, 2, "the scale", Kind::F32)?;
        expect_shape(inputs, 2, "the scale", &[x.batch(), 1].into())?;
        Ok(inputs[0].clone())
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let mut y = inputs[0].clone();
        let each = (output.len() / output.batch().max(1)).max(1);
        y.data.par_chunks_mut(each).enumerate().for_each(|(b, y)| {
            let s = inputs[2].data[b];
            y.iter_mut().zip(&inputs[1].data[b * each..]).for_each(|(y, r)| *y += s * r);
        });
        y
    }

    fn launch(&self, _inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let vectors = output.device_len() / 4;
        Ok(Launch::flat("add_scaled", 3, vectors, caps)
            .param("vectors_per_batch", vectors / output.shape.batch().max(1)))
    }

    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        2 * output.shape.len() as u64
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |shape: &[usize]| {
        let x = Ty::act(Shape::new(shape));
        Case::new(AddScaled, [x.clone(), x.clone(), Ty::new(Kind::F32, [x.shape.batch(), 1])])
    };
    let both = |fill| case(&[2, 9, 5]).fill(0, Fill::With(fill)).fill(1, Fill::With(fill));
    let shapes: [&[usize]; 4] = [&[1, 1], &[3, 7, 5], &[5, 3, 3, 6], &[2, 16, 16, 320]];
    let none = case(&[2, 8, 8, 4]).fill(2, Fill::With(|_| 0.0));
    shapes.map(case).into_iter().chain([none, both(large), both(|i| subnormal(i) / 2.0)]).collect()
}

/// What a full check adds: two latents of SDXL.
pub(super) fn largest(_: &Caps) -> Vec<Case> {
    vec![Case::new(AddScaled, [Ty::act(UNET), Ty::act(UNET), Ty::new(Kind::F32, [UNET[0], 1])])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_entry_has_its_own_scale() {
        let x = Tensor::new([2, 1, 2], vec![1.0; 4]);
        let r = Tensor::new([2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let s = Tensor::new([2, 1], vec![0.5, -1.0]);
        assert_eq!(AddScaled.reference(&[&x, &r, &s], &x.shape).data, [1.5, 2.0, -2.0, -3.0]);
    }

    #[test]
    fn a_residual_of_another_shape_and_a_scale_for_another_batch_are_errors() {
        let message = |r: [usize; 2], s: [usize; 2]| {
            let inputs = [Ty::act([2, 3]), Ty::act(r), Ty::new(Kind::F32, s)];
            AddScaled.output(&inputs).unwrap_err().to_string()
        };
        assert!(message([2, 4], [2, 1]).contains("the summand to scale should be [2, 3], found [2, 4]"));
        assert!(message([2, 3], [1, 1]).contains("the scale should be [2, 1], found [1, 1]"));
    }
}
