//! The operations: one file per op, and the trait that all of them implement.
//!
//! An op is plain data (its attributes). It knows its shape rule, its definition on the CPU, how its WGSL kernel is
//! launched, how much arithmetic it does, which following element-wise op it can take into its epilogue, and which
//! preceding one into its loader. Adding one takes two new files (`src/ops/<op>.rs`, `shaders/<op>.wgsl`) and two lines here: its `mod` and its row of [`TABLE`].

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor, pad4};

pub mod activation;
pub mod add;
pub mod add_row;
pub mod add_scaled;
pub mod attention;
pub mod case;
pub mod concat;
pub mod conv2d;
pub mod dequantize;
pub mod embedding;
pub mod epilogue;
pub mod geglu;
mod gemm;
pub mod group_norm;
pub mod group_norm_stats;
pub mod group_norm_whole;
pub mod host;
pub mod joined;
pub mod layer_norm;
pub mod matmul;
pub mod matmul_geglu;
pub(crate) mod product;
pub mod sampler_input;
pub mod sampler_step;
pub mod scale;
pub mod timestep_embedding;
pub mod upsample;
pub mod weight;
pub mod winograd;
pub mod winograd_input;
pub mod winograd_output;
pub mod winograd_product;
pub mod winograd_weights;

pub use case::Case;
pub use weight::Weighted;

/// An op's name (the stem of its files) and its cases.
pub type Row = (&'static str, fn() -> Vec<Case>);

/// Every op, in the order in which reports list them.
pub const TABLE: &[Row] = &[
    ("matmul", matmul::cases),
    ("matmul_geglu", matmul_geglu::cases),
    ("conv2d", conv2d::cases),
    ("add", add::cases),
    ("add_row", add_row::cases),
    ("add_scaled", add_scaled::cases),
    ("activation", activation::cases),
    ("attention", attention::cases),
    ("group_norm_stats", group_norm_stats::cases),
    ("group_norm", group_norm::cases),
    ("group_norm_whole", group_norm_whole::cases),
    ("layer_norm", layer_norm::cases),
    ("geglu", geglu::cases),
    ("embedding", embedding::cases),
    ("timestep_embedding", timestep_embedding::cases),
    ("upsample", upsample::cases),
    ("concat", concat::cases),
    ("scale", scale::cases),
    ("sampler_input", sampler_input::cases),
    ("sampler_step", sampler_step::cases),
    ("dequantize", dequantize::cases),
    ("winograd_weights", winograd_weights::cases),
    ("winograd_input", winograd_input::cases),
    ("winograd_product", winograd_product::cases),
    ("winograd_output", winograd_output::cases),
];

/// What a value holds, and hence how a device stores it. Each is rows padded to a multiple of four, bound as vectors of
/// four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Activations, in the session's element type: `elem4` in a kernel.
    Act,
    /// A matrix of parameters, in the type that the weights are kept in: `weight4` in a kernel.
    Weight,
    /// Vectors of parameters, statistics, timesteps: always `vec4<f32>`.
    F32,
    /// Indices: `vec4<u32>` in a kernel, whole numbers in an f32 host tensor.
    U32,
    /// Whole numbers below 256, four to a `u32` in a kernel: weights of a few bits.
    Bytes,
}

/// A value's kind and logical (unpadded) shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ty {
    pub kind: Kind,
    pub shape: Shape,
}

impl Ty {
    pub fn new(kind: Kind, shape: impl Into<Shape>) -> Self {
        Self { kind, shape: shape.into() }
    }

    pub fn act(shape: impl Into<Shape>) -> Self {
        Self::new(Kind::Act, shape)
    }

    /// A device buffer as (blocks, rows of a block, rows of a block with padding). Only a matrix of parameters pads its
    /// rows: it is the dimension that a product sums over, and that is padded in the activations.
    pub fn device_blocks(&self) -> (usize, usize, usize) {
        match (self.kind, self.shape.dims()) {
            (Kind::Weight, &[.., rows, _]) => (self.shape.rows() / rows.max(1), rows, pad4(rows)),
            _ => (1, self.shape.rows(), self.shape.rows()),
        }
    }

    /// Elements of a device buffer, padding counted in.
    pub fn device_len(&self) -> usize {
        let (blocks, _, rows) = self.device_blocks();
        blocks * rows * pad4(self.shape.channels())
    }
}

/// One of the op's inputs or the kernel's own resources, in the order of `@binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    Input(usize),
    /// An optional input that this node does not have. A few zero bytes are bound in its place; the kernel's overrides
    /// keep it from being read.
    Absent,
    Output,
    Params,
}

/// One dispatch, as plain data.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Stem of the file in `shaders/`.
    pub shader: &'static str,
    /// Stem of the file in `shaders/shared/` that the shader's `#import core` stands for, if it has one.
    pub core: Option<&'static str>,
    /// Side of the cooperative matrices that the core multiplies, 8 or 16, if it does.
    pub matrix: Option<u32>,
    /// Values of the shader's `override` constants.
    pub constants: Vec<(&'static str, f64)>,
    /// The members of the uniform struct `Params`, in order: names and bits. All are 4 bytes wide.
    pub params: Vec<(&'static str, u32)>,
    /// What stands at `@group(0) @binding(i)`.
    pub bindings: Vec<Binding>,
    pub workgroups: [u32; 3],
    /// Along the output's rows, if the kernel can do some of them alone.
    pub tiles: Option<Tiles>,
}

/// Workgroups along the output's rows, each with as many of them. A kernel counts them from `params.first_tile` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    pub count: usize,
    /// They are the grid's dimensions y and z (see [`fold_groups`]), or else its x.
    pub folded: bool,
}

impl Launch {
    /// A launch of `shaders/<shader>.wgsl` whose bindings are `inputs` inputs, the output and the params.
    pub fn new(shader: &'static str, inputs: usize) -> Self {
        let bindings = (0..inputs).map(Binding::Input).chain([Binding::Output, Binding::Params]).collect();
        Self {
            shader,
            core: None,
            matrix: None,
            constants: Vec::new(),
            params: Vec::new(),
            bindings,
            workgroups: [1, 1, 1],
            tiles: None,
        }
    }

    /// A launch whose first param says from which tile on; all workgroups are set apart from this.
    pub fn tiled(mut self, tiles: Tiles) -> Self {
        self.tiles = Some(tiles);
        self.param("first_tile", 0)
    }

    /// The launch for some of its tiles alone; all of it, if it has none.
    pub fn part(&self, tiles: Range<usize>, caps: &Caps) -> Self {
        let mut part = self.clone();
        let [x, y, z] = &mut part.workgroups;
        match self.tiles {
            None => return part,
            Some(Tiles { folded: false, .. }) => *x = tiles.len() as u32,
            Some(Tiles { folded: true, .. }) => [*y, *z, _] = fold_groups(tiles.len(), caps),
        }
        let first = part.params.iter_mut().filter(|(name, _)| *name == "first_tile");
        first.for_each(|(_, value)| *value = tiles.start as u32);
        part
    }

    /// The core that the shader imports.
    pub fn core(mut self, core: &'static str) -> Self {
        self.core = Some(core);
        self
    }

    /// Side of the cooperative matrices that the core multiplies.
    pub fn matrix(mut self, side: u32) -> Self {
        self.matrix = Some(side);
        self
    }

    /// Other bindings than [`Launch::new`]'s: for ops with optional inputs.
    pub fn bindings(mut self, bindings: impl Into<Vec<Binding>>) -> Self {
        self.bindings = bindings.into();
        self
    }

    /// The value of an `override` constant; a bool is 0 or 1.
    pub fn constant(mut self, name: &'static str, value: impl Into<f64>) -> Self {
        self.constants.push((name, value.into()));
        self
    }

    /// A count, a dimension or an offset. Buffers are below 4 GiB, so it fits.
    pub fn param(mut self, name: &'static str, value: usize) -> Self {
        self.params.push((name, value as u32));
        self
    }

    pub fn param_f32(mut self, name: &'static str, value: f32) -> Self {
        self.params.push((name, value.to_bits()));
        self
    }

    /// The last binding, constant and param of a kernel whose x may be in two parts (see [`joined`]): here it is whole.
    pub(crate) fn joinable(mut self) -> Self {
        self.bindings.push(Binding::Absent);
        self.constant("JOINED", false).param("x_vectors", 0)
    }

    pub fn workgroups(mut self, workgroups: [u32; 3]) -> Self {
        self.workgroups = workgroups;
        self
    }
}

/// One of the ways to launch an op.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// What sets it apart from the op's others: `portable` where there is one only.
    pub name: &'static str,
    pub launch: Launch,
}

/// Threads of a workgroup of a kernel that works on one vector of four per thread. WebGPU's smallest maximum.
pub const FLAT_THREADS: usize = 256;

/// Folds `groups` workgroups into two dimensions, since one dimension holds at most 65,535 of them. The kernel numbers
/// them `wid.y * num_workgroups.x + wid.x` and returns when that is past the end.
pub fn fold_groups(groups: usize, caps: &Caps) -> [u32; 3] {
    let most = caps.max_workgroups as usize;
    if groups <= most {
        return [groups.max(1) as u32, 1, 1];
    }
    let y = groups.div_ceil(most);
    [groups.div_ceil(y) as u32, y as u32, 1]
}

/// Input types without the attributes' meaning: what [`Op`]'s methods look at.
pub type Inputs<'a> = &'a [Ty];

pub trait Op: Any + Debug + Send + Sync {
    /// The stem of the op's files, and its name in profiles, filters and reports.
    fn name(&self) -> &'static str;

    /// The shape rule: the output's type, or an error that says which input does not fit and why.
    fn output(&self, inputs: Inputs) -> Result<Ty>;

    /// The definition, in f32 on the CPU. `output` is what [`Op::output`] returned for these inputs.
    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor;

    /// The same for the CPU executor: into a tensor of the right shape, whose old contents do not matter, and where
    /// there is a way that is faster than the definition, by that.
    fn execute(&self, inputs: &[&Tensor], y: &mut Tensor) {
        *y = self.reference(inputs, &y.shape);
    }

    /// This op, if its second input is a matrix that the CPU executor may pack.
    fn weighted(&self) -> Option<&dyn Weighted> {
        None
    }

    /// The dispatch that computes it on a device, or an error if this device cannot (a limit, a shape).
    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch>;

    /// Every dispatch that could compute it on this device, the preferred one, [`Op::launch`], first. A device that gets
    /// one wrong uses the next.
    fn variants(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Vec<Variant>> {
        Ok(vec![Variant { name: "portable", launch: self.launch(inputs, output, caps)? }])
    }

    /// Floating-point operations; a multiply-add counts two.
    fn flops(&self, inputs: Inputs, output: &Ty) -> u64;

    /// Elements of input `index` that one run reads, padding counted in: all of them, unless it looks some up.
    fn reads(&self, inputs: Inputs, _output: &Ty, index: usize) -> usize {
        inputs[index].device_len()
    }

    /// Terms of the longest sum behind one element of the output, for the tolerance; `None` if nothing is summed.
    fn sum_length(&self, _inputs: Inputs) -> Option<usize> {
        None
    }

    /// This op with `next` as part of its epilogue, if it can take it. `next`'s input number `operand` is this op's
    /// output; its other inputs are appended to this op's.
    fn absorb(&self, _next: &dyn Op, _operand: usize) -> Option<Box<dyn Op>> {
        None
    }

    /// Whether it only moves elements, so that to do it again for every node that reads its output costs nothing.
    fn moves(&self) -> bool {
        false
    }

    /// This op with `previous`, which makes its input number `operand`, as part of how it loads that input, if it can
    /// take it. `previous`'s first input takes the place of that one; its others are appended to this op's.
    fn absorb_input(&self, _previous: &dyn Op, _operand: usize) -> Option<Box<dyn Op>> {
        None
    }
}

/// `Ok` if there are `count` inputs.
pub fn expect_inputs(op: &str, inputs: Inputs, count: usize) -> Result<()> {
    if inputs.len() == count {
        return Ok(());
    }
    Err(Error::shape(format!("{op} takes {count} inputs, found {}", inputs.len())))
}

/// `Ok` if input `index` (called `what`) is of this kind and has elements.
pub fn expect_kind(inputs: Inputs, index: usize, what: &str, wanted: Kind) -> Result<()> {
    let Ty { kind, shape } = &inputs[index];
    if *kind != wanted {
        return Err(Error::shape(format!("{what} should be {wanted:?}, found {kind:?}")));
    }
    if shape.is_empty() {
        return Err(Error::shape(format!("{what} is empty: {shape}")));
    }
    Ok(())
}

/// `Ok` if input `index` (called `what`) has exactly this shape.
pub fn expect_shape(inputs: Inputs, index: usize, what: &str, wanted: &Shape) -> Result<()> {
    let found = &inputs[index].shape;
    if found == wanted {
        return Ok(());
    }
    Err(Error::shape(format!("{what} should be {wanted}, found {found}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_fold_into_two_dimensions_only_past_the_limit() {
        let caps = Caps::webgpu_default();
        assert_eq!(fold_groups(65_535, &caps), [65_535, 1, 1]);
        assert_eq!(fold_groups(65_536, &caps), [32_768, 2, 1]);
        let [x, y, _] = fold_groups(200_001, &caps);
        assert!(x as usize * y as usize >= 200_001);
    }

    #[test]
    fn a_part_of_a_launch_has_its_own_tiles_and_all_else() {
        let caps = Caps::webgpu_default();
        let launch = |folded| Launch::new("conv2d", 2).tiled(Tiles { count: 80_000, folded }).param("rows", 9);
        let rows = launch(true).workgroups([3, 40_000, 2]).part(70_000..80_000, &caps);
        assert_eq!((rows.workgroups, &rows.params[..]), ([3, 10_000, 1], &[("first_tile", 70_000), ("rows", 9)][..]));
        let queries = launch(false).workgroups([80_000, 8, 4]).part(0..7, &caps);
        assert_eq!((queries.workgroups, queries.params[0]), ([7, 8, 4], ("first_tile", 0)));
        let whole = Launch::new("add", 2).workgroups([5, 1, 1]);
        assert_eq!(whole.part(0..1, &caps), whole);
    }
}
