//! `bench -m`: whole networks, and where their time goes, by node and by op.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use web_time::Instant;

use super::measure::{Budget, Timing, Watch, warnings};
use super::stats::{Summary, median};
use super::{Bench, Rates, Row, Verdict};
use crate::components::{Component, Components};
use crate::error::{Notice, Result, Tell};
use crate::gpu::{Clock, Session, Timer, check};
use crate::graph::Graph;
use crate::graph::interpret::Interpreter;
use crate::graph::plan::Storage;
use crate::lab::predict::{Card, Predicted};
use crate::lab::published::{Published, rows};
use crate::lab::suite::{self, Workload};
use crate::models::config::ENCODER;
use crate::models::ports::Sizes;
use crate::network::{Placement, place, storages};
use crate::ops::Case;
use crate::tensor::{DType, Tensor, Weights};
use crate::weights::{Model, Synthetic};

/// A fused graph with its weights, which are read when it is put on a device.
pub struct Subject {
    /// Fused, at the sizes that are timed.
    pub graph: Graph,
    /// Of the network's file, or generated.
    pub weights: Box<dyn Weights>,
}

/// Full-size networks with generated weights: text encoders and the UNet at `batch` rows, the VAE decoder at one.
///
/// # Errors
/// If the latents have no size.
pub fn synthetic(family: &Published, latent: Option<usize>, batch: usize) -> Result<Vec<Subject>> {
    let graphs = family.networks(latent.unwrap_or(family.latent), batch)?;
    let subject = |graph: Graph| {
        let weights = Synthetic::new(format!("generated weights of {}", family.name), graph.wanted());
        Subject { graph, weights: Box::new(weights) }
    };
    Ok(graphs.into_iter().map(subject).collect())
}

/// The networks that make a picture with this model, at the latents' size that it was trained on or another.
///
/// # Errors
/// If the model is incomplete or not supported.
pub fn of_model(model: &Model, latent: Option<usize>, batch: usize) -> Result<Vec<Subject>> {
    let components = Components::of(model)?;
    let own = components.own_sizes(Sizes { batch, height: 64, width: 64, tokens: 77 });
    let sizes = latent.map_or(own, |side| Sizes { height: side, width: side, ..own });
    let mut subjects = Vec::new();
    // An encoder makes no picture.
    for (Component { folder, config }, way) in components.passes().filter(|(_, way)| *way != ENCODER) {
        let graph = config.graph(folder, way, &rows(way, sizes))?.fused();
        subjects.push(Subject { graph, weights: Box::new(model.weights(folder)?) });
    }
    Ok(subjects)
}

/// A network as a whole.
#[derive(Debug, Clone, Serialize)]
pub struct NetworkRow {
    /// Name and backend.
    pub device: String,
    /// The network's name.
    pub network: String,
    /// Type of activations.
    pub dtype: String,
    /// Type of matrices of parameters.
    pub weights: String,
    /// Shapes of the inputs by name.
    pub inputs: BTreeMap<String, Vec<usize>>,
    /// How many nodes ran.
    pub nodes: usize,
    /// Floating-point operations of one run; a multiply-add counts two.
    pub flops: u64,
    /// Device memory held, in bytes; 0 on the CPU.
    pub device_bytes: u64,
    /// Of a whole run.
    #[serde(flatten)]
    pub timing: Timing,
    /// Seconds until the host knows that a submission of the network is done.
    pub wall: f64,
    /// Operations a second, in 10^9.
    pub gflop_s: f64,
    /// Of the ceiling of multiply-adds, or of cooperative matrices,
    pub share_of_arithmetic: f64,
    /// if a node multiplies any.
    pub matrices: bool,
    /// What each op takes, the most expensive first.
    pub by_op: Vec<OpShare>,
    /// How long it should take, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
}

/// What all nodes of one op take together.
#[derive(Debug, Clone, Serialize)]
pub struct OpShare {
    /// The op's name.
    pub op: String,
    /// How many nodes have it.
    pub nodes: usize,
    /// Of all these nodes together, in one run.
    pub seconds: f64,
    /// Of the sum over all nodes.
    pub share: f64,
    /// At that time.
    #[serde(flatten)]
    pub rates: Rates,
}

/// Times of a network as a whole and node by node, before they are put into rows.
struct Times {
    whole: Timing,
    wall: f64,
    /// Of every node, one list per round.
    nodes: Vec<Vec<f64>>,
    device_bytes: u64,
    finite: bool,
}

/// Seconds that a network's rounds should take together, and how many there are.
const SECONDS: f64 = 6.0;
const ROUNDS: [usize; 2] = [3, 15];

/// Rounds of which one takes so many seconds.
fn rounds(seconds: f64) -> usize {
    ((SECONDS / seconds.max(1e-9)) as usize).clamp(ROUNDS[0], ROUNDS[1])
}

impl Bench<'_> {
    /// Runs a network by the kernels that `generate` would use, then times it. `tell` is called with what a user should
    /// know.
    ///
    /// # Errors
    /// If the device cannot hold it or gets one of its kernels wrong in every variant, or a weight is missing.
    pub async fn network(&mut self, subject: Subject, tell: &mut Tell<'_>) -> Result<(NetworkRow, Vec<Row>)> {
        let Subject { graph, weights } = subject;
        let (inputs, flops) = (suite::inputs(&graph), graph.flops());
        let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let (placement, times) = match self.timer {
            None => {
                let times = self.on_cpu(graph.clone(), &*weights, &given)?;
                (Placement { graph, storage: self.storage(), variants: Vec::new() }, times)
            }
            Some(timer) => {
                let storages = storages(self.executor.dtype(), &graph, &*weights);
                let graph = graph.quantized(&*weights)?;
                let warn =
                    &mut |notice: Notice<'_>| notice.warning().into_iter().for_each(|text| tell(&text.to_string()));
                let placement = place(timer.gpu(), &graph, &storages, warn).await?;
                let session = placement.session(timer.gpu(), &*weights)?;
                (placement, self.on_gpu(timer, &session, &given).await?)
            }
        };
        let storage = placement.storage;
        let ceilings = self.probes.ceilings();
        let (graph, rows) = (&placement.graph, self.node_rows(&placement, &times)?);
        let matrices = rows.iter().any(|row| row.matrices);
        let arithmetic = ceilings.gflop_s(storage.act, matrices);
        let rates = Rates::new([flops, 0], times.whole.summary.median, arithmetic, &ceilings);
        let row = NetworkRow {
            device: self.label.clone(),
            network: graph.network.clone(),
            dtype: storage.act.to_string(),
            weights: storage.weight.to_string(),
            inputs: inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape.dims().to_vec())).collect(),
            nodes: graph.nodes.len(),
            flops,
            device_bytes: times.device_bytes,
            timing: times.whole,
            wall: times.wall,
            gflop_s: rates.gflop_s,
            share_of_arithmetic: rates.share_of_arithmetic,
            matrices,
            by_op: self.by_op(&rows, storage.act),
            predicted: self.predicted(graph, storage)?,
        };
        Ok((row, rows))
    }

    async fn on_gpu(&mut self, timer: &Timer, session: &Session, inputs: &[(&str, &Tensor)]) -> Result<Times> {
        let outputs = session.run(inputs).await?;
        let finite = outputs.values().all(|tensor| tensor.first_not_finite().is_none());
        let time = |runs| timer.whole(session, runs);
        let mut whole = Watch::new(time, timer.clock(), timer.resolution(), Budget { round: 0.0, ..Budget::QUICK })?;
        let (mut wall, mut nodes) = (Vec::new(), Vec::new());
        for _ in 0..rounds(3.0 * whole.seconds()) {
            self.probes.round()?;
            whole.round()?;
            wall.push(timer.wall(session)?);
            nodes.push(timer.nodes(session)?);
        }
        Ok(Times { whole: whole.timing(), wall: median(&wall), nodes, device_bytes: session.bytes(), finite })
    }

    fn on_cpu(&mut self, graph: Graph, weights: &dyn Weights, inputs: &[(&str, &Tensor)]) -> Result<Times> {
        let interpreter = Interpreter::new(graph, weights)?;
        let (mut finite, mut nodes) = (true, Vec::new());
        // Every sample is one run, so that its nodes' times are kept.
        let time = |_| {
            let mut seconds = Vec::with_capacity(interpreter.graph().nodes.len());
            let mut since = Instant::now();
            let outputs = interpreter.run_observed(inputs, &mut |_, _| {
                seconds.push(since.elapsed().as_secs_f64());
                since = Instant::now();
            })?;
            finite &= outputs.values().all(|tensor| tensor.first_not_finite().is_none());
            let sum = seconds.iter().sum();
            nodes.push(seconds);
            Ok(sum)
        };
        let once = Budget { sample: 0.0, round: 0.0, ..Budget::QUICK };
        let whole = {
            let mut watch = Watch::new(time, Clock::Wall, 1e-6, once)?;
            for _ in 0..rounds(watch.seconds()) {
                self.probes.round()?;
                watch.round()?;
            }
            watch.timing()
        };
        // The first run was the look that warms the caches.
        let nodes = nodes.split_off(1);
        Ok(Times { wall: whole.summary.median, whole, nodes, device_bytes: 0, finite })
    }

    /// If it was asked for, and the device is not the CPU executor.
    fn predicted(&self, graph: &Graph, storage: Storage) -> Result<Option<Predicted>> {
        let Some(timer) = self.timer.filter(|_| self.predicts) else { return Ok(None) };
        let card = Card::at_hand(&timer.gpu().caps, &self.probes.ceilings(), storage.act);
        card.network(graph, storage).map(Some)
    }

    /// A row for every node, timed by the median of its rounds.
    fn node_rows(&self, placement: &Placement, times: &Times) -> Result<Vec<Row>> {
        let verdict = if times.finite { Verdict::Unchecked } else { Verdict::Wrong };
        let (graph, storage, ceilings) = (&placement.graph, placement.storage, self.probes.ceilings());
        let mut rows = Vec::with_capacity(graph.nodes.len());
        for (i, node) in graph.nodes.iter().enumerate() {
            let case = Case::of(std::sync::Arc::clone(&node.op), graph.types(&node.inputs));
            let variant = match self.timer {
                None => "reference",
                Some(timer) => check::variants(timer.gpu(), &case, storage)?[placement.variants[i]].name,
            };
            let workload = Workload { case, uses: BTreeMap::new() };
            let mut row = Row::new(&self.label, &workload, variant, storage, verdict)?;
            if let Some(variant) = placement.variants.get(i) {
                self.describe(&mut row, &workload.case, *variant, storage);
            }
            let rounds: Vec<f64> = times.nodes.iter().map(|seconds| seconds[i]).collect();
            row.node = Some(node.name.clone());
            row.reason = (!times.finite).then(|| "the network's output is not finite".to_string());
            let clock = times.whole.clock;
            let summary = Summary::of(&rounds);
            // A node may well be shorter than what its clock resolves; its noise shows that.
            let warnings = warnings(&summary, 1, 0.0);
            row.timing = Some(Timing { summary, clock, repeats: 1, warnings });
            row.rate(&ceilings, storage.act);
            rows.push(row);
        }
        Ok(rows)
    }

    /// The op that takes the most comes first.
    fn by_op(&self, rows: &[Row], act: DType) -> Vec<OpShare> {
        let mut sums: HashMap<&str, (usize, f64, [u64; 2], bool)> = HashMap::new();
        for row in rows {
            let sum = sums.entry(&row.op).or_default();
            let seconds = row.timing.as_ref().map_or(0.0, |timing| timing.summary.median);
            let [flops, bytes] = sum.2;
            *sum = (sum.0 + 1, sum.1 + seconds, [flops + row.flops, bytes + row.bytes], sum.3 | row.matrices);
        }
        let all: f64 = sums.values().map(|sum| sum.1).sum();
        let ceilings = self.probes.ceilings();
        let share = |(op, (nodes, seconds, work, matrices)): (&str, (usize, f64, [u64; 2], bool))| OpShare {
            op: op.to_string(),
            nodes,
            seconds,
            share: seconds / all.max(1e-12),
            rates: Rates::new(work, seconds, ceilings.gflop_s(act, matrices), &ceilings),
        };
        let mut shares: Vec<OpShare> = sums.into_iter().map(share).collect();
        shares.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then(a.op.cmp(&b.op)));
        shares
    }
}
