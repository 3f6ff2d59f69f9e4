//! `bench`: every kernel checked and then timed at the shapes of the real networks, as a share of what the device can
//! do at most.
//!
//! A device's rows come from its [`suite`]; unless all are asked for, not all shapes are timed (`choose`). An op that
//! no network of the suite has shows its own cases. Rows and ceilings are timed in turns ([`measure`]).

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use self::choose::Candidate;
use self::measure::{Budget, Route, Watch};
pub use self::row::{Rates, Row, Verdict};
use super::ceilings::{Ceilings, Probes};
use super::published::{PUBLISHED, Published, SD15, SDXL};
use super::suite::{self, Workload};
use crate::caps::Caps;
use crate::error::{Error, Result, Tell, are};
use crate::gpu::shader::Dialect;
use crate::gpu::statistics::Compiler;
use crate::gpu::tune::Tuned;
use crate::gpu::{Clock, Gpu, Timer, check};
use crate::graph::plan::Storage;
use crate::lab::peers;
use crate::network::Executor;
use crate::ops::{Case, TABLE, check_names};

mod choose;
pub mod compare;
pub mod measure;
pub mod profile;
mod row;
pub mod stats;

/// Bytes that the tensors of rows timed in turns may hold together. What would exceed it waits until those are done.
const MOST_BYTES: u64 = 2 << 30;

/// A variant that takes this many times as long as the preferred one is timed once: its rounds would take most of the
/// time.
const FAR_BEHIND: f64 = 8.0;

/// Which shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// The small cases of the ops' tables.
    Cases,
    /// Those of [`peers`].
    Peers,
    /// The networks of one published model.
    Published(&'static Published),
    /// Stable Diffusion 1.5 and SDXL.
    All,
}

impl Suite {
    /// Every suite by its name.
    pub fn named() -> impl Iterator<Item = (&'static str, Self)> {
        let published = PUBLISHED.iter().map(|published| (published.name, Self::Published(published)));
        [("cases", Self::Cases), ("peers", Self::Peers)].into_iter().chain(published).chain([("all", Self::All)])
    }
}

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of ops; none is all.
    pub ops: Vec<String>,
    /// The shapes.
    pub suite: Suite,
    /// Every shape, however long it takes.
    pub full: bool,
}

/// A device as reports show it.
#[derive(Debug, Clone, Serialize)]
pub struct Device {
    /// Name and backend.
    pub label: String,
    /// What its times were read from.
    pub clock: Clock,
    /// What it can do at most, measured.
    pub ceilings: Ceilings,
    /// For each class of shapes that was timed there before its first use, what was tried: it runs the fastest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tuned: BTreeMap<String, Tuned>,
    /// Its [`Caps`], or the CPU executor's name and threads.
    #[serde(flatten)]
    pub caps: serde_json::Value,
}

/// One device on which cases are measured.
pub struct Bench<'a> {
    executor: &'a Executor,
    timer: Option<&'a Timer>,
    /// Where the driver tells of its kernels.
    compiler: Option<Compiler>,
    label: String,
    budget: Budget,
    all_variants: bool,
    predicts: bool,
    probes: Probes<'a>,
}

/// Rows, and those of them that are right and being timed in turns.
#[derive(Default)]
struct Work<'a> {
    rows: Vec<Row>,
    /// With their places among the rows.
    running: Vec<(usize, Watch<'a>)>,
    bytes: u64,
}

impl<'a> Bench<'a> {
    /// `timer` is of the executor's device; the CPU executor needs none.
    ///
    /// # Errors
    /// If a kernel that measures a ceiling fails.
    pub async fn new(executor: &'a Executor, timer: Option<&'a Timer>, full: bool) -> Result<Self> {
        let caps = timer.map(|timer| &timer.gpu().caps);
        let label = caps.map_or("cpu".into(), |caps| format!("{} {}", caps.name, caps.backend));
        let budget = if full { Budget::FULL } else { Budget::QUICK };
        let probes = Probes::new(timer).await?;
        let compiler = timer.and_then(|timer| Compiler::open(timer.gpu()).ok());
        Ok(Self { executor, timer, compiler, label, budget, all_variants: false, predicts: false, probes })
    }

    /// Measures every variant that the device can run, not only the one that it would use.
    pub fn all_variants(mut self, all: bool) -> Self {
        self.all_variants = all;
        self
    }

    /// Whether to say of whole networks how long they should take.
    pub fn predicting(mut self, predicts: bool) -> Self {
        self.predicts = predicts;
        self
    }

    /// The device with its ceilings, as far as they were measured until now.
    pub fn device(&self) -> Device {
        let threads = rayon::current_num_threads();
        let (clock, caps) = match self.timer {
            None => (Clock::Wall, serde_json::json!({ "name": "cpu", "threads": threads })),
            Some(timer) => (timer.clock(), serde_json::json!(timer.gpu().caps)),
        };
        let tuned = self.timer.map(|timer| timer.gpu().ledger.tuned()).unwrap_or_default();
        Device { label: self.label.clone(), clock, ceilings: self.probes.ceilings(), tuned, caps }
    }

    fn storage(&self) -> Storage {
        Storage { act: self.executor.dtype(), weight: self.executor.dtype() }
    }

    /// The rows of a suite: those of `same`, an earlier device's or report's, if it is given, so that both can be
    /// compared. `tell` is called with how far it is.
    ///
    /// # Errors
    /// If an op is not known, or the device is lost. A row that is wrong is not an error here.
    pub async fn run(&mut self, options: &Options, same: Option<&[Row]>, tell: &mut Tell<'_>) -> Result<Vec<Row>> {
        check_names(&options.ops)?;
        let suites = match options.suite {
            Suite::Cases => vec![suite::cases()],
            Suite::Peers => vec![peers::workloads(self.timer.map(|timer| &timer.gpu().caps))],
            Suite::Published(family) => vec![suite::nodes(family)?],
            Suite::All => vec![suite::nodes(&SD15)?, suite::nodes(&SDXL)?],
        };
        let everything = options.full || matches!(options.suite, Suite::Cases | Suite::Peers) || same.is_some();
        let chosen = |case: &Case| same.is_none_or(|rows| rows.iter().any(|row| row.is_of(case)));
        let wanted = |op: &str| options.ops.is_empty() || options.ops.iter().any(|name| name == op);
        let (storage, ceilings, own_cases) = (self.storage(), self.probes.ceilings(), [suite::cases()]);
        let mut work = Work::default();
        for op in TABLE.iter().map(|row| row.name).filter(|op| wanted(op)) {
            tell(&format!("checking {op}"));
            let is_there = |workloads: &&Vec<Workload>| workloads.iter().any(|workload| workload.case.op.name() == op);
            let there: Vec<&Vec<Workload>> = suites.iter().filter(is_there).collect();
            for workloads in
                if there.is_empty() && options.suite != Suite::Peers { own_cases.iter().collect() } else { there }
            {
                let mut candidates = Vec::new();
                for workload in workloads.iter().filter(|e| e.case.op.name() == op && chosen(&e.case)) {
                    if work.rows.iter().any(|row| row.is_of(&workload.case)) {
                        continue;
                    }
                    match self.refusal(&workload.case)? {
                        None => candidates.push(Candidate::new(workload, storage, &ceilings)?),
                        Some(reason) => {
                            let variant = self.routes(&workload.case).ok().and_then(|ways| Some(ways.first()?.0));
                            let row = self.row(workload, variant.unwrap_or_default(), Verdict::Refused)?;
                            work.rows.push(Row { reason: Some(reason), ..row });
                        }
                    }
                }
                if everything {
                    for candidate in &candidates {
                        self.start(candidate.workload, &mut work, tell).await?;
                    }
                } else {
                    let most = choose::most_seconds(op, workloads, storage, &ceilings)?;
                    let Some(quick) = choose::quick(&candidates, most) else { continue };
                    let Some(seconds) = self.start(quick.workload, &mut work, tell).await? else { continue };
                    if let Some(large) = choose::large(&candidates, quick, seconds, most) {
                        self.start(large.workload, &mut work, tell).await?;
                    }
                }
            }
        }
        self.rounds(&mut work, tell)?;
        let ceilings = self.probes.ceilings();
        work.rows.iter_mut().for_each(|row| row.rate(&ceilings, storage.act));
        Ok(work.rows)
    }

    fn row(&self, workload: &Workload, variant: &str, verdict: Verdict) -> Result<Row> {
        Row::new(&self.label, workload, variant, self.storage(), verdict)
    }

    /// The device in the storage that is measured.
    fn caps(&self, gpu: &Gpu) -> Caps {
        let storage = self.storage();
        gpu.caps.storing(storage.act, storage.weight)
    }

    /// Puts in what is known of a case's variant of that number: whether it multiplies matrices, and what the driver
    /// says, where it tells, and makes one program of it.
    fn describe(&self, row: &mut Row, case: &Case, variant: usize, storage: Storage) {
        let launch = || Some(check::variants(self.timer?.gpu(), case, storage).ok()?.into_iter().nth(variant)?.launch);
        let Some(launch) = launch() else { return };
        row.matrices = launch.matrix.is_some();
        let told = || {
            let (compiler, gpu) = (self.compiler.as_ref()?, self.timer?.gpu());
            let dialect = Dialect::of_case(storage, case, gpu.caps.native_f16()).ok()?;
            let mut made = compiler.of_launch(gpu, &launch, dialect).ok()?;
            made.pop().filter(|_| made.is_empty())
        };
        row.compiled = told().map(|executable| executable.summary).unwrap_or_default();
    }

    /// Checks a workload: a row for each of its variants, which is then timed with the others if it is right. The
    /// seconds of the preferred variant at a first look.
    async fn start(&mut self, workload: &Workload, work: &mut Work<'a>, tell: &mut Tell<'_>) -> Result<Option<f64>> {
        let mut first = None;
        for (index, (name, route)) in self.routes(&workload.case)?.into_iter().enumerate() {
            let mut row = self.row(workload, name, Verdict::Unchecked)?;
            if let Route::Variant(variant) = route {
                self.describe(&mut row, &workload.case, variant, self.storage());
            }
            if work.bytes + row.bytes > MOST_BYTES {
                self.rounds(work, tell)?;
            }
            let checked = match self.timer {
                None => measure::on_cpu(&workload.case, self.budget),
                Some(timer) => measure::on_gpu(timer, &workload.case, route, self.storage(), self.budget).await,
            };
            match checked {
                Err(error) => row.fail(&error),
                Ok(checked) => {
                    row.judge(&checked);
                    if let Some(watch) = checked.watch {
                        first = first.or((index == 0).then(|| watch.seconds()));
                        if first.is_some_and(|first| watch.seconds() > FAR_BEHIND * first) {
                            row.timing = Some(watch.first_look());
                        } else {
                            work.bytes += row.bytes;
                            work.running.push((work.rows.len(), watch));
                        }
                    }
                }
            }
            work.rows.push(row);
        }
        Ok(first)
    }

    /// Times what was started, in turns with the ceilings, and lets go of it.
    fn rounds(&mut self, work: &mut Work<'a>, tell: &mut Tell<'_>) -> Result<()> {
        let mut running = std::mem::take(&mut work.running);
        for round in 1..=self.budget.rounds {
            self.probes.round()?;
            for (place, watch) in &mut running {
                tell(&format!("round {round} of {}: {}", self.budget.rounds, work.rows[*place].op));
                watch.round()?;
            }
        }
        for (place, watch) in running {
            work.rows[place].timing = Some(watch.timing());
        }
        work.bytes = 0;
        Ok(())
    }
}

/// An error that names the bad rows, if there are any.
///
/// # Errors
/// That.
pub fn verdict(rows: &[Row]) -> Result<()> {
    let bad: Vec<&str> = rows.iter().filter(|row| row.is_bad()).map(|row| row.op.as_str()).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let (count, all) = (bad.len(), are(rows.len(), "row"));
    let ops: BTreeSet<_> = bad.into_iter().collect();
    let ops = ops.into_iter().collect::<Vec<_>>().join(" ");
    Err(Error::device(format!("{count} of {all} wrong or failed; `ornstein validate {ops}` tells more")))
}
