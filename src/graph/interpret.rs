//! The CPU executor: runs a graph node by node through the ops' references, in f32. It is the definition that devices
//! are compared with, and the device where there is no other.

use std::collections::HashMap;
use std::sync::Arc;

use super::plan::last_reads;
use super::{Graph, Parameter, Source, ValueId};
use crate::error::{Error, Result, ten};
use crate::tensor::{RawTensor, Tensor, Weights};

/// Is shown a node's index and its output.
pub type Observe<'a> = dyn FnMut(usize, &Tensor) + 'a;

/// A graph with its parameters in memory.
#[derive(Debug)]
pub struct Interpreter {
    graph: Graph,
    known: HashMap<ValueId, Arc<Tensor>>,
    last_reads: Vec<Option<usize>>,
}

impl Interpreter {
    /// # Errors
    /// If a parameter is missing or holds values that are not finite.
    pub fn new(graph: Graph, weights: &dyn Weights) -> Result<Self> {
        let mut known = load_parameters(&graph, weights, |p, raw| Ok(Arc::new(p.pack.to_tensor(raw, &p.file_shape)?)))?;
        for (i, value) in graph.values.iter().enumerate() {
            if let Source::Constant(tensor) = &value.source {
                known.insert(ValueId(i), Arc::clone(tensor));
            }
        }
        let last_reads = last_reads(&graph);
        Ok(Self { graph, known, last_reads })
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Keeps those of the inputs that the graph has, for all runs that are not given others.
    ///
    /// # Errors
    /// If one is misshapen.
    pub fn hold(&mut self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        let held = self.graph.known_inputs(inputs)?;
        self.known.extend(held.into_iter().map(|(id, tensor)| (id, Arc::new(tensor.clone()))));
        Ok(())
    }

    /// The outputs by name, for inputs given by name.
    ///
    /// # Errors
    /// If an input is missing or misshapen.
    pub fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<HashMap<String, Tensor>> {
        self.run_observed(inputs, &mut |_, _| ())
    }

    /// [`Interpreter::run`] that shows every node's index and output to `observe` as soon as it is there.
    ///
    /// # Errors
    /// As [`Interpreter::run`].
    pub fn run_observed(
        &self,
        inputs: &[(&str, &Tensor)],
        observe: &mut Observe<'_>,
    ) -> Result<HashMap<String, Tensor>> {
        let mut live: HashMap<ValueId, Tensor> = HashMap::new();
        let given: HashMap<ValueId, &Tensor> = {
            let held = |id| self.known.contains_key(&id);
            self.graph.order_inputs(inputs, &held)?.into_iter().collect()
        };
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let read: Vec<&Tensor> = node.inputs.iter().map(|id| self.find(*id, &given, &live)).collect();
            let output = node.op.reference(&read, self.graph.shape(node.output));
            observe(i, &output);
            live.insert(node.output, output);
            live.retain(|id, _| self.last_reads[id.0].is_some_and(|last| last > i));
        }
        Ok(self.graph.outputs.iter().map(|(name, id)| (name.clone(), self.find(*id, &given, &live).clone())).collect())
    }

    fn find<'a>(
        &'a self,
        id: ValueId,
        given: &HashMap<ValueId, &'a Tensor>,
        live: &'a HashMap<ValueId, Tensor>,
    ) -> &'a Tensor {
        let known = || self.known.get(&id).map(Arc::as_ref);
        live.get(&id).or_else(|| given.get(&id).copied()).or_else(known).expect("nodes run after what they read")
    }
}

/// Reads every parameter of a graph through `convert`.
///
/// # Errors
/// One that lists all parameters that are missing or could not be converted.
pub fn load_parameters<T>(
    graph: &Graph,
    weights: &dyn Weights,
    mut convert: impl FnMut(&Parameter, &RawTensor) -> Result<T>,
) -> Result<HashMap<ValueId, T>> {
    let mut loaded = HashMap::new();
    let mut wrong = Vec::new();
    for (id, parameter) in graph.parameters() {
        let read = parameter.read(weights);
        match read.and_then(|raw| convert(parameter, &raw)).map_err(|e| e.at(&parameter.name())) {
            Ok(value) => drop(loaded.insert(id, value)),
            Err(Error::Shape { node, what }) => wrong.push(format!("{node} {what}")),
            Err(other) => return Err(other),
        }
    }
    if wrong.is_empty() { Ok(loaded) } else { Err(Error::weights(weights.place(), ten(&wrong))) }
}
