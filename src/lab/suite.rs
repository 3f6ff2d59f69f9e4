//! What to time: every distinct node of the real networks, at the sizes that pictures are made with.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::published::Published;
use crate::error::Result;
use crate::graph::Graph;
use crate::ops::case::Fill;
use crate::ops::{Case, Kind, Op, Row, TABLE, Ty};
use crate::rng::Generator;
use crate::tensor::Tensor;

/// An op at one set of shapes, and where it runs so.
#[derive(Debug)]
pub struct Workload {
    /// The op at these shapes.
    pub case: Case,
    /// `sd15 unet` -> how many nodes.
    pub uses: BTreeMap<String, usize>,
}

impl Workload {
    /// A case that no network stands for.
    pub fn of(case: Case) -> Self {
        Self { case, uses: BTreeMap::new() }
    }

    /// Floating-point operations of one run.
    ///
    /// # Errors
    /// If the case contradicts its op's shape rule.
    pub fn flops(&self) -> Result<u64> {
        let types = self.case.types();
        Ok(self.case.op.flops(&types, &self.case.op.output(&types)?))
    }
}

/// The cases of the ops' own tables.
pub fn cases() -> Vec<Workload> {
    TABLE.iter().flat_map(Row::cases).map(Workload::of).collect()
}

/// The distinct nodes of a family's networks at its own size.
///
/// # Errors
/// If one of the configurations above is wrong.
pub fn nodes(family: &Published) -> Result<Vec<Workload>> {
    let mut workloads: Vec<Workload> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for graph in family.networks(family.latent, 2)? {
        for node in &graph.nodes {
            let case = filled(Arc::clone(&node.op), graph.types(&node.inputs));
            let place = *known.entry(case.name()).or_insert(workloads.len());
            if place == workloads.len() {
                workloads.push(Workload::of(case));
            }
            *workloads[place].uses.entry(format!("{} {}", family.name, graph.network)).or_default() += 1;
        }
    }
    Ok(workloads)
}

/// A node as a case: filled as the op's own cases with such inputs are, since statistics and timesteps are not normal.
/// Indices are those of rows of the next input.
fn filled(op: Arc<dyn Op>, types: Vec<Ty>) -> Case {
    let cases = TABLE.iter().find(|row| row.name == op.name()).map(Row::cases).unwrap_or_default();
    let same_kinds = |case: &&Case| case.types().iter().map(|ty| ty.kind).eq(types.iter().map(|ty| ty.kind));
    let like = cases.iter().find(same_kinds);
    let mut case = Case::of(op, types);
    for (index, (_, fill)) in like.iter().flat_map(|like| &like.inputs).enumerate() {
        case = match (case.inputs[index].0.kind, *fill) {
            (Kind::U32, _) => {
                let entries = case.inputs.get(index + 1).map_or(1, |(ty, _)| ty.shape.rows());
                case.fill(index, Fill::Below(entries as u32))
            }
            (_, Fill::Normal(_)) => case,
            (_, fill) => case.fill(index, fill),
        };
    }
    case
}

/// A network's inputs for timing: normal activations, small whole numbers where indices or timesteps are wanted.
pub fn inputs(graph: &Graph) -> Vec<(String, Tensor)> {
    let mut generator = Generator::new(1);
    let mut tensor = |Ty { kind, shape }: &Ty| {
        let data = match kind {
            Kind::U32 => (0..shape.len()).map(|i| i as f32).collect(),
            Kind::Bytes => (0..shape.len()).map(|i| (i % 256) as f32).collect(),
            Kind::F32 => vec![500.0; shape.len()],
            Kind::Act | Kind::Weight => generator.normal(shape.len()),
        };
        Tensor::new(shape.clone(), data)
    };
    graph.inputs().map(|(name, id)| (name.to_string(), tensor(graph.ty(id)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::published::SD15;

    /// What fusion leaves of a step, and that no node is left of what it should take in.
    #[test]
    fn the_unet_of_stable_diffusion_1_5_runs_as_393_nodes() {
        let graphs = SD15.networks(64, 2).unwrap();
        let unet = graphs.iter().find(|graph| graph.network == "unet").unwrap();
        assert_eq!(unet.nodes.len(), 393);
        let left = ["activation", "add", "add_row", "concat", "geglu", "upsample"];
        for graph in &graphs {
            let alone = graph.nodes.iter().find(|node| left.contains(&node.op.name()));
            assert!(alone.is_none(), "{alone:?}");
        }
    }

    #[test]
    fn a_suite_has_every_node_once_with_its_count() {
        let workloads = nodes(&SD15).unwrap();
        let nodes: usize = SD15.networks(64, 2).unwrap().iter().map(|graph| graph.nodes.len()).sum();
        assert_eq!(workloads.iter().flat_map(|workload| workload.uses.values()).sum::<usize>(), nodes);
        assert!(workloads.len() < nodes / 3, "{} of {nodes}", workloads.len());
    }

    #[test]
    fn indices_stay_inside_their_table() {
        let workloads = nodes(&SD15).unwrap();
        let embedding = workloads.iter().find(|workload| workload.case.op.name() == "embedding").unwrap();
        assert!(matches!(embedding.case.inputs[0].1, Fill::Below(49_408)));
    }
}
