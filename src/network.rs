//! One network on one executor: the same `load` and `run` whether a device or the CPU does the work.

mod place;
mod section;

use std::sync::Arc;

use crate::error::{Error, Field, Notice, Notify, Remedy, Result, Warn};
use crate::gpu::adapter::{Adapter, Choice, adapters, hardware, select, without_gl};
use crate::gpu::shader::Sources;
use crate::gpu::{Gpu, Session};
use crate::graph::Graph;
pub use crate::graph::Outputs;
use crate::graph::plan::Storage;
use crate::ops::Kind;
use crate::tensor::{DType, Shape, Tensor, Weights};
use crate::weights::check;
pub use place::{Placement, place};
use section::Section;

/// Where networks run.
#[derive(Debug, Clone)]
pub enum Executor {
    /// This machine's processors, in f32.
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
    /// Opens the device that `choice` means, with activations in `dtype`, or in the device's best where that is
    /// `None`, and with kernels made from `sources`. `tell` is called with what is wrong with a device that was opened,
    /// or passed over by [`Choice::Auto`].
    ///
    /// # Errors
    /// If no adapter fits, it cannot be opened, or it cannot compute in that type; if it would be the CPU, which runs
    /// no kernels, and `sources` are not the built-in ones.
    pub async fn open(choice: &Choice, dtype: Option<DType>, sources: Sources, tell: &mut Warn<'_>) -> Result<Self> {
        let cpu = if sources.are_builtin() { Ok(Self::Cpu) } else { Err(no_kernels_on_the_cpu()) };
        let opened = match (choice, find(choice).await?) {
            (Choice::Auto, _) => open_best(&sources, tell).await?,
            (_, Some(adapter)) => Some(open(&adapter, sources, tell).await?),
            (_, None) => None,
        };
        let Some(gpu) = opened else { return cpu };
        let if_wrong = if *choice == Choice::Auto { IfWrong::UseCpu } else { IfWrong::UseAnyway };
        let act = match dtype {
            Some(DType::F16) if !gpu.caps.f16 => {
                let error = Error::device(format!("{} has no f16", gpu.caps.name));
                return Err(error.remedies([Remedy::set(Field::Dtype, "f32")]));
            }
            Some(dtype) => dtype,
            None if gpu.caps.f16 => DType::F16,
            None => DType::F32,
        };
        Ok(Self::Gpu(gpu, act, if_wrong))
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
    let what = "are for an adapter, and this would run on the CPU, which uses none; a software adapter has to be named";
    Error::device(what).of(Field::Shaders).remedies([Remedy::set(Field::Device, "vulkan")])
}

async fn open(adapter: &Adapter, sources: Sources, tell: &mut Warn<'_>) -> Result<Arc<Gpu>> {
    Gpu::open(adapter, sources, &mut |text: &str| tell(&text.into())).await
}

/// The best hardware adapter that can be opened. GL's are asked only if no other can.
async fn open_best(sources: &Sources, tell: &mut Warn<'_>) -> Result<Option<Arc<Gpu>>> {
    for gl in [false, true] {
        let adapters = if gl { adapters().await } else { without_gl().await };
        for adapter in hardware(&adapters).into_iter().filter(|adapter| gl == (adapter.caps.backend == "gl")) {
            match open(adapter, sources.clone(), tell).await {
                Err(Error::Device(what)) => tell(&what),
                opened => return opened.map(Some),
            }
        }
    }
    Ok(None)
}

/// The adapter that is named. GL drivers are asked only if no other adapter fits: asking them is slow and some write to
/// stderr.
async fn find(choice: &Choice) -> Result<Option<Adapter>> {
    if matches!(choice, Choice::Auto | Choice::Cpu) {
        return Ok(None);
    }
    if let Ok(Some(adapter)) = select(choice, &without_gl().await) {
        return Ok(Some(adapter.clone()));
    }
    Ok(select(choice, &adapters().await)?.cloned())
}

/// A network with its weights in place. Its outputs are finite, or an error names the node that is to blame: where
/// f16 overflows, the first node whose output does and all that follow run in f32 from then on.
pub struct Network {
    graph: Graph,
    weights: Box<dyn Weights>,
    executor: Executor,
    checked: bool,
    /// The graph, or its nodes up to one that overflows f16 and the rest.
    sections: Vec<Section>,
    held: Outputs,
}

impl Network {
    /// Checks the weights against `wanted` (all that the network's file should hold, of which the graph may use a
    /// part), fuses the graph and puts the weights where they are needed. Where a device gets a kernel wrong in f16
    /// the network runs in f32, and where it gets it wrong in that too, the executor's [`IfWrong`] decides; `tell` is
    /// told.
    ///
    /// # Errors
    /// If tensors are missing, extra, misshapen or not finite, or the device cannot hold the network.
    pub async fn load(
        executor: &Executor,
        graph: Graph,
        wanted: &[(String, Shape)],
        weights: impl Weights + 'static,
        tell: &mut Notify<'_>,
    ) -> Result<Self> {
        check(&weights, wanted)?;
        let graph = match executor {
            Executor::Cpu => graph.fused(),
            Executor::Gpu(..) => graph.fused().quantized(&weights)?,
        };
        let storages = storages(executor.dtype(), &graph, &weights);
        let whole = Section::load(executor, graph.clone(), &storages, &weights, tell).await?;
        let (weights, executor) = (Box::new(weights), executor.clone());
        Ok(Self { graph, weights, executor, checked: false, sections: vec![whole], held: Outputs::new() })
    }

    /// Whether every node's output is looked at in every run, not only after an output of the network was not finite:
    /// an overflow may be gone again at the end. The outputs of a network without one stay the same, bit for bit.
    pub fn checked(self, checked: bool) -> Self {
        Self { checked, ..self }
    }

    /// Keeps these inputs where the network runs, for all runs from now on.
    ///
    /// # Errors
    /// If one is misshapen or not finite.
    pub fn hold(&mut self, inputs: Outputs) -> Result<()> {
        self.held = inputs;
        let held = by_name(&self.held);
        self.finite(&held)?;
        self.sections.iter_mut().try_for_each(|section| section.hold(&held))
    }

    fn finite(&self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        for (name, tensor) in inputs {
            if let Some(index) = tensor.first_not_finite() {
                let (network, place) = (&self.graph.network, tensor.shape.place(index));
                let what = format!("{network}: its input {name} is NaN or infinite at element {place}");
                return Err(diverged(what));
            }
        }
        Ok(())
    }

    /// The outputs by name, for inputs given by name, but for those held. `tell` is called with a node that overflows
    /// f16.
    ///
    /// # Errors
    /// If an input is missing, misshapen or not finite, a node's output is not finite in f32, or the device fails.
    pub async fn run(&mut self, inputs: &[(&str, &Tensor)], tell: &mut Warn<'_>) -> Result<Outputs> {
        self.finite(inputs)?;
        if !self.checked {
            let outputs = self.pass(inputs, None).await?;
            if outputs.values().all(|tensor| tensor.first_not_finite().is_none()) {
                return Ok(outputs);
            }
        }
        // A run does not change the network's state, so it can be made again from the same inputs.
        loop {
            let mut first = None;
            let outputs = self.pass(inputs, Some(&mut first)).await?;
            let Some(node) = first else { return Ok(outputs) };
            self.widen_from(node, tell).await?;
        }
    }

    /// The session, if the network is whole on a device. Nothing looks for values that are not finite in its runs.
    pub fn session(&self) -> Option<&Session> {
        match &self.sections[..] {
            [Section::Gpu(session)] => Some(session),
            _ => None,
        }
    }

    /// Every section once. With `first`, every node is looked at, and that is set to the first whose output is not
    /// finite.
    async fn pass(&self, inputs: &[(&str, &Tensor)], mut first: Option<&mut Option<usize>>) -> Result<Outputs> {
        let mut known = Outputs::new();
        for section in &self.sections {
            let given = [inputs, &by_name(&known)].concat();
            let made = match &mut first {
                None => section.run(&given, None).await?,
                Some(first) => {
                    let mut look = |node: usize, output: &Tensor| {
                        if first.is_none() && output.first_not_finite().is_some() {
                            **first = self.node_of(section, node);
                        }
                    };
                    section.run(&given, Some(&mut look)).await?
                }
            };
            known.extend(made);
        }
        known.retain(|name, _| self.graph.outputs.iter().any(|(output, _)| output == name));
        Ok(known)
    }

    /// The node that a section's node belongs to: of several that a device runs in the place of one, the last has its
    /// name.
    fn node_of(&self, section: &Section, index: usize) -> Option<usize> {
        let mut names = section.graph().nodes[index..].iter().map(|node| &node.name);
        names.find_map(|name| self.graph.nodes.iter().position(|node| node.name == *name))
    }

    /// Puts that node and all that follow into f32, their matrices as they were.
    async fn widen_from(&mut self, node: usize, tell: &mut Warn<'_>) -> Result<()> {
        let name = &self.graph.nodes[node].name;
        let narrow = &self.sections[0];
        if narrow.act() != DType::F16 || narrow.graph().nodes.iter().all(|there| there.name != *name) {
            return Err(self.not_finite(format!("{name}: its output is NaN or infinite in f32")));
        }
        let runs = match self.graph.nodes.len() - node - 1 {
            0 => "it runs".to_string(),
            1 => "it and the node after it run".to_string(),
            after => format!("it and the {after} nodes after it run"),
        };
        tell(&format!("{name}: its output overflows f16; {runs} in f32 from here on").into());
        let tell = &mut |notice: Notice<'_>| notice.warning().into_iter().for_each(&mut *tell);
        // What is loaded now goes first, so that the memory holds the weights once.
        self.sections.clear();
        let weights = &*self.weights;
        let [head, tail] = self.graph.split(node);
        let f16 = storage(DType::F16, &self.graph, weights);
        if !head.nodes.is_empty() {
            self.sections.push(Section::load(&self.executor, head, &[f16], weights, tell).await?);
        }
        let wide = Storage { act: DType::F32, ..f16 };
        self.sections.push(Section::load(&self.executor, tail, &[wide], weights, tell).await?);
        let held = by_name(&self.held);
        self.sections.iter_mut().try_for_each(|section| section.hold(&held))
    }

    /// The error of values that are not finite in f32.
    fn not_finite(&self, what: String) -> Error {
        let exact = storage(DType::F32, &self.graph, &*self.weights).weight == DType::F32;
        if exact && self.executor.dtype() == DType::F16 {
            let remedy = Remedy::set(Field::Dtype, "f32");
            Error::not_finite(format!("{what}: its weights may overflow f16")).remedies([remedy])
        } else {
            diverged(what)
        }
    }

    /// Bytes of device memory held; 0 on the CPU.
    pub fn device_bytes(&self) -> u64 {
        self.sections.iter().map(Section::device_bytes).sum()
    }
}

fn by_name(tensors: &Outputs) -> Vec<(&str, &Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
}

/// The error of values that f32 does not hold: where they come from.
fn diverged(what: String) -> Error {
    let cause = "the weights or the inputs are damaged or far too large, or the sampler diverges";
    let remedies = [Remedy::Other(Field::Sampler), Remedy::More(Field::Steps)];
    Error::not_finite(format!("{what}: {cause}")).remedies(remedies)
}

/// How a network may be stored, the preferred first: with activations of this type or, should a device get its kernels
/// wrong in f16, in f32.
pub fn storages(act: DType, graph: &Graph, weights: &dyn Weights) -> Vec<Storage> {
    let types = if act == DType::F16 { &[DType::F16, DType::F32][..] } else { &[DType::F32] };
    types.iter().map(|act| storage(*act, graph, weights)).collect()
}

/// How a network's values are stored with activations of this type: matrices stay in f16 where the file has them in
/// f16, and are rounded to it where activations are f16 too.
pub fn storage(act: DType, graph: &Graph, weights: &dyn Weights) -> Storage {
    let mut matrices = graph.parameters().filter(|(id, _)| graph.ty(*id).kind == Kind::Weight);
    let narrow = act == DType::F16 || matrices.all(|(_, p)| p.is_narrow(weights));
    Storage { act, weight: if narrow { DType::F16 } else { DType::F32 } }
}
