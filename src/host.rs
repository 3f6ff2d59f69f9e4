//! The machine's own memory: asked before the CPU executor takes much of it. A process that takes too much is killed
//! by the system and cannot say why.
//!
//! Floor 0: may import floor 0.

use crate::error::{Error, Field, Remedy, Result};

/// Bytes that can be had without swapping, and no more than the container may have; `None` where the system does not
/// say.
pub fn available_memory() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let container = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
    Some(system.available_memory().min(container)).filter(|bytes| *bytes > 0)
}

/// Refuses what does not fit into this machine's memory, or exceeds a limit on the process (`ulimit -v`).
///
/// # Errors
/// One that calls the memory's user `what`.
pub fn check_memory(what: &str, bytes: u64) -> Result<()> {
    let mib = bytes.div_ceil(1 << 20);
    let refuse = |why: String| {
        let smaller = [Field::Width, Field::Height, Field::Batch].map(Remedy::Less);
        Err(Error::too_large(format!("{what} needs {mib} MiB of this machine's memory, {why}")).remedies(smaller))
    };
    match available_memory() {
        Some(available) if available < bytes => refuse(format!("and {} MiB are free", available >> 20)),
        _ if reserve(bytes).is_err() => refuse("which it does not grant this program".into()),
        _ => Ok(()),
    }
}

/// Asks for so many bytes and gives them back untouched.
fn reserve(bytes: u64) -> Result<(), ()> {
    let bytes = usize::try_from(bytes).map_err(drop)?;
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_is_refused_with_a_remedy() {
        assert!(check_memory("unet", 1 << 20).is_ok());
        for bytes in [1 << 50, u64::MAX] {
            let error = check_memory("unet", bytes).unwrap_err().to_string();
            assert!(
                error.starts_with("unet needs ") && error.ends_with("try a smaller width, height or batch"),
                "{error}"
            );
        }
    }
}
