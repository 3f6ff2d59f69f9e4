//! The CPU executor: runs a graph node by node through the ops' references, in f32. It is the definition that devices
//! are compared with, and the device where there is no other.

use std::collections::HashMap;
use std::sync::Arc;

use super::plan::{last_reads, packed_parameters, peak_host_len};
use super::{Graph, Origin, Outputs, Parameter, ValueId};
use crate::error::{Error, Result, ten};
use crate::ops::host::matrix::Matrix;
use crate::tensor::{RawTensor, Tensor, Weights};

/// Is shown a node's index and its output.
pub type Observe<'a> = dyn FnMut(usize, &Tensor) + Send + 'a;

/// What there is of each of some values.
type Values<T> = HashMap<ValueId, T>;

/// A graph with its parameters in memory.
#[derive(Debug)]
pub struct Interpreter {
    graph: Graph,
    known: Values<Arc<Tensor>>,
    /// The parameters that are matrices to every node.
    packed: Values<Matrix>,
    last_reads: Vec<Option<usize>>,
}

impl Interpreter {
    /// Matrices stay in the type that their file has them in; everything else is in f32.
    ///
    /// # Errors
    /// If a parameter is missing or holds values that are not finite.
    pub fn new(graph: Graph, weights: &dyn Weights) -> Result<Self> {
        let matrices = packed_parameters(&graph);
        let (mut known, mut packed) = (HashMap::new(), HashMap::new());
        load_parameters(&graph, weights, |id, p, raw| {
            if matrices.contains(&id) {
                packed.insert(id, Matrix::new(p.pack, raw, &p.file_shape)?);
            } else {
                known.insert(id, Arc::new(p.pack.to_tensor(raw, &p.file_shape)?));
            }
            Ok(())
        })?;
        for (i, value) in graph.values.iter().enumerate() {
            if let Origin::Constant(tensor) = &value.origin {
                known.insert(ValueId(i), Arc::clone(tensor));
            }
        }
        let last_reads = last_reads(&graph);
        Ok(Self { graph, known, packed, last_reads })
    }

    /// The graph that it runs.
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
    pub fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        self.run_observed(inputs, &mut |_, _| ())
    }

    /// [`Interpreter::run`] that shows every node's index and output to `observe` as soon as it is there.
    ///
    /// # Errors
    /// As [`Interpreter::run`].
    pub fn run_observed(&self, inputs: &[(&str, &Tensor)], observe: &mut Observe<'_>) -> Result<Outputs> {
        let mut live: Values<Tensor> = HashMap::new();
        let mut memory = Memory { free: Vec::new(), held: 0, most: peak_host_len(&self.graph) };
        let given: Values<&Tensor> = {
            let held = |id| self.known.contains_key(&id);
            self.graph.order_inputs(inputs, &held)?.into_iter().collect()
        };
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let tensors = node.inputs.iter().filter(|id| !self.packed.contains_key(id));
            let read: Vec<&Tensor> = tensors.map(|id| self.find(*id, &given, &live)).collect();
            let shape = self.graph.shape(node.output);
            let mut output = Tensor::new(shape.clone(), memory.take(shape.len()));
            match node.inputs.get(1).and_then(|id| self.packed.get(id)).zip(node.op.weighted()) {
                Some((w, op)) => op.execute_packed(&read, w, &mut output),
                None => node.op.execute(&read, &mut output),
            }
            observe(i, &output);
            live.insert(node.output, output);
            let done = |id: &ValueId| self.last_reads[id.0].is_none_or(|last| last <= i);
            memory.free.extend(live.extract_if(|id, _| done(id)).map(|(_, tensor)| tensor.data));
        }
        Ok(self.graph.outputs.iter().map(|(name, id)| (name.clone(), self.find(*id, &given, &live).clone())).collect())
    }

    fn find<'a>(&'a self, id: ValueId, given: &Values<&'a Tensor>, live: &'a Values<Tensor>) -> &'a Tensor {
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

/// Shows every parameter of a graph, as its file has it, to `take`.
///
/// # Errors
/// One that lists all parameters that are missing or that `take` refuses.
pub fn load_parameters(
    graph: &Graph,
    weights: &dyn Weights,
    mut take: impl FnMut(ValueId, &Parameter, &RawTensor) -> Result<()>,
) -> Result<()> {
    let mut wrong = Vec::new();
    for (id, parameter) in graph.parameters() {
        let read = parameter.read(weights);
        match read.and_then(|raw| take(id, parameter, &raw)).map_err(|e| e.at(&parameter.name())) {
            Err(Error::Shape(what)) => wrong.push(format!("{} {}", what.place, what.what)),
            taken => taken?,
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::weights(weights.place(), ten(&wrong))) }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::graph::plan::peak_host_bytes;
    use crate::ops::case::compare;
    use crate::ops::product::matmul::MatMul;
    use crate::ops::{Kind, Op};
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
    fn matrices_stay_in_the_type_of_their_file() {
        let interpreter = Interpreter::new(products(), &Given).unwrap();
        assert_eq!((interpreter.packed.len(), interpreter.known.len()), (2, 1), "not the bias");
        let x = Tensor::new([3, 8], (0..24).map(|i| (i as f32).cos()).collect());
        let mut wanted = x.clone();
        for name in ["m", "wide", "m"] {
            let [w, bias] = [name, "bias"].map(|name| {
                let raw = Given.get(name).unwrap();
                if name == "bias" { Pack::Plain } else { Pack::Linear }.to_tensor(&raw, &raw.shape).unwrap()
            });
            wanted = MatMul::new(true).reference(&[&wanted, &w, &bias], &x.shape);
        }
        let found = interpreter.run(&[("x", &x)]).unwrap().remove("y").unwrap();
        assert!(compare(&found, &wanted).relative < 1e-6, "{found:?} should be {wanted:?}");
        // Two and four bytes for each of 8 rows of 16 columns, four for the bias and for two values of 24.
        assert_eq!(peak_host_bytes(&products(), &Given), 8 * 16 * (2 + 4) + 4 * 8 + 4 * 2 * 24);
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
