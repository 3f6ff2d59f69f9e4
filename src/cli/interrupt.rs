//! The signals that end the program: SIGINT (Ctrl-C), SIGTERM and SIGHUP. Whatever it does at that moment, no file is
//! left half-written, and the exit status tells which signal it was.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::SIGINT;

use super::warn;
use crate::error::{Error, Result};
use crate::files::remove_temporaries;

/// Whether a signal came.
static PRESSED: AtomicBool = AtomicBool::new(false);

/// Which was the first.
static SIGNAL: AtomicI32 = AtomicI32::new(SIGINT);

/// Whether the work that is being done looks at [`PRESSED`].
static STOPPABLE: AtomicBool = AtomicBool::new(false);

/// How long such work has to stop by itself. One submission can take minutes on the CPU.
const GRACE: Duration = Duration::from_secs(1);

/// How long a reader of stderr has to take the last line.
const PATIENCE: Duration = Duration::from_millis(200);

/// Heeds signals from now on, in a thread of its own: the others may compute, or wait for a pipe.
pub(super) fn watch() -> Result<()> {
    let fail = |error: io::Error| Error::device(format!("signals cannot be handled: {error}"));
    let mut signals = signals().map_err(fail)?;
    let heed_all = move || signals.by_ref().for_each(heed);
    thread::Builder::new().name("signals".into()).spawn(heed_all).map(drop).map_err(fail)
}

/// Does work that stops by itself soon after the flag is set.
///
/// # Errors
/// Its own, and [`Error::Interrupted`] if a signal came meanwhile.
pub(super) fn stoppable<T>(work: impl FnOnce(&AtomicBool) -> Result<T>) -> Result<T> {
    STOPPABLE.store(true, Ordering::SeqCst);
    let done = work(&PRESSED);
    STOPPABLE.store(false, Ordering::SeqCst);
    if PRESSED.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { done }
}

fn heed(signal: i32) {
    let first = !PRESSED.load(Ordering::SeqCst);
    if !first {
        end();
    }
    SIGNAL.store(signal, Ordering::SeqCst);
    PRESSED.store(true, Ordering::SeqCst);
    let later = || {
        thread::sleep(GRACE);
        end()
    };
    if !STOPPABLE.load(Ordering::SeqCst) || thread::Builder::new().spawn(later).is_err() {
        end();
    }
}

/// Ends the program as the signal asked, without what was not finished.
pub(super) fn end() -> ! {
    // Held until the end, so that nothing is written any more; another thread that ends the program waits here.
    let _held = remove_temporaries();
    let (told, all_told) = mpsc::channel();
    let tell = move || {
        warn(&Error::Interrupted.to_string());
        _ = told.send(());
    };
    if thread::Builder::new().spawn(tell).is_ok() {
        // A pipe that nobody reads keeps the line, and whatever another thread is writing there.
        _ = all_told.recv_timeout(PATIENCE);
    }
    // Not `process::exit`, which takes apart what the other threads still use.
    signal_hook::low_level::exit(128 + SIGNAL.load(Ordering::SeqCst))
}

/// Each signal that comes, as it comes.
#[cfg(unix)]
fn signals() -> io::Result<impl Iterator<Item = i32> + Send> {
    use signal_hook::consts::{SIGHUP, SIGTERM, SIGXFSZ};
    use signal_hook::iterator::Signals;

    // Once it is handled, to write beyond the limit on file sizes is an error like others.
    signal_hook::flag::register(SIGXFSZ, std::sync::Arc::new(AtomicBool::new(false)))?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)))?;
    Ok(std::iter::from_fn(move || signals.forever().next()))
}

/// Whether the program was started with this signal ignored, as `nohup` does.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: without a new action the call only fills in `action`, for which all zeros are a value.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// The same where signals cannot be waited for.
#[cfg(not(unix))]
fn signals() -> io::Result<impl Iterator<Item = i32> + Send> {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use signal_hook::consts::{SIGBREAK, SIGTERM};

    let arrived = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM, SIGBREAK] {
        signal_hook::flag::register_usize(signal, Arc::clone(&arrived), signal as usize)?;
    }
    Ok(std::iter::from_fn(move || {
        loop {
            match arrived.swap(0, Ordering::SeqCst) {
                0 => thread::sleep(Duration::from_millis(50)),
                signal => return Some(signal as i32),
            }
        }
    }))
}
