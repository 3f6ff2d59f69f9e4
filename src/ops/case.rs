//! A case: an op with input types and a way to fill them. The same cases are parity tests, shader translation tests,
//! benchmarks and the on-device self-test. Here too are the tolerances and the comparison, each in one place.

use std::sync::Arc;

use half::f16;

use super::{Kind, Op, Ty};
use crate::rng::Generator;
use crate::tensor::{DType, Tensor};

/// How an input of a case is filled. Everything is a function of the case's seed.
#[derive(Debug, Clone, Copy)]
pub enum Fill {
    /// Normal with this standard deviation.
    Normal(f32),
    /// Whole numbers from 0 up to, not including, this.
    Below(u32),
    /// A function of the element's index.
    With(fn(usize) -> f32),
}

/// An op, its input types, and how to fill them.
#[derive(Debug)]
pub struct Case {
    pub op: Arc<dyn Op>,
    pub inputs: Vec<(Ty, Fill)>,
}

impl Case {
    /// A case whose matrices have deviation 1/sqrt(rows), so that products stay near unit scale, and whose other inputs
    /// are standard normal.
    pub fn new(op: impl Op, inputs: impl IntoIterator<Item = Ty>) -> Self {
        Self::of(Arc::new(op), inputs)
    }

    /// [`Case::new`] for an op that a graph shares.
    pub fn of(op: Arc<dyn Op>, inputs: impl IntoIterator<Item = Ty>) -> Self {
        let fill = |ty: &Ty| match ty.kind {
            Kind::Weight => Fill::Normal((ty.shape.rows() as f32).sqrt().recip()),
            _ => Fill::Normal(1.0),
        };
        let inputs = inputs
            .into_iter()
            .map(|ty| {
                let fill = fill(&ty);
                (ty, fill)
            })
            .collect();
        Self { op, inputs }
    }

    /// The same with input `index` filled otherwise.
    pub fn fill(mut self, index: usize, fill: Fill) -> Self {
        self.inputs[index].1 = fill;
        self
    }

    pub fn types(&self) -> Vec<Ty> {
        self.inputs.iter().map(|(ty, _)| ty.clone()).collect()
    }

    /// Op, attributes and input shapes: the case's name in reports.
    pub fn name(&self) -> String {
        let shapes: Vec<_> = self.inputs.iter().map(|(ty, _)| ty.shape.to_string()).collect();
        format!("{:?} {}", self.op, shapes.join(" "))
    }

    /// The input tensors, rounded to what the device will hold: `act` for activations, `weight` for matrices.
    pub fn tensors(&self, seed: u64, act: DType, weight: DType) -> Vec<Tensor> {
        let mut generator = Generator::new(seed);
        self.inputs
            .iter()
            .map(|(ty, fill)| {
                let n = ty.shape.len();
                let data: Vec<f32> = match *fill {
                    Fill::Normal(scale) => generator.normal(n).into_iter().map(|v| v * scale).collect(),
                    Fill::Below(limit) => {
                        generator.normal(n).into_iter().map(|v| ((v.abs() * 1e4) as u32 % limit) as f32).collect()
                    }
                    Fill::With(f) => (0..n).map(f).collect(),
                };
                let held = match ty.kind {
                    Kind::Act => act,
                    Kind::Weight => weight,
                    Kind::F32 | Kind::U32 => DType::F32,
                };
                Tensor::new(ty.shape.clone(), round_to(held, data))
            })
            .collect()
    }
}

/// Rounds to the nearest value that `dtype` holds.
pub fn round_to(dtype: DType, data: Vec<f32>) -> Vec<f32> {
    match dtype {
        DType::F16 => data.into_iter().map(|v| f16::from_f32(v).to_f32()).collect(),
        _ => data,
    }
}

/// The largest relative error `‖out − ref‖₂ / ‖ref‖₂` of a kernel: in f16 2e-3; in f32 1e-5, and less for short sums
/// (1e-6 times the square root of the number of terms).
pub fn tolerance(dtype: DType, sum_length: Option<usize>) -> f64 {
    match (dtype, sum_length) {
        (DType::F16, _) => 2e-3,
        (_, Some(terms)) => (1e-6 * (terms as f64).sqrt()).min(1e-5),
        (_, None) => 1e-5,
    }
}

/// How far an output is from its reference.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    /// `‖out − ref‖₂ / ‖ref‖₂`; infinite if either holds what the other does not: NaN, infinities.
    pub relative: f64,
    pub max_abs: f64,
    /// Index of the largest absolute difference, with both values.
    pub worst: (usize, f32, f32),
}

/// # Panics
/// If the shapes differ: the shape rule is wrong then, and no number says how much.
pub fn compare(output: &Tensor, reference: &Tensor) -> Difference {
    assert_eq!(output.shape, reference.shape, "output and reference differ in shape");
    let (mut error, mut norm) = (0f64, 0f64);
    let (mut max_abs, mut worst) = (0f64, (0, 0.0, 0.0));
    for (i, (&out, &wanted)) in output.data.iter().zip(&reference.data).enumerate() {
        let same = out == wanted || (out.is_nan() && wanted.is_nan());
        let difference = if same { 0.0 } else { (f64::from(out) - f64::from(wanted)).abs() };
        let difference = if difference.is_nan() { f64::INFINITY } else { difference };
        if difference > max_abs || i == 0 {
            (max_abs, worst) = (difference, (i, out, wanted));
        }
        error += difference * difference;
        norm += if wanted.is_finite() { f64::from(wanted).powi(2) } else { 0.0 };
    }
    let relative = if error == 0.0 { 0.0 } else { (error / norm).sqrt() };
    Difference { relative, max_abs, worst }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(data: &[f32]) -> Tensor {
        Tensor::new([data.len()], data.to_vec())
    }

    #[test]
    fn relative_error_is_the_ratio_of_norms() {
        let d = compare(&row(&[3.0, 4.5]), &row(&[3.0, 4.0]));
        assert!((d.relative - 0.1).abs() < 1e-12);
        assert_eq!(d.worst, (1, 4.5, 4.0));
    }

    #[test]
    fn a_nan_where_the_reference_has_a_number_is_infinitely_wrong() {
        assert_eq!(compare(&row(&[f32::NAN]), &row(&[1.0])).relative, f64::INFINITY);
        assert_eq!(compare(&row(&[1.0]), &row(&[f32::NAN])).max_abs, f64::INFINITY);
    }

    #[test]
    fn short_sums_have_a_tighter_tolerance() {
        assert_eq!(tolerance(DType::F32, Some(4)), 2e-6);
        assert_eq!(tolerance(DType::F32, Some(1_000_000)), 1e-5);
        assert_eq!(tolerance(DType::F16, Some(4)), 2e-3);
    }
}
