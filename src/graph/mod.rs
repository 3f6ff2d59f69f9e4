//! A network as data: nodes in the order in which they run, and the values between them.
//!
//! A node is named by its checkpoint path (`unet.down_blocks.0.resnets.1.conv1`), and that one string is its weight
//! key, GPU label, profile row and name in error messages.
//!
//! Floor 2: may import `ops` and floor 0.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ops::{Case, Kind, Op, Ty};
use crate::pack::Pack;
use crate::tensor::{DType, RawTensor, Shape, Tensor, Weights};

mod fuse;
pub mod interpret;
pub mod plan;
mod quantize;
mod split;
mod winograd;

/// No network has so many nodes. A configuration may ask for any number of layers, and should not fill the memory.
const MOST_NODES: usize = 1 << 15;

/// Tensors by name: what a run gives.
pub type Outputs = HashMap<String, Tensor>;

/// Tensors with the values that they are of.
pub type Placed<'a> = Vec<(ValueId, &'a Tensor)>;

/// Index of a value in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// A parameter of the checkpoint, or several of one shape, one after the other along their first dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Names in the network's files: `down_blocks.0.resnets.1.conv1.weight`.
    pub keys: Vec<String>,
    /// Shape in PyTorch's layout, of all together: of that plane.
    pub file_shape: Shape,
    /// How its tensor is laid out anew for the device (NCHW to channels last, transposed).
    pub pack: Pack,
    /// All of it, or one plane of a matrix in blocks.
    pub plane: Plane,
}

/// Which of a parameter's numbers a value holds: all, or one plane of matrices in blocks
/// ([`Quantized`](crate::tensor::Quantized)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// The tensor, in floating point.
    Whole,
    /// The whole numbers of each weight, 4 or 8 bits.
    Quants,
    /// A factor for each block.
    Scales,
    /// What is subtracted, for each block.
    Minima,
}

impl Parameter {
    /// What error messages and labels call it.
    pub fn name(&self) -> String {
        self.keys.join(", ")
    }

    /// The shape of each tensor in the file.
    pub fn each(&self) -> Shape {
        self.file_shape.with_batch(self.file_shape.batch() / self.keys.len())
    }

    /// The type that its tensors have in the file, if all are there and have the same.
    pub fn dtype(&self, weights: &dyn Weights) -> Option<DType> {
        let mut types = self.keys.iter().map(|key| weights.dtype(key));
        let first = types.next()??;
        types.all(|dtype| dtype == Some(first)).then_some(first)
    }

    /// Whether it is a matrix that the file has in f16, or in what f16 holds.
    pub fn is_narrow(&self, weights: &dyn Weights) -> bool {
        let narrow = [DType::F16, DType::F8E4M3, DType::F8E5M2];
        self.file_shape.rank() > 1 && self.dtype(weights).is_some_and(|dtype| narrow.contains(&dtype))
    }

    /// The tensor or tensors as the file has them; if their types differ, in f32.
    ///
    /// # Errors
    /// If one is missing or has another number of elements, naming it.
    pub fn read<'w>(&self, weights: &'w dyn Weights) -> Result<RawTensor<'w>> {
        if self.plane != Plane::Whole {
            return self.read_blocks(weights);
        }
        let each = self.each();
        let mut parts = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let raw = weights.get(key).ok_or_else(|| Error::shape("is missing").at(key))?;
            if raw.shape.len() != each.len() {
                return Err(Error::shape(format!("should be {each}, found {}", raw.shape)).at(key));
            }
            parts.push(raw);
        }
        if let [_] = parts[..] {
            return Ok(parts.remove(0));
        }
        let same = parts.iter().all(|part| part.dtype == parts[0].dtype);
        let dtype = if same { parts[0].dtype } else { DType::F32 };
        let mut bytes = Vec::with_capacity(self.file_shape.len() * dtype.size());
        for part in &parts {
            match same {
                true => bytes.extend_from_slice(&part.bytes),
                false => bytes.extend_from_slice(bytemuck::cast_slice(&part.to_f32())),
            }
        }
        Ok(RawTensor { dtype, shape: self.file_shape.clone(), bytes: Cow::Owned(bytes) })
    }

    /// A plane of matrices in blocks, in f32.
    fn read_blocks(&self, weights: &dyn Weights) -> Result<RawTensor<'static>> {
        let mut values = Vec::with_capacity(self.file_shape.len());
        for key in &self.keys {
            let parts = weights.quantized(key).ok_or_else(|| Error::shape("is missing").at(key))?;
            match self.plane {
                Plane::Quants => values.extend(parts.quants.into_iter().map(f32::from)),
                Plane::Scales => values.extend(parts.scales),
                Plane::Minima | Plane::Whole => values.extend(parts.minima),
            }
        }
        if values.len() != self.file_shape.len() {
            return Err(Error::shape(format!("should be {}, found {} values", self.file_shape, values.len())));
        }
        let bytes = Cow::Owned(bytemuck::pod_collect_to_vec(&values));
        Ok(RawTensor { dtype: DType::F32, shape: self.file_shape.clone(), bytes })
    }
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Given at every run, by this name.
    Input(String),
    /// Known when the graph is built.
    Constant(Arc<Tensor>),
    /// Read from the network's weights.
    Parameter(Parameter),
    /// Computed by the node of this index.
    Node(usize),
}

/// A tensor in a graph, before there are any numbers: what a node reads or makes.
#[derive(Debug, Clone)]
pub struct Value {
    /// Its kind and logical shape, channels last.
    pub ty: Ty,
    /// Where it comes from.
    pub origin: Origin,
}

/// One op on some of the graph's values: one kernel, one dispatch, one row of a profile.
#[derive(Debug, Clone)]
pub struct Node {
    /// The path in the checkpoint (`unet.down_blocks.0.resnets.1.conv1`), or of what it belongs to.
    pub name: String,
    /// The op with its attributes.
    pub op: Arc<dyn Op>,
    /// What it reads, in the op's order.
    pub inputs: Vec<ValueId>,
    /// The value that it makes, which no other node makes.
    pub output: ValueId,
}

/// A network's forward pass on inputs of fixed shapes.
#[derive(Debug, Clone)]
pub struct Graph {
    /// `unet`, `vae`, `text_encoder`: the first part of every node's name.
    pub network: String,
    /// Every input, constant, parameter and node's output; a [`ValueId`] is a place here.
    pub values: Vec<Value>,
    /// In an order in which they can run: each after those whose outputs it reads.
    pub nodes: Vec<Node>,
    /// What a run gives, by name.
    pub outputs: Vec<(String, ValueId)>,
    parameters: HashMap<Vec<String>, ValueId>,
}

impl Graph {
    /// An empty graph of a network of this name.
    pub fn new(network: &str) -> Self {
        let (network, parameters) = (network.to_string(), HashMap::new());
        Self { network, values: Vec::new(), nodes: Vec::new(), outputs: Vec::new(), parameters }
    }

    /// A graph of one node, named by its op, on constant inputs: how a case runs on a device.
    pub fn of_case(case: &Case, inputs: Vec<Tensor>) -> Result<Self> {
        Self::of_op(&case.op, case.types().iter().map(|ty| ty.kind).zip(inputs))
    }

    /// The same for an op that is not a case's. Its output is called `output`.
    pub fn of_op(op: &Arc<dyn Op>, inputs: impl IntoIterator<Item = (Kind, Tensor)>) -> Result<Self> {
        let mut graph = Self::new("case");
        let ids: Vec<_> = inputs.into_iter().map(|(kind, tensor)| graph.constant(kind, tensor)).collect();
        let output = graph.append(op.name(), Arc::clone(op), &ids)?;
        graph.output("output", output);
        Ok(graph)
    }

    /// A graph of one op on inputs without values: to see what becomes of it.
    ///
    /// # Errors
    /// If the op does not take such inputs.
    pub fn of_types(op: &Arc<dyn Op>, inputs: &[Ty]) -> Result<Self> {
        let mut graph = Self::new("case");
        let ids: Vec<_> = inputs.iter().map(|ty| graph.input("given", ty.kind, ty.shape.clone())).collect();
        graph.append(op.name(), Arc::clone(op), &ids)?;
        Ok(graph)
    }

    fn value(&mut self, ty: Ty, origin: Origin) -> ValueId {
        self.values.push(Value { ty, origin });
        ValueId(self.values.len() - 1)
    }

    /// A tensor given at every run.
    pub fn input(&mut self, name: &str, kind: Kind, shape: impl Into<Shape>) -> ValueId {
        self.value(Ty::new(kind, shape), Origin::Input(name.to_string()))
    }

    /// A tensor known now, such as a table of frequencies.
    pub fn constant(&mut self, kind: Kind, tensor: Tensor) -> ValueId {
        self.value(Ty::new(kind, tensor.shape.clone()), Origin::Constant(Arc::new(tensor)))
    }

    /// A vector of parameters (a bias, a norm's scale), kept in f32 on every device.
    pub fn vector(&mut self, key: &str, len: usize, pack: Pack) -> ValueId {
        self.parameter(&[key.to_string()], Kind::F32, [len].into(), pack)
    }

    /// A matrix of parameters with its shape in the file.
    pub fn matrix(&mut self, key: &str, file_shape: impl Into<Shape>, pack: Pack) -> ValueId {
        self.parameter(&[key.to_string()], Kind::Weight, file_shape.into(), pack)
    }

    /// A parameter, once however often it is asked for; of several keys, their tensors one after the other along the
    /// first dimension, `file_shape` together.
    pub fn parameter(&mut self, keys: &[String], kind: Kind, file_shape: Shape, pack: Pack) -> ValueId {
        if let Some(&id) = self.parameters.get(keys) {
            return id;
        }
        let ty = Ty::new(kind, pack.packed(&file_shape));
        let id =
            self.value(ty, Origin::Parameter(Parameter { keys: keys.to_vec(), file_shape, pack, plane: Plane::Whole }));
        self.parameters.insert(keys.to_vec(), id);
        id
    }

    /// Appends a node. `path` is its checkpoint path without the network's name.
    ///
    /// # Errors
    /// If the inputs do not fit the op; the error names the node.
    pub fn node(&mut self, path: &str, op: impl Op, inputs: &[ValueId]) -> Result<ValueId> {
        self.append(path, Arc::new(op), inputs)
    }

    /// Has a node in front of all others compute what was the input `old`, from new inputs of these names and types.
    ///
    /// # Errors
    /// If there is no such input, or the op does not make its type of these.
    pub fn compute_input(&mut self, old: &str, path: &str, op: impl Op, given: &[(&str, Ty)]) -> Result<Vec<ValueId>> {
        let place = || self.input_place(old);
        let output = self.input_named(old).ok_or_else(|| Error::shape("there is none").at(&place()))?;
        let types: Vec<_> = given.iter().map(|(_, ty)| ty.clone()).collect();
        let (made, wanted) = (op.output(&types)?, self.ty(output));
        if made != *wanted {
            return Err(Error::shape(format!("should be {wanted:?}, made as {made:?}")).at(&place()));
        }
        let given = given.iter().map(|(name, ty)| self.value(ty.clone(), Origin::Input((*name).to_string())));
        let inputs: Vec<_> = given.collect();
        let name = format!("{}.{path}", self.network);
        self.nodes.insert(0, Node { name, op: Arc::new(op), inputs: inputs.clone(), output });
        self.renumber();
        Ok(inputs)
    }

    fn append(&mut self, path: &str, op: Arc<dyn Op>, inputs: &[ValueId]) -> Result<ValueId> {
        let name = format!("{}.{path}", self.network);
        if self.nodes.len() == MOST_NODES {
            let what = format!("is more than the {MOST_NODES} nodes that a network may have: it has too many layers");
            return Err(Error::shape(what).at(&name));
        }
        let types = self.types(inputs);
        let ty = op.output(&types).map_err(|e| e.at(&name))?;
        let output = self.value(ty, Origin::Node(self.nodes.len()));
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), output });
        Ok(output)
    }

    /// Tells every value anew which node makes it, after nodes came or went.
    fn renumber(&mut self) {
        for (i, node) in self.nodes.iter().enumerate() {
            self.values[node.output.0].origin = Origin::Node(i);
        }
    }

    /// Makes a value readable after a run, by this name.
    pub fn output(&mut self, name: &str, id: ValueId) {
        self.outputs.push((name.to_string(), id));
    }

    /// A value's kind and shape.
    pub fn ty(&self, id: ValueId) -> &Ty {
        &self.values[id.0].ty
    }

    /// A value's logical shape.
    pub fn shape(&self, id: ValueId) -> &Shape {
        &self.values[id.0].ty.shape
    }

    /// The kinds and shapes of these values: what [`Op`]'s methods take.
    pub fn types(&self, ids: &[ValueId]) -> Vec<Ty> {
        ids.iter().map(|&id| self.ty(id).clone()).collect()
    }

    /// Every parameter that the graph reads, with its value.
    pub fn parameters(&self) -> impl Iterator<Item = (ValueId, &Parameter)> {
        self.values.iter().enumerate().filter_map(|(i, value)| match &value.origin {
            Origin::Parameter(parameter) => Some((ValueId(i), parameter)),
            _ => None,
        })
    }

    /// The keys and file shapes that the weights must have.
    pub fn wanted(&self) -> Vec<(String, Shape)> {
        self.parameters().flat_map(|(_, p)| p.keys.iter().map(|key| (key.clone(), p.each()))).collect()
    }

    /// The input of that name, or an error that lists the names there are.
    pub fn input_named(&self, name: &str) -> Option<ValueId> {
        self.inputs().find(|(n, _)| *n == name).map(|(_, id)| id)
    }

    /// The inputs by name, in the order in which they were declared.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, ValueId)> {
        self.values.iter().enumerate().filter_map(|(i, value)| match &value.origin {
            Origin::Input(name) => Some((name.as_str(), ValueId(i))),
            _ => None,
        })
    }

    /// Checks given inputs against the declared ones, but for those that are `held` already, and puts them into the
    /// order of [`Graph::inputs`].
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn order_inputs<'a>(&self, given: &[(&str, &'a Tensor)], held: &dyn Fn(ValueId) -> bool) -> Result<Placed<'a>> {
        let mut ordered = Vec::new();
        for (name, id) in self.inputs() {
            match given.iter().find(|(given, _)| *given == name) {
                Some((_, tensor)) => ordered.push((id, self.checked_input(id, name, tensor)?)),
                None if held(id) => {}
                None => return Err(Error::shape("is missing").at(&self.input_place(name))),
            }
        }
        Ok(ordered)
    }

    /// Those of the given inputs that the graph has.
    ///
    /// # Errors
    /// If one has another shape.
    pub fn known_inputs<'a>(&self, given: &[(&str, &'a Tensor)]) -> Result<Placed<'a>> {
        let known = given.iter().filter_map(|(name, tensor)| Some((self.input_named(name)?, name, tensor)));
        known.map(|(id, name, tensor)| Ok((id, self.checked_input(id, name, tensor)?))).collect()
    }

    fn checked_input<'a>(&self, id: ValueId, name: &str, tensor: &'a Tensor) -> Result<&'a Tensor> {
        let wanted = self.shape(id);
        if tensor.shape == *wanted {
            return Ok(tensor);
        }
        Err(Error::shape(format!("should be {wanted}, found {}", tensor.shape)).at(&self.input_place(name)))
    }

    fn input_place(&self, name: &str) -> String {
        format!("{}: input {name}", self.network)
    }

    /// Floating-point operations of one run.
    pub fn flops(&self) -> u64 {
        self.nodes.iter().map(|n| n.op.flops(&self.types(&n.inputs), self.ty(n.output))).sum()
    }
}
