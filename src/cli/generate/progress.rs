//! A call of the pipeline that a signal stops, with a progress bar on a terminal.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::cli::{bar, flag, interrupt, warn};
use crate::error::Result;
use crate::systems::{Event, Keep, Made, Pictures};

/// How often what has no steps shows that it goes on.
const TICK: Duration = Duration::from_millis(120);
const STEPS: &str = "{bar:32} {pos}/{len} steps, {msg}";
/// Before the first step and after the last.
const OTHER: &str = "{spinner} {msg}, {elapsed}";

/// Makes pictures and keeps each, with a progress bar on a terminal, until done or stopped.
pub(super) fn shown(
    keep: &mut Keep<'_>,
    make: impl FnOnce(&AtomicBool, &mut (dyn FnMut(Event<'_>) + Send), &mut Keep<'_>) -> Result<Pictures>,
) -> Result<Pictures> {
    let bar = bar(1, OTHER).with_message("loading");
    bar.enable_steady_tick(TICK);
    let mut pace = Pace::default();
    let mut tell = |event: Event<'_>| match event {
        Event::Warning(text) => bar.suspend(|| warn(&text.said(flag))),
        Event::Step(done, all) if done == all => show(&bar, OTHER, "decoding".into()),
        Event::Step(done, all) => {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            show(&bar, STEPS, pace.told(Instant::now(), done, all));
        }
    };
    // What is kept may be told on the same terminal.
    let mut keep = |made: Made<'_>| bar.suspend(|| keep(made));
    let pictures = interrupt::stoppable(|pressed| make(pressed, &mut tell, &mut keep));
    bar.finish_and_clear();
    pictures
}

fn show(bar: &ProgressBar, template: &str, message: String) {
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar.set_message(message);
}

/// How long steps take, from the end of the first one on: what is loaded before it is not counted.
#[derive(Default)]
struct Pace(Option<(Instant, usize)>);

impl Pace {
    /// What is told when this many steps of all are done.
    fn told(&mut self, now: Instant, done: usize, all: usize) -> String {
        let (since, first) = *self.0.get_or_insert((now, done));
        if done <= first {
            return "the first one done".into();
        }
        let step = (now - since) / (done - first) as u32;
        let left = step * all.saturating_sub(done) as u32;
        format!("{:.2} s a step, {} left", step.as_secs_f64(), HumanDuration(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_counts_steps_alone() {
        let (begun, mut pace) = (Instant::now(), Pace::default());
        let at = |seconds| begun + Duration::from_secs(seconds);
        // A minute of loading is not a step.
        assert_eq!(pace.told(at(60), 1, 5), "the first one done");
        assert_eq!(pace.told(at(62), 2, 5), "2.00 s a step, 6 seconds left");
        assert_eq!(pace.told(at(64), 3, 5), "2.00 s a step, 4 seconds left");
    }
}
