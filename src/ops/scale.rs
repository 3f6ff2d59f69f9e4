//! `y = factor * x`, element by element; x and y of the same shape. Scales latents (diffusers
//! `vae.config.scaling_factor`, `scheduler.scale_model_input`).

use rayon::prelude::*;

use super::{Case, Fill, Inputs, Kind, Launch, Op, Ty, beyond, expect, large, subnormal};
use crate::caps::Caps;
use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// `y = factor x`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// What each element is multiplied with.
    pub factor: f32,
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect("scale", inputs, &[("x", Kind::Act)])?;
        Ok(inputs[0].clone())
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let data = inputs[0].data.par_iter().with_min_len(4096).map(|x| x * self.factor).collect();
        Tensor::new(output.clone(), data)
    }

    fn launch(&self, _inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        Ok(Launch::flat("scale", 1, output.device_len() / 4, caps).param_f32("factor", self.factor))
    }

    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        output.shape.len() as u64
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |factor, shape: &[usize]| Case::new(Scale { factor }, [Ty::act(Shape::new(shape))]);
    vec![
        case(-2.0, &[1]),
        case(0.18215, &[3, 7, 5]),
        case(0.0, &[2, 5]),
        case(1.0 / 0.18215, &[2, 64, 64, 4]),
        case(2.0, &[3, 7, 5]).fill(0, Fill::With(large)),
        case(0.5, &[3, 7, 5]).fill(0, Fill::With(subnormal)),
        // Subnormal in f32.
        case(0.5, &[3, 7, 5]).fill(0, Fill::With(|i| 1.5e-38 * (i as f32 * 1.7).sin())),
    ]
}

/// What a full check adds: activations that are just too many for one binding even in f16. Nothing of this size is
/// ever made.
pub(super) fn largest(caps: &Caps) -> Vec<Case> {
    vec![Case::new(Scale { factor: 2.0 }, [Ty::act([beyond(caps, 1024), 1024])])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_multiplied() {
        let x = Tensor::new([3], vec![1.0, -2.0, 0.5]);
        assert_eq!(Scale { factor: 4.0 }.reference(&[&x], &x.shape).data, [4.0, -8.0, 2.0]);
    }

    #[test]
    fn indices_are_refused() {
        let error = Scale { factor: 1.0 }.output(&[Ty::new(Kind::U32, [3])]).unwrap_err().to_string();
        assert!(error.contains("x should be Act, found U32"), "{error}");
    }
}
