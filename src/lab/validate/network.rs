//! A model's networks on a device, node by node and end to end.
//!
//! Every node is fed what the CPU computed, rounded to the device's storage, and its output is held against the CPU's for
//! the same inputs: so a node is judged by itself, and errors do not add up. The CPU's own pass with that rounding tells
//! what rounding alone costs from end to end; what the device is off beyond that is not rounding.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::{NO_VARIANT, Row, Selection, Subject, Verdict, inputs, variants};
use crate::error::{Error, Result};
use crate::forward::{Component, Prepared, prepare};
use crate::gpu::Gpu;
use crate::graph::interpret::load_parameters;
use crate::graph::plan::{Storage, last_reads};
use crate::graph::{Graph, Node, Source, ValueId};
use crate::network::{Executor, Network, storage};
use crate::ops::Kind;
use crate::ops::case::{compare, round_to};
use crate::tensor::{DType, Tensor, Weights};
use crate::weights::Model;

/// Largest relative errors of a network on a device: in f32 and in f16.
const LIMITS: [f64; 2] = [1e-4, 5e-3];
/// How much more than the CPU's rounding a device's may cost: it rounds where the CPU does, but sums in another order.
const ROUNDING: f64 = 2.0;

/// One output of a network, end to end.
#[derive(Debug, Clone, Serialize)]
pub struct End {
    pub output: String,
    /// Against the CPU in f32.
    pub relative: f64,
    pub limit: f64,
    /// What the CPU's own pass is off when every value is rounded to the device's storage.
    pub rounding: f64,
    pub verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A network in one pair of storage types.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub network: String,
    pub dtype: String,
    pub weights: String,
    /// In the order in which they run.
    #[serde(skip)]
    pub nodes: Vec<Row>,
    /// Empty if a single node was asked for.
    pub outputs: Vec<End>,
}

impl Report {
    /// The first node, in the order in which they run, that is wrong by itself.
    pub fn first_wrong(&self) -> Option<&Row> {
        self.nodes.iter().find(|row| row.verdict == Verdict::Failed)
    }

    pub fn passed(&self) -> bool {
        self.first_wrong().is_none() && self.outputs.iter().all(|end| end.verdict != Verdict::Failed)
    }
}

/// Checks every network of a model and hands each report to `tell` as it comes. Of the selection, the types and variants
/// count; with `only`, that node alone is checked.
///
/// # Errors
/// If the model cannot be loaded, the device cannot hold a network, or no node has that name.
pub async fn validate(
    gpu: &Arc<Gpu>,
    model: &Model,
    selection: &Selection,
    only: Option<&str>,
    tell: &mut dyn FnMut(&Report),
) -> Result<Vec<Report>> {
    let types = [DType::F32, DType::F16].into_iter();
    let types = types.filter(|act| selection.act.map_or(*act == DType::F32 || gpu.caps.f16, |wanted| wanted == *act));
    let types: Vec<_> = types.collect();
    let mut reports = Vec::new();
    for component in inputs::components(model) {
        let inputs = inputs::random(model, component, super::SEED)?;
        let prepared = prepare(model, component, inputs)?;
        let graph = prepared.graph.clone().fused();
        if only.is_some_and(|name| graph.nodes.iter().all(|node| node.name != name)) {
            continue;
        }
        let weights = model.weights(component.folder())?;
        let mut subject = Whole { gpu, graph, prepared, weights: &weights, selection, only, exact: HashMap::new() };
        if only.is_none() {
            subject.exact = subject.run(&Executor::Cpu).await?;
        }
        for act in &types {
            let mut report = subject.report(*act).await?;
            report.network = name(component, &report.network);
            tell(&report);
            reports.push(report);
        }
    }
    if reports.is_empty() {
        return Err(match only {
            Some(name) => Error::usage(format!("no network of {} has a node {name}", model.name())),
            None => Error::config(model.name(), "has no network: there is no config.json in unet, vae or text_encoder"),
        });
    }
    Ok(reports)
}

/// Both halves of a VAE are one network to the weights; here each is its own.
fn name(component: Component, network: &str) -> String {
    match component {
        Component::VaeDecoder => format!("{network} decoder"),
        Component::VaeEncoder => format!("{network} encoder"),
        _ => network.into(),
    }
}

/// A network with its inputs.
struct Whole<'a> {
    gpu: &'a Arc<Gpu>,
    graph: Graph,
    prepared: Prepared,
    weights: &'a dyn Weights,
    selection: &'a Selection,
    only: Option<&'a str>,
    /// The CPU's outputs in f32.
    exact: HashMap<String, Tensor>,
}

impl Whole<'_> {
    fn inputs(&self) -> Vec<(&str, &Tensor)> {
        self.prepared.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }

    async fn run(&self, executor: &Executor) -> Result<HashMap<String, Tensor>> {
        let graph = self.prepared.graph.clone();
        Network::load(executor, graph, &self.prepared.wanted, self.weights)?.run(&self.inputs()).await
    }

    async fn report(&self, act: DType) -> Result<Report> {
        let storage = storage(act, &self.graph, self.weights);
        let (nodes, rounded) = self.nodes(storage).await?;
        let mut report = Report {
            network: self.graph.network.clone(),
            dtype: act.to_string(),
            weights: storage.weight.to_string(),
            nodes,
            outputs: Vec::new(),
        };
        if self.only.is_none() {
            let outputs = self.run(&Executor::Gpu(Arc::clone(self.gpu), act)).await?;
            let wrong = report.first_wrong().and_then(|row| row.node.clone());
            let limit = LIMITS[usize::from(act == DType::F16)];
            for (output, _) in &self.graph.outputs {
                let error = |tensors: &HashMap<String, Tensor>| compare(&tensors[output], &self.exact[output]).relative;
                report.outputs.push(end(output, [error(&outputs), error(&rounded)], limit, wrong.as_deref()));
            }
        }
        Ok(report)
    }

    /// Every node by itself, and the outputs of the CPU's pass with rounding.
    async fn nodes(&self, storage: Storage) -> Result<(Vec<Row>, HashMap<String, Tensor>)> {
        let graph = &self.graph;
        let mut live = self.known(storage)?;
        for (id, tensor) in graph.order_inputs(&self.inputs())? {
            live.insert(id, rounded(tensor.clone(), graph.ty(id).kind, storage));
        }
        let last = last_reads(graph);
        let mut rows = Vec::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            let read: Vec<&Tensor> = node.inputs.iter().map(|id| &live[id]).collect();
            let wanted = node.op.reference(&read, graph.shape(node.output));
            if self.only.is_none_or(|name| name == node.name) {
                rows.extend(self.node(node, &read, &wanted, storage).await);
            }
            live.insert(node.output, rounded(wanted, graph.ty(node.output).kind, storage));
            live.retain(|id, _| last[id.0].is_some_and(|last| last > i));
        }
        let outputs = graph.outputs.iter().map(|(name, id)| (name.clone(), live[id].clone())).collect();
        Ok((rows, outputs))
    }

    /// Parameters and constants as the device holds them.
    fn known(&self, storage: Storage) -> Result<HashMap<ValueId, Tensor>> {
        let graph = &self.graph;
        let mut known = load_parameters(graph, self.weights, |p, raw| p.pack.to_tensor(raw, &p.file_shape))?;
        for (i, value) in graph.values.iter().enumerate() {
            if let Source::Constant(tensor) = &value.source {
                known.insert(ValueId(i), Tensor::clone(tensor));
            }
        }
        let round = |(id, tensor)| (id, rounded(tensor, graph.ty(id).kind, storage));
        Ok(known.into_iter().map(round).collect())
    }

    async fn node(&self, node: &Node, inputs: &[&Tensor], wanted: &Tensor, storage: Storage) -> Vec<Row> {
        let types = self.graph.types(&node.inputs);
        let subject = |variant| Subject { op: &node.op, types: &types, storage, variant };
        let mut rows = Vec::new();
        match variants(&node.op, &types, self.graph.ty(node.output), &self.gpu.caps, self.selection) {
            Err(error) => rows.push(subject(NO_VARIANT).failed(&error)),
            Ok(variants) => {
                for variant in variants {
                    let inputs = inputs.iter().map(|tensor| Tensor::clone(tensor)).collect();
                    rows.push(subject(variant).check(self.gpu, inputs, wanted).await);
                }
            }
        }
        rows.into_iter().map(|row| Row { node: Some(node.name.clone()), ..row }).collect()
    }
}

/// A value as the device holds it.
fn rounded(tensor: Tensor, kind: Kind, storage: Storage) -> Tensor {
    let dtype = match kind {
        Kind::Act => storage.act,
        Kind::Weight => storage.weight,
        Kind::F32 | Kind::U32 => DType::F32,
    };
    Tensor { data: round_to(dtype, tensor.data), shape: tensor.shape }
}

/// The verdict on an output: the device's error and that of rounding alone against the limit, given the first wrong node.
fn end(output: &str, [relative, rounding]: [f64; 2], limit: f64, wrong: Option<&str>) -> End {
    let failed = relative.is_nan() || relative > limit;
    let reason = failed.then(|| match wrong {
        Some(node) => format!("the first wrong node is {node}"),
        None if relative <= ROUNDING * rounding => {
            "every node is right by itself: this is rounding that adds up".to_string()
        }
        None => {
            "every node is right by itself and rounding explains less: look at what nodes share, their buffers and \
                 their order"
                .to_string()
        }
    });
    let verdict = if failed { Verdict::Failed } else { Verdict::Passed };
    End { output: output.into(), relative, limit, rounding, verdict, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_node_is_told_from_rounding_that_adds_up() {
        let reason = |relative, wrong| end("sample", [relative, 4e-3], 5e-3, wrong).reason.unwrap_or_default();
        assert_eq!(reason(4.5e-3, None), "");
        assert!(reason(7e-3, None).contains("rounding that adds up"));
        assert!(reason(0.5, None).contains("rounding explains less"));
        assert!(reason(f64::INFINITY, Some("unet.conv_in")).contains("unet.conv_in"));
    }
}
