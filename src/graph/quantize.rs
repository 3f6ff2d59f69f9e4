//! Matrices that a file keeps in blocks of a few bits stay so on a device: a node in front of the product that reads
//! one makes it whole in a slot that the next one uses again. A product reads a matrix once for each tile of its rows,
//! so that taking it out of its blocks there would do the same work many times.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Graph, Node, Origin, Parameter, Plane, ValueId};
use crate::error::Result;
use crate::ops::dequantize::Dequantize;
use crate::ops::{Kind, Op, Ty};
use crate::pack::Pack;
use crate::tensor::{BlockLayout, Shape, Weights};

impl Graph {
    /// The same network with the matrices of linear layers in blocks where `weights` has them so, all of a layer's in
    /// the same. Other parameters (of convolutions, tables) are unpacked when they are loaded.
    ///
    /// # Errors
    /// None that the graph's own shapes would give.
    pub fn quantized(mut self, weights: &dyn Weights) -> Result<Self> {
        let mut blocks = HashMap::new();
        for i in 0..self.values.len() {
            if let Some((parameter, layout)) = in_blocks(&self, ValueId(i), weights) {
                blocks.insert(ValueId(i), (Dequantize(layout), self.planes(ValueId(i), &parameter, layout)));
            }
        }
        for mut node in std::mem::take(&mut self.nodes) {
            for input in &mut node.inputs {
                if let Some((op, parts)) = blocks.get(input) {
                    let ty = op.output(&self.types(parts)).map_err(|e| e.at(&node.name))?;
                    let name = format!("{}.weight", node.name);
                    let output = self.value(ty, Origin::Node(0));
                    self.nodes.push(Node { name, op: Arc::new(*op), inputs: parts.clone(), output });
                    *input = output;
                }
            }
            self.nodes.push(node);
        }
        self.renumber();
        Ok(self)
    }

    /// The planes of a matrix as parameters, its own value now being the first.
    fn planes(&mut self, id: ValueId, parameter: &Parameter, layout: BlockLayout) -> Vec<ValueId> {
        let BlockLayout { bits, block, minimum } = layout;
        let k = parameter.file_shape.channels();
        let plane = |plane, kind, columns| {
            let file_shape: Shape = parameter.file_shape.with_channels(columns);
            let ty = Ty::new(kind, parameter.pack.packed(&file_shape));
            (ty, Origin::Parameter(Parameter { plane, file_shape, ..parameter.clone() }))
        };
        let (ty, origin) = plane(Plane::Quants, Kind::Bytes, k * bits / 8);
        (self.values[id.0].ty, self.values[id.0].origin) = (ty, origin);
        let scales = [Plane::Scales, Plane::Minima].into_iter().take(1 + usize::from(minimum));
        let others = scales.map(|of_blocks| {
            let (ty, origin) = plane(of_blocks, Kind::Weight, k / block);
            self.value(ty, origin)
        });
        [id].into_iter().chain(others).collect()
    }
}

/// A linear layer's matrix, if it is kept in blocks.
fn in_blocks(graph: &Graph, id: ValueId, weights: &dyn Weights) -> Option<(Parameter, BlockLayout)> {
    let Origin::Parameter(parameter) = &graph.values[id.0].origin else { return None };
    let linear = matches!(parameter.pack, Pack::Linear | Pack::LinearPairs) && parameter.file_shape.rank() == 2;
    let mut layouts = parameter.keys.iter().filter(|_| linear).map(|key| weights.layout(key));
    let first = layouts.next()??;
    let fits = parameter.file_shape.channels().is_multiple_of(first.block);
    (fits && layouts.all(|layout| layout == Some(first))).then(|| (parameter.clone(), first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::interpret::Interpreter;
    use crate::ops::product::matmul::MatMul;
    use crate::tensor::{DType, Quantized, RawTensor, Tensor};

    /// Two matrices `[4, 32]`, of which `q` is in blocks.
    struct Some4;

    const LAYOUT: BlockLayout = BlockLayout { bits: 4, block: 16, minimum: false };

    fn quant(i: usize) -> u8 {
        (i * 7 % 16) as u8
    }

    fn weight(i: usize) -> f32 {
        (f32::from(quant(i)) - LAYOUT.zero()) * (1 + i / LAYOUT.block) as f32
    }

    impl Weights for Some4 {
        fn place(&self) -> String {
            "here".into()
        }

        fn get(&self, _: &str) -> Option<RawTensor<'_>> {
            let bytes = (0..128).flat_map(|i| weight(i).to_le_bytes()).collect();
            Some(RawTensor { dtype: DType::F32, shape: [4, 32].into(), bytes: std::borrow::Cow::Owned(bytes) })
        }

        fn names(&self) -> Vec<String> {
            vec!["q".into(), "plain".into()]
        }

        fn layout(&self, name: &str) -> Option<BlockLayout> {
            (name == "q").then_some(LAYOUT)
        }

        fn quantized(&self, name: &str) -> Option<Quantized> {
            let quants = (0..64).map(|i| quant(2 * i) | quant(2 * i + 1) << 4).collect();
            let scales = (0..8).map(|block| (block + 1) as f32).collect();
            (name == "q").then_some(Quantized { layout: LAYOUT, quants, scales, minima: Vec::new() })
        }
    }

    #[test]
    fn a_matrix_in_blocks_is_made_whole_before_the_product_and_gives_the_same() {
        for (key, nodes) in [("q", 2), ("plain", 1)] {
            let mut graph = Graph::new("net");
            let x = graph.input("x", Kind::Act, [3, 32]);
            let w = graph.matrix(key, [4, 32], Pack::Linear);
            let y = graph.node("layer", MatMul::new(false), &[x, w]).unwrap();
            graph.output("y", y);
            let x = Tensor::new([3, 32], (0..96).map(|i| (i % 11) as f32).collect());
            let run = |graph| Interpreter::new(graph, &Some4).unwrap().run(&[("x", &x)]).unwrap();
            let quantized = graph.clone().quantized(&Some4).unwrap();
            assert_eq!(quantized.nodes.len(), nodes, "{key}");
            assert_eq!(run(quantized), run(graph));
        }
    }
}
