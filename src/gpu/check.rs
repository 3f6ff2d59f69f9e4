//! An op on a device, held against its reference: what admission, `validate`, `bench` and the kernels' tests do with a
//! case.

use std::sync::Arc;

use super::shader::Dialect;
use super::verdicts::Id;
use super::{Gpu, Session};
use crate::error::Result;
use crate::graph::plan::Storage;
use crate::graph::{Graph, Node};
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
    /// As [`Session::new`] and [`Session::run`], and if an earlier run did not survive it. A wrong output is not an
    /// error but a fault.
    pub async fn variant(&self, gpu: &Arc<Gpu>, variant: usize) -> Result<Checked> {
        self.run(gpu, self.graph()?, variant).await
    }

    /// Runs the nodes that take the op's place in a network on this device ([`Graph::lowered`]).
    ///
    /// # Errors
    /// As [`Check::variant`].
    pub async fn lowered(&self, gpu: &Arc<Gpu>) -> Result<Checked> {
        self.run(gpu, self.graph()?.lowered(&gpu.caps)?, 0).await
    }

    /// Compiles and runs a graph that computes the same, with every node's variant of that number. Meanwhile a note
    /// says so.
    async fn run(&self, gpu: &Arc<Gpu>, graph: Graph, variant: usize) -> Result<Checked> {
        let mut running = Vec::new();
        for node in &graph.nodes {
            running.extend(ids(gpu, &graph, node, self.storage)?.nth(variant).transpose()?);
        }
        let _note = gpu.ledger.note(running)?;
        let session = Session::choosing(gpu, graph, &NoWeights, self.storage, &|_| variant)?;
        let difference = self.expected.compare(&session.run_poisoned().await?);
        Ok(Checked { session, difference, fault: self.expected.fault(&difference) })
    }
}

/// What verdicts are about, for each variant of a node.
pub(super) fn ids(
    gpu: &Gpu,
    graph: &Graph,
    node: &Node,
    Storage { act, weight }: Storage,
) -> Result<impl Iterator<Item = Result<Id>>> {
    let (inputs, output) = (graph.types(&node.inputs), graph.ty(node.output));
    let variants = node.op.variants(&inputs, output, &gpu.caps.storing(act, weight))?;
    let dialect = Dialect::of(Storage { act, weight }, &inputs, output, gpu.caps.native_f16());
    let name = node.op.name();
    Ok(variants.into_iter().map(move |variant| Id::of(&gpu.sources, name, &variant, dialect)))
}

/// The variants of a case in this storage on a device, in the order in which [`Check::variant`] numbers them.
///
/// # Errors
/// If the case contradicts its op's shape rule, or the device can run none.
pub fn variants(gpu: &Gpu, case: &Case, storage: Storage) -> Result<Vec<Variant>> {
    case.variants(&gpu.caps.storing(storage.act, storage.weight))
}
