//! An op on a device, held against its reference: what admission, `validate`, `bench` and the kernels' tests do with a
//! case.

use std::sync::Arc;

use super::{Gpu, Session};
use crate::error::Result;
use crate::graph::Graph;
use crate::graph::plan::Storage;
use crate::ops::case::{Difference, Expected};
use crate::ops::{Case, Kind, Op, Variant};
use crate::tensor::{NoWeights, Tensor};

/// Seed of every case's inputs.
const SEED: u64 = 1;

/// An op with the values of its inputs, as a storage holds them, and what should come of them. It is made once, and
/// run as often as there are variants.
#[derive(Debug)]
pub struct Check {
    op: Arc<dyn Op>,
    inputs: Vec<(Kind, Tensor)>,
    storage: Storage,
    /// What outputs are compared with.
    pub expected: Expected,
}

/// What a device made of a [`Check`].
#[derive(Debug)]
pub struct Checked {
    /// As it ran: to be timed, or to have its guards checked.
    pub session: Session,
    /// How far the output is from the reference; NaN where the kernel wrote nothing.
    pub difference: Difference,
    /// What is wrong with it, if it is further off than the tolerance allows.
    pub fault: Option<String>,
}

impl Check {
    /// Of a case.
    ///
    /// # Errors
    /// If the case contradicts its op's shape rule.
    pub fn of_case(case: &Case, storage: Storage) -> Result<Self> {
        let inputs = case.tensors(SEED, storage.act, storage.weight);
        let expected = case.expected(&inputs, storage.act)?;
        Ok(Self::new(&case.op, case.inputs.iter().map(|(ty, _)| ty.kind).zip(inputs), storage, expected))
    }

    /// Of an op on these inputs, which are rounded to the storage.
    pub fn new(
        op: &Arc<dyn Op>,
        inputs: impl IntoIterator<Item = (Kind, Tensor)>,
        storage: Storage,
        expected: Expected,
    ) -> Self {
        Self { op: Arc::clone(op), inputs: inputs.into_iter().collect(), storage, expected }
    }

    /// The graph of the one op.
    ///
    /// # Errors
    /// If the op does not take the inputs.
    pub fn graph(&self) -> Result<Graph> {
        Graph::of_op(&self.op, self.inputs.iter().cloned())
    }

    /// A session of the op's variant of that number.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn session(&self, gpu: &Arc<Gpu>, variant: usize) -> Result<Session> {
        Session::choosing(gpu, self.graph()?, &NoWeights, self.storage, &|_| variant)
    }

    /// Runs the op's variant of that number.
    ///
    /// # Errors
    /// As [`Session::new`] and [`Session::run`]. A wrong output is not an error but a fault.
    pub async fn variant(&self, gpu: &Arc<Gpu>, variant: usize) -> Result<Checked> {
        self.run(self.session(gpu, variant)?).await
    }

    /// Runs a session of [`Check::graph`], or of what that is lowered to.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run(&self, session: Session) -> Result<Checked> {
        let difference = self.expected.compare(&session.run_poisoned().await?);
        Ok(Checked { session, difference, fault: self.expected.fault(&difference) })
    }
}

/// The variants of a case in this storage on a device, in the order in which [`Check::variant`] numbers them.
///
/// # Errors
/// If the case contradicts its op's shape rule, or the device can run none.
pub fn variants(gpu: &Gpu, case: &Case, storage: Storage) -> Result<Vec<Variant>> {
    case.variants(&gpu.caps.storing(storage.act, storage.weight))
}
