//! Which of the right variants of an op a device runs fastest, measured once per class of shapes and kept beside the
//! verdicts of [`admission`](super::admission). A class is an op in a storage with about as many rows, and as many
//! columns and terms to a sum: what a tile's fit depends on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Gpu, Session, Timer};
use crate::error::Result;
use crate::graph::plan::Storage;
use crate::graph::{Graph, Node};
use crate::ops::Variant;
use crate::ops::case::{Case, Fill};
use crate::tensor::NoWeights;

/// What was measured for a class of shapes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// For which variants: a hash of their texts and constants. Of others nothing is known.
    pub kernels: u64,
    /// Of one run of each right variant, by name.
    pub seconds: BTreeMap<String, f64>,
}

impl Tuned {
    /// The name of the variant with the least seconds, if one was measured.
    pub fn fastest(&self) -> Option<&str> {
        self.seconds.iter().min_by(|a, b| a.1.total_cmp(b.1)).map(|(name, _)| name.as_str())
    }
}

/// The class of a node of this graph.
pub(super) fn class(graph: &Graph, node: &Node, storage: Storage) -> String {
    let (inputs, output) = (graph.types(&node.inputs), &graph.ty(node.output).shape);
    let (rows, columns) = (output.rows().next_power_of_two(), output.channels());
    let terms = node.op.sum_length(&inputs).unwrap_or(1);
    let Storage { act, weight } = storage;
    format!("{} {act}-{weight} rows {rows} columns {columns} terms {terms}", node.op.name())
}

/// Samples of a variant, of which the least counts, and seconds that one should last at least.
const SAMPLES: usize = 5;
const LEAST_SECONDS: f64 = 1e-3;

/// Times the variants at these places of the op's list, by name, on the node's own shapes.
///
/// # Errors
/// If the device fails or cannot hold the node's values.
pub(super) async fn time(
    gpu: &Arc<Gpu>,
    graph: &Graph,
    node: &Node,
    storage: Storage,
    variants: &[Variant],
    candidates: &[usize],
) -> Result<BTreeMap<String, f64>> {
    let timer = Timer::new(gpu)?;
    let types = graph.types(&node.inputs);
    // No kernel is faster or slower for other numbers.
    let case = (0..types.len()).fold(Case::of(Arc::clone(&node.op), types.clone()), |case, input| {
        case.fill(input, Fill::With(|i| (i % 13) as f32 / 64.0))
    });
    let inputs = case.tensors(1, storage.act, storage.weight);
    let mut tried: BTreeMap<String, f64> = BTreeMap::new();
    for &index in candidates {
        let graph = Graph::of_case(&case, inputs.clone())?;
        let session = Session::choosing(gpu, graph, &NoWeights, storage, &|_| index)?;
        session.run(&[]).await?;
        let once = timer.whole(&session, 1)?.max(timer.resolution()).max(1e-9);
        let repeats = (LEAST_SECONDS / once).ceil().clamp(1.0, 1000.0) as usize;
        // What is far behind at the first look is not looked at again.
        let hopeless = tried.values().any(|best| once > 4.0 * best);
        let mut least = once;
        for _ in 0..if hopeless { 0 } else { SAMPLES } {
            least = least.min(timer.whole(&session, repeats)? / repeats as f64);
        }
        tried.insert(variants[index].name.to_string(), least);
    }
    Ok(tried)
}
