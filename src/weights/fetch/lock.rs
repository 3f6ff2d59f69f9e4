//! One process at a time fetches a model.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use crate::error::Result;
use crate::weights::model::LOCK;
use crate::weights::output::unwritable;

/// Makes the folder and locks it until what is returned is dropped, by an empty file in it ([`LOCK`]). That stays; the
/// lock is the system's and goes with its process, however that ends. `waits` is called once if another process has
/// the lock. `None` stands for a folder that cannot be locked, since nothing can be written there or its file system
/// knows no locks: what is whole there can be used all the same.
///
/// # Errors
/// If there is no such folder and none can be made.
pub fn lock(folder: &Path, waits: impl FnOnce()) -> Result<Option<File>> {
    fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    let Ok(file) = File::options().create(true).append(true).open(folder.join(LOCK)) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => return Ok(Some(file)),
        Err(TryLockError::WouldBlock) => waits(),
        Err(TryLockError::Error(_)) => return Ok(None),
    }
    loop {
        match file.lock() {
            Ok(()) => return Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path(), || panic!("it waits for nobody")).unwrap().unwrap();
        let (waits, told) = channel();
        let path = folder.path().to_path_buf();
        let second = std::thread::spawn(move || lock(&path, || waits.send(()).unwrap()).unwrap().is_some());
        told.recv().unwrap();
        drop(first);
        assert!(second.join().unwrap());
        assert_eq!(fs::metadata(folder.path().join(LOCK)).unwrap().len(), 0);
    }
}
