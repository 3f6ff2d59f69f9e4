//! A graph in place on a device or the CPU: a whole network, or one half of it.

use super::place::tell_once;
use super::{Executor, IfWrong, Placement, place};
use crate::error::{Error, Notify, Result};
use crate::gpu::Session;
use crate::gpu::admission::admit_anyway;
use crate::graph::interpret::{Interpreter, Observe};
use crate::graph::plan::{Storage, peak_host_bytes};
use crate::graph::{Graph, Outputs};
use crate::host::check_memory;
use crate::tensor::{DType, Tensor, Weights};

#[derive(Debug)]
pub(super) enum Section {
    Cpu(Box<Interpreter>),
    Gpu(Box<Session>),
}

impl Section {
    /// Puts the weights where they are needed. The graph is stored as the first of `storages` says whose kernels the
    /// device gets right; where there is none, the executor's [`IfWrong`] decides.
    pub async fn load(
        executor: &Executor,
        graph: Graph,
        storages: &[Storage],
        weights: &dyn Weights,
        tell: &mut Notify<'_>,
    ) -> Result<Self> {
        if let Executor::Gpu(gpu, _, if_wrong) = executor {
            let placement = match place(gpu, &graph, storages, tell).await {
                Err(Error::WrongKernel(_)) if *if_wrong == IfWrong::UseAnyway => {
                    let variants = admit_anyway(gpu, &graph, storages[0], tell).await?;
                    Some(Placement { graph: graph.clone(), storage: storages[0], variants })
                }
                Err(Error::WrongKernel(wrong)) => {
                    tell_once(gpu, wrong, "what uses it runs on the CPU", tell);
                    None
                }
                placed => Some(placed?),
            };
            if let Some(placement) = placement {
                return Ok(Self::Gpu(Box::new(placement.session(gpu, weights)?)));
            }
        }
        check_memory(&graph.network, peak_host_bytes(&graph, weights))?;
        Ok(Self::Cpu(Box::new(Interpreter::new(graph, weights)?)))
    }

    /// Keeps those of the inputs that the graph has, for all runs.
    ///
    /// # Errors
    /// If one is misshapen.
    pub fn hold(&mut self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        match self {
            Self::Cpu(interpreter) => interpreter.hold(inputs),
            Self::Gpu(session) => session.hold(inputs),
        }
    }

    /// The outputs by name. With `observe`, that is shown every node's index and output.
    pub async fn run(&self, inputs: &[(&str, &Tensor)], observe: Option<&mut Observe<'_>>) -> Result<Outputs> {
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
