//! A case: an op with input types and a way to fill them. The same cases are parity tests, shader translation tests,
//! benchmarks and the on-device self-test. Here too are the tolerances and the comparison, each in one place.

use std::sync::Arc;

use half::f16;

use super::{Inputs, Kind, Op, Ty, Variant};
use crate::caps::Caps;
use crate::error::Result;
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

/// For [`Fill::With`]: up to f16's end, so that sums and products pass it.
pub fn large(i: usize) -> f32 {
    60_000.0 * (i as f32 * 1.7).sin()
}

/// For [`Fill::With`]: so small that f16 holds them as subnormals, and what is computed from them too.
pub fn subnormal(i: usize) -> f32 {
    1.5e-5 * (i as f32 * 1.7).sin()
}

/// An op, its input types, and how to fill them.
#[derive(Debug)]
pub struct Case {
    /// The op with its attributes.
    pub op: Arc<dyn Op>,
    /// The type of each input and how it is filled, in the op's order.
    pub inputs: Vec<(Ty, Fill)>,
}

impl Case {
    /// A case whose matrices have deviation 1/sqrt(rows), so that products stay near unit scale, whose bytes are any,
    /// and whose other inputs are standard normal.
    pub fn new(op: impl Op, inputs: impl IntoIterator<Item = Ty>) -> Self {
        Self::of(Arc::new(op), inputs)
    }

    /// [`Case::new`] for an op that a graph shares.
    pub fn of(op: Arc<dyn Op>, inputs: impl IntoIterator<Item = Ty>) -> Self {
        let filled = |ty: Ty| {
            let fill = match ty.kind {
                Kind::Weight => Fill::Normal((ty.shape.rows() as f32).sqrt().recip()),
                Kind::Bytes => Fill::Below(256),
                _ => Fill::Normal(1.0),
            };
            (ty, fill)
        };
        Self { op, inputs: inputs.into_iter().map(filled).collect() }
    }

    /// The same with input `index` filled otherwise.
    pub fn fill(mut self, index: usize, fill: Fill) -> Self {
        self.inputs[index].1 = fill;
        self
    }

    /// The inputs' types: what [`Op`]'s methods take.
    pub fn types(&self) -> Vec<Ty> {
        self.inputs.iter().map(|(ty, _)| ty.clone()).collect()
    }

    /// Op, attributes and input shapes: the case's name in reports.
    pub fn name(&self) -> String {
        let shapes: Vec<_> = self.inputs.iter().map(|(ty, _)| ty.shape.to_string()).collect();
        format!("{:?} {}", self.op, shapes.join(" "))
    }

    /// What should come of these inputs where activations are stored in `act`.
    ///
    /// # Errors
    /// If the case contradicts its op's shape rule.
    pub fn expected(&self, inputs: &[Tensor], act: DType) -> Result<Expected> {
        let types = self.types();
        let output = self.op.output(&types)?;
        let reference = self.op.reference(&inputs.iter().collect::<Vec<_>>(), &output.shape);
        Ok(Expected::new(&*self.op, &types, output.kind, reference, act))
    }

    /// Every way to launch it on a device, the preferred first.
    ///
    /// # Errors
    /// If the case contradicts its op's shape rule, or the device can run none.
    pub fn variants(&self, caps: &Caps) -> Result<Vec<Variant>> {
        let types = self.types();
        self.op.variants(&types, &self.op.output(&types)?, caps)
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
                Tensor::new(ty.shape.clone(), round_to(ty.kind.dtype(act, weight), data))
            })
            .collect()
    }
}

/// What a case's output is held against.
#[derive(Debug)]
pub struct Expected {
    /// In f32, by the definition.
    pub reference: Tensor,
    /// The type in which a device stores the output.
    stored: DType,
    /// Whether its elements are sums, which may cancel.
    sums: bool,
    /// The largest relative error that passes.
    pub limit: f64,
}

impl Expected {
    /// Of an op whose inputs have these types and whose output, of that kind, should be `reference`, where activations
    /// are stored in `act`.
    pub fn new(op: &dyn Op, inputs: Inputs, output: Kind, reference: Tensor, act: DType) -> Self {
        let stored = if output == Kind::Act { act } else { DType::F32 };
        let terms = op.sum_length(inputs);
        Self { reference, stored, sums: terms.is_some(), limit: tolerance(act, terms) }
    }

    /// How far a device's output is from the reference, as the device stores it. Units in the last place say something
    /// of elements near their own magnitude only: not of sums, nor where some elements alone are further off than the
    /// tolerance, since those are what is left of larger ones.
    pub fn compare(&self, output: &Tensor) -> Difference {
        let difference = compare_stored(output, &self.reference, self.stored);
        let most = self.limit / spacing(self.stored, 1.0);
        Difference { max_ulp: difference.max_ulp.filter(|ulp| !self.sums && *ulp <= most), ..difference }
    }

    /// What is wrong with an output that is so far off, unless the tolerance allows it.
    pub fn fault(&self, difference: &Difference) -> Option<String> {
        let Difference { relative, worst: (index, found, wanted), .. } = difference;
        let (limit, place) = (self.limit, self.reference.shape.place(*index));
        // NaN is wrong as well.
        let right = *relative <= limit;
        let what = if found.is_nan() { ": not a number, or never written" } else { "" };
        (!right).then(|| {
            format!(
                "relative error {relative:.1e} exceeds {limit:.0e}; worst at {place}: {found} should be {wanted}{what}"
            )
        })
    }
}

/// Rounds to the nearest value that `dtype` holds; what is too large becomes infinite.
pub fn round_to(dtype: DType, mut data: Vec<f32>) -> Vec<f32> {
    if dtype == DType::F16 {
        data.iter_mut().for_each(|v| *v = round(dtype, *v));
    }
    data
}

fn round(dtype: DType, v: f32) -> f32 {
    if dtype == DType::F16 { f16::from_f32(v).to_f32() } else { v }
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
    /// The largest absolute difference of two elements.
    pub max_abs: f64,
    /// The largest difference in units of the stored type's spacing at the reference's value, where that says
    /// something ([`Expected::compare`]). It informs, and decides nothing.
    pub max_ulp: Option<f64>,
    /// Index of the largest absolute difference, with both values.
    pub worst: (usize, f32, f32),
}

/// [`compare_stored`] for values that are stored in f32.
pub fn compare(output: &Tensor, reference: &Tensor) -> Difference {
    compare_stored(output, reference, DType::F32)
}

/// Compares an output that a device stored in `dtype` with its reference, which was not rounded to it. Two things that
/// storing does are no difference:
///
/// * Overflow: where the reference is beyond f16's range the output has to be infinite, with that sign. Values within
///   0.2 % (f16's tolerance) of the limit may be either.
/// * Subnormals: they are compared as `dtype` rounds them, in f16 after an error of at most 0.2 %, which may have them
///   rounded the other way; and they may have become zero, since GPUs may flush them.
///
/// # Panics
/// If the shapes differ: the shape rule is wrong then, and no number says how much.
pub fn compare_stored(output: &Tensor, reference: &Tensor, dtype: DType) -> Difference {
    assert_eq!(output.shape, reference.shape, "output and reference differ in shape");
    let (mut error, mut norm) = (0f64, 0f64);
    let (mut max_abs, mut max_ulp, mut worst) = (0f64, 0f64, (0, 0.0, 0.0));
    for (i, (&out, &exact)) in output.data.iter().zip(&reference.data).enumerate() {
        let wanted = as_stored(dtype, exact, out);
        let same = out == wanted || (out.is_nan() && wanted.is_nan());
        let difference = if same { 0.0 } else { (f64::from(out) - f64::from(wanted)).abs() };
        let difference = if difference.is_nan() { f64::INFINITY } else { difference };
        if difference > max_abs || i == 0 {
            (max_abs, worst) = (difference, (i, out, wanted));
        }
        if !same {
            max_ulp = max_ulp.max(difference / spacing(dtype, wanted));
        }
        error += difference * difference;
        norm += if wanted.is_finite() { f64::from(wanted).powi(2) } else { 0.0 };
    }
    let relative = if error == 0.0 { 0.0 } else { (error / norm).sqrt() };
    Difference { relative, max_abs, max_ulp: Some(max_ulp), worst }
}

/// From here on f16 rounds to infinity.
const F16_OVERFLOW: f32 = 65_520.0;
const F16_LEAST_NORMAL: f32 = 6.103_515_6e-5;

/// What `dtype` holds of `exact` where storing is not mere rounding, given what was found.
fn as_stored(dtype: DType, exact: f32, found: f32) -> f32 {
    let magnitude = exact.abs();
    let least_normal = if dtype == DType::F16 { F16_LEAST_NORMAL } else { f32::MIN_POSITIVE };
    if magnitude < least_normal {
        let [low, high] = [0.998, 1.002].map(|near| round(dtype, magnitude * near).copysign(exact));
        let near = dtype == DType::F16 && (low.min(high)..=low.max(high)).contains(&found);
        return if found == 0.0 || near { found } else { round(dtype, exact) };
    }
    if dtype == DType::F16 && magnitude > F16_OVERFLOW * 0.998 {
        let infinite = f32::INFINITY.copysign(exact);
        if magnitude > F16_OVERFLOW * 1.002 || found == infinite {
            return infinite;
        }
    }
    exact
}

/// The distance between neighbouring values of `dtype` at `x`.
fn spacing(dtype: DType, x: f32) -> f64 {
    let (digits, least) = if dtype == DType::F16 { (10, -24) } else { (23, -149) };
    let exponent = (x.to_bits() >> 23 & 0xff) as i32 - 127;
    2f64.powi((exponent - digits).max(least))
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
    fn an_overflow_of_f16_is_infinite_and_nothing_else() {
        let reference = row(&[1e5, -1e5, 1.0]);
        let relative = |out: &[f32]| compare_stored(&row(out), &reference, DType::F16).relative;
        assert_eq!(relative(&[f32::INFINITY, f32::NEG_INFINITY, 1.0]), 0.0);
        assert_eq!(relative(&[65_504.0, f32::NEG_INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(relative(&[f32::INFINITY, f32::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(relative(&[f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY]), f64::INFINITY);
        assert_eq!(compare(&row(&[f32::INFINITY]), &row(&[1e5])).relative, f64::INFINITY);
    }

    #[test]
    fn a_value_at_the_edge_of_f16_may_be_stored_either_way() {
        for (edge, stored) in [(65_519.0, f32::INFINITY), (65_521.0, 65_504.0)] {
            assert!(compare_stored(&row(&[stored]), &row(&[edge]), DType::F16).relative < 1e-3, "{edge}");
        }
    }

    #[test]
    fn an_f16_subnormal_may_be_rounded_to_the_side_that_the_tolerance_allows() {
        let step = 2f32.powi(-24);
        let difference = |exact: f32, found: f32| compare_stored(&row(&[found]), &row(&[exact]), DType::F16).relative;
        assert_eq!(difference(58.499 * step, 59.0 * step), 0.0, "all but halfway between two");
        assert!(difference(58.3 * step, 59.0 * step) > 0.0, "clearly nearer to the one below");
        assert!(difference(58.499 * step, 60.0 * step) > 0.0, "the next but one");
    }

    #[test]
    fn a_subnormal_may_be_flushed_and_a_normal_value_may_not() {
        let relative = |reference, dtype| compare_stored(&row(&[0.0]), &row(&[reference]), dtype).relative;
        assert_eq!((relative(6e-5, DType::F16), relative(6.2e-5, DType::F16)), (0.0, 1.0));
        assert_eq!((relative(1e-38, DType::F32), relative(1.2e-38, DType::F32)), (0.0, 1.0));
        let halved = compare_stored(&row(&[3e-5]), &row(&[6e-5]), DType::F16);
        assert!(halved.relative > 0.4);
    }

    #[test]
    fn units_in_the_last_place_are_those_of_the_stored_type() {
        let d = |dtype| compare_stored(&row(&[1.0 + 1.0 / 1024.0]), &row(&[1.0]), dtype).max_ulp;
        assert_eq!((d(DType::F16), d(DType::F32)), (Some(1.0), Some(8192.0)));
    }

    #[test]
    fn units_in_the_last_place_say_nothing_of_what_is_left_of_larger_values() {
        let ulp = |sums, found| {
            let expected = Expected { reference: row(&[1.0, 1e-3]), stored: DType::F32, sums, limit: 1e-5 };
            expected.compare(&row(&[1.0, found])).max_ulp
        };
        assert_eq!(ulp(false, 1e-3 + f32::EPSILON / 1024.0), Some(1.0));
        assert_eq!((ulp(true, 1e-3), ulp(false, 1.001e-3)), (None, None));
    }

    #[test]
    fn short_sums_have_a_tighter_tolerance() {
        assert_eq!(tolerance(DType::F32, Some(4)), 2e-6);
        assert_eq!(tolerance(DType::F32, Some(1_000_000)), 1e-5);
        assert_eq!(tolerance(DType::F16, Some(4)), 2e-3);
    }
}
