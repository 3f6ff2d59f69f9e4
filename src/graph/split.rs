//! A graph cut in two between its nodes, so that each half can run in its own storage.

use std::collections::HashMap;
use std::ops::Range;

use super::{Graph, Node, Source, Value, ValueId};

impl Graph {
    /// The first `at` nodes and the rest, as two graphs. What the first computes for the second is an output there and
    /// an input here, by one name; the graph's own inputs and outputs keep theirs.
    pub fn split(&self, at: usize) -> [Self; 2] {
        let made_before = |id: ValueId| !matches!(self.values[id.0].source, Source::Node(node) if node >= at);
        let [mut head, mut tail] = [0..at, at..self.nodes.len()].map(|nodes| Half::of(self, nodes));
        for (name, id) in &self.outputs {
            let half = if made_before(*id) { &mut head } else { &mut tail };
            half.output(name, *id);
        }
        let mut crossing: Vec<ValueId> = tail.place.keys().copied().collect();
        crossing.retain(|id| made_before(*id) && matches!(self.values[id.0].source, Source::Node(_)));
        crossing.sort_unstable();
        for id in crossing {
            head.output(&crossing_name(id), id);
        }
        [head.graph, tail.graph]
    }
}

/// No network's input or output is called so.
fn crossing_name(id: ValueId) -> String {
    format!("#{}", id.0)
}

/// Some of a graph's nodes on their way to a graph of their own.
struct Half<'a> {
    whole: &'a Graph,
    graph: Graph,
    /// Where the whole graph's values are in this one.
    place: HashMap<ValueId, ValueId>,
}

impl<'a> Half<'a> {
    fn of(whole: &'a Graph, nodes: Range<usize>) -> Self {
        let mut half = Self { whole, graph: Graph::new(&whole.network), place: HashMap::new() };
        for (i, node) in whole.nodes[nodes].iter().enumerate() {
            let inputs = node.inputs.iter().map(|id| half.read(*id)).collect();
            let output = half.graph.value(whole.ty(node.output).clone(), Source::Node(i));
            half.place.insert(node.output, output);
            half.graph.nodes.push(Node { inputs, output, ..node.clone() });
        }
        half
    }

    /// The value that stands for one of the whole graph's.
    fn read(&mut self, id: ValueId) -> ValueId {
        if let Some(place) = self.place.get(&id) {
            return *place;
        }
        let Value { ty, source } = self.whole.values[id.0].clone();
        let source = match source {
            Source::Node(_) => Source::Input(crossing_name(id)),
            other => other,
        };
        let place = self.graph.value(ty, source);
        self.place.insert(id, place);
        place
    }

    fn output(&mut self, name: &str, id: ValueId) {
        let place = self.read(id);
        self.graph.output(name, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::interpret::Interpreter;
    use crate::ops::Kind;
    use crate::ops::add::Add;
    use crate::ops::scale::Scale;
    use crate::tensor::{NoWeights, Tensor};

    /// `early = 2x`, `y = 2x * 3 * 5 + (2x + c)`: a value that is read in both halves wherever the cut is, and is an output.
    fn graph() -> Graph {
        let mut graph = Graph::new("net");
        let x = graph.input("x", Kind::Act, [1, 4]);
        let c = graph.constant(Kind::Act, Tensor::new([1, 4], vec![1.0; 4]));
        let early = graph.node("double", Scale { factor: 2.0 }, &[x]).unwrap();
        let third = graph.node("third", Scale { factor: 3.0 }, &[early]).unwrap();
        let fifth = graph.node("fifth", Scale { factor: 5.0 }, &[third]).unwrap();
        let shifted = graph.node("shift", Add, &[early, c]).unwrap();
        let y = graph.node("sum", Add, &[fifth, shifted]).unwrap();
        graph.output("early", early);
        graph.output("y", y);
        graph.output("same", x);
        graph
    }

    #[test]
    fn two_halves_compute_what_the_whole_does_wherever_the_cut_is() {
        let x = Tensor::new([1, 4], vec![1.0, -2.0, 0.5, 3.0]);
        let whole = Interpreter::new(graph(), &NoWeights).unwrap().run(&[("x", &x)]).unwrap();
        for at in 0..=graph().nodes.len() {
            let [head, tail] = graph().split(at).map(|half| Interpreter::new(half, &NoWeights).unwrap());
            let mut known = head.run(&[("x", &x)]).unwrap();
            let inputs: Vec<_> = known.iter().map(|(name, t)| (name.as_str(), t)).chain([("x", &x)]).collect();
            let rest = tail.run(&inputs).unwrap();
            known.extend(rest);
            known.retain(|name, _| whole.contains_key(name));
            assert_eq!(known, whole, "cut at {at}");
        }
    }

    #[test]
    fn a_half_holds_its_own_nodes_under_their_own_names_and_reads_nothing_else() {
        let [head, tail] = graph().split(2);
        let names = |graph: &Graph| graph.nodes.iter().map(|n| n.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&head), ["net.double", "net.third"]);
        assert_eq!(names(&tail), ["net.fifth", "net.shift", "net.sum"]);
        assert!(!head.values.iter().any(|v| matches!(v.source, Source::Constant(_))));
        // Both computed values cross, the input does not.
        assert_eq!(tail.input_names().count(), 2);
        assert!(tail.input_named("x").is_none());
    }
}
