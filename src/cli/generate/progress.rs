//! A call of the pipeline that a signal stops, with a progress bar on a terminal.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::cli::{bar, flag, interrupt, tell, warn};
use crate::error::{Checking, Result, counted};
use crate::systems::{Event, Keep, Made, Pictures};

/// How often what has no steps shows that it goes on.
const TICK: Duration = Duration::from_millis(120);
/// How long a run that draws no bar says nothing.
const SILENCE: Duration = Duration::from_secs(30);
const STEPS: &str = "{bar:32} steps {pos}/{len}, {msg}";
/// Before the first step and after the last.
const OTHER: &str = "{spinner} {msg}, {elapsed}";

/// Makes pictures and keeps each, with a progress bar on a terminal, until done or stopped.
pub(super) fn shown(
    keep: &mut Keep<'_>,
    make: impl FnOnce(&AtomicBool, &mut (dyn FnMut(Event<'_>) + Send), &mut Keep<'_>) -> Result<Pictures>,
) -> Result<Pictures> {
    let bar = bar(1, OTHER).with_message("starting");
    bar.enable_steady_tick(TICK);
    let (mut pace, mut said) = (Pace::default(), Instant::now());
    // Without a terminal the bar is hidden, and a line is printed every [`SILENCE`] instead.
    let mut log = |line: String| {
        if bar.is_hidden() && said.elapsed() >= SILENCE {
            said = Instant::now();
            tell(&line);
        }
    };
    let mut report = |event: Event<'_>| match event {
        Event::Warning(text) => bar.suspend(|| warn(&text.said(flag))),
        Event::Step(done, all) => {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            let told = pace.told(Instant::now(), done, all);
            log(format!("{done} of {}, {told}", counted(all, "step")));
            show(&bar, STEPS, told);
        }
        other => {
            pace = Pace::default();
            log(doing(&other));
            show(&bar, OTHER, doing(&other));
        }
    };
    // What is kept may be printed on the same terminal.
    let mut keep = |made: Made<'_>| bar.suspend(|| keep(made));
    let pictures = interrupt::stoppable(|pressed| make(pressed, &mut report, &mut keep));
    bar.finish_and_clear();
    pictures
}

fn show(bar: &ProgressBar, template: &str, message: String) {
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar.set_message(message);
}

/// What is being done that has no steps.
fn doing(event: &Event<'_>) -> String {
    match event {
        Event::Loading(what) => format!("loading the {what}"),
        Event::Checking(Checking { nth, all, op }) => format!("checking kernel {nth} of {all}: {op}"),
        Event::Decoding(_, 1) => "decoding".into(),
        Event::Decoding(nth, all) => format!("decoding picture {nth} of {all}"),
        Event::Step(..) | Event::Warning(_) => "drawing".into(),
    }
}

/// How long steps take, from where they begin or go on: what is loaded before and between them is not counted.
#[derive(Default)]
struct Pace(Option<(Instant, usize)>);

impl Pace {
    /// What is shown when this many steps of all are done.
    fn told(&mut self, now: Instant, done: usize, all: usize) -> String {
        let (since, first) = *self.0.get_or_insert((now, done));
        if done >= all {
            return "all done".into();
        }
        if done <= first {
            return if done == 0 { "the first one is drawn" } else { "the next one is drawn" }.into();
        }
        let step = (now - since) / (done - first) as u32;
        let left = step * (all - done) as u32;
        let left = if left < Duration::from_secs(1) { "a moment".into() } else { HumanDuration(left).to_string() };
        format!("{:.2} s a step, {left} left", step.as_secs_f64())
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
        assert_eq!(pace.told(at(60), 0, 4), "the first one is drawn");
        assert_eq!(pace.told(at(62), 1, 4), "2.00 s a step, 6 seconds left");
        assert_eq!(pace.told(at(64), 2, 4), "2.00 s a step, 4 seconds left");
        assert_eq!(pace.told(at(68), 4, 4), "all done");
        // Others go on after a minute.
        let mut pace = Pace::default();
        assert_eq!(pace.told(at(128), 4, 6), "the next one is drawn");
        assert_eq!(pace.told(at(128) + Duration::from_millis(300), 5, 6), "0.30 s a step, a moment left");
        assert_eq!(Pace::default().told(at(0), 1, 1), "all done");
    }

    #[test]
    fn what_has_no_steps_is_named() {
        let kernel = Checking { nth: 3, all: 27, op: "conv2d" };
        for (event, wanted) in [
            (Event::Loading("UNet"), "loading the UNet"),
            (Event::Checking(kernel), "checking kernel 3 of 27: conv2d"),
            (Event::Decoding(1, 1), "decoding"),
            (Event::Decoding(2, 4), "decoding picture 2 of 4"),
        ] {
            assert_eq!(doing(&event), wanted);
        }
    }
}
