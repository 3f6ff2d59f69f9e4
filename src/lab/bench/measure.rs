//! One case on one device: compared with its CPU reference, and timed only if it is right, in rounds.
//!
//! A machine's speed drifts: with its temperature, and with what else runs. Samples that follow each other show little
//! of that, so the spread between them promises too much. Here all rows take turns: each takes a few samples a round,
//! and its spread is that between the rounds, which lie as far apart as the run is long.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use web_time::Instant;

use super::stats::{Summary, median};
use crate::error::Result;
use crate::gpu::check::{self, Check};
use crate::gpu::{Clock, Session, Timer};
use crate::graph::plan::Storage;
use crate::ops::Case;
use crate::tensor::DType;

/// How long to time one thing.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Seconds that one sample should last; the kernel is repeated until it does.
    pub sample: f64,
    /// Seconds after which a round takes no further sample.
    pub round: f64,
    /// Rounds of one thing, over which its spread is taken.
    pub rounds: usize,
}

impl Budget {
    /// A look of half a second.
    pub const QUICK: Self = Self { sample: 0.02, round: 0.05, rounds: 9 };
    /// For numbers that are kept: about two seconds.
    pub const FULL: Self = Self { sample: 0.05, round: 0.2, rounds: 9 };
}

/// A sample shorter than so many times the clock's resolution is called short.
const LONG_ENOUGH: f64 = 100.0;
/// A spread above this is called noisy.
const NOISY: f64 = 0.1;
/// Repeats of a kernel in one sample at most.
const MOST_REPEATS: f64 = 2000.0;
/// The host's clock, in seconds.
pub(crate) const HOST_RESOLUTION: f64 = 1e-6;

/// How long one run takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Seconds of one run: median and spread of the rounds.
    #[serde(flatten)]
    pub summary: Summary,
    /// What they were read from.
    pub clock: Clock,
    /// Runs in one sample.
    pub repeats: usize,
    /// Why the number may be worth little.
    pub warnings: Vec<String>,
}

/// Something that is timed a round at a time.
pub struct Watch<'a> {
    /// Seconds of so many runs.
    time: Box<dyn FnMut(usize) -> Result<f64> + 'a>,
    clock: Clock,
    resolution: f64,
    budget: Budget,
    repeats: usize,
    guess: f64,
    /// Seconds of one run: for each round its least sample, since what other work on the machine adds is never
    /// negative.
    rounds: Vec<f64>,
}

impl<'a> Watch<'a> {
    /// Of `time`, which gives the seconds of so many runs. It is looked at once or twice, to find out how many runs a
    /// sample takes and to warm the caches.
    ///
    /// # Errors
    /// If `time` fails.
    pub fn new(
        mut time: impl FnMut(usize) -> Result<f64> + 'a,
        clock: Clock,
        resolution: f64,
        budget: Budget,
    ) -> Result<Self> {
        let once = time(1)?.max(1e-9);
        let fill = |seconds: f64| (budget.sample / seconds).clamp(1.0, MOST_REPEATS) as usize;
        // A single run of a short kernel is mostly start-up: the second look is at several.
        let guess = match fill(once) {
            1 => once,
            several => time(several)?.max(1e-9) / several as f64,
        };
        let (time, repeats) = (Box::new(time), fill(guess));
        Ok(Self { time, clock, resolution, budget, repeats, guess, rounds: Vec::new() })
    }

    /// By the device's clock.
    ///
    /// # Errors
    /// If the device fails.
    pub fn of_session(timer: &'a Timer, session: Session, budget: Budget) -> Result<Self> {
        Self::new(move |runs| timer.whole(&session, runs), timer.clock(), timer.resolution(), budget)
    }

    /// By the host's clock.
    ///
    /// # Errors
    /// None.
    pub fn of_host(mut run: impl FnMut() + 'a, budget: Budget) -> Result<Self> {
        let time = move |runs| {
            let start = Instant::now();
            (0..runs).for_each(|_| run());
            Ok(start.elapsed().as_secs_f64())
        };
        Self::new(time, Clock::Wall, HOST_RESOLUTION, budget)
    }

    /// Takes this round's samples, one at least.
    ///
    /// # Errors
    /// If the device fails.
    pub fn round(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut least = f64::INFINITY;
        while least.is_infinite() || start.elapsed().as_secs_f64() < self.budget.round {
            least = least.min((self.time)(self.repeats)? / self.repeats as f64);
        }
        self.rounds.push(least);
        Ok(())
    }

    /// Seconds of one run, as far as the rounds so far, or else the first looks, tell.
    pub fn seconds(&self) -> f64 {
        if self.rounds.is_empty() { self.guess } else { median(&self.rounds) }
    }

    /// What the first look says, for what is not worth another.
    pub fn first_look(&self) -> Timing {
        let warnings = vec!["once: many times slower than the preferred variant".to_string()];
        Timing { warnings, summary: Summary::of(&[self.guess]), clock: self.clock, repeats: 1 }
    }

    /// What the rounds say; there was one at least.
    pub fn timing(&self) -> Timing {
        let summary = Summary::of(&self.rounds);
        let warnings = warnings(&summary, self.repeats, self.resolution);
        Timing { warnings, summary, clock: self.clock, repeats: self.repeats }
    }
}

/// Why the number may be worth little, of samples of this many runs each.
pub(super) fn warnings(summary: &Summary, repeats: usize, resolution: f64) -> Vec<String> {
    let mut warnings = Vec::new();
    if summary.median * repeats as f64 <= LONG_ENOUGH * resolution {
        warnings.push("short: a sample is near the clock's resolution".to_string());
    }
    if summary.spread > NOISY {
        warnings.push("noisy: the middle half of the rounds is far apart; stop other work and run again".to_string());
    }
    warnings
}

/// A case's correctness and, if it is right, its watch.
pub struct Measured<'a> {
    /// `‖out − ref‖₂ / ‖ref‖₂`.
    pub relative_error: f64,
    /// What is wrong, if it is.
    pub fault: Option<String>,
    /// To time it by, if it is right.
    pub watch: Option<Watch<'a>>,
}

/// How a device runs a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The op's variant of that number.
    Variant(usize),
    /// The nodes that take the op's place in a network on this device
    /// ([`Graph::lowered`](crate::graph::Graph::lowered)).
    Lowered,
}

/// The case on a device.
///
/// # Errors
/// If the device cannot run the case, or fails.
pub async fn on_gpu<'a>(
    timer: &'a Timer,
    case: &Case,
    route: Route,
    storage: Storage,
    budget: Budget,
) -> Result<Measured<'a>> {
    let (gpu, check) = (timer.gpu(), Check::of_case(case, storage)?);
    let check::Checked { session, difference, fault } = match route {
        Route::Variant(variant) => check.variant(gpu, variant).await?,
        Route::Lowered => check.lowered(gpu).await?,
    };
    let watch = fault.is_none().then(|| Watch::of_session(timer, session, budget)).transpose()?;
    Ok(Measured { relative_error: difference.relative, fault, watch })
}

/// The reference itself, which is right by definition.
///
/// # Errors
/// If the case contradicts its op's shape rule.
pub fn on_cpu(case: &Case, budget: Budget) -> Result<Measured<'static>> {
    let inputs = case.tensors(1, DType::F32, DType::F32);
    let shape = case.op.output(&case.types())?.shape;
    let op = Arc::clone(&case.op);
    let run = move || drop(std::hint::black_box(op.reference(&inputs.iter().collect::<Vec<_>>(), &shape)));
    Ok(Measured { relative_error: 0.0, fault: None, watch: Some(Watch::of_host(run, budget)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { sample: 0.1, round: 0.0, rounds: 3 };

    fn timing(time: impl FnMut(usize) -> Result<f64>) -> Timing {
        let mut watch = Watch::new(time, Clock::Wall, 1e-6, BUDGET).unwrap();
        (0..BUDGET.rounds).for_each(|_| watch.round().unwrap());
        watch.timing()
    }

    #[test]
    fn a_short_run_is_repeated_until_a_sample_is_long() {
        let mut asked = Vec::new();
        let timing = timing(|repeats| {
            asked.push(repeats);
            Ok(0.001 * repeats as f64)
        });
        assert_eq!((timing.repeats, timing.summary.rounds), (100, 3));
        assert_eq!(asked, [1, 100, 100, 100, 100]);
        assert!((timing.summary.median - 0.001).abs() < 1e-12);
        assert!(timing.warnings.is_empty());
    }

    #[test]
    fn a_run_longer_than_a_round_is_run_once_a_round() {
        let mut runs = 0;
        let timing = timing(|_| {
            runs += 1;
            Ok(60.0)
        });
        assert_eq!((timing.repeats, runs), (1, 1 + BUDGET.rounds));
    }

    #[test]
    fn the_spread_is_that_between_rounds() {
        let mut now = 0.0;
        let drifting = timing(|_| {
            now += 1.0;
            Ok(now)
        });
        assert_eq!((drifting.summary.median, drifting.summary.spread), (3.0, 1.0 / 3.0));
        assert!(drifting.warnings[0].starts_with("noisy"));
    }

    #[test]
    fn a_run_at_the_resolution_is_called_short() {
        let watched = timing(|repeats| Ok(1e-9 * repeats as f64));
        assert!(watched.warnings[0].starts_with("short"));
    }
}
