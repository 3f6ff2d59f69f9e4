//! `y[r, p] = sum over s of factors[s] * slots[s, p]`, for each of so many texts r: what a network sees of the latents
//! that a sampler keeps, in f32, for pictures p (diffusers' `scheduler.scale_model_input` and
//! `torch.cat([latents] * 2)`). The factors are an input, since they change from step to step.

use super::{Case, Fill, Inputs, Kind, Launch, Op, Ty, expect_inputs, expect_kind, expect_shape};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// What a UNet reads of a sampler's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerInput {
    /// How often every picture is repeated.
    pub texts: usize,
}

/// The shape of one of the `[slots, pictures, .., channels]`.
pub(super) fn slot(slots: &Shape) -> Result<Shape> {
    match slots.dims() {
        [_, rest @ ..] if rest.len() >= 2 => Ok(Shape::new(rest)),
        _ => Err(Error::shape(format!("the slots should be [slots, pictures, .., channels], found {slots}"))),
    }
}

/// Adds the slots of which each has a factor, times it, to `y`. What a slot without a factor holds does not matter.
pub(super) fn add_slots(factors: &[f32], slots: &[f32], y: &mut [f32]) {
    for (factor, slot) in factors.iter().zip(slots.chunks_exact(y.len())).filter(|(factor, _)| **factor != 0.0) {
        y.iter_mut().zip(slot).for_each(|(y, v)| *y += factor * v);
    }
}

impl Op for SamplerInput {
    fn name(&self) -> &'static str {
        "sampler_input"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect_inputs("sampler_input", inputs, 2)?;
        expect_kind(inputs, 0, "the slots", Kind::F32)?;
        expect_kind(inputs, 1, "the factors", Kind::F32)?;
        let slots = &inputs[0].shape;
        expect_shape(inputs, 1, "the factors", &[slots.batch()].into())?;
        let slot = slot(slots)?;
        Ok(Ty::act(slot.with_batch(self.texts * slot.batch())))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let mut y = vec![0.0; output.len() / self.texts];
        add_slots(&inputs[1].data, &inputs[0].data, &mut y);
        Tensor::new(output.clone(), y.repeat(self.texts))
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let vectors = output.device_len() / 4;
        Ok(Launch::flat("sampler_input", 2, vectors, caps)
            .param("vectors_per_slot", vectors / self.texts)
            .param("slots", inputs[0].shape.batch()))
    }

    fn flops(&self, inputs: Inputs, output: &Ty) -> u64 {
        2 * (inputs[0].shape.batch() * output.shape.len()) as u64
    }

    fn sum_length(&self, inputs: Inputs) -> Option<usize> {
        Some(inputs[0].shape.batch())
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |texts, slots: &[usize]| {
        let slots = Shape::new(slots);
        let factors = Ty::new(Kind::F32, [slots.batch()]);
        Case::new(SamplerInput { texts }, [Ty::new(Kind::F32, slots), factors])
    };
    vec![
        case(1, &[1, 1, 1]),
        case(2, &[1, 1, 64, 64, 4]),
        case(3, &[5, 2, 3, 7, 5]),
        case(2, &[9, 1, 4, 4, 4]),
        // One slot of many, as a step has it.
        case(2, &[6, 2, 5, 3, 4]).fill(1, Fill::With(|i| if i == 4 { 0.07 } else { 0.0 })),
        case(1, &[3, 1, 2, 2, 4]).fill(1, Fill::With(|_| 0.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_gets_the_same_sum_of_the_slots() {
        let slots = Tensor::new([2, 1, 2], vec![1.0, 2.0, 10.0, 20.0]);
        let y = SamplerInput { texts: 2 }.reference(&[&slots, &Tensor::new([2], vec![3.0, 0.5])], &[2, 2].into());
        assert_eq!(y.data, [8.0, 16.0, 8.0, 16.0]);
    }

    #[test]
    fn a_slot_without_a_factor_may_hold_anything() {
        let slots = Tensor::new([2, 1, 1], vec![1.0, f32::NAN]);
        let y = SamplerInput { texts: 1 }.reference(&[&slots, &Tensor::new([2], vec![2.0, 0.0])], &[1, 1].into());
        assert_eq!(y.data, [2.0]);
    }

    #[test]
    fn a_factor_for_another_number_of_slots_is_an_error() {
        let inputs = [Ty::new(Kind::F32, [2, 1, 4]), Ty::new(Kind::F32, [3])];
        let error = SamplerInput { texts: 1 }.output(&inputs).unwrap_err().to_string();
        assert!(error.contains("the factors should be [2], found [3]"), "{error}");
        let inputs = [Ty::new(Kind::F32, [2, 4]), Ty::new(Kind::F32, [2])];
        assert!(SamplerInput { texts: 1 }.output(&inputs).unwrap_err().to_string().contains("[slots, pictures"));
    }
}
