//! The memory plan: which values share a buffer.
//!
//! wgpu tracks buffers whole: one bound for writing cannot be bound for reading in the same dispatch, even on another
//! range. So values are given *slots that are whole buffers*, as a compiler gives variables registers: a slot is free
//! again once the last node that reads its value has run.

use std::collections::{HashMap, HashSet};

use super::{Graph, Node, Origin, Parameter, ValueId};
use crate::caps::Caps;
use crate::error::{Error, Field, Remedy, Result};
use crate::ops::Kind;
use crate::ops::host::matrix::Matrix;
use crate::tensor::{DType, Weights};

/// How a session stores its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// Of activations.
    pub act: DType,
    /// Of matrices of parameters.
    pub weight: DType,
}

impl Storage {
    /// Bytes of one element of that kind.
    pub fn element_size(self, kind: Kind) -> usize {
        match kind {
            Kind::Bytes => 1,
            _ => kind.dtype(self.act, self.weight).size(),
        }
    }
}

/// Slots for the values that nodes compute.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Bytes of each slot.
    pub slots: Vec<u64>,
    /// The slot of each computed value.
    pub slot_of: HashMap<ValueId, usize>,
}

/// Bytes of a value on the device.
pub fn device_bytes(graph: &Graph, id: ValueId, storage: Storage) -> u64 {
    let ty = graph.ty(id);
    // Bindings are at least one vector long.
    ((ty.device_len() * storage.element_size(ty.kind)) as u64).max(16)
}

/// Index of the last node that reads each value; outputs are read after all of them.
pub fn last_reads(graph: &Graph) -> Vec<Option<usize>> {
    let mut last = vec![None; graph.values.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        for id in &node.inputs {
            last[id.0] = Some(i);
        }
    }
    for (_, id) in &graph.outputs {
        last[id.0] = Some(graph.nodes.len());
    }
    last
}

/// Assigns slots, the smallest free one that fits, or else the largest free one, enlarged.
pub fn plan(graph: &Graph, storage: Storage) -> Plan {
    let last = last_reads(graph);
    let mut plan = Plan { slots: Vec::new(), slot_of: HashMap::new() };
    let mut free: Vec<usize> = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let bytes = device_bytes(graph, node.output, storage);
        let fits = |slot: &&usize| plan.slots[**slot] >= bytes;
        let best = free.iter().filter(fits).min_by_key(|s| plan.slots[**s]);
        let chosen = best.or_else(|| free.iter().max_by_key(|s| plan.slots[**s])).copied();
        let slot = chosen.unwrap_or(plan.slots.len());
        match chosen {
            Some(slot) => free.retain(|s| *s != slot),
            None => plan.slots.push(0),
        }
        plan.slots[slot] = plan.slots[slot].max(bytes);
        plan.slot_of.insert(node.output, slot);
        let mut done: Vec<ValueId> = node.inputs.iter().copied().chain([node.output]).collect();
        done.sort_unstable();
        done.dedup();
        let ends_here = |id: &ValueId| last[id.0].is_none_or(|l| l == i);
        free.extend(done.iter().filter(|id| ends_here(id)).filter_map(|id| plan.slot_of.get(id)));
    }
    plan
}

/// Refuses a graph one of whose values is larger than the device can bind or hold.
pub fn check_limits(graph: &Graph, storage: Storage, caps: &Caps) -> Result<()> {
    let most = caps.max_binding.min(caps.max_buffer);
    for (i, value) in graph.values.iter().enumerate() {
        let bytes = device_bytes(graph, ValueId(i), storage);
        if bytes <= most {
            continue;
        }
        let what = match &value.origin {
            Origin::Input(name) => format!("{}: input {name}", graph.network),
            Origin::Constant(_) => format!("{}: a constant", graph.network),
            Origin::Parameter(p) => format!("{}.{}", graph.network, p.name()),
            Origin::Node(node) => graph.nodes[*node].name.clone(),
        };
        let half = (storage.element_size(value.ty.kind) == 4).then(|| Remedy::set(Field::Dtype, "f16"));
        let others = [Remedy::set(Field::Device, "cpu"), Remedy::Less(Field::Width), Remedy::Less(Field::Height)];
        let (needed, shape, name, most) = (bytes.div_ceil(1 << 20), &value.ty.shape, &caps.name, most >> 20);
        let dtype = if value.ty.kind == Kind::Weight { storage.weight } else { storage.act };
        let needs = format!("needs {needed} MiB in one buffer ({shape} {dtype})");
        let what = format!("{what} {needs}, and {name} binds at most {most} MiB");
        return Err(Error::too_large(what).remedies(half.into_iter().chain(others)));
    }
    Ok(())
}

/// The most bytes that the values of a run on the CPU hold at one time, parameters included: matrices in their file's
/// type, everything else in f32.
pub fn peak_host_bytes(graph: &Graph, weights: &dyn Weights) -> u64 {
    let packed = packed_parameters(graph);
    let bytes = |(id, p): (ValueId, &Parameter)| match packed.contains(&id) {
        true => Matrix::bytes(graph.shape(id), p.dtype(weights).map_or(4, DType::size)),
        false => 4 * graph.shape(id).len(),
    };
    (graph.parameters().map(bytes).sum::<usize>() + 4 * peak_host_len(graph)) as u64
}

/// The parameters that are matrices to every node that reads them.
pub fn packed_parameters(graph: &Graph) -> HashSet<ValueId> {
    let elsewhere = |node: &Node| {
        let weight = node.op.weighted().map(|_| 1);
        let others = node.inputs.iter().enumerate().filter(move |(input, _)| Some(*input) != weight);
        others.map(|(_, id)| *id).collect::<Vec<_>>()
    };
    let read = graph.nodes.iter().flat_map(elsewhere).chain(graph.outputs.iter().map(|(_, id)| *id));
    let read: HashSet<ValueId> = read.collect();
    graph.parameters().map(|(id, _)| id).filter(|id| !read.contains(id)).collect()
}

/// The most elements that the nodes' outputs have at one time.
pub fn peak_host_len(graph: &Graph) -> usize {
    let last = last_reads(graph);
    let (mut live, mut peak) = (0, 0);
    let mut held: Vec<ValueId> = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        held.push(node.output);
        live += graph.shape(node.output).len();
        peak = peak.max(live);
        held.retain(|id| last[id.0].is_some_and(|last| last > i));
        live = held.iter().map(|id| graph.shape(*id).len()).sum();
    }
    peak
}

/// Bytes of device memory that a graph's session holds: slots, parameters, constants, inputs, and what outputs are
/// read through; but for the few words of uniforms and guards.
pub fn session_bytes(graph: &Graph, storage: Storage) -> u64 {
    let bytes = |id: ValueId| device_bytes(graph, id, storage);
    let values = graph.values.iter().enumerate().filter(|(_, value)| !matches!(value.origin, Origin::Node(_)));
    let fixed: u64 = values.map(|(i, _)| bytes(ValueId(i))).sum();
    let outputs: u64 = graph.outputs.iter().map(|(_, id)| bytes(*id)).sum();
    plan(graph, storage).bytes() + fixed + outputs
}

impl Plan {
    /// Bytes of all slots together.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().sum()
    }
}
