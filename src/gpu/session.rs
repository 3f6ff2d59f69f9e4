//! A session: a graph on a device, everything made once (kernels, buffers, bind groups), run many times. A run is a
//! compute pass, cut into submissions where it takes long, then one read-back.

mod chain;
mod guards;
mod load;
mod observe;
mod pace;
mod submission;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use web_time::Instant;

use super::shader::Dialect;
use super::{Gpu, memory};
use crate::error::Result;
use crate::graph::plan::{Plan, Storage, device_bytes};
use crate::graph::{Graph, Node, Outputs, ValueId};
use crate::ops::Launch;
use crate::tensor::{Tensor, Weights};
pub use chain::{Carry, Chain};
use pace::{Pace, Share};
use submission::Submission;

/// Picks a node's variant: the node's place in its graph to the variant's place in the op's list.
pub type Choose<'a> = dyn Fn(usize) -> usize + 'a;

#[derive(Debug)]
struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

impl Dispatch {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.workgroups;
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// A graph on a device, ready to run: weights uploaded, slots allocated, kernels compiled.
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
    launches: Vec<Launch>,
    /// One per node, of its launch.
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

    /// How values are stored.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// Bytes of device memory that the session holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The graph that it runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    fn dialect(&self, node: &Node) -> Dialect {
        let (inputs, output) = (self.graph.types(&node.inputs), self.graph.ty(node.output));
        Dialect::of(self.storage, &inputs, output, self.gpu.caps.native_f16())
    }

    fn buffer(&self, id: ValueId) -> &wgpu::Buffer {
        self.plan.slot_of.get(&id).map_or_else(|| &self.fixed[&id], |slot| &self.slots[*slot])
    }

    /// A value's own bytes of its buffer, and so many behind them as far as there are any. A read past the end finds
    /// nothing of another value. A write past the end, which drivers otherwise drop or move onto the last element,
    /// each as it likes, goes into the guard words, where it does no harm and [`Session::check_guards`] sees it.
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
    pub async fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        self.upload(inputs, &[])?;
        let submissions = self.pace().submissions();
        let Some(mut submissions) = submissions else {
            self.pace().measure(|share| self.measured(share))?;
            return self.outputs(self.submission(&self.readback)).await;
        };
        let start = Instant::now();
        let last = submissions.pop().unwrap_or(Share::Nodes(0..0));
        submissions.into_iter().try_for_each(|share| self.submit(share))?;
        let mut submission = self.submission(&self.readback);
        self.encode(&mut submission.encoder, last)?;
        let outputs = self.outputs(submission).await?;
        self.pace().correct(start.elapsed().as_secs_f64());
        Ok(outputs)
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same session with so many seconds that a submission may take; one that a single node exceeds has that
    /// alone, or some of its tiles.
    pub fn within(self, seconds: f64) -> Self {
        self.pace().set_budget(seconds);
        self
    }

    /// Submissions of a run, once one has been made.
    pub fn submissions(&self) -> Option<usize> {
        Some(self.pace().submissions()?.len())
    }

    fn submit(&self, share: Share) -> Result<()> {
        let mut encoder = self.submission(&self.readback).encoder;
        self.encode(&mut encoder, share)?;
        self.gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// Seconds from a submission until it is done.
    fn measured(&self, share: Share) -> Result<f64> {
        let start = Instant::now();
        self.submit(share)?;
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
    async fn outputs(&self, mut submission: Submission<'_>) -> Result<Outputs> {
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
            self.dispatches[nodes.clone()].iter().for_each(|dispatch| dispatch.encode(&mut pass));
        }
    }

    /// A share in one compute pass.
    fn encode(&self, encoder: &mut wgpu::CommandEncoder, share: Share) -> Result<()> {
        match share {
            Share::Nodes(nodes) => self.encode_pass(encoder, nodes, 1, None),
            Share::Tiles(node, tiles) => {
                let launch = self.launches[node].part(tiles, &self.gpu.caps);
                let part = self.dispatches_of(&[(&self.graph.nodes[node], &launch)])?;
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                part.iter().for_each(|dispatch| dispatch.encode(&mut pass));
            }
        }
        Ok(())
    }
}

fn readback_buffer(gpu: &Gpu, bytes: u64) -> wgpu::Buffer {
    gpu.buffer("readback", bytes.max(16), wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ)
}
