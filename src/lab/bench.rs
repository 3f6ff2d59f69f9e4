//! `bench`: every kernel checked and then timed at the shapes of the real networks, as a share of what the device can do
//! at most.
//!
//! A device's rows come from its [`suite`]. All shapes of the real networks would take a software device hours, so by
//! default each op shows two: one that is sure to be quick, and the largest that, going by that one's speed, fits the op's
//! part of the time. An op that no network of the suite has shows its own cases.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use self::compare::Change;
use self::measure::{Budget, Measured, Timing};
use super::ceilings::Ceilings;
use super::suite::{self, Entry, Family};
use crate::caps::Caps;
use crate::error::{Error, Result, ten};
use crate::gpu::{Clock, Gpu, Timer};
use crate::graph::plan::Storage;
use crate::network::Executor;
use crate::ops::{Case, TABLE};
use crate::tensor::DType;

pub mod compare;
pub mod measure;
pub mod profile;
pub mod stats;

/// Seconds that one run may take without `--full`, as far as can be told before: of an op that is all of the networks,
/// and of any op.
const MOST_SECONDS: f64 = 1.2;
const LEAST_SECONDS: f64 = 0.1;
/// Seconds that a case's check on the host may take.
const MOST_CHECK: f64 = 1.0;
/// A kernel is expected to reach at least this share of a ceiling.
const LEAST_SHARE: f64 = 0.02;
/// Seconds for which the host makes one element of a case's tensors.
const HOST_ELEMENT: f64 = 4e-8;

/// Which shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// The small cases of the ops' tables.
    Cases,
    Family(Family),
    /// Stable Diffusion 1.5 and SDXL.
    All,
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Names of ops; none is all.
    pub ops: Vec<String>,
    pub suite: Suite,
    /// Every shape, however long it takes.
    pub full: bool,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Right,
    /// The output is not the reference's, so it was not timed.
    Wrong,
    /// The shapes exceed the device's limits.
    Refused,
    /// The kernel does not compile, or the device failed.
    Failed,
    /// A node of a network, which ran and was finite; `validate` compares.
    Unchecked,
}

/// One op at one set of shapes on one device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub device: String,
    pub op: String,
    pub variant: String,
    /// Of activations, and of matrices of parameters.
    pub dtype: String,
    pub weights: String,
    /// The op's attributes.
    pub attributes: String,
    /// Of the inputs.
    pub shapes: Vec<Vec<usize>>,
    /// The network's node, where a network was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Networks with such nodes, and how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub uses: BTreeMap<String, usize>,
    pub verdict: Verdict,
    /// Why it is not right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub relative_error: Option<f64>,
    /// Of one run: floating-point operations, and bytes of the inputs and the output as the device stores them.
    pub flops: u64,
    pub bytes: u64,
    #[serde(flatten)]
    pub timing: Option<Timing>,
    #[serde(flatten)]
    pub rates: Option<Rates>,
    /// What an earlier report says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Change>,
}

/// How fast, and how close to the ceilings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    pub gflop_s: f64,
    pub gb_s: f64,
    pub share_of_fma: f64,
    pub share_of_copy: f64,
    /// The larger of the two: of the ceiling that this op would meet first.
    pub share_of_roof: f64,
}

impl Rates {
    pub fn new(flops: u64, bytes: u64, seconds: f64, ceilings: &Ceilings, dtype: DType) -> Self {
        let seconds = seconds.max(1e-12);
        let (gflop_s, gb_s) = (flops as f64 / seconds / 1e9, bytes as f64 / seconds / 1e9);
        let share = |rate: f64, most: f64| if most > 0.0 { rate / most } else { 0.0 };
        let (share_of_fma, share_of_copy) = (share(gflop_s, ceilings.gflop_s(dtype)), share(gb_s, ceilings.copy_gb_s));
        Self { gflop_s, gb_s, share_of_fma, share_of_copy, share_of_roof: share_of_fma.max(share_of_copy) }
    }
}

/// A device as reports show it.
#[derive(Debug, Clone, Serialize)]
pub struct Device {
    /// Name and backend.
    pub label: String,
    pub clock: Clock,
    pub ceilings: Ceilings,
    /// How far the ceilings had moved when all rows were done, as a share: what the machine's other work changes between
    /// rows, which no row's own spread shows.
    pub drift: f64,
    #[serde(flatten)]
    pub caps: serde_json::Value,
}

impl Device {
    /// The timer's device, or the CPU executor where there is none.
    pub fn new(timer: Option<&Timer>, ceilings: Ceilings) -> Self {
        let threads = rayon::current_num_threads();
        let (label, clock, caps) = match timer {
            None => ("cpu".into(), Clock::Wall, serde_json::json!({ "name": "cpu", "threads": threads })),
            Some(timer) => {
                let caps = &timer.gpu().caps;
                (format!("{} {}", caps.name, caps.backend), timer.clock(), serde_json::json!(caps))
            }
        };
        Self { label, clock, ceilings, drift: 0.0, caps }
    }
}

/// One device on which cases are measured.
pub struct Bench<'a> {
    pub executor: &'a Executor,
    pub device: &'a Device,
    pub budget: Budget,
    timer: Option<&'a Timer>,
    all_variants: bool,
}

/// An entry with what it costs.
struct Candidate<'a> {
    entry: &'a Entry,
    /// Seconds at the device's ceilings, and of the check on the host.
    ideal: f64,
    host: f64,
}

impl<'a> Bench<'a> {
    /// `timer` is of the executor's device; the CPU executor needs none.
    pub fn new(executor: &'a Executor, timer: Option<&'a Timer>, device: &'a Device, full: bool) -> Self {
        let budget = if full { Budget::FULL } else { Budget::QUICK };
        Self { executor, device, budget, timer, all_variants: false }
    }

    /// Measures every variant that the device can run, not only the one that it would use.
    pub fn all_variants(mut self, all: bool) -> Self {
        self.all_variants = all;
        self
    }

    pub(super) fn storage(&self) -> Storage {
        Storage { act: self.executor.dtype(), weight: self.executor.dtype() }
    }

    /// The rows of a suite: those of `same`, an earlier device's or report's, if it is given, so that both can be compared. `tell`
    /// is called with each as it is done.
    ///
    /// # Errors
    /// If an op is not known, or the device is lost. A row that is wrong is no error here.
    pub async fn run(&self, options: &Options, same: Option<&[Row]>, tell: &mut dyn FnMut(&Row)) -> Result<Vec<Row>> {
        known(&options.ops)?;
        let suites = match options.suite {
            Suite::Cases => vec![suite::cases()],
            Suite::Family(family) => vec![suite::nodes(family)?],
            Suite::All => vec![suite::nodes(Family::Sd15)?, suite::nodes(Family::Sdxl)?],
        };
        let everything = options.full || options.suite == Suite::Cases || same.is_some();
        let chosen = |case: &Case| same.is_none_or(|rows| rows.iter().any(|row| row.is_of(case)));
        let wanted = |op: &str| options.ops.is_empty() || options.ops.iter().any(|name| name == op);
        let mut rows: Vec<Row> = Vec::new();
        let own_cases = [suite::cases()];
        for (op, _) in TABLE.iter().filter(|(op, _)| wanted(op)) {
            let is_there = |entries: &&Vec<Entry>| entries.iter().any(|entry| entry.case.op.name() == *op);
            let there: Vec<&Vec<Entry>> = suites.iter().filter(is_there).collect();
            for entries in if there.is_empty() { own_cases.iter().collect() } else { there } {
                let mut candidates = Vec::new();
                for entry in entries.iter().filter(|e| e.case.op.name() == *op && chosen(&e.case)) {
                    if rows.iter().any(|row| row.is_of(&entry.case)) {
                        continue;
                    }
                    match self.refusal(&entry.case)? {
                        Some(reason) => rows.push(Row { reason: Some(reason), ..self.row(entry, Verdict::Refused)? }),
                        None => candidates.push(self.candidate(entry)?),
                    }
                }
                for row in if everything {
                    self.all(&candidates).await?
                } else {
                    self.two(&candidates, self.most_seconds(op, entries)?).await?
                } {
                    tell(&row);
                    rows.push(row);
                }
            }
        }
        Ok(rows)
    }

    async fn all(&self, candidates: &[Candidate<'_>]) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for candidate in candidates {
            rows.extend(self.measure(candidate.entry).await?);
        }
        Ok(rows)
    }

    /// A quick shape, and the largest that should not take longer than `most` seconds if it is as fast.
    async fn two(&self, candidates: &[Candidate<'_>], most: f64) -> Result<Vec<Row>> {
        let largest = |ideal: f64| {
            let fit = candidates.iter().filter(|c| c.host <= MOST_CHECK && c.ideal <= ideal);
            fit.max_by(|a, b| a.ideal.total_cmp(&b.ideal))
        };
        let smallest = || candidates.iter().min_by(|a, b| a.ideal.total_cmp(&b.ideal));
        let Some(quick) = largest(LEAST_SHARE * most).or_else(smallest) else { return Ok(Vec::new()) };
        let mut rows = self.measure(quick.entry).await?;
        let Some(seconds) = rows[0].timing.as_ref().map(|timing| timing.summary.median) else { return Ok(rows) };
        let slowness = (seconds / quick.ideal).max(1.0);
        if let Some(large) = largest(most / slowness).filter(|large| large.ideal > quick.ideal) {
            rows.extend(self.measure(large.entry).await?);
        }
        Ok(rows)
    }

    /// Seconds that one run of this op may take without `--full`: the more, the larger its part in the networks is.
    fn most_seconds(&self, op: &str, entries: &[Entry]) -> Result<f64> {
        let (mut own, mut all) = (0.0, 0.0);
        for entry in entries {
            let count = entry.uses.values().sum::<usize>() as f64;
            let ideal = count * self.candidate(entry)?.ideal;
            all += ideal;
            own += if entry.case.op.name() == op { ideal } else { 0.0 };
        }
        Ok((MOST_SECONDS * own / f64::max(all, 1e-12)).clamp(LEAST_SECONDS, MOST_SECONDS))
    }

    fn candidate<'e>(&self, entry: &'e Entry) -> Result<Candidate<'e>> {
        let row = self.row(entry, Verdict::Unchecked)?;
        let (flops, bytes) = (row.flops as f64, row.bytes as f64);
        let ceilings = &self.device.ceilings;
        let ideal = (flops / ceilings.gflop_s(self.executor.dtype())).max(bytes / ceilings.copy_gb_s) / 1e9;
        let elements: usize = entry.case.inputs.iter().map(|(ty, _)| ty.shape.len()).sum();
        let per_thread = 2e10 * rayon::current_num_threads() as f64;
        Ok(Candidate { entry, ideal, host: flops / per_thread + elements as f64 * HOST_ELEMENT })
    }

    /// The device in the storage that is measured.
    fn caps(&self, gpu: &Gpu) -> Caps {
        let storage = self.storage();
        gpu.caps.storing(storage.act, storage.weight)
    }

    /// Why this device cannot run the case at all.
    fn refusal(&self, case: &Case) -> Result<Option<String>> {
        let Some(timer) = self.timer else { return Ok(None) };
        let gpu = timer.gpu();
        let types = case.types();
        let output = case.op.output(&types)?;
        let most = gpu.caps.max_binding.min(gpu.caps.max_buffer);
        for ty in types.iter().chain([&output]) {
            let bytes = (ty.device_len() * self.storage().element_size(ty.kind)) as u64;
            if bytes > most {
                let (needed, most) = (bytes.div_ceil(1 << 20), most >> 20);
                return Ok(Some(format!("{} needs {needed} MiB in one buffer, of at most {most}", ty.shape)));
            }
        }
        match case.op.launch(&types, &output, &self.caps(gpu)) {
            Err(error) => Ok(Some(error.to_string())),
            Ok(launch) if launch.workgroups.iter().any(|n| *n > gpu.caps.max_workgroups) => {
                Ok(Some(format!("{:?} workgroups are too many", launch.workgroups)))
            }
            Ok(_) => Ok(None),
        }
    }

    /// Names of the variants to measure, the preferred one first.
    fn variants(&self, case: &Case) -> Result<Vec<&'static str>> {
        let Some(timer) = self.timer else { return Ok(vec!["reference"]) };
        let types = case.types();
        let variants = case.op.variants(&types, &case.op.output(&types)?, &self.caps(timer.gpu()))?;
        let count = if self.all_variants { variants.len() } else { 1 };
        Ok(variants.into_iter().take(count).map(|variant| variant.name).collect())
    }

    /// Checks and times one entry: a row for each of its variants.
    ///
    /// # Errors
    /// If the case contradicts its op's shape rule.
    async fn measure(&self, entry: &Entry) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (index, name) in self.variants(&entry.case)?.into_iter().enumerate() {
            let measured = match self.timer {
                None => measure::on_cpu(&entry.case, &self.budget),
                Some(timer) => measure::on_gpu(timer, &entry.case, index, self.storage(), &self.budget).await,
            };
            let mut row = match measured {
                Err(error) => Row { reason: Some(error.to_string()), ..self.row(entry, Verdict::Failed)? },
                Ok(measured) => self.measured(entry, measured)?,
            };
            row.variant = name.into();
            rows.push(row);
        }
        Ok(rows)
    }

    fn measured(&self, entry: &Entry, measured: Measured) -> Result<Row> {
        let right = measured.is_right();
        let mut row = self.row(entry, if right { Verdict::Right } else { Verdict::Wrong })?;
        if !right {
            let Measured { relative_error, limit, .. } = measured;
            row.reason = Some(format!("relative error {relative_error:.1e} exceeds {limit:.0e}: not timed"));
        }
        row.relative_error = Some(measured.relative_error);
        row.time(measured.timing, &self.device.ceilings, self.executor.dtype());
        Ok(row)
    }

    /// A row without a time.
    pub(in crate::lab) fn row(&self, entry: &Entry, verdict: Verdict) -> Result<Row> {
        let Entry { case, uses } = entry;
        let types = case.types();
        let output = case.op.output(&types)?;
        let storage = self.storage();
        let read =
            types.iter().enumerate().map(|(i, ty)| case.op.reads(&types, &output, i) * storage.element_size(ty.kind));
        let bytes = read.sum::<usize>() + output.device_len() * storage.element_size(output.kind);
        Ok(Row {
            device: self.device.label.clone(),
            op: case.op.name().into(),
            variant: self.variants(case).ok().and_then(|names| Some((*names.first()?).into())).unwrap_or_default(),
            dtype: storage.act.to_string(),
            weights: storage.weight.to_string(),
            attributes: format!("{:?}", case.op),
            shapes: types.iter().map(|ty| ty.shape.dims().to_vec()).collect(),
            node: None,
            uses: uses.clone(),
            verdict,
            reason: None,
            relative_error: None,
            flops: case.op.flops(&types, &output),
            bytes: bytes as u64,
            timing: None,
            rates: None,
            compared: None,
        })
    }
}

impl Row {
    fn is_of(&self, case: &Case) -> bool {
        self.attributes == format!("{:?}", case.op)
            && self.shapes.iter().map(Vec::as_slice).eq(case.inputs.iter().map(|(ty, _)| ty.shape.dims()))
    }

    fn time(&mut self, timing: Option<Timing>, ceilings: &Ceilings, dtype: DType) {
        self.rates =
            timing.as_ref().map(|timing| Rates::new(self.flops, self.bytes, timing.summary.median, ceilings, dtype));
        self.timing = timing;
    }

    /// Whether the kernel must not be used as it is.
    pub fn is_bad(&self) -> bool {
        matches!(self.verdict, Verdict::Wrong | Verdict::Failed)
    }
}

/// `Ok` if every name is an op's.
///
/// # Errors
/// A usage error that lists the ops.
pub fn known(ops: &[String]) -> Result<()> {
    let names: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
    match ops.iter().find(|op| !names.contains(&op.as_str())) {
        None => Ok(()),
        Some(op) => Err(Error::usage(format!("there is no op {op}; the ops are {}", names.join(", ")))),
    }
}

/// An error that names the bad rows, if there are any.
///
/// # Errors
/// That.
pub fn verdict(rows: &[Row]) -> Result<()> {
    let bad: Vec<String> =
        rows.iter().filter(|row| row.is_bad()).map(|row| format!("{} {:?}", row.op, row.shapes)).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let (count, all) = (bad.len(), rows.len());
    Err(Error::device(format!(
        "{count} of {all} rows are wrong or failed: {}; `ornstein validate` tells more",
        ten(&bad)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILINGS: Ceilings =
        Ceilings { copy_gb_s: 10.0, fma_f32_gflop_s: Some(100.0), fma_f16_gflop_s: None, product_gflop_s: None };

    #[test]
    fn the_share_of_the_roof_is_that_of_the_nearer_ceiling() {
        let rates = Rates::new(50_000_000_000, 1_000_000_000, 1.0, &CEILINGS, DType::F32);
        assert_eq!((rates.gflop_s, rates.gb_s), (50.0, 1.0));
        assert_eq!((rates.share_of_fma, rates.share_of_copy, rates.share_of_roof), (0.5, 0.1, 0.5));
        let rates = Rates::new(1_000_000_000, 9_000_000_000, 1.0, &CEILINGS, DType::F32);
        assert_eq!(rates.share_of_roof, 0.9);
    }

    #[test]
    fn an_unknown_op_is_a_usage_error_that_lists_the_ops() {
        let error = known(&["matmull".into()]).unwrap_err();
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().contains("matmul, conv2d"), "{error}");
    }

    #[test]
    fn a_row_survives_its_json() {
        let executor = Executor::Cpu;
        let device = Device::new(None, CEILINGS);
        let bench = Bench::new(&executor, None, &device, false);
        let entries = suite::cases();
        let measured = Measured {
            relative_error: 0.0,
            limit: 1.0,
            timing: Some(Timing {
                summary: stats::Summary::of(&[0.5]),
                clock: Clock::Wall,
                repeats: 3,
                warnings: Vec::new(),
            }),
        };
        let row = bench.measured(&entries[0], measured).unwrap();
        let json = serde_json::to_value(&row).unwrap();
        for key in ["op", "variant", "dtype", "shapes", "median", "spread", "clock", "gflop_s", "gb_s", "share_of_roof"]
        {
            assert!(!json[key].is_null(), "{key}: {json}");
        }
        let back: Row = serde_json::from_value(json).unwrap();
        assert_eq!((back.timing, back.rates), (row.timing, row.rates));
    }

    #[test]
    fn a_wrong_row_is_not_timed_and_fails_the_run() {
        let executor = Executor::Cpu;
        let device = Device::new(None, CEILINGS);
        let bench = Bench::new(&executor, None, &device, false);
        let measured = Measured { relative_error: 0.5, limit: 1e-5, timing: None };
        let row = bench.measured(&suite::cases()[0], measured).unwrap();
        assert_eq!((row.verdict, row.timing.is_none()), (Verdict::Wrong, true));
        assert!(verdict(&[row]).unwrap_err().to_string().contains("1 of 1"));
    }
}
