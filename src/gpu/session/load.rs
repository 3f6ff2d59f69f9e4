//! Making a session: the weights go to the device while the driver compiles the kernels; then every node gets its
//! bindings.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::guards::GUARD;
use super::{Choose, Dispatch, Gpu, Pace, Session, memory, readback_buffer};
use crate::error::{Error, Field, Remedy, Result};
use crate::graph::interpret::load_parameters;
use crate::graph::plan::{Storage, check_limits, device_bytes, plan};
use crate::graph::{Graph, Node, Origin, Plane, ValueId};
use crate::ops::{Binding, Kind, Launch};
use crate::tensor::Weights;

/// Bytes of uploads in flight before the session waits for them, which bounds the staging memory.
const UPLOAD_CHUNK: u64 = 64 << 20;

impl Session {
    /// As [`Session::new`], with the variants that `choose` picks.
    ///
    /// # Errors
    /// As there.
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
        let readback_bytes = graph.outputs.iter().map(|(_, id)| device_bytes(&graph, *id, storage)).sum::<u64>();
        let nodes = graph.nodes.iter().enumerate();
        let launches: Vec<Launch> =
            nodes.map(|(i, node)| launch(gpu, &graph, node, choose(i), storage)).collect::<Result<_>>()?;
        let mut session = Self {
            gpu: Arc::clone(gpu),
            storage,
            slots: Vec::new(),
            fixed: HashMap::new(),
            plan,
            dispatches: Vec::new(),
            readback: readback_buffer(gpu, readback_bytes),
            bytes: 0,
            held: HashSet::new(),
            pace: Mutex::new(Pace::of(&graph, &launches)),
            launches,
            graph,
        };
        let dialects = session.graph.nodes.iter().map(|node| session.dialect(node));
        let wanted: Vec<_> = session.launches.iter().zip(dialects).collect();
        let (warmed, uploaded) = at_once(|| gpu.kernels.warm(gpu, &wanted), || session.upload_all(weights));
        let (fixed, slots, bytes) = uploaded?;
        warmed?;
        (session.fixed, session.slots, session.bytes) = (fixed, slots, bytes + readback_bytes);
        session.dispatches =
            session.dispatches_of(&session.graph.nodes.iter().zip(&session.launches).collect::<Vec<_>>())?;
        gpu.check()?;
        Ok(session)
    }

    /// All buffers but the read-back's, with parameters and constants in them.
    fn upload_all(&self, weights: &dyn Weights) -> Result<Buffers> {
        let Self { gpu, graph, storage, plan, .. } = self;
        let mut uploads = Uploads { gpu, pending: 0, total: 0 };
        let mut fixed = HashMap::new();
        load_parameters(graph, weights, |id, parameter, raw| {
            let buffer = if parameter.plane == Plane::Quants {
                let quants = parameter.pack.to_tensor(raw, &parameter.file_shape)?;
                uploads.buffer(&parameter.name(), &memory::to_bytes(&quants, Kind::Bytes, storage.weight))?
            } else {
                let dtype = graph.ty(id).kind.dtype(storage.act, storage.weight);
                let words = parameter.pack.to_words(raw, &parameter.file_shape, dtype)?;
                uploads.buffer(&parameter.name(), bytemuck::cast_slice(&words))?
            };
            fixed.insert(id, buffer);
            Ok(())
        })?;
        for (i, value) in graph.values.iter().enumerate() {
            let id = ValueId(i);
            match &value.origin {
                Origin::Constant(tensor) => {
                    let dtype = if value.ty.kind == Kind::Weight { storage.weight } else { storage.act };
                    fixed.insert(id, uploads.buffer("constant", &memory::to_bytes(tensor, value.ty.kind, dtype))?);
                }
                Origin::Input(name) => {
                    fixed.insert(id, uploads.empty(name, device_bytes(graph, id, *storage)));
                }
                Origin::Parameter(_) | Origin::Node(_) => {}
            }
        }
        let guarded = |bytes: &u64| (bytes + GUARD).min(gpu.caps.max_buffer.max(*bytes));
        let slots = plan.slots.iter().map(|bytes| uploads.empty("slot", guarded(bytes))).collect();
        gpu.wait()?;
        Ok((fixed, slots, uploads.total))
    }

    /// Kernels, the launches' numbers and bind groups of some nodes.
    pub(super) fn dispatches_of(&self, nodes: &[(&Node, &Launch)]) -> Result<Vec<Dispatch>> {
        let align = self.gpu.device.limits().min_uniform_buffer_offset_alignment as usize;
        let mut params = Vec::new();
        let mut ranges = Vec::new();
        for (_, launch) in nodes {
            let start = params.len();
            params.extend(launch.params.iter().flat_map(|(_, bits)| bits.to_le_bytes()));
            ranges.push(start as u64..params.len() as u64);
            params.resize(params.len().next_multiple_of(align.max(16)), 0);
        }
        let mut uploads = Uploads { gpu: &self.gpu, pending: 0, total: 0 };
        let params = uploads.buffer("params", &params)?;
        let absent = uploads.empty("absent", 16);
        let nodes = nodes.iter().zip(&ranges);
        nodes.map(|((node, launch), range)| self.dispatch(node, launch, (&params, range), &absent)).collect()
    }

    fn dispatch(
        &self,
        node: &Node,
        launch: &Launch,
        params: (&wgpu::Buffer, &Range<u64>),
        absent: &wgpu::Buffer,
    ) -> Result<Dispatch> {
        let kernel = self.gpu.kernels.get(&self.gpu, launch, self.dialect(node))?;
        let (buffer, Range { start: offset, end }) = params;
        let size = wgpu::BufferSize::new(end - offset);
        let entry = |(binding, bound): (u32, &Binding)| {
            let resource = match bound {
                Binding::Input(input) => self.window(node.inputs[*input], 0),
                Binding::Output => self.window(node.output, GUARD),
                Binding::Absent => absent.as_entire_binding(),
                Binding::Params => wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: *offset, size }),
            };
            wgpu::BindGroupEntry { binding, resource }
        };
        let entries: Vec<_> = (0..).zip(&launch.bindings).map(entry).collect();
        let (label, layout) = (Some(node.name.as_str()), &kernel.layout);
        let group = wgpu::BindGroupDescriptor { label, layout, entries: &entries };
        let bind_group = self.gpu.device.create_bind_group(&group);
        self.gpu.check().map_err(|e| e.on(&node.name))?;
        Ok(Dispatch { pipeline: kernel.pipeline, bind_group, workgroups: launch.workgroups })
    }
}

/// How a node is launched.
fn launch(gpu: &Gpu, graph: &Graph, node: &Node, variant: usize, storage: Storage) -> Result<Launch> {
    let caps = gpu.caps.storing(storage.act, storage.weight);
    let variants = node.op.variants(&graph.types(&node.inputs), graph.ty(node.output), &caps);
    let mut variants = variants.map_err(|e| e.at(&node.name))?;
    let launch = variants.swap_remove(variant).launch;
    if launch.workgroups.iter().any(|n| *n > caps.max_workgroups) {
        let what = format!("{}: {:?} workgroups are more than {} dispatches", node.name, launch.workgroups, caps.name);
        return Err(Error::too_large(what).remedies([Field::Width, Field::Height].map(Remedy::Less)));
    }
    Ok(launch)
}

/// A session's fixed buffers and its slots, and how many bytes they have.
type Buffers = (HashMap<ValueId, wgpu::Buffer>, Vec<wgpu::Buffer>, u64);

/// Both, side by side where there are threads: a browser's objects stay on the thread that made them.
#[cfg(not(target_arch = "wasm32"))]
fn at_once<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    rayon::join(a, b)
}

#[cfg(target_arch = "wasm32")]
fn at_once<A, B>(a: impl FnOnce() -> A, b: impl FnOnce() -> B) -> (A, B) {
    (a(), b())
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
        let bound = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM;
        self.gpu.buffer(label, size, bound | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC)
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
