//! The CPU executor: runs a graph node by node through the ops' references, in f32. It is the definition that devices
//! are compared with, and the device where there is no other.

use std::collections::HashMap;
use std::sync::Arc;

use super::plan::{last_reads, peak_host_len, widest_node};
use super::{Graph, Node, Parameter, Source, ValueId};
use crate::error::{Error, Result, ten};
use crate::tensor::{Narrow, RawTensor, Tensor, Weights};

/// Is shown a node's index and its output.
pub type Observe<'a> = dyn FnMut(usize, &Tensor) + 'a;

/// How a parameter is kept.
enum Kept {
    Wide(Arc<Tensor>),
    Narrow(Narrow),
}

/// A graph with its parameters in memory.
#[derive(Debug)]
pub struct Interpreter {
    graph: Graph,
    known: HashMap<ValueId, Arc<Tensor>>,
    /// Matrices that stay as narrow as their file has them.
    narrow: HashMap<ValueId, Narrow>,
    last_reads: Vec<Option<usize>>,
}

impl Interpreter {
    /// All parameters in f32.
    ///
    /// # Errors
    /// If a parameter is missing or holds values that are not finite.
    pub fn new(graph: Graph, weights: &dyn Weights) -> Result<Self> {
        Self::keeping(graph, weights, false)
    }

    /// The same, but matrices that their file has in f16 stay so, and each is widened whenever a node reads it: the same
    /// outputs, more slowly, in less memory ([`super::plan::narrow_host_bytes`]).
    ///
    /// # Errors
    /// As [`Interpreter::new`].
    pub fn narrow(graph: Graph, weights: &dyn Weights) -> Result<Self> {
        Self::keeping(graph, weights, true)
    }

    fn keeping(graph: Graph, weights: &dyn Weights, keep_narrow: bool) -> Result<Self> {
        let loaded = load_parameters(&graph, weights, |p, raw| {
            let tensor = p.pack.to_tensor(raw, &p.file_shape)?;
            let stays = keep_narrow && p.is_narrow(weights);
            Ok(if stays { Kept::Narrow(Narrow::of(&tensor.data)) } else { Kept::Wide(Arc::new(tensor)) })
        })?;
        let (mut known, mut narrow) = (HashMap::new(), HashMap::new());
        for (id, kept) in loaded {
            match kept {
                Kept::Wide(tensor) => drop(known.insert(id, tensor)),
                Kept::Narrow(elements) => drop(narrow.insert(id, elements)),
            }
        }
        for (i, value) in graph.values.iter().enumerate() {
            if let Source::Constant(tensor) = &value.source {
                known.insert(ValueId(i), Arc::clone(tensor));
            }
        }
        let last_reads = last_reads(&graph);
        Ok(Self { graph, known, narrow, last_reads })
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
        let widened = widest_node(&self.graph, |id| self.narrow.contains_key(&id));
        let mut memory = Memory { free: Vec::new(), held: 0, most: peak_host_len(&self.graph) + widened };
        let given: HashMap<ValueId, &Tensor> = {
            let held = |id| self.known.contains_key(&id);
            self.graph.order_inputs(inputs, &held)?.into_iter().collect()
        };
        for (i, node) in self.graph.nodes.iter().enumerate() {
            live.extend(self.widened(node, &mut memory));
            let read: Vec<&Tensor> = node.inputs.iter().map(|id| self.find(*id, &given, &live)).collect();
            let shape = self.graph.shape(node.output);
            let mut output = Tensor::new(shape.clone(), memory.take(shape.len()));
            node.op.execute(&read, &mut output);
            observe(i, &output);
            live.insert(node.output, output);
            let done =
                |id: &ValueId| self.narrow.contains_key(id) || self.last_reads[id.0].is_none_or(|last| last <= i);
            memory.free.extend(live.extract_if(|id, _| done(id)).map(|(_, tensor)| tensor.data));
        }
        Ok(self.graph.outputs.iter().map(|(name, id)| (name.clone(), self.find(*id, &given, &live).clone())).collect())
    }

    /// The narrow matrices that a node reads, in f32.
    fn widened(&self, node: &Node, memory: &mut Memory) -> Vec<(ValueId, Tensor)> {
        let narrow = node.inputs.iter().filter_map(|id| Some((*id, self.narrow.get(id)?)));
        let widen = |(id, narrow): (ValueId, &Narrow)| {
            let mut data = memory.take(narrow.len());
            narrow.widen(&mut data);
            (id, Tensor::new(self.graph.shape(id).clone(), data))
        };
        narrow.map(widen).collect()
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

/// The memory of values that nobody reads any more: getting more from the system takes as long as filling it.
struct Memory {
    free: Vec<Vec<f32>>,
    /// Elements of all values, those that are free included, and how many there may be.
    held: usize,
    most: usize,
}

impl Memory {
    /// So many elements that hold anything.
    fn take(&mut self, len: usize) -> Vec<f32> {
        let fits = |(_, free): &(usize, &Vec<f32>)| (len..=2 * len).contains(&free.capacity());
        if let Some((i, _)) = self.free.iter().enumerate().filter(fits).min_by_key(|(_, free)| free.capacity()) {
            let mut data = self.free.swap_remove(i);
            data.resize(len, 0.0);
            return data;
        }
        self.held += len;
        while self.held > self.most
            && let Some(free) = self.free.pop()
        {
            self.held -= free.capacity();
        }
        vec![0.0; len]
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

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::graph::plan::{narrow_host_bytes, peak_host_bytes};
    use crate::ops::Kind;
    use crate::ops::matmul::MatMul;
    use crate::pack::Pack;
    use crate::tensor::{DType, Shape};

    /// Two products by one matrix `m` in f16, a bias in f16 and a matrix in f32.
    struct Given;

    impl Weights for Given {
        fn place(&self) -> String {
            "here".into()
        }

        fn get(&self, name: &str) -> Option<RawTensor<'_>> {
            let values = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin());
            let narrow = |n: usize| values(n).flat_map(|v| f16::from_f32(v).to_le_bytes()).collect::<Vec<u8>>();
            let (dtype, shape, bytes) = match name {
                "m" => (DType::F16, Shape::from([8, 8]), narrow(64)),
                "bias" => (DType::F16, Shape::from([8]), narrow(8)),
                _ => (DType::F32, Shape::from([8, 8]), values(64).flat_map(f32::to_le_bytes).collect()),
            };
            Some(RawTensor { dtype, shape, bytes: bytes.into() })
        }

        fn names(&self) -> Vec<String> {
            ["m", "bias", "wide"].map(String::from).into()
        }
    }

    fn products() -> Graph {
        let mut graph = Graph::new("net");
        let mut x = graph.input("x", Kind::Act, [3, 8]);
        let bias = graph.vector("bias", 8, Pack::Plain);
        for (path, key) in [("a", "m"), ("b", "wide"), ("c", "m")] {
            let matrix = graph.matrix(key, [8, 8], Pack::Linear);
            x = graph.node(path, MatMul::new(true), &[x, matrix, bias]).unwrap();
        }
        graph.output("y", x);
        graph
    }

    #[test]
    fn matrices_that_stay_narrow_give_the_same_in_less_memory() {
        let x = Tensor::new([3, 8], (0..24).map(|i| (i as f32).cos()).collect());
        let [wide, narrow] = [Interpreter::new, Interpreter::narrow].map(|load| load(products(), &Given).unwrap());
        assert_eq!(wide.run(&[("x", &x)]).unwrap(), narrow.run(&[("x", &x)]).unwrap());
        assert_eq!((narrow.narrow.len(), narrow.known.len()), (1, 2), "not the bias, nor what the file has in f32");
        // Two bytes for each of 64 elements instead of four, and four for those of the widest node.
        let (all, less) = (peak_host_bytes(&products()), narrow_host_bytes(&products(), &Given));
        assert_eq!(less, all - 2 * 64 + 4 * 64);
    }

    #[test]
    fn memory_is_used_again_and_no_more_is_held_than_may_be() {
        let mut memory = Memory { free: Vec::new(), held: 0, most: 250 };
        let first = memory.take(100);
        let place = first.as_ptr();
        memory.free.push(first);
        let again = memory.take(60);
        assert_eq!((again.as_ptr(), again.len(), memory.held), (place, 60, 100));
        memory.free.push(again);
        assert_eq!(memory.take(40).len(), 40, "much smaller: memory of its own");
        assert_eq!((memory.free.len(), memory.held), (1, 140));
        assert_eq!(memory.take(200).len(), 200);
        assert_eq!((memory.free.len(), memory.held), (0, 240), "what was free is given back");
    }
}
