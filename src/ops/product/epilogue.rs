//! What a product does with each element before it stores it: `y = act(product + bias + row) + residual`.
//!
//! An epilogue is an attribute of the node that carries it ([`MatMul`](super::matmul::MatMul),
//! [`Conv2d`](super::conv2d::Conv2d), [`WinogradOutput`](crate::ops::winograd::winograd_output::WinogradOutput)); its
//! operands are the last of that node's inputs, those that there are, in this order: bias `[N]` (f32), row `[B, N]`
//! (added to every row of batch entry b), residual (the output's shape).

use rayon::prelude::*;

use super::Threads;
use crate::error::Result;
pub use crate::ops::activation::Act;
use crate::ops::activation::Activation;
use crate::ops::add::Add;
use crate::ops::add_row::AddRow;
use crate::ops::{Inputs, Kind, Launch, Op, Ty, expect_inputs, expect_shape};
use crate::tensor::{Shape, Tensor};

/// What a product does to each sum before it stores it, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epilogue {
    /// Adds a vector of one number a column.
    pub bias: bool,
    /// Adds a row for each batch entry ([`AddRow`]).
    pub row: bool,
    /// Then this function.
    pub act: Act,
    /// Adds a tensor of the output's shape ([`Add`]).
    pub residual: bool,
}

/// Rows that share a row of the `row` operand: pixels or tokens of a batch entry.
pub(crate) fn rows_per_batch(output: &Shape) -> usize {
    output.rows() / batch(output).max(1)
}

/// The first dimension, if the output has one beside its columns.
fn batch(output: &Shape) -> usize {
    if output.rank() > 1 { output.batch() } else { 1 }
}

impl Epilogue {
    /// With or without a bias, and nothing else.
    pub const fn bias(bias: bool) -> Self {
        Self { bias, row: false, act: Act::None, residual: false }
    }

    fn flags(self) -> [bool; 3] {
        [self.bias, self.row, self.residual]
    }

    /// The operands' types for an output of this shape, those that there are.
    pub(crate) fn operand_types(self, output: &Shape) -> impl Iterator<Item = Ty> + use<> {
        let n = output.channels();
        let all = [Ty::new(Kind::F32, [n]), Ty::act([batch(output), n]), Ty::act(output.clone())];
        all.into_iter().zip(self.flags()).filter(|(_, present)| *present).map(|(ty, _)| ty)
    }

    /// `Ok` if the node's inputs from number `first` on are the operands of an output of this shape.
    pub(crate) fn check(self, op: &str, first: usize, inputs: Inputs, output: &Shape) -> Result<()> {
        expect_inputs(op, inputs, first + self.count())?;
        let names = ["the bias", "the row to add", "the residual"].into_iter().zip(self.flags());
        let names = names.filter(|(_, present)| *present).map(|(name, _)| name);
        for (index, (name, ty)) in (first..).zip(names.zip(self.operand_types(output))) {
            expect_shape(inputs, index, &format!("{op}: {name}"), &ty.shape)?;
        }
        Ok(())
    }

    /// Number of operands.
    fn count(self) -> usize {
        self.flags().into_iter().filter(|present| *present).count()
    }

    /// Each operand's index among the node's inputs, of which `first` is the first operand's, if it is there.
    fn places(self, first: usize) -> [Option<usize>; 3] {
        let mut next = first..;
        self.flags().map(|present| if present { next.next() } else { None })
    }

    /// Adds the constants of `shared/epilogue.wgsl`, and the bindings bias, row, residual before the output's; the
    /// operands follow the inputs that the launch has.
    pub(crate) fn launch(self, launch: Launch) -> Launch {
        let launch = self.flags().into_iter().fold(launch, Launch::optional);
        launch
            .constant("HAS_BIAS", self.bias)
            .constant("HAS_ROW", self.row)
            .constant("HAS_RESIDUAL", self.residual)
            .constant("ACTIVATION", self.act.code())
    }

    /// The operands among a node's inputs, for the CPU.
    pub(crate) fn operands<'a>(self, inputs: &[&'a Tensor], output: &Shape) -> Operands<'a> {
        let [bias, row, residual] =
            self.places(inputs.len() - self.count()).map(|place| place.map(|i| inputs[i].data.as_slice()));
        let (n, rows_per_batch) = (output.channels(), rows_per_batch(output));
        Operands { act: self.act, n, rows_per_batch, bias, row, residual }
    }

    /// This epilogue with `next` behind it, where the formula has a place for it.
    pub(crate) fn absorb(mut self, next: &dyn Op, operand: usize) -> Option<Self> {
        let before_act = self.act == Act::None && !self.residual;
        if next.downcast_ref::<Add>().is_some() && !self.residual {
            self.residual = true;
        } else if next.downcast_ref::<AddRow>().is_some() && operand == 0 && before_act && !self.row {
            self.row = true;
        } else if let Some(Activation(act)) = next.downcast_ref()
            && before_act
        {
            self.act = *act;
        } else {
            return None;
        }
        Some(self)
    }
}

/// Rows that a thread finishes at once.
const PART_ROWS: usize = 8;

/// An epilogue with its data.
#[derive(Debug)]
pub(crate) struct Operands<'a> {
    act: Act,
    n: usize,
    rows_per_batch: usize,
    bias: Option<&'a [f32]>,
    row: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
}

impl Operands<'_> {
    /// Finishes the rows of the output from `first_row` on that `block` holds, while they are in the cache.
    pub(crate) fn finish(&self, first_row: usize, block: &mut [f32], threads: Threads) {
        match threads {
            Threads::One => self.apply(first_row, block),
            Threads::All => block
                .par_chunks_mut(PART_ROWS * self.n)
                .enumerate()
                .for_each(|(part, block)| self.apply(first_row + part * PART_ROWS, block)),
        }
    }

    fn apply(&self, first_row: usize, block: &mut [f32]) {
        for (index, y) in (first_row..).zip(block.chunks_mut(self.n)) {
            self.add(y, self.bias, 0);
            self.add(y, self.row, index / self.rows_per_batch);
            self.act.apply_all(y);
            self.add(y, self.residual, index);
        }
    }

    fn add(&self, y: &mut [f32], operand: Option<&[f32]>, at: usize) {
        if let Some(data) = operand {
            y.iter_mut().zip(&data[at * self.n..][..self.n]).for_each(|(y, v)| *y += v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Binding;

    #[test]
    fn operands_are_found_whichever_are_absent() {
        let epilogue = Epilogue { residual: true, row: true, ..Epilogue::default() };
        assert_eq!(epilogue.places(2), [None, Some(2), Some(3)]);
        let bindings = epilogue.launch(Launch::new("matmul", 2)).bindings;
        assert_eq!(bindings[2..5], [Binding::Absent, Binding::Input(2), Binding::Input(3)]);
        assert_eq!(bindings[5..], [Binding::Output, Binding::Params]);
    }

    #[test]
    fn everything_is_applied_in_the_order_of_the_formula() {
        let epilogue = Epilogue { bias: true, row: true, act: Act::Silu, residual: true };
        let [bias, row, residual] = [vec![1.0], vec![1.0, 2.0], vec![10.0; 4]];
        let tensors = [Tensor::new([1], bias), Tensor::new([2, 1], row), Tensor::new([2, 2, 1], residual)];
        let unused = Tensor::zeros([1]);
        let inputs = [&unused, &unused, &tensors[0], &tensors[1], &tensors[2]];
        let mut y = [0.5; 3];
        epilogue.operands(&inputs, &[2, 2, 1].into()).apply(1, &mut y);
        let wanted = [2.5, 3.5, 3.5].map(|x| Act::Silu.apply(x) + 10.0);
        assert_eq!(y, wanted);
    }

    #[test]
    fn a_wrong_operand_is_named() {
        let epilogue = Epilogue { bias: true, residual: true, ..Epilogue::default() };
        let inputs = [[2, 3], [3, 4]].map(Ty::act);
        let [x, w] = inputs;
        let inputs = [x, w, Ty::act([4]), Ty::act([2, 5])];
        let error = epilogue.check("matmul", 2, &inputs, &[2, 4].into()).unwrap_err().to_string();
        assert!(error.contains("the residual should be [2, 4], found [2, 5]"), "{error}");
    }

    #[test]
    fn ops_are_absorbed_in_the_order_of_the_formula_alone() {
        let plain = Epilogue::bias(true);
        let row = plain.absorb(&AddRow, 0).unwrap();
        assert!(plain.absorb(&AddRow, 1).is_none(), "an output that is the row itself");
        assert!(row.absorb(&AddRow, 0).is_none(), "a second row");
        let act = row.absorb(&Activation(Act::Silu), 0).unwrap();
        assert!(act.absorb(&Activation(Act::Silu), 0).is_none(), "a second activation");
        assert!(act.absorb(&AddRow, 0).is_none(), "a row after the activation");
        let all = act.absorb(&Add, 1).unwrap();
        assert_eq!(all, Epilogue { bias: true, row: true, act: Act::Silu, residual: true });
        assert!(all.absorb(&Add, 0).is_none(), "a second residual");
        let residual = plain.absorb(&Add, 0).unwrap();
        assert!(residual.absorb(&Activation(Act::Silu), 0).is_none(), "an activation after the residual");
    }
}
