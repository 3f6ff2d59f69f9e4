//! A call of the pipeline that a signal stops, with a progress bar on a terminal.

use std::sync::atomic::AtomicBool;

use crate::cli::{bar, flag, interrupt, warn};
use crate::error::Result;
use crate::systems::{Event, Keep, Made, Pictures};

/// Makes pictures and keeps each, with a progress bar on a terminal, until done or stopped.
pub(super) fn shown(
    keep: &mut Keep<'_>,
    make: impl FnOnce(&AtomicBool, &mut (dyn FnMut(Event<'_>) + Send), &mut Keep<'_>) -> Result<Pictures>,
) -> Result<Pictures> {
    let bar = bar(1, "{bar:32} {pos}/{len} steps, {msg}, {eta} left");
    let mut tell = |event: Event<'_>| match event {
        Event::Warning(text) => bar.suspend(|| warn(&text.said(flag))),
        Event::Step(done, all) => {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("{:.2} s a step", bar.elapsed().as_secs_f64() / done as f64));
        }
    };
    // What is kept may be told on the same terminal.
    let mut keep = |made: Made<'_>| bar.suspend(|| keep(made));
    let pictures = interrupt::stoppable(|pressed| make(pressed, &mut tell, &mut keep));
    bar.finish_and_clear();
    pictures
}
