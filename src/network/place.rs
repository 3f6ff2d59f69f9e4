//! In which types and by which kernels a device runs a network.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::admission::admit;
use crate::gpu::{Gpu, Session};
use crate::graph::Graph;
use crate::graph::plan::{Storage, check_limits};
use crate::tensor::Weights;

#[derive(Debug)]
pub struct Placement {
    pub storage: Storage,
    /// For each node the place of its variant in the op's list.
    pub variants: Vec<usize>,
}

impl Placement {
    /// # Errors
    /// As [`Session::new`].
    pub fn session(&self, gpu: &Arc<Gpu>, graph: Graph, weights: &dyn Weights) -> Result<Session> {
        Session::choosing(gpu, graph, weights, self.storage, &|node| self.variants[node])
    }
}

/// The first right variant of every node, stored as the first of `storages` says for which there are any; `tell` is told
/// of what is wrong.
///
/// # Errors
/// [`Error::WrongKernel`] if the device gets none of them right; or if it cannot hold the network.
pub async fn place(
    gpu: &Arc<Gpu>,
    graph: &Graph,
    storages: &[Storage],
    tell: &mut dyn FnMut(&str),
) -> Result<Placement> {
    let mut wrong = String::new();
    for storage in storages {
        check_limits(graph, *storage, &gpu.caps)?;
        match admit(gpu, graph, *storage, tell).await {
            Err(Error::WrongKernel(what)) => {
                tell(&format!("{what}; {} cannot run so", graph.network));
                wrong = what;
            }
            admitted => return Ok(Placement { storage: *storage, variants: admitted? }),
        }
    }
    Err(Error::WrongKernel(wrong))
}
