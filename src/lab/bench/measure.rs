//! One case on one device: compared with its CPU reference, and timed only if it is right.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::stats::Summary;
use crate::error::{Error, Result};
use crate::gpu::{Clock, Session, Timer};
use crate::graph::Graph;
use crate::graph::plan::Storage;
use crate::ops::Case;
use crate::ops::case::tolerance;
use crate::tensor::{DType, NoWeights, Tensor};

/// How long to time one thing.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Seconds that one sample should last; the kernel is repeated until it does.
    pub sample: f64,
    /// Seconds after which no further sample is taken.
    pub total: f64,
    /// Samples to take at least and at most.
    pub samples: [usize; 2],
}

impl Budget {
    pub const QUICK: Self = Self { sample: 0.02, total: 0.4, samples: [5, 25] };
    /// Of whole networks, which may take minutes.
    pub const NETWORK: Self = Self { sample: 0.02, total: 2.0, samples: [3, 25] };
    pub const FULL: Self = Self { sample: 0.05, total: 2.0, samples: [5, 50] };
}

/// A sample shorter than so many times the clock's resolution is called short.
const LONG_ENOUGH: f64 = 100.0;
/// A spread above this is called noisy.
const NOISY: f64 = 0.1;
/// Repeats of a kernel in one sample at most.
const MOST_REPEATS: f64 = 2000.0;
/// The host's clock, in seconds.
const HOST_RESOLUTION: f64 = 1e-6;

/// How long one run takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    #[serde(flatten)]
    pub summary: Summary,
    pub clock: Clock,
    /// Runs in one sample.
    pub repeats: usize,
    /// Why the number may be worth little.
    pub warnings: Vec<String>,
}

/// A case's correctness and, if it is right, its time.
#[derive(Debug, Clone)]
pub struct Measured {
    /// `‖out − ref‖₂ / ‖ref‖₂`, and the most that it may be.
    pub relative_error: f64,
    pub limit: f64,
    pub timing: Option<Timing>,
}

impl Measured {
    pub fn is_right(&self) -> bool {
        self.relative_error <= self.limit
    }
}

/// The op's variant number `variant`.
///
/// # Errors
/// If the device cannot run the case, or fails.
pub async fn on_gpu(timer: &Timer, case: &Case, variant: usize, storage: Storage, budget: &Budget) -> Result<Measured> {
    let gpu = timer.gpu();
    let types = case.types();
    let inputs = case.tensors(1, storage.act, storage.weight);
    let reference = case.op.reference(&inputs.iter().collect::<Vec<_>>(), &case.op.output(&types)?.shape);
    let session = Session::choosing(gpu, Graph::of_case(case, inputs)?, &NoWeights, storage, &|_| variant)?;
    session.poison();
    let mut outputs = session.run(&[]).await?;
    let output = outputs.remove("output").ok_or_else(|| Error::device("a case has no output"))?;
    let relative_error = case.compare(&output, &reference, storage.act).relative;
    let limit = tolerance(storage.act, case.op.sum_length(&types));
    let mut measured = Measured { relative_error, limit, timing: None };
    if measured.is_right() {
        let time = |repeats| timer.whole(&session, repeats);
        measured.timing = Some(sample(time, timer.clock(), timer.resolution(), budget)?);
    }
    Ok(measured)
}

/// The reference itself, which is right by definition.
///
/// # Errors
/// If the case contradicts its op's shape rule.
pub fn on_cpu(case: &Case, budget: &Budget) -> Result<Measured> {
    let inputs = case.tensors(1, DType::F32, DType::F32);
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let shape = case.op.output(&case.types())?.shape;
    let time = |repeats| {
        let start = Instant::now();
        for _ in 0..repeats {
            std::hint::black_box(case.op.reference(&inputs, &shape));
        }
        Ok(start.elapsed().as_secs_f64())
    };
    let timing = sample(time, Clock::Wall, HOST_RESOLUTION, budget)?;
    Ok(Measured { relative_error: 0.0, limit: 0.0, timing: Some(timing) })
}

/// Samples of `time`, which gives the seconds of so many runs. The first two, that find out how many runs a sample
/// takes and warm the caches, do not count.
///
/// # Errors
/// If `time` fails.
pub fn sample(
    mut time: impl FnMut(usize) -> Result<f64>,
    clock: Clock,
    resolution: f64,
    budget: &Budget,
) -> Result<Timing> {
    let once = time(1)?.max(1e-9);
    let first_guess = (budget.sample / once).clamp(1.0, MOST_REPEATS) as usize;
    // A single run of a short kernel is mostly start-up: the second look is at several.
    let several = if first_guess > 1 { time(first_guess)?.max(1e-9) / first_guess as f64 } else { once };
    let repeats = (budget.sample / several).clamp(1.0, MOST_REPEATS) as usize;
    let [least, most] = budget.samples;
    let start = Instant::now();
    // What alone takes longer than all samples should needs no warming up.
    let mut samples = if once > budget.total { vec![once] } else { Vec::with_capacity(most) };
    while samples.len() < least || (samples.len() < most && start.elapsed().as_secs_f64() < budget.total) {
        samples.push(time(repeats)? / repeats as f64);
    }
    let summary = Summary::of(&samples);
    Ok(Timing { warnings: warnings(&summary, repeats, resolution), summary, clock, repeats })
}

fn warnings(summary: &Summary, repeats: usize, resolution: f64) -> Vec<String> {
    let mut warnings = Vec::new();
    if summary.median * repeats as f64 <= LONG_ENOUGH * resolution {
        warnings.push("short: a sample is near the clock's resolution".to_string());
    }
    if summary.spread > NOISY {
        warnings.push("noisy: the middle half of the samples is far apart; stop other work and run again".to_string());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { sample: 0.1, total: 0.01, samples: [4, 4] };

    #[test]
    fn a_short_run_is_repeated_until_a_sample_is_long() {
        let mut asked = Vec::new();
        let time = |repeats| {
            asked.push(repeats);
            Ok(0.001 * repeats as f64)
        };
        let timing = sample(time, Clock::Wall, 1e-6, &BUDGET).unwrap();
        assert_eq!((timing.repeats, timing.summary.samples), (100, 4));
        assert_eq!(asked, [1, 100, 100, 100, 100, 100]);
        assert!((timing.summary.median - 0.001).abs() < 1e-12);
        assert!(timing.warnings.is_empty());
    }

    #[test]
    fn a_run_longer_than_the_budget_counts_from_the_first() {
        let mut runs = 0;
        let time = |_| {
            runs += 1;
            Ok(60.0)
        };
        assert_eq!(sample(time, Clock::Wall, 1e-6, &BUDGET).unwrap().summary.samples, 4);
        assert_eq!(runs, 4);
    }

    #[test]
    fn a_run_at_the_resolution_is_called_short() {
        let timing = sample(|repeats| Ok(1e-9 * repeats as f64), Clock::Timestamps, 1e-6, &BUDGET).unwrap();
        assert!(timing.warnings[0].starts_with("short"));
    }

    #[test]
    fn samples_far_apart_are_called_noisy() {
        let mut n = 0.0;
        let time = |_| {
            n += 1.0;
            Ok(n)
        };
        let timing = sample(time, Clock::Wall, 1e-6, &BUDGET).unwrap();
        assert!(timing.warnings[0].starts_with("noisy"));
    }
}
