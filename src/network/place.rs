//! In which types and by which kernels a device runs a network.

use std::sync::Arc;

use crate::caps::Caps;
use crate::error::{Error, Message, Notice, Notify, Result};
use crate::gpu::admission::admit;
use crate::gpu::{Gpu, Session};
use crate::graph::Graph;
use crate::graph::plan::{Storage, check_limits, plan};
use crate::host::available_memory;
use crate::tensor::Weights;

/// How a network runs on a device.
#[derive(Debug)]
pub struct Placement {
    /// The network as the device runs it: [`Graph::lowered`], unless it gets that wrong.
    pub graph: Graph,
    /// Types of activations and matrices.
    pub storage: Storage,
    /// For each node the place of its variant in the op's list.
    pub variants: Vec<usize>,
}

impl Placement {
    /// # Errors
    /// As [`Session::new`].
    pub fn session(&self, gpu: &Arc<Gpu>, weights: &dyn Weights) -> Result<Session> {
        Session::choosing(gpu, self.graph.clone(), weights, self.storage, &|node| self.variants[node])
    }
}

/// The first right variant of every node, stored as the first of `storages` says for which there are any; `tell` is
/// told what it runs without.
///
/// # Errors
/// [`Error::WrongKernel`] if the device gets none of them right; or if it cannot hold the network.
pub async fn place(gpu: &Arc<Gpu>, graph: &Graph, storages: &[Storage], tell: &mut Notify<'_>) -> Result<Placement> {
    let (mut wrong, known) = (None, gpu.ledger.quarantined());
    for storage in storages {
        check_limits(graph, *storage, &gpu.caps)?;
        for graph in forms(graph, *storage, &gpu.caps)? {
            match admit(gpu, &graph, *storage, tell).await {
                // What stands in the way of what was asked for.
                Err(Error::WrongKernel(what)) => wrong = wrong.or(Some(what)),
                admitted => {
                    let placement = Placement { variants: admitted?, storage: *storage, graph };
                    match wrong {
                        Some(wrong) if *storage != storages[0] => {
                            tell_once(gpu, wrong, &format!("what uses it runs in {}", storage.act), tell);
                        }
                        // Another form costs only time, so it is told when it is found.
                        Some(wrong) if gpu.ledger.quarantined() > known => {
                            tell_once(gpu, wrong, "it is not used", tell);
                        }
                        _ => {}
                    }
                    return Ok(placement);
                }
            }
        }
    }
    Err(Error::WrongKernel(wrong.unwrap_or_default()))
}

/// Tells what is wrong with a kernel and what comes of it, unless another network that has it said so.
pub(super) fn tell_once(gpu: &Gpu, mut wrong: Message, then: &str, tell: &mut Notify<'_>) {
    wrong.what += &format!(": {then}");
    if gpu.ledger.is_news(&wrong.to_string()) {
        tell(Notice::Warning(&wrong));
    }
}

/// The forms in which such a device may run the network, the preferred first and the network as it is last. What takes
/// more of the machine's memory than is free is left out.
fn forms(graph: &Graph, storage: Storage, caps: &Caps) -> Result<Vec<Graph>> {
    let bytes = |graph: &Graph| plan(graph, storage).bytes();
    let lowered = graph.clone().lowered(caps)?;
    let more = bytes(&lowered).saturating_sub(bytes(graph));
    let fits = lowered.nodes.len() > graph.nodes.len() && available_memory().is_none_or(|free| more < free / 2);
    Ok(fits.then_some(lowered).into_iter().chain([graph.clone()]).collect())
}
