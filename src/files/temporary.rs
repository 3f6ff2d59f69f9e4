//! Files and folders that are not there in the end, unless they take another's name: not even if a signal ends the
//! program meanwhile, which first calls [`remove_temporaries`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use tempfile::Builder;

/// Those that there are now.
static PRESENT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A file or folder of a new name, removed when dropped.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// A file in `folder`, with the permissions that any new file gets.
    ///
    /// # Errors
    /// If none can be made there.
    pub fn file(folder: &Path) -> io::Result<(Self, File)> {
        let mut present = present();
        let (file, path) = builder(0o666).tempfile_in(folder)?.into_parts();
        let path = path.keep().map_err(|error| error.error)?;
        present.push(path.clone());
        Ok((Self(path), file))
    }

    /// The same, a folder.
    ///
    /// # Errors
    /// If none can be made there.
    pub fn folder(folder: &Path) -> io::Result<Self> {
        let mut present = present();
        let path = builder(0o777).tempdir_in(folder)?.keep();
        present.push(path.clone());
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it another name, under which it is removed in the end.
    ///
    /// # Errors
    /// If it cannot have that name; it is removed then.
    pub fn called(mut self, name: &Path) -> io::Result<Self> {
        let mut present = present();
        fs::rename(&self.0, name)?;
        present.iter_mut().filter(|path| **path == self.0).for_each(|path| *path = name.to_path_buf());
        self.0 = name.to_path_buf();
        drop(present);
        Ok(self)
    }

    /// Gives it the name under which it stays. A file that is there already is replaced.
    ///
    /// # Errors
    /// If it cannot have that name; it is removed then.
    pub fn rename(self, to: &Path) -> io::Result<()> {
        let mut present = present();
        let renamed = fs::rename(&self.0, to);
        if renamed.is_ok() {
            present.retain(|path| *path != self.0);
        }
        drop(present);
        renamed
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut present = present();
        if let Some(index) = present.iter().position(|path| *path == self.0) {
            remove(&present.swap_remove(index));
        }
    }
}

/// Removes all temporary files and folders. While the guard lives, no other is made and none gets its name: it is held
/// until the program ends.
pub fn remove_temporaries() -> impl Sized {
    let mut present = present();
    present.drain(..).for_each(|path| remove(&path));
    present
}

/// Does what [`remove_temporaries`] must not come between, in a few moments: changes to names, as in a temporary
/// folder.
pub fn unless_ending<T>(change: impl FnOnce() -> T) -> T {
    let _present = present();
    change()
}

fn present() -> MutexGuard<'static, Vec<PathBuf>> {
    PRESENT.lock().unwrap_or_else(|e| e.into_inner())
}

/// Nothing can be done about one that stays.
fn remove(path: &Path) {
    drop(fs::remove_file(path).or_else(|_| fs::remove_dir_all(path)));
}

fn builder(mode: u32) -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".ornstein-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<std::ffi::OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn what_gets_no_name_is_gone_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (file, _) = Temporary::file(folder.path()).unwrap();
        let inner = Temporary::folder(folder.path()).unwrap();
        fs::write(inner.path().join("a"), "x").unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        drop((file, inner));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn what_gets_a_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (file, _) = Temporary::file(folder.path()).unwrap();
        let gone = file.path().to_path_buf();
        file.rename(&folder.path().join("a")).unwrap();
        // Another's by now.
        fs::write(&gone, "x").unwrap();
        assert_eq!(names(folder.path()).len(), 2);
    }
}
