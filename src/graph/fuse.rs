//! Fusion: element-wise nodes go into the epilogue of the node that made their input.
//!
//! A node is taken in only if it is the sole reader of that value, so nothing is computed twice and nothing is kept
//! longer than before. Which op can take which is the ops' own knowledge ([`Op::absorb`](crate::ops::Op::absorb)).

use std::sync::Arc;

use super::{Graph, Node, Source, ValueId};

impl Graph {
    /// The same network with every epilogue used that its ops offer.
    pub fn fused(mut self) -> Self {
        let readers = self.readers();
        let mut kept: Vec<Option<Node>> = Vec::with_capacity(self.nodes.len());
        // Where the node that made a value now stands in `kept`.
        let mut maker: Vec<Option<usize>> = vec![None; self.values.len()];
        for node in std::mem::take(&mut self.nodes) {
            let node = self.absorbed(&node, &mut kept, &maker, &readers).unwrap_or(node);
            maker[node.output.0] = Some(kept.len());
            kept.push(Some(node));
        }
        self.nodes = kept.into_iter().flatten().collect();
        for (i, node) in self.nodes.iter().enumerate() {
            self.values[node.output.0].source = Source::Node(i);
        }
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

    /// `node` merged into the maker of one of its inputs, which is then taken out of `kept`. The merged node stands at
    /// the place of `node`, where all its inputs are known.
    fn absorbed(
        &self,
        node: &Node,
        kept: &mut [Option<Node>],
        maker: &[Option<usize>],
        readers: &[usize],
    ) -> Option<Node> {
        let mut candidates: Vec<(usize, usize)> = node
            .inputs
            .iter()
            .enumerate()
            .filter(|(_, id)| readers[id.0] == 1)
            .filter_map(|(operand, id)| Some((maker[id.0]?, operand)))
            .collect();
        // The latest maker first: its value need not live on beside the others.
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        candidates.into_iter().find_map(|(place, operand)| {
            let producer = kept[place].as_ref()?;
            let op = producer.op.absorb(&*node.op, operand)?;
            let others = node.inputs.iter().enumerate().filter(|(i, _)| *i != operand).map(|(_, id)| *id);
            let inputs: Vec<ValueId> = producer.inputs.iter().copied().chain(others).collect();
            if op.output(&self.types(&inputs)).ok()? != *self.ty(node.output) {
                return None;
            }
            let name = producer.name.clone();
            kept[place] = None;
            Some(Node { name, op: Arc::from(op), inputs, output: node.output })
        })
    }
}
