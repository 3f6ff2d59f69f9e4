//! `y = a + b`, element by element, of two equal shapes: the residual connections of every network (PyTorch `+`). As a
//! rule it runs in the epilogue of the product that made one of the two.

use rayon::prelude::*;

use super::{Case, Fill, Inputs, Launch, Op, Ty, UNET, VAE, expect_inputs, expect_shape, large, subnormal};
use crate::caps::Caps;
use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// `y = a + b`; no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect_inputs("add", inputs, 2)?;
        expect_shape(inputs, 1, "the second summand", &inputs[0].shape)?;
        Ok(inputs[0].clone())
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let (a, b) = (&inputs[0].data, &inputs[1].data);
        let data = a.par_iter().zip(b).with_min_len(1 << 16).map(|(a, b)| a + b).collect();
        Tensor::new(output.clone(), data)
    }

    fn launch(&self, _inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        Ok(Launch::flat("add", 2, output.device_len() / 4, caps))
    }

    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        output.shape.len() as u64
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |shape: &[usize]| Case::new(Add, [Ty::act(Shape::new(shape)), Ty::act(Shape::new(shape))]);
    let both = |fill| case(&[2, 9, 5]).fill(0, Fill::With(fill)).fill(1, Fill::With(fill));
    let shapes: [&[usize]; 5] = [&[1], &[3, 7, 5], &[1, 255, 4], &[1, 257, 4], &[2, 16, 16, 320]];
    shapes.map(case).into_iter().chain([both(large), both(|i| subnormal(i) / 2.0)]).collect()
}

/// What a full check adds: two latents of SDXL, and a picture of SDXL inside the VAE.
pub(super) fn largest(_: &Caps) -> Vec<Case> {
    [UNET, VAE].map(|x| Case::new(Add, [Ty::act(x), Ty::act(x)])).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_shapes_are_an_error_that_names_both() {
        let error = Add.output(&[Ty::act([2, 3]), Ty::act([2, 4])]).unwrap_err().to_string();
        assert!(error.contains("[2, 3]") && error.contains("[2, 4]"), "{error}");
    }

    #[test]
    fn one_thread_works_on_one_vector_of_four() {
        let ty = Ty::act([2, 16, 16, 322]);
        let launch = Add.launch(&[ty.clone(), ty.clone()], &ty, &Caps::webgpu_default()).unwrap();
        assert_eq!(launch.workgroups, [(512 * 81usize).div_ceil(256) as u32, 1, 1]);
    }
}
