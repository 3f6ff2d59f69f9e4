//! Reading whole files. A device or a pipe may give bytes for ever, so there is a limit to each.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::text::text_of;
use crate::error::{Error, Result};

/// The most bytes of a text: prompts, configurations, vocabularies, shaders.
pub const TEXT: u64 = 64 << 20;

/// The most bytes of a picture, and of tensors that are not in a regular file.
pub const DATA: u64 = 256 << 20;

/// All bytes of a file, a pipe or a device, if there are at most `most`.
///
/// # Errors
/// If it cannot be read, or holds more.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    read_from(file, path, most)
}

/// The same of what is open; `place` is what messages call it.
///
/// # Errors
/// As [`read`].
pub fn read_from(reader: impl Read, place: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A byte more tells that there is more.
    reader.take(most + 1).read_to_end(&mut bytes).map_err(|error| unreadable(place, &error))?;
    if bytes.len() as u64 > most {
        return Err(Error::file(place, format!("holds more than {} MiB, the most that is read of it", most >> 20)));
    }
    Ok(bytes)
}

/// A text file.
///
/// # Errors
/// If it cannot be read, holds more than [`TEXT`] bytes, or is not text.
pub fn read_text(path: &Path) -> Result<String> {
    read_text_of(path, "text")
}

/// The same; `wanted` is what its text should be, for a message where it is a picture or a model's file.
///
/// # Errors
/// As [`read_text`].
pub fn read_text_of(path: &Path, wanted: &str) -> Result<String> {
    text_of(path, read(path, TEXT)?, wanted)
}

/// The error of a file or folder that cannot be read, with what can be done about it.
pub fn unreadable(path: &Path, error: &io::Error) -> Error {
    match (error.kind(), std::fs::read_link(path)) {
        (io::ErrorKind::NotFound, Ok(target)) => {
            let target = target.display();
            Error::file(path, format!("is a link to {target}, which is not there; download what it leads to again"))
        }
        (io::ErrorKind::NotFound, _) => Error::file(path, "no such file or folder; check the path"),
        (io::ErrorKind::PermissionDenied, _) => Error::file(path, "may not be read; change its permissions"),
        (io::ErrorKind::IsADirectory, _) => Error::file(path, "is a folder where a file is expected"),
        _ => Error::file(path, format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_read_up_to_the_limit() {
        let endless = |most| read_from(io::repeat(0), Path::new("pipe"), most);
        let error = endless(1 << 20).unwrap_err().to_string();
        assert_eq!(error, "pipe: holds more than 1 MiB, the most that is read of it");
        assert_eq!(read_from(&[7; 9][..], Path::new("pipe"), 9).unwrap(), [7; 9]);
        assert!(read_from(&[7; 9][..], Path::new("pipe"), 8).is_err());
    }

    #[test]
    fn a_folder_and_what_is_not_there_are_no_texts() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| read_text(path).unwrap_err().to_string();
        assert!(message(&folder.path().join("a")).contains("no such file or folder"));
        if cfg!(unix) {
            assert!(message(folder.path()).contains("is a folder"));
        }
    }
}
