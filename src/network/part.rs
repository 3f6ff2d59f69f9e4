//! A graph in place on a device or the CPU: a whole network, or one half of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Executor, IfWrong};
use crate::error::{Error, Result};
use crate::gpu::admission::admit;
use crate::gpu::{Gpu, Session};
use crate::graph::Graph;
use crate::graph::interpret::{Interpreter, Observe};
use crate::graph::plan::{Storage, check_limits, peak_host_bytes};
use crate::host::check_memory;
use crate::tensor::{DType, Tensor, Weights};

#[derive(Debug)]
pub(super) enum Part {
    Cpu(Interpreter),
    Gpu(Session),
}

impl Part {
    /// Puts the weights where they are needed. The graph is stored as the first of `storages` says whose kernels the
    /// device gets right; where there is none, the executor's [`IfWrong`] decides.
    pub async fn load(
        executor: &Executor,
        graph: Graph,
        storages: &[Storage],
        weights: &dyn Weights,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        if let Executor::Gpu(gpu, _, if_wrong) = executor {
            for storage in storages {
                match Self::admitted(gpu, *storage, &graph, weights, tell).await {
                    Err(Error::WrongKernel(what)) => tell(&format!("{what}; {} cannot run so", graph.network)),
                    loaded => return loaded,
                }
            }
            if *if_wrong == IfWrong::UseAnyway {
                tell(&format!(
                    "{} runs on {} all the same and will be wrong: use --device cpu",
                    graph.network, gpu.caps.name
                ));
                return Ok(Self::Gpu(Session::new(gpu, graph, weights, storages[0])?));
            }
            tell(&format!("{} runs on the CPU", graph.network));
        }
        check_memory(&graph.network, peak_host_bytes(&graph))?;
        Ok(Self::Cpu(Interpreter::new(graph, weights)?))
    }

    /// On the device by the first right variant of every node.
    async fn admitted(
        gpu: &Arc<Gpu>,
        storage: Storage,
        graph: &Graph,
        weights: &dyn Weights,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        check_limits(graph, storage, &gpu.caps)?;
        let chosen = admit(gpu, graph, storage, tell).await?;
        Ok(Self::Gpu(Session::choosing(gpu, graph.clone(), weights, storage, &|node| chosen[node])?))
    }

    /// The outputs by name. With `observe`, that is shown every node's index and output.
    pub async fn run(
        &self,
        inputs: &[(&str, &Tensor)],
        observe: Option<&mut Observe<'_>>,
    ) -> Result<HashMap<String, Tensor>> {
        match (self, observe) {
            (Self::Cpu(interpreter), None) => interpreter.run(inputs),
            (Self::Cpu(interpreter), Some(observe)) => interpreter.run_observed(inputs, observe),
            (Self::Gpu(session), None) => session.run(inputs).await,
            (Self::Gpu(session), Some(observe)) => session.run_observed(inputs, observe).await,
        }
    }

    pub fn graph(&self) -> &Graph {
        match self {
            Self::Cpu(interpreter) => interpreter.graph(),
            Self::Gpu(session) => session.graph(),
        }
    }

    /// The type of activations, which a device's wrong kernels may have changed.
    pub fn act(&self) -> DType {
        match self {
            Self::Cpu(_) => DType::F32,
            Self::Gpu(session) => session.storage().act,
        }
    }

    /// Bytes of device memory held; 0 on the CPU.
    pub fn device_bytes(&self) -> u64 {
        match self {
            Self::Cpu(_) => 0,
            Self::Gpu(session) => session.bytes(),
        }
    }
}
