//! The operations: one file per op, the table of them all, and the trait that they implement.
//!
//! An op is plain data (its attributes). It knows its shape rule, its definition on the CPU, how its WGSL kernel is
//! launched, how much arithmetic it does, which following element-wise op it can take into its epilogue, and which
//! preceding one into its loader. Families have a folder (`norm`, `product`, `winograd`), the others stand here.
//! Adding an op takes two new files (`src/ops/<op>.rs` or `src/ops/<family>/<op>.rs`, and `shaders/<op>.wgsl`) and two
//! lines: its `pub mod` and its row of [`TABLE`].
//!
//! What ops are made from is below them: [`Ty`] and the checks of a shape rule (`types.rs`), [`Launch`] (`launch.rs`),
//! [`Case`] with its tolerance and comparison ([`case`]).
//!
//! Floor 1: may import floor 0.

use std::any::Any;
use std::fmt::Debug;

use crate::caps::Caps;
use crate::error::{Error, Result, instead};
use crate::tensor::{Shape, Tensor};
use case::{large, subnormal};
use largest::{UNET, VAE, beyond};

pub mod activation;
pub mod add;
pub mod add_row;
pub mod add_scaled;
pub mod attention;
pub mod case;
pub mod concat;
pub mod dequantize;
pub mod embedding;
pub mod geglu;
pub mod host;
pub mod joined;
mod largest;
mod launch;
pub mod norm;
pub mod product;
pub mod sampler_input;
pub mod sampler_step;
pub mod scale;
pub mod timestep_embedding;
mod types;
pub mod upsample;
pub mod vector_quantize;
pub mod weight;
pub mod winograd;

pub use case::{Case, Fill};
pub use launch::{Binding, FLAT_THREADS, Launch, Tiles, Variant, fold_groups};
pub use types::{Inputs, Kind, Ty, expect, expect_inputs, expect_kind, expect_shape};
pub use weight::Weighted;

/// A row of [`TABLE`]: an op's name, which is the stem of its files, and its cases.
#[derive(Debug)]
pub struct Row {
    /// The op's name, and the stem of its files.
    pub name: &'static str,
    cases: fn() -> Vec<Case>,
    largest: fn(&Caps) -> Vec<Case>,
}

impl Row {
    const fn new(name: &'static str, cases: fn() -> Vec<Case>) -> Self {
        Self { name, cases, largest: |_| Vec::new() }
    }

    const fn largest_cases(self, largest: fn(&Caps) -> Vec<Case>) -> Self {
        Self { largest, ..self }
    }

    /// Small awkward shapes, and some of real models.
    pub fn cases(&self) -> Vec<Case> {
        (self.cases)()
    }

    /// What a full check adds: the largest shapes that real models give the op, and some that such a device cannot
    /// bind. Empty if the cases have the largest shapes already.
    pub fn largest(&self, caps: &Caps) -> Vec<Case> {
        (self.largest)(caps)
    }
}

/// Every op, in the order in which reports list them.
pub const TABLE: &[Row] = &[
    Row::new("matmul", product::matmul::cases).largest_cases(product::matmul::largest),
    Row::new("matmul_geglu", product::matmul_geglu::cases).largest_cases(product::matmul_geglu::largest),
    Row::new("conv2d", product::conv2d::cases).largest_cases(product::conv2d::largest),
    Row::new("add", add::cases).largest_cases(add::largest),
    Row::new("add_row", add_row::cases).largest_cases(add_row::largest),
    Row::new("add_scaled", add_scaled::cases).largest_cases(add_scaled::largest),
    Row::new("activation", activation::cases).largest_cases(activation::largest),
    Row::new("attention", attention::cases).largest_cases(attention::largest),
    Row::new("group_norm_stats", norm::group_norm_stats::cases).largest_cases(norm::group_norm_stats::largest),
    Row::new("group_norm", norm::group_norm::cases),
    Row::new("group_norm_whole", norm::group_norm_whole::cases),
    Row::new("layer_norm", norm::layer_norm::cases).largest_cases(norm::layer_norm::largest),
    Row::new("geglu", geglu::cases).largest_cases(geglu::largest),
    Row::new("embedding", embedding::cases).largest_cases(embedding::largest),
    Row::new("timestep_embedding", timestep_embedding::cases),
    Row::new("upsample", upsample::cases).largest_cases(upsample::largest),
    Row::new("concat", concat::cases).largest_cases(concat::largest),
    Row::new("scale", scale::cases).largest_cases(scale::largest),
    Row::new("vector_quantize", vector_quantize::cases).largest_cases(vector_quantize::largest),
    Row::new("sampler_input", sampler_input::cases),
    Row::new("sampler_step", sampler_step::cases),
    Row::new("dequantize", dequantize::cases),
    Row::new("winograd_weights", winograd::winograd_weights::cases),
    Row::new("winograd_input", winograd::winograd_input::cases),
    Row::new("winograd_product", winograd::winograd_product::cases),
    Row::new("winograd_output", winograd::winograd_output::cases),
];

/// `Ok` if every name is an op's.
///
/// # Errors
/// A usage error that lists the ops.
pub fn check_names(names: &[String]) -> Result<()> {
    let known: Vec<_> = TABLE.iter().map(|row| row.name).collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::usage(format!("there is no op {name}; {}", instead(name, known)))),
    }
}

/// An operation with its attributes, as plain data: all that a graph, a plan, a device, a check or a report asks of
/// it.
///
/// Four methods make an op: its shape rule ([`output`](Op::output)), its definition ([`reference`](Op::reference), or
/// [`execute`](Op::execute) where it can write into what is there), its kernel's [`launch`](Op::launch) (or
/// [`variants`](Op::variants) where there are several) and its cost ([`flops`](Op::flops)), each a pure function of
/// types, shapes and [`Caps`]. The others have defaults, for ops with a faster way on the CPU, look-ups, long sums, or
/// something to fuse. Nothing anywhere matches over all ops. Activations are channels last, `[batch, .., channels]`;
/// `inputs` are in the op's own order, which its file's first lines give, with shapes, formula and source.
///
/// The order of calls: `output` when a graph appends a node, and only inputs that it accepted are given to the other
/// methods; [`absorb`](Op::absorb) and [`absorb_input`](Op::absorb_input) when a graph is fused; `variants` when a
/// session or admission chooses a kernel; `reference` when a check compares one, `execute` when the CPU executor runs
/// the graph.
///
/// ```
/// use ornstein::caps::Caps;
/// use ornstein::ops::add::Add;
/// use ornstein::ops::{Op, Ty};
/// use ornstein::tensor::Tensor;
///
/// # fn main() -> ornstein::error::Result<()> {
/// let inputs = [Ty::act([2, 3]), Ty::act([2, 3])];
/// let output = Add.output(&inputs)?; // The shape rule.
/// assert_eq!(output, Ty::act([2, 3]));
///
/// let launch = Add.launch(&inputs, &output, &Caps::webgpu_default())?; // Plain data: no device is needed.
/// assert_eq!((launch.shader, launch.workgroups), ("add", [1, 1, 1]));
///
/// let x = Tensor::new([2, 3], vec![1.0; 6]);
/// let y = Add.reference(&[&x, &x], &output.shape); // What the device's output is compared with.
/// assert_eq!(y.data, [2.0; 6]);
///
/// assert_eq!(Add.flops(&inputs, &output), 6); // The cost: arithmetic, and elements read with their padding.
/// assert_eq!(Add.reads(&inputs, &output, 0), 8);
/// # Ok(()) }
/// ```
pub trait Op: Any + Debug + Send + Sync {
    /// The stem of the op's files and the name of its row of [`TABLE`], in profiles, filters and reports:
    /// `group_norm_stats`.
    fn name(&self) -> &'static str;

    /// The shape rule: kind and logical shape of the output for these inputs.
    ///
    /// # Errors
    /// [`Error::Shape`], which says which input does not fit and what it should be. It is
    /// the only check that inputs go through: what passes must not make another method panic.
    fn output(&self, inputs: Inputs) -> Result<Ty>;

    /// The definition, in f32 on the CPU, written from the formula: what a device's output is compared with. `output`
    /// is the shape that [`Op::output`] returned for these inputs. An op gives this or [`Op::execute`], each of which
    /// is made of the other; or both, if the CPU executor has a faster way.
    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let mut y = Tensor::zeros(output.clone());
        self.execute(inputs, &mut y);
        y
    }

    /// The same for the CPU executor: into `y`, which has the output's shape and any contents, and by a faster way
    /// than the definition's where there is one.
    fn execute(&self, inputs: &[&Tensor], y: &mut Tensor) {
        *y = self.reference(inputs, &y.shape);
    }

    /// This op as one whose second input is a matrix that the CPU executor may pack once, before the first run; `None`
    /// if it is not.
    fn weighted(&self) -> Option<&dyn Weighted> {
        None
    }

    /// The dispatch that computes it on a device with these abilities, by the preferred kernel: shader, constants,
    /// params, bindings and grid, without a device to run it on.
    ///
    /// # Errors
    /// If no kernel does it there: a shape that none takes (attention heads of 6 channels), or a limit of the device.
    /// The message says what to do instead. An op gives this or [`Op::variants`], each of which is made of the other.
    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        Ok(self.variants(inputs, output, caps)?.swap_remove(0).launch)
    }

    /// Every dispatch that could compute it on this device, [`Op::launch`]'s first, and one at least. A device that
    /// gets one wrong uses the next; where [`Caps::tuning_pays`] the fastest right one is used.
    ///
    /// # Errors
    /// As [`Op::launch`].
    fn variants(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Vec<Variant>> {
        Ok(vec![Variant { name: "portable", launch: self.launch(inputs, output, caps)? }])
    }

    /// Floating-point operations of one run on the logical shapes; a multiply-add counts two. 0 if it only moves
    /// elements.
    fn flops(&self, inputs: Inputs, output: &Ty) -> u64;

    /// Elements of input `index` that one run reads, padding counted in: all of them, unless it looks some up
    /// ([`Embedding`](embedding::Embedding)). Reports make bytes of it by the storage's types.
    fn reads(&self, inputs: Inputs, _output: &Ty, index: usize) -> usize {
        inputs[index].device_len()
    }

    /// Terms of the longest sum behind one element of the output, which its [`tolerance`](case::tolerance) in f32
    /// grows with; `None` if nothing is summed.
    fn sum_length(&self, _inputs: Inputs) -> Option<usize> {
        None
    }

    /// This op with `next` as part of its epilogue, or `None` if it cannot take it. `next` alone reads this op's
    /// output, as its input number `operand`; `next`'s other inputs are appended to this op's.
    fn absorb(&self, _next: &dyn Op, _operand: usize) -> Option<Box<dyn Op>> {
        None
    }

    /// Whether it only moves elements ([`Concat`](concat::Concat)), so that to do it again for every node that reads
    /// its output costs nothing.
    fn moves(&self) -> bool {
        false
    }

    /// This op with `previous`, which makes its input number `operand`, as part of how it loads that input, or `None`
    /// if it cannot take it. `previous`'s first input takes that one's place; its others are appended to this op's.
    fn absorb_input(&self, _previous: &dyn Op, _operand: usize) -> Option<Box<dyn Op>> {
        None
    }
}

impl dyn Op {
    /// This op as one of a known type.
    pub fn downcast_ref<O: Op>(&self) -> Option<&O> {
        (self as &dyn Any).downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_op_is_a_usage_error_that_lists_the_ops() {
        let error = check_names(&["nonsense".into()]).unwrap_err();
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().contains("matmul, matmul_geglu, conv2d"), "{error}");
    }

    #[test]
    fn every_case_belongs_to_its_op_and_obeys_its_shape_rule() {
        for row in TABLE {
            for case in row.cases().into_iter().chain(row.largest(&Caps::webgpu_default())) {
                assert_eq!(case.op.name(), row.name);
                case.op.output(&case.types()).unwrap();
            }
        }
    }
}
