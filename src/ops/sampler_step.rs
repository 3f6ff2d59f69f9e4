//! `y[0, p] = factors[1] * o[p] + sum over s of factors[2 + s] * slots[s, p]`, the next latents of pictures p, and
//! `y[1, p] = o[p]`, a network's output under classifier-free guidance (Ho and Salimans 2022): `x[p]` or, for two
//! texts, `x[p] + factors[0] * (x[P + p] - x[p])`, the unconditional first. In f32.

use super::sampler_input::{add_slots, slot};
use super::{Case, Fill, Inputs, Kind, Launch, Op, Ty, expect_inputs, expect_kind, expect_shape};
use crate::caps::Caps;
use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// Guidance and a sampler's next state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerStep {
    /// Whether x is of two texts.
    pub guided: bool,
}

/// Factors before those of the slots: the guidance and the output's.
pub const FACTORS: usize = 2;

impl Op for SamplerStep {
    fn name(&self) -> &'static str {
        "sampler_step"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect_inputs("sampler_step", inputs, 3)?;
        expect_kind(inputs, 0, "sampler_step: x", Kind::Act)?;
        expect_kind(inputs, 1, "the slots", Kind::F32)?;
        expect_kind(inputs, 2, "the factors", Kind::F32)?;
        let slots = &inputs[1].shape;
        let slot = slot(slots)?;
        let texts = if self.guided { 2 } else { 1 };
        expect_shape(inputs, 0, "sampler_step: x", &slot.with_batch(texts * slot.batch()))?;
        expect_shape(inputs, 2, "the factors", &[FACTORS + slots.batch()].into())?;
        Ok(Ty::new(Kind::F32, slots.with_batch(2)))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let (x, factors) = (&inputs[0].data, &inputs[2].data);
        let (first, second) = x.split_at(output.len() / 2);
        let mut guided = first.to_vec();
        if self.guided {
            guided.iter_mut().zip(second).for_each(|(u, c)| *u += factors[0] * (c - *u));
        }
        let mut y: Vec<f32> = guided.iter().map(|v| factors[1] * v).collect();
        add_slots(&factors[FACTORS..], &inputs[1].data, &mut y);
        y.extend(guided);
        Tensor::new(output.clone(), y)
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        Ok(Launch::flat("sampler_step", 3, output.device_len() / 8, caps)
            .constant("GUIDED", self.guided)
            .param("slots", inputs[1].shape.batch()))
    }

    fn flops(&self, inputs: Inputs, output: &Ty) -> u64 {
        (inputs[1].shape.batch() + FACTORS) as u64 * output.shape.len() as u64
    }

    fn sum_length(&self, inputs: Inputs) -> Option<usize> {
        Some(inputs[1].shape.batch() + FACTORS)
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |guided, slots: &[usize]| {
        let slots = Shape::new(slots);
        let texts = if guided { 2 } else { 1 };
        let x = Shape::new(&slots.dims()[1..]);
        let factors = Ty::new(Kind::F32, [FACTORS + slots.batch()]);
        let x = Ty::act(x.with_batch(texts * x.batch()));
        Case::new(SamplerStep { guided }, [x, Ty::new(Kind::F32, slots), factors])
    };
    vec![
        case(false, &[1, 1, 1]),
        case(true, &[1, 1, 64, 64, 4]),
        case(true, &[5, 3, 3, 7, 5]),
        case(false, &[9, 2, 4, 4, 4]),
        case(true, &[6, 2, 5, 3, 4]).fill(2, Fill::With(|i| [7.5, -0.3, 0.0, 0.9, 0.0, 1.1, 0.0, 0.0][i])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_moves_past_the_conditional_output_and_the_slots_are_added() {
        let x = Tensor::new([2, 2], vec![1.0, 2.0, 5.0, 6.0]);
        let slots = Tensor::new([1, 1, 2], vec![100.0, 200.0]);
        let factors = Tensor::new([3], vec![2.0, 10.0, 0.5]);
        let y = SamplerStep { guided: true }.reference(&[&x, &slots, &factors], &[2, 1, 2].into());
        assert_eq!(y.data, [140.0, 200.0, 9.0, 10.0]);
    }

    #[test]
    fn without_a_second_text_the_output_is_as_it_is() {
        let x = Tensor::new([1, 2], vec![1.0, 2.0]);
        let slots = Tensor::new([1, 1, 2], vec![0.0; 2]);
        let factors = Tensor::new([3], vec![2.0, 10.0, 0.5]);
        let y = SamplerStep { guided: false }.reference(&[&x, &slots, &factors], &[2, 1, 2].into());
        assert_eq!(y.data, [10.0, 20.0, 1.0, 2.0]);
    }

    #[test]
    fn an_output_for_another_number_of_texts_is_an_error() {
        let inputs = [Ty::act([1, 4]), Ty::new(Kind::F32, [1, 1, 4]), Ty::new(Kind::F32, [3])];
        let error = SamplerStep { guided: true }.output(&inputs).unwrap_err().to_string();
        assert!(error.contains("x should be [2, 4], found [1, 4]"), "{error}");
    }
}
