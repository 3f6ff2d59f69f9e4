//! How a session sends its graph to the device, for any network.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use ornstein::gpu::{Gpu, Session};
use ornstein::graph::Graph;
use ornstein::graph::plan::Storage;
use ornstein::ops::Kind;
use ornstein::ops::layer_norm::LayerNorm;
use ornstein::ops::matmul::MatMul;
use ornstein::rng::Generator;
use ornstein::tensor::{DType, NoWeights, Tensor};

use crate::support::on_gpu;

pub fn trials() -> Vec<Trial> {
    vec![on_gpu("session::a_run_in_many_submissions_gives_what_one_does".into(), many_submissions_give_what_one_does)]
}

const LAYERS: usize = 4;
const SIZE: usize = 72;

/// Products with a norm behind each, so that every node reads what the one before wrote.
fn layers() -> Result<Graph, Failed> {
    let mut graph = Graph::new("layers");
    let normal = |graph: &mut Graph, kind, seed| {
        graph.constant(kind, Tensor::new([SIZE, SIZE], Generator::new(seed).normal(SIZE * SIZE)))
    };
    let vector = |graph: &mut Graph, value| graph.constant(Kind::F32, Tensor::new([SIZE], vec![value; SIZE]));
    let mut x = graph.input("x", Kind::Act, [SIZE, SIZE]);
    for layer in 0..LAYERS {
        let w = normal(&mut graph, Kind::Weight, layer as u64);
        let [gamma, beta] = [1.0, 0.5].map(|value| vector(&mut graph, value));
        x = graph.node(&format!("{layer}.product"), MatMul::new(false), &[x, w])?;
        x = graph.node(&format!("{layer}.norm"), LayerNorm { eps: 1e-5 }, &[x, gamma, beta])?;
    }
    graph.output("y", x);
    Ok(graph)
}

fn many_submissions_give_what_one_does(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let storage = Storage { act: DType::F32, weight: DType::F32 };
    let x = Tensor::new([SIZE, SIZE], Generator::new(9).normal(SIZE * SIZE));
    let mut all = Vec::new();
    for (budget, wanted) in [(f64::INFINITY, 1), (0.0, 2 * LAYERS)] {
        let session = Session::new(gpu, layers()?, &NoWeights, storage)?.within(budget);
        // The first run is measured, the second follows what it found.
        for _ in 0..2 {
            session.poison();
            all.push(pollster::block_on(session.run(&[("x", &x)]))?);
            if session.submissions() != Some(wanted) {
                return Err(format!("{:?} submissions within {budget} s", session.submissions()).into());
            }
        }
    }
    if all.iter().any(|outputs| outputs != &all[0]) {
        return Err("the runs differ".into());
    }
    Ok(())
}
