//! One network on one executor: the same `load` and `run` whether a device or the CPU does the work.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::admission::admit;
use crate::gpu::device::{Adapter, Choice, adapters, select, without_gl};
use crate::gpu::shader::Sources;
use crate::gpu::{Gpu, Session};
use crate::graph::Graph;
use crate::graph::interpret::Interpreter;
use crate::graph::plan::{Storage, check_limits, peak_host_bytes};
use crate::host::check_memory;
use crate::ops::Kind;
use crate::tensor::{DType, Shape, Tensor, Weights};
use crate::weights::check;

/// Where networks run.
#[derive(Debug, Clone)]
pub enum Executor {
    Cpu,
    /// An opened device, the type of activations on it, and what to do if it gets its kernels wrong.
    Gpu(Arc<Gpu>, DType, IfWrong),
}

/// What happens to a network of which a device gets a kernel wrong in every variant and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfWrong {
    /// It runs on the CPU: nobody asked for this device in particular.
    UseCpu,
    /// It runs there all the same, with a warning: a device that was named is never replaced.
    UseAnyway,
}

impl Executor {
    /// Opens the device that `choice` means, with activations in `dtype`, or in the device's best where that is `None`,
    /// and with kernels made from `sources`.
    ///
    /// # Errors
    /// If no adapter fits, it cannot be opened, or it cannot compute in that type; if it would be the CPU, which runs
    /// no kernels, and `sources` are not the built-in ones.
    pub async fn open(choice: &Choice, dtype: Option<DType>, sources: Sources) -> Result<Self> {
        let found = find(choice).await?;
        let Some(adapter) = found else {
            return if sources.are_builtin() { Ok(Self::Cpu) } else { Err(no_kernels_on_the_cpu()) };
        };
        let act = match dtype {
            Some(DType::F16) if !adapter.caps.f16 => {
                return Err(Error::device(format!("{} has no f16: use --dtype f32", adapter.caps.name)));
            }
            Some(dtype) => dtype,
            None if adapter.caps.f16 => DType::F16,
            None => DType::F32,
        };
        let if_wrong = if *choice == Choice::Auto { IfWrong::UseCpu } else { IfWrong::UseAnyway };
        Ok(Self::Gpu(Gpu::open(&adapter, sources).await?, act, if_wrong))
    }

    /// The adapter's name, or `cpu`.
    pub fn name(&self) -> &str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu(gpu, ..) => &gpu.caps.name,
        }
    }

    /// The type of activations.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Cpu => DType::F32,
            Self::Gpu(_, act, _) => *act,
        }
    }

    /// The same device with activations in f32.
    pub fn in_f32(&self) -> Self {
        match self {
            Self::Cpu => Self::Cpu,
            Self::Gpu(gpu, _, if_wrong) => Self::Gpu(Arc::clone(gpu), DType::F32, *if_wrong),
        }
    }
}

fn no_kernels_on_the_cpu() -> Error {
    Error::device("--shaders changes what an adapter runs, and this would run on the CPU: name an adapter by --device")
}

/// GL drivers are asked only if no other adapter fits: asking them is slow and some write to stderr.
async fn find(choice: &Choice) -> Result<Option<Adapter>> {
    if *choice == Choice::Cpu {
        return Ok(None);
    }
    if let Ok(Some(adapter)) = select(choice, &without_gl().await) {
        return Ok(Some(adapter.clone()));
    }
    Ok(select(choice, &adapters().await)?.cloned())
}

/// A network with its weights in place.
#[derive(Debug)]
pub enum Network {
    Cpu(Interpreter),
    Gpu(Session),
}

impl Network {
    /// Checks the weights against `wanted` (all that the network's file should hold, of which the graph may use a part),
    /// fuses the graph and puts the weights where they are needed. Where a device gets a kernel wrong in f16 the network
    /// runs in f32, and where it gets it wrong in that too, the executor's [`IfWrong`] decides; `tell` is told.
    ///
    /// # Errors
    /// If tensors are missing, extra, misshapen or not finite, or the device cannot hold the network.
    pub async fn load(
        executor: &Executor,
        graph: Graph,
        wanted: &[(String, Shape)],
        weights: &dyn Weights,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        check(weights, wanted)?;
        let graph = graph.fused();
        if let Executor::Gpu(gpu, act, if_wrong) = executor {
            let placement = match place(gpu, *act, &graph, weights, tell).await {
                Err(Error::WrongKernel(_)) if *if_wrong == IfWrong::UseAnyway => {
                    tell(&format!(
                        "{} runs on {} all the same and will be wrong: use --device cpu",
                        graph.network, gpu.caps.name
                    ));
                    let variants = vec![0; graph.nodes.len()];
                    Some(Placement { storage: storage(*act, &graph, weights), variants })
                }
                Err(Error::WrongKernel(_)) => None,
                placed => Some(placed?),
            };
            if let Some(placement) = placement {
                return Ok(Self::Gpu(placement.session(gpu, graph, weights)?));
            }
            tell(&format!("{} runs on the CPU", graph.network));
        }
        check_memory(&graph.network, peak_host_bytes(&graph))?;
        Ok(Self::Cpu(Interpreter::new(graph, weights)?))
    }

    /// The outputs by name, for inputs given by name.
    ///
    /// # Errors
    /// If an input is missing or misshapen, or the device fails.
    pub async fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<HashMap<String, Tensor>> {
        match self {
            Self::Cpu(interpreter) => interpreter.run(inputs),
            Self::Gpu(session) => session.run(inputs).await,
        }
    }

    /// [`Network::run`] for a network with one output that matters.
    pub async fn run_for(&self, output: &str, inputs: &[(&str, &Tensor)]) -> Result<Tensor> {
        let mut outputs = self.run(inputs).await?;
        outputs.remove(output).ok_or_else(|| Error::shape(format!("the network has no output {output}")))
    }

    /// Bytes of device memory held; 0 on the CPU.
    pub fn device_bytes(&self) -> u64 {
        match self {
            Self::Cpu(_) => 0,
            Self::Gpu(session) => session.bytes(),
        }
    }
}

/// In which types and by which kernels a device runs a network.
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

/// The first right variant of every node, with activations in `act` or, where the device gets a kernel wrong in f16, in
/// f32; `tell` is told of what is wrong.
///
/// # Errors
/// [`Error::WrongKernel`] if there is none in f32 either; or if the device cannot hold the network.
pub async fn place(
    gpu: &Arc<Gpu>,
    act: DType,
    graph: &Graph,
    weights: &dyn Weights,
    tell: &mut dyn FnMut(&str),
) -> Result<Placement> {
    let mut act = act;
    loop {
        let storage = storage(act, graph, weights);
        check_limits(graph, storage, &gpu.caps)?;
        match admit(gpu, graph, storage, tell).await {
            Err(Error::WrongKernel(what)) => {
                tell(&format!("{what}; {} cannot run so", graph.network));
                if act == DType::F32 {
                    return Err(Error::WrongKernel(what));
                }
                act = DType::F32;
            }
            admitted => return Ok(Placement { storage, variants: admitted? }),
        }
    }
}

/// How a network's values are stored with activations of this type: matrices stay in f16 where the file has them in f16,
/// and are rounded to it where activations are f16 too.
pub fn storage(act: DType, graph: &Graph, weights: &dyn Weights) -> Storage {
    let in_file = |key: &str| weights.get(key).map(|raw| raw.dtype);
    let mut matrices = graph.parameters().filter(|(id, _)| graph.ty(*id).kind == Kind::Weight);
    let narrow = act == DType::F16 || matrices.all(|(_, p)| in_file(&p.key) == Some(DType::F16));
    Storage { act, weight: if narrow { DType::F16 } else { DType::F32 } }
}
