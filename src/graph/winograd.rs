//! Convolutions on software devices: 3x3 ones of stride 1 become the nodes of a Winograd convolution
//! ([`crate::ops::winograd`]) where that is less work. Other devices lose more by its traffic than they save, and the
//! CPU executor is the definition.
//!
//! No value between the nodes exceeds [`MOST_BYTES`] or a binding. A picture with more tiles is worked on in strips,
//! each of which adds its tiles to what the ones before it made; a kernel that is too large in parts of its channels,
//! each of which adds its product to that of the one before. Smaller parts, which would stay in a cache, cost more
//! than they save.

use std::ops::Range;
use std::sync::Arc;

use super::{Graph, Node, Origin, ValueId};
use crate::caps::Caps;
use crate::error::Result;
use crate::ops::product::conv2d::Conv2d;
use crate::ops::winograd::winograd_input::WinogradInput;
use crate::ops::winograd::winograd_output::WinogradOutput;
use crate::ops::winograd::winograd_product::WinogradProduct;
use crate::ops::winograd::winograd_weights::WinogradWeights;
use crate::ops::winograd::{GAP, PANEL, POSITIONS, rows, tiles};
use crate::ops::{Op, Ty};
use crate::tensor::pad4;

/// Of a value between the nodes. There are at most four at a time, and one more y.
const MOST_BYTES: u64 = 64 << 20;

/// What takes as long as one multiply-add of the 36 products, by the processor's time on lavapipe: a multiply-add of a
/// direct convolution (0.7 of it, less a margin: what gains little is left alone); and transforming one element, which
/// is one channel of a tile, or one of a kernel.
const DIRECT: f64 = 0.6;
const WEIGHTS: f64 = 1200.0;
const INPUT: f64 = 1600.0;
const OUTPUT: f64 = 1300.0;

/// A convolution that could be done so, by its sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sizes {
    batch: usize,
    /// Height and width of the output.
    size: [usize; 2],
    channels: usize,
    n: usize,
}

impl Sizes {
    fn of(conv: &Conv2d, inputs: &[Ty], output: &Ty) -> Option<Self> {
        let &[3, 3, channels, n] = inputs[1].shape.dims() else { return None };
        let [batch, height, width, _] = output.shape.image().ok()?;
        let fits = (conv.stride, conv.padding) == (1, [1; 4]);
        fits.then_some(Self { batch, size: [height, width], channels, n })
    }

    fn tiles(self) -> usize {
        self.batch * tiles(self.size).iter().product::<usize>()
    }

    /// Columns of the products.
    fn columns(self) -> usize {
        self.n.next_multiple_of(PANEL)
    }

    /// Whether the nodes of a Winograd convolution are less work than the convolution itself.
    fn pays(self) -> bool {
        let pixels = self.batch * self.size[0] * self.size[1];
        let [rows, columns, tiles, channels, n, pixels] =
            [rows(self.tiles()), self.columns(), self.tiles(), self.channels, self.n, pixels].map(|n| n as f64);
        let products = POSITIONS as f64 * rows * channels * columns;
        let transforms = WEIGHTS * channels * n + INPUT * tiles * channels + OUTPUT * tiles * n;
        products + transforms < DIRECT * 9.0 * pixels * channels * columns
    }

    /// How the tiles are cut into strips and the channels into parts, so that no value has more than `most` bytes;
    /// `None` if it cannot be done.
    fn cut(self, most: u64) -> Option<[Vec<Range<usize>>; 2]> {
        // Values at a position that so many bytes hold.
        let most = (most as usize / size_of::<f32>() / POSITIONS).checked_sub(GAP)?;
        let strips = parts(self.tiles(), most / self.columns(), 32)?;
        let channels = parts(self.channels, most / self.columns().max(rows(strips[0].len())), 4)?;
        Some([strips, channels])
    }
}

/// `0..count` in as few parts as have at most `most` each, all alike but the last, each a multiple of `unit`; all fit
/// even when filled up to whole units.
fn parts(count: usize, most: usize, unit: usize) -> Option<Vec<Range<usize>>> {
    let most = most / unit * unit;
    if most == 0 {
        return None;
    }
    let part = count.div_ceil(count.div_ceil(most)).next_multiple_of(unit);
    Some((0..count).step_by(part).map(|first| first..(first + part).min(count)).collect())
}

impl Graph {
    /// The same network as it should run on such a device. A node that becomes several gives its name to the last of
    /// them, and its name with a suffix to the others; the parameters stay what they are.
    ///
    /// # Errors
    /// None that the graph's own shapes would give.
    pub fn lowered(mut self, caps: &Caps) -> Result<Self> {
        if !caps.winograd_pays() {
            return Ok(self);
        }
        for node in std::mem::take(&mut self.nodes) {
            if !self.append_winograd(&node, caps)? {
                self.nodes.push(node);
            }
        }
        self.renumber();
        Ok(self)
    }

    /// Appends the nodes that take this node's place; `false` if it should stay.
    fn append_winograd(&mut self, node: &Node, caps: &Caps) -> Result<bool> {
        let Some(conv) = node.op.downcast_ref::<Conv2d>() else { return Ok(false) };
        let most = caps.max_binding.min(caps.max_buffer).min(MOST_BYTES);
        let sizes = Sizes::of(conv, &self.types(&node.inputs), self.ty(node.output));
        let Some((sizes, cut)) = sizes.filter(|s| s.pays()).and_then(|s| Some((s, s.cut(most)?))) else {
            return Ok(false);
        };
        let [strips, parts] = cut;
        let Sizes { batch, size, n, .. } = sizes;
        let mut done = None;
        for (strip, tiles) in strips.iter().enumerate() {
            let place = suffix(strip, &strips);
            let product = self.append_product(node, conv, sizes, tiles, &parts, &place)?;
            let (before, epilogue) = (done.is_some(), conv.epilogue);
            let op = WinogradOutput { batch, size, n, tiles: tiles.clone(), before, epilogue };
            let operands = node.inputs[2..].iter().copied();
            let inputs: Vec<ValueId> = [product].into_iter().chain(done).chain(operands).collect();
            if tiles.end < sizes.tiles() {
                done = Some(self.insert(node, &format!("output{place}"), op, &inputs)?);
            } else {
                self.nodes.push(Node { op: Arc::new(op), inputs, ..node.clone() });
            }
        }
        Ok(true)
    }

    /// Appends the product of a strip of tiles, called so: the sum over all parts of the channels.
    fn append_product(
        &mut self,
        node: &Node,
        conv: &Conv2d,
        sizes: Sizes,
        tiles: &Range<usize>,
        parts: &[Range<usize>],
        place: &str,
    ) -> Result<ValueId> {
        let mut product = None;
        for (part, channels) in parts.iter().enumerate() {
            let place = format!("{place}{}", suffix(part, parts));
            let weights = WinogradWeights { channels: channels.clone() };
            let u = self.insert(node, &format!("weights{place}"), weights, &[node.inputs[1]])?;
            let input = WinogradInput { upsample: conv.upsample, tiles: tiles.clone(), channels: channels.clone() };
            let v = self.insert(node, &format!("input{place}"), input, &[node.inputs[0]])?;
            let (rows, columns, before) = (rows(tiles.len()), sizes.columns(), product.is_some());
            let op = WinogradProduct { rows, channels: pad4(channels.len()), columns, before };
            let factors: Vec<ValueId> = [v, u].into_iter().chain(product).collect();
            product = Some(self.insert(node, &format!("product{place}"), op, &factors)?);
        }
        Ok(product.expect("there is a part of the channels"))
    }

    /// Appends a node that stands before what becomes of `node`.
    fn insert(&mut self, node: &Node, what: &str, op: impl Op, inputs: &[ValueId]) -> Result<ValueId> {
        let name = format!("{}.winograd_{what}", node.name);
        let ty = op.output(&self.types(inputs)).map_err(|e| e.at(&name))?;
        let output = self.value(ty, Origin::Node(self.nodes.len()));
        self.nodes.push(Node { name, op: Arc::new(op), inputs: inputs.to_vec(), output });
        Ok(output)
    }
}

/// What tells one of several from the others: its number.
fn suffix<T>(index: usize, all: &[T]) -> String {
    if all.len() == 1 { String::new() } else { format!(".{index}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::interpret::Interpreter;
    use crate::graph::plan::{Storage, plan};
    use crate::ops::case::compare;
    use crate::ops::product::epilogue::Epilogue;
    use crate::ops::upsample::Upsample;
    use crate::ops::{Case, Kind};
    use crate::tensor::{DType, NoWeights, Tensor};

    fn software() -> Caps {
        Caps::kinds(false, DType::F32, DType::F32).into_iter().find(Caps::winograd_pays).unwrap()
    }

    fn sizes(batch: usize, side: usize, channels: usize, n: usize) -> Sizes {
        Sizes { batch, size: [side, side], channels, n }
    }

    /// A graph of one convolution on constants, with the reference's output.
    fn convolution(x: [usize; 4], n: usize, op: Conv2d) -> (Graph, Tensor) {
        let types = [Ty::act(x), Ty::new(Kind::Weight, [3, 3, x[3], n])];
        let output = op.output(&[&types[..], &[Ty::new(Kind::F32, [n])]].concat()).map(|ty| ty.shape);
        let output = output.unwrap_or_else(|_| [x[0], x[1], x[2], n].into());
        let operands = op.epilogue.operand_types(&output);
        let case = Case::new(op, types.into_iter().chain(operands).collect::<Vec<_>>());
        let tensors = case.tensors(1, DType::F32, DType::F32);
        let wanted = case.op.reference(&tensors.iter().collect::<Vec<_>>(), &output);
        (Graph::of_case(&case, tensors).unwrap(), wanted)
    }

    fn names(graph: &Graph) -> Vec<&str> {
        graph.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    fn assert_same(graph: Graph, wanted: &Tensor) {
        let found = names(&graph).join(" ");
        let outputs = Interpreter::new(graph, &NoWeights).unwrap().run(&[]).unwrap();
        let error = compare(&outputs["output"], wanted).relative;
        assert!(error < 2e-6, "{found}: {error:e}");
    }

    #[test]
    fn a_convolution_becomes_four_nodes_of_which_the_last_has_its_name() {
        let (graph, wanted) = convolution([1, 32, 32, 128], 128, Conv2d::same(3));
        let graph = graph.lowered(&software()).unwrap();
        let before = ["weights", "input", "product"].map(|what| format!("case.conv2d.winograd_{what}"));
        assert_eq!(names(&graph), [&before[..], &["case.conv2d".to_string()]].concat());
        assert_same(graph, &wanted);
    }

    #[test]
    fn everything_that_goes_with_a_convolution_is_kept() {
        let up = Conv2d { upsample: Some(Upsample { height: 30, width: 34 }), ..Conv2d::same(3) };
        let all = Epilogue { row: true, residual: true, ..Epilogue::bias(true) };
        for (x, op) in [([2, 15, 17, 100], up), ([2, 31, 22, 100], Conv2d { epilogue: all, ..Conv2d::same(3) })] {
            let (graph, wanted) = convolution(x, 102, op);
            let graph = graph.lowered(&software()).unwrap();
            assert_eq!(graph.nodes.len(), 4);
            assert_same(graph, &wanted);
        }
    }

    #[test]
    fn small_bindings_make_strips_with_the_same_result() {
        let all = Epilogue { row: true, residual: true, ..Epilogue::bias(true) };
        let (graph, wanted) = convolution([2, 64, 24, 128], 128, Conv2d { epilogue: all, ..Conv2d::same(3) });
        let caps = Caps { max_binding: 2_600_000, ..software() };
        let graph = graph.lowered(&caps).unwrap();
        let found = names(&graph);
        assert!(found.contains(&"case.conv2d.winograd_product.1"), "{found:?}");
        assert!(found.contains(&"case.conv2d.winograd_output.0") && found.last() == Some(&"case.conv2d"), "{found:?}");
        assert_bounded(&graph, 2_600_000);
        assert_same(graph, &wanted);
    }

    #[test]
    fn a_large_kernel_comes_in_parts_with_the_same_result() {
        let (graph, wanted) = convolution([1, 32, 32, 100], 128, Conv2d::same(3));
        let graph = graph.lowered(&Caps { max_binding: 1_300_000, ..software() }).unwrap();
        let found = names(&graph);
        assert!(found.contains(&"case.conv2d.winograd_weights.1"), "{found:?}");
        assert_bounded(&graph, 1_300_000);
        assert_same(graph, &wanted);
    }

    fn assert_bounded(graph: &Graph, most: usize) {
        let between = graph.values.iter().filter(|value| value.ty.shape.dims()[0] == POSITIONS);
        assert!(between.clone().count() > 2);
        assert!(between.map(|value| 4 * value.ty.device_len()).all(|bytes| bytes <= most));
    }

    #[test]
    fn a_picture_of_512_pixels_takes_a_bounded_amount_of_memory_more() {
        let mut graph = Graph::new("vae");
        let x = graph.input("x", Kind::Act, [1, 512, 512, 256]);
        let w = graph.matrix("w", [128, 256, 3, 3], crate::pack::Pack::Conv);
        let op = Conv2d { epilogue: Epilogue::default(), ..Conv2d::same(3) };
        let y = graph.node("conv", op, &[x, w]).unwrap();
        graph.output("y", y);
        let bytes = |graph: &Graph| plan(graph, Storage { act: DType::F16, weight: DType::F16 }).bytes();
        let direct = bytes(&graph);
        let lowered = graph.lowered(&software()).unwrap();
        assert!(lowered.nodes.len() > 4);
        assert!(bytes(&lowered) <= 2 * direct + 3 * MOST_BYTES, "{} MiB", bytes(&lowered) >> 20);
    }

    #[test]
    fn bindings_too_small_for_a_strip_leave_the_convolution() {
        let (graph, _) = convolution([2, 32, 24, 128], 128, Conv2d::same(3));
        for max_binding in [200_000, 1000] {
            let graph = graph.clone().lowered(&Caps { max_binding, ..software() }).unwrap();
            assert_eq!(names(&graph), ["case.conv2d"]);
        }
    }

    #[test]
    fn other_devices_keep_their_convolutions() {
        let (graph, _) = convolution([1, 32, 32, 128], 128, Conv2d::same(3));
        assert_eq!(names(&graph.lowered(&Caps::webgpu_default()).unwrap()), ["case.conv2d"]);
    }

    #[test]
    fn only_what_has_many_tiles_and_channels_is_worth_it() {
        assert!(sizes(1, 64, 320, 320).pays() && sizes(1, 32, 640, 640).pays() && sizes(1, 512, 128, 128).pays());
        assert!(sizes(2, 16, 1280, 1280).pays());
        assert!(!sizes(1, 64, 4, 320).pays(), "four channels in");
        assert!(!sizes(1, 8, 1280, 1280).pays(), "few tiles, and many weights to transform");
    }

    #[test]
    fn other_kernels_strides_and_paddings_are_left_alone() {
        let look = |conv: &Conv2d, kernel: usize| {
            let inputs = [Ty::act([1, 64, 64, 64]), Ty::new(Kind::Weight, [kernel, kernel, 64, 64])];
            Sizes::of(conv, &inputs, &Ty::act([1, 64, 64, 64]))
        };
        assert_eq!(look(&Conv2d::same(3), 3), Some(sizes(1, 64, 64, 64)));
        assert_eq!(look(&Conv2d::same(1), 1), None);
        assert_eq!(look(&Conv2d { stride: 2, ..Conv2d::same(3) }, 3), None);
        assert_eq!(look(&Conv2d { padding: [0; 4], ..Conv2d::same(3) }, 3), None);
    }

    #[test]
    fn parts_are_alike_and_cover_everything_once() {
        assert_eq!(parts(10, 4, 1), Some(vec![0..4, 4..8, 8..10]));
        assert_eq!(parts(30, 15, 4), Some(vec![0..12, 12..24, 24..30]));
        assert_eq!(parts(30, 100, 4).map(|parts| parts.len()), Some(1));
        assert_eq!(parts(30, 3, 4), None);
    }
}
