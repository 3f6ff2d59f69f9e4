//! `y[0, p] = f[0] * o[p] + sum over s of f[1 + s] * slots[s, p]`, the next latents of pictures p, and
//! `y[1, p] = o[p]`, a network's output under classifier-free guidance (Ho and Salimans 2022) by any number of rows r
//! of each picture: `x[0, p] + sum over r of factors[r - 1] * (x[r, p] - x[r - 1, p])`. `f` are the factors after
//! those. In f32.

use super::sampler_input::{add_slots, slot};
use super::{Case, Fill, Inputs, Kind, Launch, Op, Ty, expect_inputs, expect_kind, expect_shape};
use crate::caps::Caps;
use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// Guidance and a sampler's next state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerStep {
    /// Rows of each picture: 1 without guidance, 2 with that of a text.
    pub rows: usize,
}

impl SamplerStep {
    /// How many factors there are: the guidance's, the output's, and one for each slot.
    pub fn factors(&self, slots: usize) -> usize {
        self.rows + slots
    }
}

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
        expect_shape(inputs, 0, "sampler_step: x", &slot.with_batch(self.rows * slot.batch()))?;
        expect_shape(inputs, 2, "the factors", &[self.factors(slots.batch())].into())?;
        Ok(Ty::new(Kind::F32, slots.with_batch(2)))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let (x, factors) = (&inputs[0].data, &inputs[2].data);
        let (guidance, rest) = factors.split_at(self.rows - 1);
        let rows: Vec<_> = x.chunks_exact(output.len() / 2).collect();
        let mut guided = rows[0].to_vec();
        for (factor, pair) in guidance.iter().zip(rows.windows(2)) {
            let differences = pair[1].iter().zip(pair[0]).map(|(of, against)| factor * (of - against));
            guided.iter_mut().zip(differences).for_each(|(value, difference)| *value += difference);
        }
        let mut y: Vec<f32> = guided.iter().map(|v| rest[0] * v).collect();
        add_slots(&rest[1..], &inputs[1].data, &mut y);
        y.extend(guided);
        Tensor::new(output.clone(), y)
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        Ok(Launch::flat("sampler_step", 3, output.device_len() / 8, caps)
            .constant("ROWS", self.rows as u32)
            .param("slots", inputs[1].shape.batch()))
    }

    fn flops(&self, inputs: Inputs, output: &Ty) -> u64 {
        self.factors(inputs[1].shape.batch()) as u64 * output.shape.len() as u64
    }

    fn sum_length(&self, inputs: Inputs) -> Option<usize> {
        Some(self.factors(inputs[1].shape.batch()))
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |rows, slots: &[usize]| {
        let (op, slots) = (SamplerStep { rows }, Shape::new(slots));
        let x = Shape::new(&slots.dims()[1..]);
        let factors = Ty::new(Kind::F32, [op.factors(slots.batch())]);
        let x = Ty::act(x.with_batch(rows * x.batch()));
        Case::new(op, [x, Ty::new(Kind::F32, slots), factors])
    };
    vec![
        case(1, &[1, 1, 1]),
        case(2, &[1, 1, 64, 64, 4]),
        case(2, &[5, 3, 3, 7, 5]),
        case(1, &[9, 2, 4, 4, 4]),
        case(3, &[2, 2, 3, 5, 4]),
        case(4, &[4, 1, 2, 3, 5]),
        case(2, &[6, 2, 5, 3, 4]).fill(2, Fill::With(|i| [7.5, -0.3, 0.0, 0.9, 0.0, 1.1, 0.0, 0.0][i])),
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
        let y = SamplerStep { rows: 2 }.reference(&[&x, &slots, &factors], &[2, 1, 2].into());
        assert_eq!(y.data, [140.0, 200.0, 9.0, 10.0]);
    }

    #[test]
    fn three_rows_guide_by_two_differences() {
        let x = Tensor::new([3, 1], vec![1.0, 1.5, 1.75]);
        let factors = Tensor::new([4], vec![2.0, 10.0, 1.0, 0.0]);
        let y = SamplerStep { rows: 3 }.reference(&[&x, &Tensor::zeros([1, 1, 1]), &factors], &[2, 1, 1].into());
        assert_eq!(y.data, [1.0 + 2.0 * 0.5 + 10.0 * 0.25; 2]);
    }

    #[test]
    fn without_a_second_text_the_output_is_as_it_is() {
        let x = Tensor::new([1, 2], vec![1.0, 2.0]);
        let slots = Tensor::new([1, 1, 2], vec![0.0; 2]);
        let factors = Tensor::new([2], vec![10.0, 0.5]);
        let y = SamplerStep { rows: 1 }.reference(&[&x, &slots, &factors], &[2, 1, 2].into());
        assert_eq!(y.data, [10.0, 20.0, 1.0, 2.0]);
    }

    #[test]
    fn an_output_for_another_number_of_texts_is_an_error() {
        let inputs = [Ty::act([1, 4]), Ty::new(Kind::F32, [1, 1, 4]), Ty::new(Kind::F32, [3])];
        let error = SamplerStep { rows: 2 }.output(&inputs).unwrap_err().to_string();
        assert!(error.contains("x should be [2, 4], found [1, 4]"), "{error}");
    }
}
