//! A model's networks on a device, node by node and end to end.
//!
//! Every node is fed what the CPU computed, rounded to the device's storage, and its output is held against the CPU's
//! for the same inputs: so a node is judged by itself, and errors do not add up. The CPU's own pass with that rounding
//! tells what rounding alone costs from end to end; what the device is off beyond that is not rounding.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::{NO_VARIANT, Row, Selection, Verdict, inputs, variants};
use crate::components::{Component, Components};
use crate::error::{Error, Field, Remedy, Result, did_you_mean};
use crate::forward::{Prepared, Tensors};
use crate::gpu::admission::survived;
use crate::gpu::check::Check;
use crate::gpu::{Gpu, Session};
use crate::graph::plan::{Storage, last_reads};
use crate::graph::{Graph, Node, Origin, Outputs, ValueId};
use crate::lab::published::Published;
use crate::lab::suite;
use crate::models::config::FORWARD;
use crate::network::storage;
use crate::ops::Kind;
use crate::ops::case::{Expected, compare, round_to};
use crate::tensor::{DType, Shape, Tensor, Weights};
use crate::weights::{Model, Synthetic, check};

/// Largest relative errors of a network on a device: in f32 and in f16.
const LIMITS: [f64; 2] = [1e-4, 5e-3];
/// How much more than the CPU's rounding a device's may cost: it rounds where the CPU does, but sums in another order.
const ROUNDING: f64 = 2.0;

/// One output of a network, end to end.
#[derive(Debug, Clone, Serialize)]
pub struct End {
    /// The output's name.
    pub output: String,
    /// Against the CPU in f32.
    pub relative: f64,
    /// The largest that passes.
    pub limit: f64,
    /// What the CPU's own pass is off when every value is rounded to the device's storage.
    pub rounding: f64,
    /// Whether it passed.
    pub verdict: Verdict,
    /// Why it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A network in one pair of storage types.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The network's name.
    pub network: String,
    /// Type of activations.
    pub dtype: String,
    /// Type of matrices of parameters.
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

    /// Whether every node and every output is right.
    pub fn passed(&self) -> bool {
        self.first_wrong().is_none() && self.outputs.iter().all(|end| end.verdict != Verdict::Failed)
    }
}

/// A network with its inputs.
pub struct Subject {
    name: String,
    graph: Graph,
    /// All tensors of the network's file.
    wanted: Vec<(String, Shape)>,
    weights: Box<dyn Weights>,
    inputs: Tensors,
}

/// The networks of a model, with small random inputs.
///
/// # Errors
/// If a configuration or the weights cannot be read.
pub fn of_model(model: &Model) -> Result<Vec<Subject>> {
    let components = Components::of(model)?;
    let sizes = inputs::sizes(&components);
    let subject = |(component, way): (&Component, &'static str)| {
        let sizes = component.config.pass_sizes(way, sizes);
        let given = inputs::random(&component.config.ports(way), &sizes, super::SEED);
        let Prepared { graph, wanted, inputs, .. } = Prepared::new(component, way, given)?;
        let weights = Box::new(model.weights(&component.folder)?);
        Ok(Subject { name: name(&graph.network, way), graph: graph.fused(), wanted, weights, inputs })
    };
    components.passes().map(subject).collect()
}

/// The networks of a family of published models, with generated weights and small inputs.
///
/// # Errors
/// None that a family's own configurations would give.
pub fn synthetic(family: &Published) -> Result<Vec<Subject>> {
    let subject = |graph: Graph| {
        let weights = Synthetic::new(format!("generated weights of {}", family.name), graph.wanted());
        let inputs = suite::inputs(&graph).into_iter().collect();
        let (name, wanted) = (graph.network.clone(), graph.wanted());
        Subject { name, graph, wanted, weights: Box::new(weights), inputs }
    };
    let graphs = family.networks(inputs::SIZES.height, inputs::SIZES.batch)?;
    Ok(graphs.into_iter().map(subject).collect())
}

/// Checks networks and hands each report to `tell` as it comes. Of the selection, the types and variants count; with
/// `only`, the node of that name alone is checked.
///
/// # Errors
/// If weights are missing or misshapen, the device cannot hold a network, or no node has that name.
pub async fn validate(
    gpu: &Arc<Gpu>,
    subjects: Vec<Subject>,
    selection: &Selection,
    only: Option<&str>,
    tell: &mut dyn FnMut(&Report),
) -> Result<Vec<Report>> {
    let types = [DType::F32, DType::F16].into_iter();
    let types = types.filter(|act| selection.act.map_or(*act == DType::F32 || gpu.caps.f16, |wanted| wanted == *act));
    let types: Vec<_> = types.collect();
    let (mut reports, mut others) = (Vec::new(), Vec::new());
    for subject in subjects {
        let lowered = subject.graph.clone().lowered(&gpu.caps)?;
        if only.is_some_and(|name| lowered.nodes.iter().all(|node| node.name != name)) {
            others.extend(lowered.nodes.into_iter().map(|node| node.name));
            continue;
        }
        check(&*subject.weights, &subject.wanted)?;
        let run = Run { gpu, subject: &subject, lowered, selection, only };
        let exact = if only.is_none() { run.on_cpu().await? } else { HashMap::new() };
        for act in &types {
            let report = run.report(*act, &exact).await?;
            tell(&report);
            reports.push(report);
        }
    }
    match (only, reports.is_empty()) {
        (Some(name), true) => {
            let what = format!("no network has a node {name}");
            Err(match did_you_mean(name, others.iter().map(String::as_str)) {
                Some(meant) => Error::usage(format!("{what}; {meant}")),
                None => Error::usage(what).remedies([Remedy::Without(Field::Node)]),
            })
        }
        _ => Ok(reports),
    }
}

/// Both halves of an autoencoder are one network to the weights; here each is its own.
fn name(network: &str, way: &str) -> String {
    if way == FORWARD { network.into() } else { format!("{network} {way}") }
}

/// A network on its way through the checks.
struct Run<'a> {
    gpu: &'a Arc<Gpu>,
    subject: &'a Subject,
    /// Its graph as the device should run it.
    lowered: Graph,
    selection: &'a Selection,
    only: Option<&'a str>,
}

impl Run<'_> {
    fn inputs(&self) -> Vec<(&str, &Tensor)> {
        self.subject.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }

    /// The outputs in f32, of the network as it is written.
    async fn on_cpu(&self) -> Result<Outputs> {
        let storage = Storage { act: DType::F32, weight: DType::F32 };
        Ok(self.pass(&self.subject.graph, storage, None).await?.unwrap_or_default())
    }

    /// On the device as it is: what admission would put in the place of wrong kernels is not what is asked.
    async fn on_device(&self, storage: Storage) -> Result<Outputs> {
        let variants = survived(self.gpu, &self.lowered, storage)?;
        let (graph, weights) = (self.lowered.clone(), &*self.subject.weights);
        Session::choosing(self.gpu, graph, weights, storage, &|node| variants[node])?.run(&self.inputs()).await
    }

    async fn report(&self, act: DType, exact: &Outputs) -> Result<Report> {
        let Subject { name, graph, weights, .. } = self.subject;
        let storage = storage(act, graph, &**weights);
        let mut nodes = Vec::new();
        let rounded = self.pass(&self.lowered, storage, Some(&mut nodes)).await?;
        let (dtype, weights) = (act.to_string(), storage.weight.to_string());
        let mut report = Report { network: name.clone(), dtype, weights, nodes, outputs: Vec::new() };
        let Some(rounded) = rounded else { return Ok(report) };
        let outputs = self.on_device(storage).await?;
        let wrong = report.first_wrong().and_then(|row| row.node.clone());
        let limit = LIMITS[usize::from(act == DType::F16)];
        for (output, _) in &graph.outputs {
            let error = |tensors: &Outputs| compare(&tensors[output], &exact[output]).relative;
            report.outputs.push(end(output, [error(&outputs), error(&rounded)], limit, wrong.as_deref()));
        }
        Ok(report)
    }

    /// The CPU's pass with every value rounded to this storage. With `rows`, the device is given every node, or the
    /// one that is wanted, with which the pass then ends: `None`.
    async fn pass(&self, graph: &Graph, storage: Storage, mut rows: Option<&mut Vec<Row>>) -> Result<Option<Outputs>> {
        let mut live: HashMap<ValueId, Tensor> = HashMap::new();
        for (id, tensor) in graph.order_inputs(&self.inputs(), &|_| false)? {
            live.insert(id, rounded(tensor.clone(), graph.ty(id).kind, storage));
        }
        let last = last_reads(graph);
        for (i, node) in graph.nodes.iter().enumerate() {
            for id in &node.inputs {
                if let Some(tensor) = self.known(graph, *id)? {
                    live.entry(*id).or_insert_with(|| rounded(tensor, graph.ty(*id).kind, storage));
                }
            }
            let read: Vec<&Tensor> = node.inputs.iter().map(|id| &live[id]).collect();
            let wanted = node.op.reference(&read, graph.shape(node.output));
            if let Some(rows) = &mut rows
                && self.only.is_none_or(|name| name == node.name)
            {
                rows.extend(self.node(node, &read, &wanted, storage).await);
                if self.only.is_some() {
                    return Ok(None);
                }
            }
            live.insert(node.output, rounded(wanted, graph.ty(node.output).kind, storage));
            live.retain(|id, _| last[id.0].is_some_and(|last| last > i));
        }
        Ok(Some(graph.outputs.iter().map(|(name, id)| (name.clone(), live[id].clone())).collect()))
    }

    /// A parameter or constant, made when it is read, since those of large models do not fit all at once.
    fn known(&self, graph: &Graph, id: ValueId) -> Result<Option<Tensor>> {
        let weights = &self.subject.weights;
        match &graph.values[id.0].origin {
            Origin::Constant(tensor) => Ok(Some(Tensor::clone(tensor))),
            Origin::Parameter(p) => {
                let tensor = p.read(&**weights).and_then(|raw| p.pack.to_tensor(&raw, &p.file_shape));
                tensor.map(Some).map_err(|e| e.at(&p.name()))
            }
            Origin::Input(_) | Origin::Node(_) => Ok(None),
        }
    }

    async fn node(&self, node: &Node, inputs: &[&Tensor], wanted: &Tensor, storage: Storage) -> Vec<Row> {
        let graph = &self.lowered;
        let types = graph.types(&node.inputs);
        let subject = |variant| super::Subject { op: &node.op, types: &types, storage, variant };
        let mut rows = Vec::new();
        let caps = self.gpu.caps.storing(storage.act, storage.weight);
        match variants(&node.op, &types, graph.ty(node.output), &caps, self.selection) {
            Err(error) => rows.push(subject(NO_VARIANT).failed(&error)),
            Ok(variants) => {
                let inputs = types.iter().map(|ty| ty.kind).zip(inputs.iter().copied().cloned());
                let kind = graph.ty(node.output).kind;
                let expected = Expected::new(&*node.op, &types, kind, wanted.clone(), storage.act);
                let check = Check::new(&node.op, inputs, storage, expected);
                for variant in variants {
                    rows.push(subject(variant).check(self.gpu, &check).await);
                }
            }
        }
        rows.into_iter().map(|row| Row { node: Some(node.name.clone()), ..row }).collect()
    }
}

/// A value as the device holds it.
fn rounded(tensor: Tensor, kind: Kind, storage: Storage) -> Tensor {
    let dtype = kind.dtype(storage.act, storage.weight);
    Tensor { data: round_to(dtype, tensor.data), shape: tensor.shape }
}

/// The verdict on an output: the device's error and that of rounding alone against the limit, given the first wrong
/// node.
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
