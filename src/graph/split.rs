//! A graph cut in two: between its nodes, so that each half can run in its own storage, or by what its nodes depend
//! on, so that what stays the same over many runs is computed once.

use std::collections::HashMap;

use super::{Graph, Node, Origin, Value, ValueId};

impl Graph {
    /// The first `at` nodes and the rest, as two graphs. What the first computes for the second is an output there and
    /// an input here, by one name; the graph's own inputs and outputs keep theirs.
    pub fn split(&self, at: usize) -> [Self; 2] {
        self.parted(&|node| node < at)
    }

    /// The nodes that depend on none but these inputs and the rest, as [`Graph::split`] gives them. The names between
    /// the two are the same for graphs that differ in their inputs' sizes alone.
    pub fn hoisted(&self, inputs: &[&str]) -> [Self; 2] {
        let mut fixed: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            fixed.push(node.inputs.iter().all(|id| match &self.values[id.0].origin {
                Origin::Input(name) => inputs.contains(&name.as_str()),
                Origin::Node(maker) => fixed[*maker],
                Origin::Constant(_) | Origin::Parameter(_) => true,
            }));
        }
        self.parted(&|node| fixed[node])
    }

    /// The nodes for which `first` holds, which read nothing of the others, and the others.
    fn parted(&self, first: &dyn Fn(usize) -> bool) -> [Self; 2] {
        let in_second = |id: ValueId| matches!(self.values[id.0].origin, Origin::Node(node) if !first(node));
        let (mut head, mut tail) = (Half::of(self, first), Half::of(self, &|node| !first(node)));
        for (name, id) in &self.outputs {
            let half = if in_second(*id) { &mut tail } else { &mut head };
            half.output(name, *id);
        }
        for (i, node) in self.nodes.iter().enumerate().filter(|(i, _)| first(*i)) {
            if tail.place.contains_key(&node.output) {
                head.output(&self.crossing_name(i), node.output);
            }
        }
        [head.graph, tail.graph]
    }

    /// What a computed value is called between two parts: as the node that makes it, and so as nothing else, however
    /// often the parts are cut again.
    fn crossing_name(&self, node: usize) -> String {
        self.nodes[node].name.clone()
    }
}

/// Some of a graph's nodes on their way to a graph of their own.
struct Half<'a> {
    whole: &'a Graph,
    graph: Graph,
    /// Where the whole graph's values are in this one.
    place: HashMap<ValueId, ValueId>,
}

impl<'a> Half<'a> {
    fn of(whole: &'a Graph, wanted: &dyn Fn(usize) -> bool) -> Self {
        let mut half = Self { whole, graph: Graph::new(&whole.network), place: HashMap::new() };
        let nodes = whole.nodes.iter().enumerate().filter(|(i, _)| wanted(*i));
        for (i, (_, node)) in nodes.enumerate() {
            let inputs = node.inputs.iter().map(|id| half.read(*id)).collect();
            let output = half.graph.value(whole.ty(node.output).clone(), Origin::Node(i));
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
        let Value { ty, origin } = self.whole.values[id.0].clone();
        let origin = match origin {
            Origin::Node(node) => Origin::Input(self.whole.crossing_name(node)),
            other => other,
        };
        let place = self.graph.value(ty, origin);
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

    /// `early = 2x`, `y = 2x * 3 * 5 + (2x + c)`: a value that is read in both halves wherever the cut is, and is an
    /// output.
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

    /// Both parts, one after the other, give the whole graph's outputs.
    fn agree(whole: Graph, parts: [Graph; 2], inputs: &[(&str, &Tensor)]) {
        let run = |graph: Graph, inputs: &[(&str, &Tensor)]| {
            Interpreter::new(graph, &NoWeights).unwrap().run(inputs).unwrap()
        };
        let wanted = run(whole, inputs);
        let [first, rest] = parts;
        let mut known = run(first, inputs);
        let given: Vec<_> = known.iter().map(|(name, t)| (name.as_str(), t)).chain(inputs.iter().copied()).collect();
        known.extend(run(rest, &given));
        known.retain(|name, _| wanted.contains_key(name));
        assert_eq!(known, wanted);
    }

    #[test]
    fn two_halves_compute_what_the_whole_does_wherever_the_cut_is() {
        let x = Tensor::new([1, 4], vec![1.0, -2.0, 0.5, 3.0]);
        for at in 0..=graph().nodes.len() {
            agree(graph(), graph().split(at), &[("x", &x)]);
        }
    }

    #[test]
    fn a_half_holds_its_own_nodes_under_their_own_names_and_reads_nothing_else() {
        let [head, tail] = graph().split(2);
        let names = |graph: &Graph| graph.nodes.iter().map(|n| n.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&head), ["net.double", "net.third"]);
        assert_eq!(names(&tail), ["net.fifth", "net.shift", "net.sum"]);
        assert!(!head.values.iter().any(|v| matches!(v.origin, Origin::Constant(_))));
        // Both computed values cross, the input does not.
        assert_eq!(tail.inputs().count(), 2);
        assert!(tail.input_named("x").is_none());
    }

    #[test]
    fn what_depends_on_the_named_inputs_alone_is_computed_apart_and_the_rest_from_it() {
        let mut graph = graph();
        let [early, z] = [graph.outputs[0].1, graph.input("z", Kind::Act, [1, 4])];
        let late = graph.node("late", Add, &[early, z]).unwrap();
        graph.output("late", late);
        let parts = graph.hoisted(&["x"]);
        assert_eq!(parts.each_ref().map(|part| part.nodes.len()), [5, 1]);
        let [x, z] = [1.0, 2.0].map(|v| Tensor::new([1, 4], vec![v; 4]));
        agree(graph, parts, &[("x", &x), ("z", &z)]);
    }

    #[test]
    fn a_part_that_is_cut_again_reads_its_inputs_by_names_of_their_own() {
        let [_, tail] = graph().split(1);
        let x = Tensor::new([1, 4], vec![1.0; 4]);
        let early = Tensor::new([1, 4], vec![2.0; 4]);
        agree(tail.clone(), tail.split(2), &[("x", &x), ("net.double", &early)]);
    }
}
