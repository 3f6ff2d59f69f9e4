//! `bench -m`: whole networks, and where their time goes, by node and by op.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde::Serialize;

use super::measure::{self, Budget, Timing};
use super::stats::Summary;
use super::{Bench, Rates, Row, Verdict};
use crate::error::{Error, Result};
use crate::gpu::{Clock, Session};
use crate::graph::Graph;
use crate::graph::interpret::Interpreter;
use crate::graph::plan::Storage;
use crate::lab::suite::{self, Entry, Family};
use crate::models::{clip, unet, vae};
use crate::network::Executor;
use crate::ops::{Case, Kind};
use crate::tensor::{DType, Tensor, Weights};
use crate::weights::{Model, Synthetic};

/// A fused graph with its weights, which are read when it is put on a device.
pub struct Subject {
    pub graph: Graph,
    pub weights: Box<dyn Weights>,
}

/// Full-size networks with generated weights: text encoders and the UNet at `batch` rows, the VAE decoder at one.
///
/// # Errors
/// If the latents have no size.
pub fn synthetic(family: Family, latent: Option<usize>, batch: usize) -> Result<Vec<Subject>> {
    let graphs = family.networks(latent.unwrap_or(family.latent()), batch)?;
    let subject = |graph: Graph| {
        let weights = Synthetic::new(format!("generated weights of {}", family.name()), graph.wanted());
        Subject { graph, weights: Box::new(weights) }
    };
    Ok(graphs.into_iter().map(subject).collect())
}

/// The networks that make a picture with this model, at the latents' size that it was trained on or another.
///
/// # Errors
/// If the model is incomplete or not supported.
pub fn of_model(model: &Model, latent: Option<usize>, batch: usize) -> Result<Vec<Subject>> {
    let config = |component: &str| {
        let path = format!("{component}/config.json");
        Ok::<_, Error>((model.text(&path)?, model.path(&path).display().to_string()))
    };
    let mut subjects = Vec::new();
    let mut add = |component: &str, graph: Graph| {
        subjects.push(Subject { graph: graph.fused(), weights: Box::new(model.weights(component)?) });
        Ok::<_, Error>(())
    };
    let mut tokens = 77;
    for component in ["text_encoder", "text_encoder_2"].into_iter().filter(|component| model.has(component)) {
        let (text, place) = config(component)?;
        let config = clip::Config::from_json(&text, &place)?;
        tokens = config.max_tokens;
        add(component, config.graph(component, batch, tokens)?)?;
    }
    let (text, place) = config("unet")?;
    let unet = unet::Config::from_json(&text, &place)?;
    let [height, width] = latent.map(|n| [n, n]).or(unet.sample_size).unwrap_or([64, 64]);
    add("unet", unet.graph(batch, height, width, tokens)?)?;
    let (text, place) = config("vae")?;
    add("vae", vae::Config::from_json(&text, &place)?.decoder(1, height, width)?)?;
    Ok(subjects)
}

/// A network as a whole.
#[derive(Debug, Clone, Serialize)]
pub struct NetworkRow {
    pub device: String,
    pub network: String,
    pub dtype: String,
    pub weights: String,
    /// Shapes of the inputs by name.
    pub inputs: BTreeMap<String, Vec<usize>>,
    pub nodes: usize,
    pub flops: u64,
    /// Device memory held, in bytes; 0 on the CPU.
    pub device_bytes: u64,
    #[serde(flatten)]
    pub timing: Timing,
    /// Seconds until the host knows that a submission of the network is done.
    pub wall: f64,
    pub gflop_s: f64,
    pub share_of_fma: f64,
    pub by_op: Vec<OpShare>,
}

/// What all nodes of one op take together.
#[derive(Debug, Clone, Serialize)]
pub struct OpShare {
    pub op: String,
    pub nodes: usize,
    pub seconds: f64,
    /// Of the sum over all nodes.
    pub share: f64,
    #[serde(flatten)]
    pub rates: Rates,
}

/// Times of a network as a whole and node by node, before they are put into rows.
struct Times {
    whole: Timing,
    wall: f64,
    /// Of every node, one list per sample.
    nodes: Vec<Vec<f64>>,
    clock: Clock,
    device_bytes: u64,
    finite: bool,
}

impl Bench<'_> {
    /// Runs a network, then times it.
    ///
    /// # Errors
    /// If the device cannot hold it, or a weight is missing.
    pub async fn network(&self, subject: Subject) -> Result<(NetworkRow, Vec<Row>)> {
        let Subject { graph, weights } = subject;
        let storage = Storage { weight: weight_type(self.executor.dtype(), &graph, &*weights), ..self.storage() };
        let inputs = suite::inputs(&graph);
        let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let times = match &self.executor {
            Executor::Cpu => self.on_cpu(graph.clone(), &*weights, &given)?,
            Executor::Gpu(..) => self.on_gpu(graph.clone(), &*weights, storage, &given).await?,
        };
        let rows = self.node_rows(&graph, storage, &times)?;
        let flops = graph.flops();
        let rates = Rates::new(flops, 0, times.whole.summary.median, &self.device.ceilings, storage.act);
        let row = NetworkRow {
            device: self.device.label.clone(),
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
            share_of_fma: rates.share_of_fma,
            by_op: self.by_op(&rows, storage.act),
        };
        Ok((row, rows))
    }

    async fn on_gpu(
        &self,
        graph: Graph,
        weights: &dyn Weights,
        storage: Storage,
        inputs: &[(&str, &Tensor)],
    ) -> Result<Times> {
        let Some(timer) = self.timer else { return Err(Error::device("there is no device to time")) };
        let session = Session::new(timer.gpu(), graph, weights, storage)?;
        let outputs = session.run(inputs).await?;
        let finite = outputs.values().all(|tensor| tensor.first_not_finite().is_none());
        let whole = measure::sample(|n| timer.whole(&session, n), timer.clock(), timer.resolution(), &Budget::NETWORK)?;
        let looks = if whole.summary.median > Budget::NETWORK.total { 1 } else { 3 };
        let wall = (0..looks).map(|_| timer.wall(&session)).collect::<Result<Vec<f64>>>()?;
        let samples = (2.0 * Budget::NETWORK.total / whole.summary.median.max(1e-9)).clamp(1.0, 15.0) as usize;
        let nodes = (0..samples).map(|_| timer.nodes(&session)).collect::<Result<_>>()?;
        let (wall, clock) = (Summary::of(&wall).median, timer.clock());
        Ok(Times { whole, wall, nodes, clock, device_bytes: session.bytes(), finite })
    }

    fn on_cpu(&self, graph: Graph, weights: &dyn Weights, inputs: &[(&str, &Tensor)]) -> Result<Times> {
        let interpreter = Interpreter::new(graph, weights)?;
        let mut finite = true;
        let mut nodes: Vec<Vec<f64>> = Vec::new();
        let once = |nodes: &mut Vec<Vec<f64>>, finite: &mut bool| {
            let mut seconds = Vec::with_capacity(interpreter.graph().nodes.len());
            let mut since = Instant::now();
            let outputs = interpreter.run_observed(inputs, &mut |_, _| {
                seconds.push(since.elapsed().as_secs_f64());
                since = Instant::now();
            })?;
            *finite &= outputs.values().all(|tensor| tensor.first_not_finite().is_none());
            nodes.push(seconds);
            Ok(nodes.last().map_or(0.0, |seconds| seconds.iter().sum()))
        };
        // Every sample is one run, so that its nodes' times are kept.
        let budget = Budget { sample: 0.0, ..Budget::NETWORK };
        let whole = measure::sample(|_| once(&mut nodes, &mut finite), Clock::Wall, 1e-6, &budget)?;
        let wall = whole.summary.median;
        Ok(Times { whole, wall, nodes, clock: Clock::Wall, device_bytes: 0, finite })
    }

    /// A row for every node, timed by the median of its samples.
    fn node_rows(&self, graph: &Graph, storage: Storage, times: &Times) -> Result<Vec<Row>> {
        let verdict = if times.finite { Verdict::Unchecked } else { Verdict::Wrong };
        let mut rows = Vec::with_capacity(graph.nodes.len());
        for (i, node) in graph.nodes.iter().enumerate() {
            let case = Case::of(std::sync::Arc::clone(&node.op), graph.types(&node.inputs));
            let mut row = self.row(&Entry { case, uses: BTreeMap::new() }, verdict)?;
            let samples: Vec<f64> = times.nodes.iter().map(|seconds| seconds[i]).collect();
            let summary = Summary::of(&samples);
            row.weights = storage.weight.to_string();
            row.node = Some(node.name.clone());
            row.reason = (!times.finite).then(|| "the network's output is not finite".to_string());
            let timing = Timing { summary, clock: times.clock, repeats: 1, warnings: Vec::new() };
            row.time(Some(timing), &self.device.ceilings, storage.act);
            rows.push(row);
        }
        Ok(rows)
    }

    /// The op that takes the most comes first.
    fn by_op(&self, rows: &[Row], act: DType) -> Vec<OpShare> {
        let mut sums: HashMap<&str, (usize, f64, u64, u64)> = HashMap::new();
        for row in rows {
            let sum = sums.entry(&row.op).or_default();
            let seconds = row.timing.as_ref().map_or(0.0, |timing| timing.summary.median);
            *sum = (sum.0 + 1, sum.1 + seconds, sum.2 + row.flops, sum.3 + row.bytes);
        }
        let all: f64 = sums.values().map(|sum| sum.1).sum();
        let share = |(op, (nodes, seconds, flops, bytes)): (&str, (usize, f64, u64, u64))| OpShare {
            op: op.to_string(),
            nodes,
            seconds,
            share: seconds / all.max(1e-12),
            rates: Rates::new(flops, bytes, seconds, &self.device.ceilings, act),
        };
        let mut shares: Vec<OpShare> = sums.into_iter().map(share).collect();
        shares.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then(a.op.cmp(&b.op)));
        shares
    }
}

/// Matrices are kept in f16 where activations are, or where the file has them so.
fn weight_type(act: DType, graph: &Graph, weights: &dyn Weights) -> DType {
    let first = graph.parameters().find(|(id, _)| graph.ty(*id).kind == Kind::Weight);
    let in_file = || first.and_then(|(_, parameter)| Some(weights.get(&parameter.key)?.dtype));
    if act == DType::F16 || in_file() == Some(DType::F16) { DType::F16 } else { DType::F32 }
}
