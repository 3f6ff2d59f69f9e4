//! Layers: each adds its nodes and parameters below a path of the checkpoint.
//!
//! A [`Module`] is a place in the checkpoint's tree, like a `torch.nn.Module` of the same path. What a layer is called
//! there is the name of its node and, with `.weight` or `.bias`, the key of its parameters. A node without parameters
//! has a path of its own below the module that it belongs to (`norm1.silu`, `attn1.add`).

use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::activation::Activation;
use crate::ops::add::Add;
use crate::ops::attention::Attention;
use crate::ops::norm::group_norm::GroupNorm;
use crate::ops::norm::group_norm_stats::GroupNormStats;
use crate::ops::norm::group_norm_whole::GroupNormWhole;
use crate::ops::norm::layer_norm::LayerNorm;
use crate::ops::product::conv2d::Conv2d;
use crate::ops::product::epilogue::{Act, Epilogue};
use crate::ops::product::matmul::MatMul;
use crate::ops::{Kind, Op};
use crate::pack::Pack;
use crate::tensor::Shape;

/// A convolution's attributes: `torch.nn.Conv2d`.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    /// Output channels.
    pub out: usize,
    /// Height and width of the window.
    pub kernel: usize,
    pub stride: usize,
    /// Zeros added at the top, left, bottom and right.
    pub padding: [usize; 4],
}

impl Conv {
    /// Keeps height and width, for an odd `kernel`.
    pub fn same(out: usize, kernel: usize) -> Self {
        Self { out, kernel, stride: 1, padding: [(kernel - 1) / 2; 4] }
    }

    /// Halves height and width (`Downsample2D`).
    pub fn halving(out: usize, padding: [usize; 4]) -> Self {
        Self { out, kernel: 3, stride: 2, padding }
    }
}

/// A group norm's attributes.
#[derive(Debug, Clone, Copy)]
pub struct Groups {
    pub groups: usize,
    pub eps: f32,
}

/// A place in a network's tree of modules.
#[derive(Debug)]
pub struct Module<'a> {
    graph: &'a mut Graph,
    path: String,
}

impl<'a> Module<'a> {
    pub fn root(graph: &'a mut Graph) -> Self {
        Self { graph, path: String::new() }
    }

    pub fn child(&mut self, name: impl std::fmt::Display) -> Module<'_> {
        let path = self.path_of(&name.to_string());
        Module { graph: self.graph, path }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    /// What a node of this name below the module is called.
    pub fn name_of(&self, name: &str) -> String {
        format!("{}.{}", self.graph.network, self.path_of(name))
    }

    pub fn shape(&self, x: ValueId) -> &Shape {
        self.graph.shape(x)
    }

    pub fn channels(&self, x: ValueId) -> usize {
        self.shape(x).channels()
    }

    /// Height and width of an image.
    pub fn size(&self, x: ValueId) -> Result<[usize; 2]> {
        let [_, height, width, _] = self.shape(x).image()?;
        Ok([height, width])
    }

    /// A tensor given at every run.
    ///
    /// # Errors
    /// If it would be empty.
    pub fn input(&mut self, name: &str, kind: Kind, shape: impl Into<Shape>) -> Result<ValueId> {
        let shape = shape.into();
        if shape.is_empty() {
            let node = format!("{}: input {name}", self.graph.network);
            return Err(Error::shape(format!("should not be empty, is {shape}")).at(&node));
        }
        Ok(self.graph.input(name, kind, shape))
    }

    /// A node of any op, for those that stand in one place only.
    pub fn node(&mut self, name: &str, op: impl Op, inputs: &[ValueId]) -> Result<ValueId> {
        let path = self.path_of(name);
        self.graph.node(&path, op, inputs)
    }

    pub fn graph(&mut self) -> &mut Graph {
        self.graph
    }

    /// A table of rows: `torch.nn.Embedding`'s `weight`.
    pub fn table(&mut self, name: &str, rows: usize, width: usize) -> ValueId {
        let key = self.path_of(name) + ".weight";
        self.graph.matrix(&key, [rows, width], Pack::Plain)
    }

    /// A matrix under a name of its own, with its shape in the file.
    pub fn matrix(&mut self, name: &str, file_shape: impl Into<Shape>, pack: Pack) -> ValueId {
        let key = self.path_of(name);
        self.graph.matrix(&key, file_shape, pack)
    }

    /// `x` and the parameters of layers side by side, whose files hold this shape in all.
    fn parameters(
        &mut self,
        parts: &[&str],
        x: ValueId,
        shape: impl Into<Shape>,
        weight: Pack,
        bias: Option<Pack>,
    ) -> Vec<ValueId> {
        let keys = |kind| parts.iter().map(|part| self.path_of(part) + kind).collect::<Vec<_>>();
        let (weights, biases, shape) = (keys(".weight"), keys(".bias"), shape.into());
        let out = [shape.batch()].into();
        let w = self.graph.parameter(&weights, Kind::Weight, shape, weight);
        let bias = bias.map(|pack| self.graph.parameter(&biases, Kind::F32, out, pack));
        [x, w].into_iter().chain(bias).collect()
    }

    /// `torch.nn.Linear`: the last dimension of `x` becomes `out`.
    pub fn linear(&mut self, name: &str, x: ValueId, out: usize) -> Result<ValueId> {
        self.linears(name, &[name], x, out, true)
    }

    /// `torch.nn.Linear(bias=False)`.
    pub fn linear_without_bias(&mut self, name: &str, x: ValueId, out: usize) -> Result<ValueId> {
        self.linears(name, &[name], x, out, false)
    }

    /// Several `torch.nn.Linear`s of one width and one `x` as one product, `[.., out]` each, side by side.
    pub fn linears(&mut self, name: &str, parts: &[&str], x: ValueId, out: usize, bias: bool) -> Result<ValueId> {
        let shape = [parts.len() * out, self.channels(x)];
        let inputs = self.parameters(parts, x, shape, Pack::Linear, bias.then_some(Pack::Plain));
        self.node(name, MatMul::new(bias), &inputs)
    }

    /// diffusers' `GEGLU`, without the gate: a linear layer whose `2 * out` outputs are values and gates in pairs, as
    /// [`Geglu`](crate::ops::geglu::Geglu) takes them.
    pub fn linear_to_pairs(&mut self, name: &str, x: ValueId, out: usize) -> Result<ValueId> {
        let shape = [2 * out, self.channels(x)];
        let inputs = self.parameters(&[name], x, shape, Pack::LinearPairs, Some(Pack::Pairs));
        self.node(name, MatMul::new(true), &inputs)
    }

    fn conv_layer(&mut self, name: &str, x: ValueId, conv: Conv, bias: bool) -> Result<ValueId> {
        let Conv { out, kernel, stride, padding } = conv;
        let shape = [out, self.channels(x), kernel, kernel];
        // Every output pixel is a product of the input pixel at the same place: there is no window to gather.
        let pointwise = (kernel, stride, padding) == (1, 1, [0; 4]);
        let pack = if pointwise { Pack::Linear } else { Pack::Conv };
        let inputs = self.parameters(&[name], x, shape, pack, bias.then_some(Pack::Plain));
        if pointwise {
            return self.node(name, MatMul::new(bias), &inputs);
        }
        self.node(name, Conv2d { stride, padding, upsample: None, epilogue: Epilogue::bias(bias) }, &inputs)
    }

    /// `torch.nn.Conv2d`.
    pub fn conv(&mut self, name: &str, x: ValueId, conv: Conv) -> Result<ValueId> {
        self.conv_layer(name, x, conv, true)
    }

    /// `torch.nn.Conv2d(bias=False)`.
    pub fn conv_without_bias(&mut self, name: &str, x: ValueId, conv: Conv) -> Result<ValueId> {
        self.conv_layer(name, x, conv, false)
    }

    fn gamma_and_beta(&mut self, name: &str, len: usize) -> [ValueId; 2] {
        let path = self.path_of(name);
        ["weight", "bias"].map(|part| self.graph.vector(&format!("{path}.{part}"), len, Pack::Plain))
    }

    /// `torch.nn.GroupNorm`: one node, or for large pictures one for the statistics and one that applies them.
    pub fn group_norm(&mut self, name: &str, x: ValueId, norm: Groups) -> Result<ValueId> {
        self.group_norm_of_sum(name, x, None, norm)
    }

    /// The group norm of x plus a `row` `[B, C]`, if there is one: of a residual block's middle with its time
    /// embedding.
    fn group_norm_of_sum(&mut self, name: &str, x: ValueId, row: Option<ValueId>, norm: Groups) -> Result<ValueId> {
        let Groups { groups, eps } = norm;
        let inputs = |first: &[ValueId]| first.iter().copied().chain(row).collect::<Vec<_>>();
        if GroupNormWhole::fits(self.shape(x), groups) {
            let [gamma, beta] = self.gamma_and_beta(name, self.channels(x));
            let norm = GroupNormWhole { groups, eps, row: row.is_some(), silu: false };
            return self.node(name, norm, &inputs(&[x, gamma, beta]));
        }
        let stats = GroupNormStats { groups, row: row.is_some() };
        let stats = self.node(&format!("{name}.stats"), stats, &inputs(&[x]))?;
        let [gamma, beta] = self.gamma_and_beta(name, self.channels(x));
        let norm = GroupNorm { groups, eps, row: row.is_some(), silu: false };
        self.node(name, norm, &inputs(&[x, stats, gamma, beta]))
    }

    /// `torch.nn.LayerNorm` over the last dimension.
    pub fn layer_norm(&mut self, name: &str, x: ValueId, eps: f32) -> Result<ValueId> {
        let [gamma, beta] = self.gamma_and_beta(name, self.channels(x));
        self.node(name, LayerNorm { eps }, &[x, gamma, beta])
    }

    pub fn activation(&mut self, name: &str, x: ValueId, act: Act) -> Result<ValueId> {
        self.node(name, Activation(act), &[x])
    }

    /// `x * sigmoid(x)`.
    pub fn silu(&mut self, name: &str, x: ValueId) -> Result<ValueId> {
        self.activation(name, x, Act::Silu)
    }

    /// A group norm, of x plus a row `[B, C]` if there is one, and SiLU after it.
    pub fn group_norm_silu(&mut self, name: &str, x: ValueId, row: Option<ValueId>, norm: Groups) -> Result<ValueId> {
        let x = self.group_norm_of_sum(name, x, row, norm)?;
        self.silu(&format!("{name}.silu"), x)
    }

    pub fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.node(name, Add, &[a, b])
    }

    /// `softmax(q k^T / sqrt(width of a head)) v`, the heads side by side in the channels. The inputs are q, k and v,
    /// or one value that holds all three side by side.
    pub fn attention(&mut self, op: Attention, inputs: &[ValueId]) -> Result<ValueId> {
        self.node("attention", op, inputs)
    }
}
