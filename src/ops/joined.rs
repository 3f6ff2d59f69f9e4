//! An op whose x, its first input, is two tensors side by side: a [`Concat`] in its loader. Its inputs are those of
//! the op with x's first channels in the place of x, and then x's other channels. So the U-Net's up blocks read their
//! skips without a copy of both.

use super::concat::Concat;
use super::host::matrix::Matrix;
use super::{Binding, Inputs, Launch, Op, Ty, Variant, Weighted};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// The op, which has to launch kernels that are `Launch::joinable`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joined<O>(pub O);

/// Both parts' channels: whole vectors of the widest that a kernel reads.
const CHANNELS: usize = 8;

impl<O: Op> Joined<O> {
    /// `op` with `previous` in its loader, if that is a [`Concat`] and makes x.
    pub(super) fn with(op: O, previous: &dyn Op, operand: usize) -> Option<Box<dyn Op>> {
        previous.downcast_ref::<Concat>().filter(|_| operand == 0).map(|_| Box::new(Self(op)) as _)
    }

    /// The types of the op's own inputs.
    fn whole(inputs: Inputs) -> Result<Vec<Ty>> {
        let [x, others @ .., rest] = inputs else {
            return Err(Error::shape("an op on two tensors side by side takes both"));
        };
        let x = Concat.output(&[x.clone(), rest.clone()])?;
        if inputs.iter().take(1).chain([rest]).any(|part| !part.shape.channels().is_multiple_of(CHANNELS)) {
            let what = format!("both parts of x should have a multiple of {CHANNELS} channels");
            return Err(Error::shape(format!("{what}, found {} and {}", inputs[0].shape, rest.shape)));
        }
        Ok([&[x], others].concat())
    }

    fn checked(inputs: Inputs) -> Vec<Ty> {
        Self::whole(inputs).expect("the graph checked the shapes")
    }

    /// What `f` makes of the op's own inputs.
    fn on_whole<T>(inputs: &[&Tensor], f: impl FnOnce(&[&Tensor]) -> T) -> T {
        let [x, others @ .., rest] = inputs else { unreachable!("the graph checked the inputs") };
        let shape = x.shape.with_channels(x.shape.channels() + rest.shape.channels());
        let x = Concat.reference(&[x, rest], &shape);
        f(&[&[&x], others].concat())
    }

    /// The op's own launch, with both parts bound.
    fn join(inputs: Inputs, mut launch: Launch) -> Launch {
        let (binding, constant, param) =
            (launch.bindings.last_mut(), launch.constants.last_mut(), launch.params.last_mut());
        let all = binding.zip(constant).zip(param);
        let ((binding, constant), param) = all.expect("a joinable launch");
        debug_assert_eq!((constant.0, param.0), ("JOINED", "x_vectors"));
        *binding = Binding::Input(inputs.len() - 1);
        constant.1 = 1.0;
        param.1 = (inputs[0].shape.channels() / 4) as u32;
        launch
    }
}

impl<O: Op> Weighted for Joined<O> {
    fn execute_packed(&self, others: &[&Tensor], w: &Matrix, y: &mut Tensor) {
        let op = self.0.weighted().expect("an op with a packed matrix is one that takes it");
        Self::on_whole(others, |others| op.execute_packed(others, w, y));
    }
}

impl<O: Op> Op for Joined<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        self.0.output(&Self::whole(inputs)?)
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        Self::on_whole(inputs, |inputs| self.0.reference(inputs, output))
    }

    fn execute(&self, inputs: &[&Tensor], y: &mut Tensor) {
        Self::on_whole(inputs, |inputs| self.0.execute(inputs, y));
    }

    fn weighted(&self) -> Option<&dyn Weighted> {
        self.0.weighted().map(|_| self as &dyn Weighted)
    }

    fn variants(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Vec<Variant>> {
        let variants = self.0.variants(&Self::whole(inputs)?, output, caps)?.into_iter();
        Ok(variants.map(|v| Variant { launch: Self::join(inputs, v.launch), ..v }).collect())
    }

    fn flops(&self, inputs: Inputs, output: &Ty) -> u64 {
        self.0.flops(&Self::checked(inputs), output)
    }

    fn sum_length(&self, inputs: Inputs) -> Option<usize> {
        self.0.sum_length(&Self::checked(inputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Kind;
    use crate::ops::product::matmul::MatMul;
    use crate::ops::upsample::Upsample;

    #[test]
    fn a_product_of_two_parts_is_that_of_the_whole() {
        let [x, rest] = [[2, 8], [2, 16]].map(|shape| {
            let len = shape[0] * shape[1];
            Tensor::new(shape, (0..len).map(|i| (i % 7) as f32 - 3.0).collect())
        });
        let w = Tensor::new([24, 1], (0..24).map(|i| i as f32).collect());
        let y = Joined(MatMul::new(false)).reference(&[&x, &w, &rest], &[2, 1].into());
        let row = |r: usize| x.data[8 * r..][..8].iter().chain(&rest.data[16 * r..][..16]);
        let dot = |r| row(r).zip(&w.data).map(|(x, w)| x * w).sum::<f32>();
        assert_eq!(y.data, [dot(0), dot(1)]);
    }

    #[test]
    fn parts_that_are_no_whole_vectors_are_an_error() {
        let inputs = [Ty::act([2, 8]), Ty::new(Kind::Weight, [12, 5]), Ty::act([2, 4])];
        let error = Joined(MatMul::new(false)).output(&inputs).unwrap_err().to_string();
        assert!(error.contains("a multiple of 8 channels, found [2, 8] and [2, 4]"), "{error}");
    }

    #[test]
    fn nothing_but_a_concatenation_of_x_is_taken_in() {
        let op = MatMul::new(false);
        assert!(Joined::with(op, &Concat, 0).is_some());
        assert!(Joined::with(op, &Concat, 1).is_none(), "one of w");
        assert!(Joined::with(op, &Upsample { height: 2, width: 2 }, 0).is_none());
    }
}
