//! Paths that a terminal can open.

use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use supports_hyperlinks::Stream;

/// What stands in a URL's path as it is.
const AS_IT_IS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A path, as a link to its file where stdout is a terminal that knows those.
pub(super) fn linked(path: &Path) -> String {
    match std::path::absolute(path) {
        Ok(whole) if supports_hyperlinks::on(Stream::Stdout) => link(path, &whole),
        _ => path.display().to_string(),
    }
}

/// The escape sequence OSC 8.
fn link(path: &Path, whole: &Path) -> String {
    let whole = whole.to_string_lossy().replace('\\', "/");
    let place = utf8_percent_encode(whole.trim_start_matches('/'), AS_IT_IS);
    format!("\x1b]8;;file:///{place}\x1b\\{}\x1b]8;;\x1b\\", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_the_whole_path_and_shows_the_one_that_was_given() {
        let link = link(Path::new("a b.png"), Path::new("/tmp/x/a b.png"));
        assert_eq!(link, "\x1b]8;;file:///tmp/x/a%20b.png\x1b\\a b.png\x1b]8;;\x1b\\");
    }
}
