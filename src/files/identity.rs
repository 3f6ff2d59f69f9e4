//! Whether two paths mean one file.

use std::fs;
use std::path::{Path, PathBuf};

/// What two paths of one file have in common, and those of two files do not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Of a file that is there: its device and its number on it.
    #[cfg(unix)]
    There(u64, u64),
    /// The whole path without links and `..`.
    Path(PathBuf),
}

/// Which file a path means, whether it is there or not.
pub fn identity(path: &Path) -> Identity {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if let Ok(metadata) = fs::metadata(path) {
            return Identity::There(metadata.dev(), metadata.ino());
        }
    }
    let new = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    let whole = fs::canonicalize(path).ok().or_else(new).or_else(|| std::path::absolute(path).ok());
    Identity::Path(whole.unwrap_or_else(|| path.to_path_buf()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_itself_however_it_is_spelled() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        for exists in [false, true] {
            if exists {
                fs::write(at("a"), "").unwrap();
            }
            assert_eq!(identity(&at("a")), identity(&at("./sub/../a")));
            assert_ne!(identity(&at("a")), identity(&at("sub/a")));
            assert_ne!(identity(&at("a")), identity(&at("b")));
        }
        assert_eq!(identity(Path::new("there-is-no-such-file")), identity(Path::new("./there-is-no-such-file")));
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "").unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        fs::hard_link(at("a"), at("hard")).unwrap();
        assert_eq!(identity(&at("a")), identity(&at("link")));
        assert_eq!(identity(&at("a")), identity(&at("hard")));
    }
}
