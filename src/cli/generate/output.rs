//! Where pictures go.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::image::Format;
use crate::weights::check_writable;

/// The files of one call's pictures.
pub(super) enum Names {
    /// What was asked for, which is written as it is.
    Asked(PathBuf),
    /// `<stem>-<seed>.<ending>` for each, the seeds counting up, and with a number behind that where there is such a
    /// file.
    MadeUp {
        /// With the folder, without the ending.
        stem: PathBuf,
        /// Of the name that was asked for, or png.
        ending: OsString,
        /// Of the first picture.
        seed: u64,
        /// That of its variation, which counts up instead: `<stem>-<seed>v<variation>.<ending>`.
        variation: Option<u64>,
    },
}

impl Names {
    /// For a batch of pictures; `line` is the number of their prompt in a file of several.
    pub fn new(asked: Option<&Path>, batch: usize, (seed, variation): (u64, Option<u64>), line: Option<&str>) -> Self {
        match (asked, batch, line) {
            (Some(path), 1, None) => Self::Asked(path.into()),
            _ => {
                let mut stem = asked.unwrap_or(Path::new("ornstein")).with_extension("").into_os_string();
                line.into_iter().for_each(|line| stem.push(format!("-{line}")));
                let ending = asked.and_then(Path::extension).unwrap_or(OsStr::new("png")).into();
                Self::MadeUp { stem: stem.into(), ending, seed, variation }
            }
        }
    }

    /// The file of the picture of this place in the batch, to be written now.
    pub fn path(&self, index: usize) -> Cow<'_, Path> {
        let (stem, ending, seed) = match self {
            Self::Asked(path) => return path.into(),
            Self::MadeUp { stem, ending, seed, variation: None } => {
                (stem, ending, seed.wrapping_add(index as u64).to_string())
            }
            Self::MadeUp { stem, ending, seed, variation: Some(variation) } => {
                (stem, ending, format!("{seed}v{}", variation.wrapping_add(index as u64)))
            }
        };
        let named = |number: u64| {
            let mut name = stem.clone().into_os_string();
            name.push(if number == 1 { format!("-{seed}.") } else { format!("-{seed}-{number}.") });
            name.push(ending);
            PathBuf::from(name)
        };
        // A link that leads nowhere is there too; a pipe waits for the picture.
        let is_there = |path: &PathBuf| path.symlink_metadata().is_ok_and(|file| file.is_file() || file.is_symlink());
        (1..).map(named).find(|path| !is_there(path)).unwrap_or_else(|| named(1)).into()
    }

    /// The file that was asked for.
    pub fn as_asked(&self) -> Option<&Path> {
        match self {
            Self::Asked(path) => Some(path),
            Self::MadeUp { .. } => None,
        }
    }

    /// Whether the first picture could be written.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check(&self) -> Result<()> {
        let path = self.path(0);
        if is_stdout(&path) { Ok(()) } else { check_writable(&path) }
    }
}

/// Refuses a name that does not say in which format the picture is to be written.
///
/// # Errors
/// If the name of a file ends in something else than a [`Format`].
pub(super) fn check_format(path: &Path) -> Result<()> {
    // Folders have an error of their own; a device or a pipe has any name.
    let is_no_file = path.metadata().is_ok_and(|file| !file.is_file()) || path.starts_with("/dev");
    if Format::of(path).is_some() || is_no_file || is_stdout(path) || path.file_name().is_none() {
        return Ok(());
    }
    let named = path.with_extension("png");
    let what = format!("--output {}: the name says the format, and", path.display());
    Err(Error::usage(format!("{what} .png, .jpg and .webp are known: name it {}", named.display())))
}

/// Whether this is standard output, which then holds nothing but the picture.
pub(super) fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_asked_for_is_taken_and_one_that_is_made_up_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let name = |asked: &str, batch, line| Names::new(Some(&at(asked)), batch, (7, None), line);
        assert_eq!(name("a.b.png", 1, None).path(0), at("a.b.png"));
        assert_eq!(name("a.b.png", 2, None).path(1), at("a.b-8.png"));
        assert_eq!(name("a.png", 1, Some("03")).path(0), at("a-03-7.png"));
        std::fs::write(at("a-7.png"), "").unwrap();
        std::fs::write(at("a-7-2.png"), "").unwrap();
        assert_eq!(name("a.png", 2, None).path(0), at("a-7-3.png"));
        assert_eq!(name("a-7.png", 1, None).path(0), at("a-7.png"));
        assert_eq!(name("a.jpg", 2, None).path(0), at("a-7.jpg"));
        assert_eq!(Names::new(None, 1, (5, None), None).path(0), Path::new("ornstein-5.png"));
        assert_eq!(Names::new(None, 2, (5, Some(8)), None).path(1), Path::new("ornstein-5v9.png"));
    }

    #[test]
    fn a_files_name_says_its_format() {
        for right in ["a.png", "A.PNG", "a.jpg", "a.jpeg", "a.webp", "-", "/dev/stdout", ".", "missing/a.png"] {
            assert!(check_format(Path::new(right)).is_ok(), "{right}");
        }
        for wrong in ["a.gif", "a", "a.png.txt", "folder.png/a"] {
            assert!(check_format(Path::new(wrong)).is_err(), "{wrong}");
        }
    }
}
