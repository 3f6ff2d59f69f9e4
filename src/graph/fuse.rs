//! Fusion: element-wise nodes go into the epilogue of the node that made their input, and what is left of them before
//! a product into its loader.
//!
//! A node is taken in only if the value between the two has no other reader, so nothing is computed twice and nothing
//! is kept that would not have been. One that only moves elements ([`Op::moves`](crate::ops::Op::moves)) is taken in
//! by all of its readers, or by none. Which op can take which is the ops' own knowledge
//! ([`Op::absorb`](crate::ops::Op::absorb), [`Op::absorb_input`](crate::ops::Op::absorb_input), and
//! [`MatMulGeglu::of`], which both of its nodes become).

use std::sync::Arc;

use super::{Graph, Node, ValueId};
use crate::ops::product::matmul_geglu::MatMulGeglu;

/// How one of a node and the maker of its input `operand` (first) takes in the other: the op and the inputs of both.
type Merge = fn(&Node, &Node, usize) -> Option<Node>;

impl Graph {
    /// The same network with every epilogue and loader used that its ops offer.
    pub fn fused(self) -> Self {
        // Epilogues first: the operands that a loader adds follow theirs.
        self.merged(into_epilogue).merged(into_loader).without_moves()
    }

    /// Without the nodes that only move elements, where all that read them do so in their loaders.
    fn without_moves(mut self) -> Self {
        for place in (0..self.nodes.len()).rev() {
            let node = &self.nodes[place];
            if !node.op.moves() || self.outputs.iter().any(|(_, id)| *id == node.output) {
                continue;
            }
            let readers = (0..self.nodes.len()).filter(|reader| self.nodes[*reader].inputs.contains(&node.output));
            let merged: Option<Vec<(usize, Node)>> =
                readers.map(|reader| Some((reader, self.with_loader(node, &self.nodes[reader])?))).collect();
            if let Some(merged) = merged {
                merged.into_iter().for_each(|(reader, node)| self.nodes[reader] = node);
                self.nodes.remove(place);
            }
        }
        self.renumber();
        self
    }

    /// `node`, which reads what `maker` makes, with that in its loader.
    fn with_loader(&self, maker: &Node, node: &Node) -> Option<Node> {
        let operand = node.inputs.iter().position(|id| *id == maker.output)?;
        let merged = into_loader(maker, node, operand)?;
        (!merged.inputs.contains(&maker.output) && self.makes_what(&merged, node)).then_some(merged)
    }

    /// Whether a merged node takes its inputs and makes what this one did.
    fn makes_what(&self, merged: &Node, node: &Node) -> bool {
        merged.op.output(&self.types(&merged.inputs)).is_ok_and(|output| output == *self.ty(node.output))
    }

    fn merged(mut self, merge: Merge) -> Self {
        let readers = self.readers();
        let mut kept: Vec<Option<Node>> = Vec::with_capacity(self.nodes.len());
        // Where the node that made a value now stands in `kept`.
        let mut maker: Vec<Option<usize>> = vec![None; self.values.len()];
        for mut node in std::mem::take(&mut self.nodes) {
            while let Some((place, merged)) = self.merged_with_a_maker(&node, &kept, &maker, &readers, merge) {
                kept[place] = None;
                node = merged;
            }
            maker[node.output.0] = Some(kept.len());
            kept.push(Some(node));
        }
        self.nodes = kept.into_iter().flatten().collect();
        self.renumber();
        self
    }

    /// How often each value is read, by nodes or as an output.
    fn readers(&self) -> Vec<usize> {
        let mut readers = vec![0; self.values.len()];
        let reads = self.nodes.iter().flat_map(|n| &n.inputs).chain(self.outputs.iter().map(|(_, id)| id));
        for id in reads {
            readers[id.0] += 1;
        }
        readers
    }

    /// `node` merged with the maker of one of its inputs, and where that one is in `kept`. The merged node stands at
    /// the place of `node`, where all its inputs are known.
    fn merged_with_a_maker(
        &self,
        node: &Node,
        kept: &[Option<Node>],
        maker: &[Option<usize>],
        readers: &[usize],
        merge: Merge,
    ) -> Option<(usize, Node)> {
        let alone = node.inputs.iter().enumerate().filter(|(_, id)| readers[id.0] == 1);
        let mut candidates: Vec<_> = alone.filter_map(|(operand, id)| Some((maker[id.0]?, operand))).collect();
        // The latest maker first: its value need not live on beside the others.
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        candidates.into_iter().find_map(|(place, operand)| {
            let merged = merge(kept[place].as_ref()?, node, operand)?;
            self.makes_what(&merged, node).then_some((place, merged))
        })
    }
}

/// The inputs but number `operand`.
fn others(inputs: &[ValueId], operand: usize) -> impl Iterator<Item = ValueId> {
    inputs.iter().enumerate().filter(move |(i, _)| *i != operand).map(|(_, id)| *id)
}

/// The maker, with the node in its epilogue.
fn into_epilogue(maker: &Node, node: &Node, operand: usize) -> Option<Node> {
    let both = || MatMulGeglu::of(&*maker.op, &*node.op);
    let op = Arc::from(maker.op.absorb(&*node.op, operand).or_else(both)?);
    let inputs = maker.inputs.iter().copied().chain(others(&node.inputs, operand)).collect();
    Some(Node { name: maker.name.clone(), op, inputs, output: node.output })
}

/// The node, with the maker in its loader.
fn into_loader(maker: &Node, node: &Node, operand: usize) -> Option<Node> {
    let op = Arc::from(node.op.absorb_input(&*maker.op, operand)?);
    let mut inputs = node.inputs.clone();
    inputs[operand] = *maker.inputs.first()?;
    inputs.extend(others(&maker.inputs, 0));
    Some(Node { name: node.name.clone(), op, inputs, output: node.output })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::interpret::Interpreter;
    use crate::ops::Kind;
    use crate::ops::activation::{Act, Activation};
    use crate::ops::concat::Concat;
    use crate::ops::geglu::Geglu;
    use crate::ops::product::conv2d::Conv2d;
    use crate::ops::product::matmul::MatMul;
    use crate::ops::scale::Scale;
    use crate::ops::upsample::Upsample;
    use crate::rng::Generator;
    use crate::tensor::{NoWeights, Shape, Tensor};

    fn normal(graph: &mut Graph, kind: Kind, shape: impl Into<Shape>) -> ValueId {
        let shape = shape.into();
        let data = Generator::new(graph.values.len() as u64).normal(shape.len());
        graph.constant(kind, Tensor::new(shape, data))
    }

    /// The names of the nodes left, after a look that they compute what all did.
    fn fused(graph: Graph) -> Vec<String> {
        let fused = graph.clone().fused();
        let run = |graph: Graph| Interpreter::new(graph, &NoWeights).unwrap().run(&[]).unwrap();
        assert_eq!(run(fused.clone()), run(graph));
        fused.nodes.into_iter().map(|node| node.name).collect()
    }

    /// An up-sampled picture and a convolution of it.
    fn up_sampled(graph: &mut Graph) -> ValueId {
        let x = normal(graph, Kind::Act, [1, 3, 4, 5]);
        let up = graph.node("up", Upsample { height: 7, width: 8 }, &[x]).unwrap();
        let [w, bias] = [(Kind::Weight, Shape::from([3, 3, 5, 6])), (Kind::F32, Shape::from([6]))]
            .map(|(kind, shape)| normal(graph, kind, shape));
        let y = graph.node("conv", Conv2d::same(3), &[up, w, bias]).unwrap();
        graph.output("y", y);
        up
    }

    #[test]
    fn up_sampling_goes_into_the_convolution_that_reads_it() {
        let mut graph = Graph::new("net");
        up_sampled(&mut graph);
        assert_eq!(fused(graph), ["net.conv"]);
    }

    #[test]
    fn a_value_that_something_else_reads_is_computed_as_before() {
        let mut graph = Graph::new("net");
        let up = up_sampled(&mut graph);
        graph.output("up", up);
        assert_eq!(fused(graph), ["net.up", "net.conv"]);
    }

    /// Two tensors side by side, and two products of them.
    fn joined([a, b]: [usize; 2]) -> Graph {
        let mut graph = Graph::new("net");
        let parts = [a, b].map(|channels| normal(&mut graph, Kind::Act, [3, channels]));
        let both = graph.node("both", Concat, &parts).unwrap();
        for name in ["first", "second"] {
            let w = normal(&mut graph, Kind::Weight, [a + b, 5]);
            let y = graph.node(name, MatMul::new(false), &[both, w]).unwrap();
            let y = graph.node(&format!("{name}.silu"), Activation(Act::Silu), &[y]).unwrap();
            graph.output(name, y);
        }
        graph
    }

    #[test]
    fn two_tensors_side_by_side_go_into_all_that_read_them_or_stay() {
        assert_eq!(fused(joined([8, 16])), ["net.first", "net.second"]);
        assert_eq!(fused(joined([4, 16])), ["net.both", "net.first", "net.second"], "no whole vectors of eight");
        let mut graph = joined([8, 16]);
        graph.output("both", graph.nodes[0].output);
        assert_eq!(fused(graph), ["net.both", "net.first", "net.second"], "an output");
        let mut graph = joined([8, 16]);
        let both = graph.nodes[0].output;
        let scaled = graph.node("scaled", Scale { factor: 2.0 }, &[both]).unwrap();
        graph.output("scaled", scaled);
        assert_eq!(
            fused(graph),
            ["net.both", "net.first", "net.second", "net.scaled"],
            "a reader that takes one tensor"
        );
    }

    fn gated(n: usize) -> Graph {
        let mut graph = Graph::new("net");
        let x = normal(&mut graph, Kind::Act, [3, 5]);
        let (w, bias) = (normal(&mut graph, Kind::Weight, [5, n]), normal(&mut graph, Kind::F32, [n]));
        let p = graph.node("proj", MatMul::new(true), &[x, w, bias]).unwrap();
        let y = graph.node("geglu", Geglu, &[p]).unwrap();
        graph.output("y", y);
        graph
    }

    #[test]
    fn a_gate_goes_into_the_product_before_it_where_its_rows_are_whole_vectors() {
        assert_eq!(fused(gated(16)), ["net.proj"]);
        assert_eq!(fused(gated(12)), ["net.proj", "net.geglu"]);
    }
}
