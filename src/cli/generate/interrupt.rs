//! A call of the pipeline that Ctrl-C stops, with a progress bar on a terminal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::warn;
use crate::error::{Error, Result};
use crate::pipeline::{Event, Pictures};

/// Ctrl-C and its siblings (SIGTERM, SIGHUP): a flag that the pipeline looks at between submissions.
pub(super) struct Interrupt {
    pressed: Arc<AtomicBool>,
    /// Whether the pictures are there, and only remain to be written.
    done: Arc<Mutex<bool>>,
}

impl Interrupt {
    /// How long the pipeline has to look at the flag. One submission can take minutes on the CPU.
    const GRACE: Duration = Duration::from_secs(1);

    pub fn watch() -> Result<Self> {
        let interrupt = Self { pressed: Arc::default(), done: Arc::default() };
        let (pressed, done) = (Arc::clone(&interrupt.pressed), Arc::clone(&interrupt.done));
        let handler = ctrlc::set_handler(move || {
            pressed.store(true, Ordering::Relaxed);
            std::thread::sleep(Self::GRACE);
            // Held until the end of the process, so that no writing begins meanwhile.
            let done = done.lock().unwrap_or_else(|e| e.into_inner());
            if !*done {
                warn(&Error::Interrupted.to_string());
                std::process::exit(1);
            }
        });
        handler.map_err(|e| Error::device(format!("Ctrl-C cannot be handled: {e}")))?;
        Ok(interrupt)
    }

    /// Makes pictures with a progress bar on a terminal, until done or Ctrl-C, which is heeded again by the next call.
    pub fn unless_pressed(
        &self,
        make: impl FnOnce(&AtomicBool, &mut dyn FnMut(Event<'_>)) -> Result<Pictures>,
    ) -> Result<Pictures> {
        *self.done.lock().unwrap_or_else(|e| e.into_inner()) = false;
        let bar = ProgressBar::new(1).with_style(
            ProgressStyle::with_template("{bar:32} {pos}/{len} steps, {msg}, {eta} left")
                .unwrap_or(ProgressStyle::default_bar()),
        );
        let mut tell = |event: Event<'_>| match event {
            Event::Warning(text) => bar.suspend(|| warn(text)),
            Event::Step(done, all) => {
                bar.set_length(all as u64);
                bar.set_position(done as u64);
                bar.set_message(format!("{:.2} s a step", bar.elapsed().as_secs_f64() / done as f64));
            }
        };
        let pictures = make(&self.pressed, &mut tell);
        bar.finish_and_clear();
        *self.done.lock().unwrap_or_else(|e| e.into_inner()) = true;
        pictures
    }
}
