//! A session: a graph on a device, everything made once (kernels, buffers, bind groups), run many times. A run is a
//! compute pass, cut into submissions where it takes long, then one read-back.

mod chain;
mod guards;
mod observe;
mod pace;
mod submission;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use web_time::Instant;

use super::device::Gpu;
use super::memory;
use super::shader::Dialect;
use crate::error::{Error, Result};
use crate::graph::interpret::load_parameters;
use crate::graph::plan::{Plan, Storage, check_limits, device_bytes, plan};
use crate::graph::{Graph, Node, Part, Source, ValueId};
use crate::ops::{Binding, Kind, Launch};
use crate::tensor::{DType, Tensor, Weights};
pub use chain::{Carry, Chain};
use guards::GUARD;
use pace::Pace;
use submission::Submission;

/// Bytes of uploads in flight before the session waits for them, which bounds the staging memory.
const UPLOAD_CHUNK: u64 = 64 << 20;

/// Picks a node's variant: the node's place in its graph to the variant's place in the op's list.
pub type Choose<'a> = dyn Fn(usize) -> usize + 'a;

#[derive(Debug)]
struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

#[derive(Debug)]
pub struct Session {
    gpu: Arc<Gpu>,
    graph: Graph,
    storage: Storage,
    /// One per slot of the plan.
    slots: Vec<wgpu::Buffer>,
    /// Buffers of inputs, constants and parameters.
    fixed: HashMap<ValueId, wgpu::Buffer>,
    plan: Plan,
    dispatches: Vec<Dispatch>,
    readback: wgpu::Buffer,
    bytes: u64,
    /// Inputs that keep what [`Session::hold`] put there.
    held: HashSet<ValueId>,
    pace: Mutex<Pace>,
}

impl Session {
    /// Plans, uploads the weights, compiles the kernels.
    ///
    /// # Errors
    /// If a value exceeds the device's limits, a parameter is missing or not finite, a kernel does not compile, or
    /// memory runs out.
    pub fn new(gpu: &Arc<Gpu>, graph: Graph, weights: &dyn Weights, storage: Storage) -> Result<Self> {
        Self::choosing(gpu, graph, weights, storage, &|_| 0)
    }

    /// As [`Session::new`], with the variants that `choose` picks.
    ///
    /// # Panics
    /// If a node has no variant at the place that `choose` gives.
    pub fn choosing(
        gpu: &Arc<Gpu>,
        graph: Graph,
        weights: &dyn Weights,
        storage: Storage,
        choose: &Choose<'_>,
    ) -> Result<Self> {
        check_limits(&graph, storage, &gpu.caps)?;
        let plan = plan(&graph, storage);
        let mut uploads = Uploads { gpu, pending: 0, total: 0 };
        let mut fixed = HashMap::new();
        load_parameters(&graph, weights, |id, parameter, raw| {
            let buffer = if parameter.part == Part::Quants {
                let quants = parameter.pack.to_tensor(raw, &parameter.file_shape)?;
                uploads.buffer(&parameter.name(), &memory::to_bytes(&quants, Kind::Bytes, storage.weight))?
            } else {
                let rank = parameter.file_shape.rank();
                let dtype = if rank < 2 { DType::F32 } else { storage.weight };
                let words = parameter.pack.to_words(raw, &parameter.file_shape, dtype)?;
                uploads.buffer(&parameter.name(), bytemuck::cast_slice(&words))?
            };
            fixed.insert(id, buffer);
            Ok(())
        })?;
        for (i, value) in graph.values.iter().enumerate() {
            let id = ValueId(i);
            match &value.source {
                Source::Constant(tensor) => {
                    let dtype = if value.ty.kind == Kind::Weight { storage.weight } else { storage.act };
                    fixed.insert(id, uploads.buffer("constant", &memory::to_bytes(tensor, value.ty.kind, dtype))?);
                }
                Source::Input(name) => {
                    fixed.insert(id, uploads.empty(name, device_bytes(&graph, id, storage)));
                }
                Source::Parameter(_) | Source::Node(_) => {}
            }
        }
        let slots = plan
            .slots
            .iter()
            .map(|bytes| uploads.empty("slot", (bytes + GUARD).min(gpu.caps.max_buffer.max(*bytes))))
            .collect();
        let readback_bytes = graph.outputs.iter().map(|(_, id)| device_bytes(&graph, *id, storage)).sum::<u64>();
        let readback = readback_buffer(gpu, readback_bytes);
        let bytes = uploads.total + readback_bytes;
        let pace = Mutex::new(Pace::of(&graph));
        gpu.wait()?;
        let mut session = Self {
            gpu: Arc::clone(gpu),
            graph,
            storage,
            slots,
            fixed,
            plan,
            dispatches: Vec::new(),
            readback,
            bytes,
            held: HashSet::new(),
            pace,
        };
        session.dispatches = session.prepare(choose)?;
        gpu.check()?;
        Ok(session)
    }

    /// How values are stored.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// Bytes of device memory that the session holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Kernels, parameters and bind groups of every node.
    fn prepare(&self, choose: &Choose<'_>) -> Result<Vec<Dispatch>> {
        let nodes = self.graph.nodes.iter().enumerate();
        let launches: Vec<Launch> = nodes.map(|(i, node)| self.launch(node, choose(i))).collect::<Result<_>>()?;
        let wanted: Vec<_> = launches.iter().zip(&self.graph.nodes).map(|(l, node)| (l, self.dialect(node))).collect();
        self.gpu.kernels.warm(&self.gpu, &wanted)?;
        let align = self.gpu.device.limits().min_uniform_buffer_offset_alignment as usize;
        let mut params = Vec::new();
        let mut ranges = Vec::new();
        for launch in &launches {
            let start = params.len();
            params.extend(launch.params.iter().flat_map(|(_, bits)| bits.to_le_bytes()));
            ranges.push(start as u64..params.len() as u64);
            params.resize(params.len().next_multiple_of(align.max(16)), 0);
        }
        let mut uploads = Uploads { gpu: &self.gpu, pending: 0, total: 0 };
        let params = uploads.buffer("params", &params)?;
        let absent = uploads.empty("absent", 16);
        let nodes = self.graph.nodes.iter().zip(&launches).zip(&ranges);
        nodes.map(|((node, launch), range)| self.dispatch(node, launch, (&params, range), &absent)).collect()
    }

    fn launch(&self, node: &Node, variant: usize) -> Result<Launch> {
        let caps = self.gpu.caps.storing(self.storage.act, self.storage.weight);
        let variants = node.op.variants(&self.graph.types(&node.inputs), self.graph.ty(node.output), &caps);
        let mut variants = variants.map_err(|e| e.at(&node.name))?;
        let launch = variants.swap_remove(variant).launch;
        if launch.workgroups.iter().any(|n| *n > caps.max_workgroups) {
            return Err(Error::TooLarge(format!(
                "{}: {:?} workgroups are more than {} dispatches; a smaller picture needs fewer",
                node.name, launch.workgroups, caps.name
            )));
        }
        Ok(launch)
    }

    fn dispatch(
        &self,
        node: &Node,
        launch: &Launch,
        params: (&wgpu::Buffer, &Range<u64>),
        absent: &wgpu::Buffer,
    ) -> Result<Dispatch> {
        let kernel = self.gpu.kernels.get(&self.gpu, launch, self.dialect(node))?;
        let entries: Vec<_> = launch
            .bindings
            .iter()
            .enumerate()
            .map(|(i, binding)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: match binding {
                    Binding::Input(input) => self.window(node.inputs[*input], 0),
                    Binding::Output => self.window(node.output, GUARD),
                    Binding::Absent => absent.as_entire_binding(),
                    Binding::Params => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: params.0,
                        offset: params.1.start,
                        size: wgpu::BufferSize::new(params.1.end - params.1.start),
                    }),
                },
            })
            .collect();
        let bind_group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&node.name),
            layout: &kernel.layout,
            entries: &entries,
        });
        self.gpu.check().map_err(|e| e.on(&node.name))?;
        Ok(Dispatch { pipeline: kernel.pipeline, bind_group, workgroups: launch.workgroups })
    }

    fn dialect(&self, node: &Node) -> Dialect {
        let (inputs, output) = (self.graph.types(&node.inputs), self.graph.ty(node.output));
        Dialect::of(self.storage, &inputs, output, self.gpu.caps.native_f16())
    }

    fn buffer(&self, id: ValueId) -> &wgpu::Buffer {
        self.plan.slot_of.get(&id).map_or_else(|| &self.fixed[&id], |slot| &self.slots[*slot])
    }

    /// A value's own bytes of its buffer, and so many behind them as far as there are any. A read past the end finds
    /// nothing of another value. A write past the end, which drivers otherwise drop or move onto the last element, each as
    /// it likes, goes into the guard words, where it does no harm and [`Session::check_guards`] sees it.
    fn window(&self, id: ValueId, behind: u64) -> wgpu::BindingResource<'_> {
        let (buffer, bytes) = (self.buffer(id), device_bytes(&self.graph, id, self.storage));
        let most = buffer.size().min(self.gpu.caps.max_binding);
        let size = wgpu::BufferSize::new((bytes + behind).min(most));
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size })
    }

    /// The outputs by name, for inputs given by name.
    ///
    /// # Errors
    /// If an input is missing or misshapen, or the device fails.
    pub async fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<HashMap<String, Tensor>> {
        self.upload(inputs, &[])?;
        let submissions = self.pace().submissions();
        let Some(mut submissions) = submissions else {
            self.pace().measure(|nodes| self.measured(nodes))?;
            return self.outputs(self.submission(&self.readback)).await;
        };
        let start = Instant::now();
        let last = submissions.pop().unwrap_or_default();
        submissions.into_iter().for_each(|nodes| self.submit(nodes));
        let mut submission = self.submission(&self.readback);
        self.encode_pass(&mut submission.encoder, last, 1, None);
        let outputs = self.outputs(submission).await?;
        self.pace().correct(start.elapsed().as_secs_f64());
        Ok(outputs)
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same session with so many seconds that a submission may take; one that a single node exceeds has that alone.
    pub fn within(mut self, seconds: f64) -> Self {
        self.pace = Mutex::new(Pace::of(&self.graph).within(seconds));
        self
    }

    /// Submissions of a run, once one has been made.
    pub fn submissions(&self) -> Option<usize> {
        Some(self.pace().submissions()?.len())
    }

    fn submit(&self, nodes: Range<usize>) {
        let mut encoder = self.submission(&self.readback).encoder;
        self.encode_pass(&mut encoder, nodes, 1, None);
        self.gpu.queue.submit([encoder.finish()]);
    }

    /// Seconds from a submission of these nodes until they are done.
    fn measured(&self, nodes: Range<usize>) -> Result<f64> {
        let start = Instant::now();
        self.submit(nodes);
        self.gpu.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Keeps those of the inputs that the graph has on the device, for all runs that are not given others.
    ///
    /// # Errors
    /// If one is misshapen.
    pub fn hold(&mut self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        for (id, tensor) in self.graph.known_inputs(inputs)? {
            self.write(id, tensor);
            self.held.insert(id);
        }
        Ok(())
    }

    /// All inputs but those that are held and these.
    fn upload(&self, inputs: &[(&str, &Tensor)], but: &[ValueId]) -> Result<()> {
        let inputs = self.graph.order_inputs(inputs, &|id| self.held.contains(&id) || but.contains(&id))?;
        inputs.into_iter().for_each(|(id, tensor)| self.write(id, tensor));
        Ok(())
    }

    fn write(&self, id: ValueId, tensor: &Tensor) {
        let bytes = memory::to_bytes(tensor, self.graph.ty(id).kind, self.storage.act);
        self.gpu.queue.write_buffer(&self.fixed[&id], 0, &bytes);
    }

    /// Submits, and reads the outputs by name.
    async fn outputs(&self, mut submission: Submission<'_>) -> Result<HashMap<String, Tensor>> {
        for (_, id) in &self.graph.outputs {
            submission.copy(*id);
        }
        let names = self.graph.outputs.iter().map(|(name, _)| name.clone());
        Ok(names.zip(submission.read().await?).collect())
    }

    /// The nodes of that range, `repeats` times over, in one compute pass.
    pub(super) fn encode_pass(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        nodes: Range<usize>,
        repeats: usize,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites>,
    ) {
        let label = Some(self.graph.network.as_str());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes });
        for _ in 0..repeats {
            for dispatch in &self.dispatches[nodes.clone()] {
                let [x, y, z] = dispatch.workgroups;
                pass.set_pipeline(&dispatch.pipeline);
                pass.set_bind_group(0, &dispatch.bind_group, &[]);
                pass.dispatch_workgroups(x, y, z);
            }
        }
    }

    async fn read_back(&self, readback: &wgpu::Buffer) -> Result<Vec<u8>> {
        let (sender, receiver) = futures_channel::oneshot::channel();
        // The receiver lives until the end of this function; a failed send means that nobody waits any more.
        readback.map_async(wgpu::MapMode::Read, .., move |result| drop(sender.send(result)));
        self.gpu.wait()?;
        let failed =
            |what: &dyn std::fmt::Display| Error::device(format!("{}: reading back: {what}", self.gpu.caps.name));
        receiver.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        let bytes = readback.get_mapped_range(..).map_err(|e| failed(&e))?.to_vec();
        readback.unmap();
        Ok(bytes)
    }
}

fn readback_buffer(gpu: &Gpu, bytes: u64) -> wgpu::Buffer {
    gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("readback"),
        size: bytes.max(16),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    })
}

/// Makes buffers and counts their bytes.
struct Uploads<'a> {
    gpu: &'a Gpu,
    pending: u64,
    total: u64,
}

impl Uploads<'_> {
    fn empty(&mut self, label: &str, bytes: u64) -> wgpu::Buffer {
        let size = bytes.max(16).next_multiple_of(4);
        self.total += size;
        self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::UNIFORM
                | wgpu::BufferUsages::COPY_DST
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    }

    fn buffer(&mut self, label: &str, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let buffer = self.empty(label, bytes.len() as u64);
        self.gpu.queue.write_buffer(&buffer, 0, bytes);
        self.pending += bytes.len() as u64;
        if self.pending > UPLOAD_CHUNK {
            self.pending = 0;
            self.gpu.wait()?;
        }
        Ok(buffer)
    }
}
