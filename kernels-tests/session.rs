//! How a session sends its graph to the device, for any network.

use std::collections::HashSet;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::check::{Check, variants};
use ornstein::gpu::session::Carry;
use ornstein::gpu::{Gpu, Session};
use ornstein::graph::Graph;
use ornstein::graph::plan::Storage;
use ornstein::ops::add::Add;
use ornstein::ops::norm::layer_norm::LayerNorm;
use ornstein::ops::product::matmul::MatMul;
use ornstein::ops::{Kind, Row, TABLE, Tiles};
use ornstein::rng::Generator;
use ornstein::tensor::{DType, NoWeights, Tensor};

use crate::support::on_gpu;

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let by_tiles = CUT.map(|op| {
        let name = format!("session::a_kernel_tile_by_tile_gives_what_it_gives_at_once::{op}");
        on_gpu(name, move |gpu| tiles_give_what_the_whole_does(gpu, op))
    });
    let mut trials = vec![
        on_gpu("session::a_run_in_many_submissions_gives_what_one_does".into(), many_submissions_give_what_one_does),
        on_gpu("session::a_run_of_a_chain_reads_what_the_one_before_carried".into(), chained_runs),
        on_gpu("session::what_a_chain_cannot_carry_or_write_is_an_error".into(), misfits),
    ];
    trials.extend(by_tiles);
    trials
}

/// The ops that can take long by themselves.
const CUT: [&str; 5] = ["matmul", "matmul_geglu", "conv2d", "winograd_product", "attention"];

/// Every variant, in a submission and in as many as it has tiles.
fn tiles_give_what_the_whole_does(gpu: &Arc<Gpu>, op: &str) -> Result<(), Failed> {
    let mut cut = HashSet::new();
    for case in TABLE.iter().filter(|row| row.name == op).flat_map(Row::cases) {
        for storage in [EXACT, Storage { act: DType::F16, weight: DType::F16 }] {
            for (index, variant) in variants(gpu, &case, storage)?.into_iter().enumerate() {
                let Some(Tiles { count: 2.., .. }) = variant.launch.tiles else { continue };
                // A case of each is enough: tiles are counted at the same place whatever the sizes.
                if !cut.insert((variant.name, storage.act)) {
                    continue;
                }
                let mut session = Check::of_case(&case, storage)?.session(gpu, index)?;
                let mut outputs = Vec::new();
                for budget in [f64::INFINITY, 0.0] {
                    session = session.within(budget);
                    // The first run is measured, the second follows what it found.
                    for _ in 0..2 {
                        let found = pollster::block_on(session.run_poisoned())?;
                        outputs.push(found.data.into_iter().map(f32::to_bits).collect::<Vec<_>>());
                    }
                }
                if session.submissions() != variant.launch.tiles.map(|tiles| tiles.count) {
                    return Err(format!("{}: {:?} submissions", variant.name, session.submissions()).into());
                }
                if outputs.iter().any(|found| found != &outputs[0]) {
                    return Err(format!("{} of {}: the runs differ", variant.name, case.name()).into());
                }
            }
        }
    }
    if cut.is_empty() { Err("no case has more tiles than one".into()) } else { Ok(()) }
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
    let x = Tensor::new([SIZE, SIZE], Generator::new(9).normal(SIZE * SIZE));
    let mut all = Vec::new();
    // Norms are not cut, and the products have a few tiles of rows each.
    for (budget, wanted) in [(f64::INFINITY, 1..=1), (0.0, 2 * LAYERS..=usize::MAX)] {
        let session = Session::new(gpu, layers()?, &NoWeights, EXACT)?.within(budget);
        // The first run is measured, the second follows what it found.
        for _ in 0..2 {
            session.poison();
            all.push(pollster::block_on(session.run(&[("x", &x)]))?);
            if !session.submissions().is_some_and(|found| wanted.contains(&found)) {
                return Err(format!("{:?} submissions within {budget} s", session.submissions()).into());
            }
        }
    }
    if all.iter().any(|outputs| outputs != &all[0]) {
        return Err("the runs differ".into());
    }
    Ok(())
}

const EXACT: Storage = Storage { act: DType::F32, weight: DType::F32 };

/// `y = x + x`, of three entries, as a session.
fn doubling(gpu: &Arc<Gpu>) -> Result<Session, Failed> {
    let mut graph = Graph::new("doubling");
    let x = graph.input("x", Kind::Act, [3, 5]);
    let y = graph.node("double", Add, &[x, x])?;
    graph.output("y", y);
    Ok(Session::new(gpu, graph, &NoWeights, EXACT)?)
}

/// Each run puts twice the last entry into the first and twice the first into the last.
fn chained_runs(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let session = doubling(gpu)?;
    let carry = |from, to| Carry { output: "y", from, input: "x", to };
    let mut chain = session.chain(&["x"]);
    for entry in 0..3 {
        chain.write("x", entry, &Tensor::new([5], vec![entry as f32 + 1.0; 5]))?;
    }
    for _ in 0..3 {
        chain.start(&[], &[carry(2, 0), carry(0, 2)])?;
        chain.wait(1)?;
    }
    chain.write("x", 1, &Tensor::new([5], vec![-1.0; 5]))?;
    let x = pollster::block_on(chain.read("x"))?;
    match x.data.chunks_exact(5).map(|entry| entry[4]).collect::<Vec<_>>()[..] {
        [24.0, -1.0, 8.0] => Ok(()),
        _ => Err(format!("found {:?}", x.data).into()),
    }
}

fn misfits(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let session = doubling(gpu)?;
    let x = Tensor::new([3, 5], vec![1.0; 15]);
    let carry = |output, input| Carry { output, from: 0, input, to: 0 };
    let start = |changing: &[&str], given: &[(&str, &Tensor)], carry| {
        session.chain(changing).start(given, &[carry]).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let found = [
        start(&["x"], &[], carry("z", "x")),
        start(&["x"], &[], carry("y", "z")),
        start(&[], &[], carry("y", "x")),
        session.chain(&["x"]).write("x", 0, &x).err().map(|error| error.to_string()).unwrap_or_default(),
    ];
    let wanted = ["doubling has no z", "doubling has no z", "input x: is missing", "an entry of x cannot be [3, 5]"];
    match found.iter().zip(wanted).all(|(found, wanted)| found.contains(wanted)) {
        true => Ok(()),
        false => Err(format!("{found:?}").into()),
    }
}
