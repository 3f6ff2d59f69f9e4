//! Writing files whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::Temporary;

/// Writes a file so that it is never seen half-written: into a new file beside it, which then takes its name. What is
/// there already and is not a regular file (a device, a pipe) is written directly.
///
/// # Errors
/// No such folder, no permission, no space: and then what was there before is still there, and nothing beside it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// The same of what `write` writes, little by little.
///
/// # Errors
/// As [`write_atomically`].
pub(super) fn write_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let written = match prepare(path)? {
        None => OpenOptions::new().append(true).open(path).and_then(|mut stream| {
            write(&mut stream)?;
            stream.flush()
        }),
        Some((beside, mut file, target)) => {
            write(&mut file).and_then(|()| file.sync_all()).and_then(|()| beside.rename(&target))
        }
    };
    written.map_err(|error| unwritable(path, &error))
}

/// The same errors before there is anything to write: so that an hour's work is not lost to a mistyped folder.
pub fn check_writable(path: &Path) -> Result<()> {
    prepare(path).map(drop)
}

/// A new file in the target's folder, open, and the target whose name it takes; `None` for what is written directly.
fn prepare(path: &Path) -> Result<Option<(Temporary, File, PathBuf)>> {
    let name_is_folder = path.as_os_str().to_string_lossy().ends_with(['/', std::path::MAIN_SEPARATOR]);
    if name_is_folder || path.file_name().is_none() {
        return Err(Error::file(path, "is not the name of a file; give one to write to"));
    }
    // `/dev/stdout` leads to whatever the shell opened, maybe a regular file, which must keep its identity.
    if ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"].iter().any(|stream| path.starts_with(stream)) {
        return Ok(None);
    }
    let existing = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => return Err(unwritable(path, &error)),
        metadata => metadata.ok(),
    };
    if let Some(metadata) = &existing {
        if metadata.is_dir() {
            return Err(Error::file(path, "is a folder; give the name of a file in it"));
        } else if !metadata.is_file() {
            return Ok(None);
        } else if metadata.permissions().readonly() {
            return Err(Error::file(path, "is write-protected; give another name or make it writable"));
        }
    }
    // The file behind a symbolic link is replaced, and the link stays.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        let what = format!("there is no folder {} to write into; create it first", folder.display());
        return Err(Error::file(path, what));
    }
    let (beside, file) = Temporary::file(folder).map_err(|error| unwritable(path, &error))?;
    if let Some(metadata) = existing {
        file.set_permissions(metadata.permissions()).map_err(|error| unwritable(path, &error))?;
    }
    Ok(Some((beside, file, target)))
}

/// The error of a file or folder that cannot be written, with what can be done about it.
pub fn unwritable(path: &Path, error: &io::Error) -> Error {
    let what = match error.kind() {
        io::ErrorKind::PermissionDenied => "may not be written; choose another folder or change its permissions".into(),
        io::ErrorKind::ReadOnlyFilesystem => "is on a read-only file system; choose another folder".into(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "no space left there; free some or choose another folder".into()
        }
        io::ErrorKind::FileTooLarge => {
            "is larger than the limit on file sizes (ulimit -f); raise it, or make something smaller".into()
        }
        io::ErrorKind::InvalidFilename => "is too long a name, or holds a character that may not be in one".into(),
        _ => format!("cannot be written: {error}"),
    };
    Error::file(path, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    fn message(path: &Path) -> String {
        let written = write_atomically(path, b"x").unwrap_err().to_string();
        assert_eq!(check_writable(path).unwrap_err().to_string(), written);
        written
    }

    #[test]
    fn a_file_is_written_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        assert!(message(&folder.path().join("no/a.png")).contains("to write into; create it first"));
        assert!(message(folder.path()).contains("is a folder"));
        assert!(message(&folder.path().join("a/")).contains("not the name of a file"));
        assert!(message(Path::new("")).contains("not the name of a file"));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn too_long_a_name_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(message(&folder.path().join("n".repeat(400))).contains("too long a name"));
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{PermissionsExt, symlink};

        use super::*;

        fn mode(path: &Path) -> u32 {
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        }

        #[test]
        fn a_new_file_has_the_permissions_of_any_new_file() {
            let folder = tempfile::tempdir().unwrap();
            let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
            write_atomically(&ours, b"x").unwrap();
            fs::File::create(&theirs).unwrap();
            assert_eq!(mode(&ours), mode(&theirs));
            fs::set_permissions(&theirs, fs::Permissions::from_mode(0o640)).unwrap();
            write_atomically(&theirs, b"x").unwrap();
            assert_eq!(mode(&theirs), 0o640);
        }

        #[test]
        fn a_write_protected_file_stays() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            fs::write(&path, b"kept").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
            assert!(message(&path).contains("write-protected"));
            assert_eq!(fs::read(&path).unwrap(), b"kept");
        }

        #[test]
        fn a_link_stays_and_its_file_is_replaced() {
            let folder = tempfile::tempdir().unwrap();
            let (file, link) = (folder.path().join("file"), folder.path().join("link"));
            fs::write(&file, b"old").unwrap();
            symlink("file", &link).unwrap();
            write_atomically(&link, b"new").unwrap();
            assert!(link.is_symlink());
            assert_eq!(fs::read(&file).unwrap(), b"new");
        }

        #[test]
        fn a_device_is_written_directly() {
            write_atomically(Path::new("/dev/null"), b"x").unwrap();
            assert!(!Path::new("/dev/null").is_file());
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn a_full_disk_says_so() {
            let error = write_atomically(Path::new("/dev/full"), b"x").unwrap_err().to_string();
            assert_eq!(error, "/dev/full: no space left there; free some or choose another folder");
        }
    }
}
