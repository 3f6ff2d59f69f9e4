//! Receiving an answer's body: what is plainly not the file is refused before anything of it is written, and not one
//! byte more than the file has is.

use std::io::{self, ErrorKind, Read, Write};

use super::answer::{Span, WEB_PAGE};
use crate::files::{Stranger, stranger};

/// How large the file is.
#[derive(Debug, Clone, Copy)]
pub enum Size {
    /// The manifest says it.
    Exactly(u64),
    /// It is not known, but no file of its kind is larger.
    AtMost(u64),
}

/// Why a body is not received to its end.
#[derive(Debug)]
pub enum Stop {
    /// It is not the file.
    Refused(String),
    /// It is longer than the file; what was written is worthless.
    TooLong(String),
    /// It broke off when this many bytes of the file were there.
    Broken(u64, io::Error),
    /// It cannot be written here.
    Unwritable(io::Error),
}

/// This many bytes of a page or of a pointer tell what it is.
const FIRST: usize = 32;

/// Writes the body behind the bytes of the file before it, and says how many of the file are there then. `open` opens
/// the place for it, and is only called once there is something to write; `tell` is called with each count of bytes.
///
/// # Errors
/// [`Stop`] says why it ended.
pub fn receive<W: Write>(
    body: &mut dyn Read,
    span: Span,
    size: Size,
    open: impl FnOnce() -> io::Result<W>,
    tell: &mut dyn FnMut(u64),
) -> Result<u64, Stop> {
    let (Size::Exactly(most) | Size::AtMost(most)) = size;
    let limit = span.end.map_or(most, |end| end.min(most));
    let mut buffer = vec![0; 1 << 16];
    let mut done = span.from;
    let room = |done: u64| usize::try_from(limit.saturating_sub(done)).unwrap_or(usize::MAX);
    let (mut n, mut broken) = fill(body, &mut buffer[..FIRST.min(room(done))]);
    refuse(&buffer[..n], span, size, broken.is_none())?;
    let mut out = open().map_err(Stop::Unwritable)?;
    loop {
        out.write_all(&buffer[..n]).map_err(Stop::Unwritable)?;
        done += n as u64;
        tell(done);
        if let Some(error) = broken {
            return Err(Stop::Broken(done, error));
        }
        if n == 0 || done >= limit {
            break;
        }
        let until = buffer.len().min(room(done));
        (n, broken) = match read(body, &mut buffer[..until]) {
            Ok(n) => (n, None),
            Err(error) => (0, Some(error)),
        };
    }
    out.flush().map_err(Stop::Unwritable)?;
    let expected = span.end.or(if let Size::Exactly(bytes) = size { Some(bytes) } else { None });
    if expected.is_some_and(|expected| done < expected) {
        return Err(Stop::Broken(done, io::Error::new(ErrorKind::UnexpectedEof, "too early")));
    }
    // A connection that fails only now has brought all there is.
    if done >= limit && read(body, &mut [0]).is_ok_and(|n| n > 0) {
        return Err(Stop::TooLong(format!("goes on after {limit} bytes: it is not the file of the manifest")));
    }
    Ok(done)
}

/// What can be said against a body by its first bytes and its length.
fn refuse(first: &[u8], span: Span, size: Size, ended_well: bool) -> Result<(), Stop> {
    let refused = |what: String| Err(Stop::Refused(what));
    if span.from == 0 {
        match stranger(first) {
            Some(Stranger::WebPage) => return refused(format!("is {WEB_PAGE}")),
            Some(Stranger::LfsPointer) => {
                return refused("is a git-lfs pointer instead of the file: take another mirror (HF_ENDPOINT)".into());
            }
            _ => {}
        }
        if first.is_empty() && ended_well {
            return refused("is empty; try again later, or take another mirror (HF_ENDPOINT)".into());
        }
    }
    match (span.all.or(span.end), size) {
        (Some(says), Size::Exactly(wanted)) if says > wanted || span.all.is_some_and(|all| all != wanted) => {
            refused(format!("has {says} bytes, and the manifest's file {wanted}: it is another one"))
        }
        (Some(says), Size::AtMost(most)) if says > most => {
            refused(format!("has {says} bytes, and a file of its kind at most {most}: it is another one"))
        }
        _ => Ok(()),
    }
}

/// Reads until the buffer is full, the body ends, or it breaks.
fn fill(body: &mut dyn Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(body, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}

fn read(body: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match body.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written of a body, and what came of it.
    fn received(body: &mut dyn Read, span: Span, size: Size) -> (Vec<u8>, Result<u64, Stop>) {
        let mut written = Vec::new();
        let result = receive(body, span, size, || Ok(&mut written), &mut |_| {});
        (written, result)
    }

    fn whole(all: Option<u64>) -> Span {
        Span { from: 0, end: all, all }
    }

    fn refusal(body: &[u8], all: Option<u64>) -> String {
        match received(&mut &*body, whole(all), Size::Exactly(1000)) {
            (written, Err(Stop::Refused(why))) if written.is_empty() => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_endless_body_stops_at_the_files_size() {
        for size in [Size::Exactly(100_000), Size::AtMost(100_000)] {
            let (written, result) = received(&mut io::repeat(7), whole(None), size);
            assert_eq!(written.len(), 100_000);
            assert!(matches!(result, Err(Stop::TooLong(why)) if why.contains("after 100000 bytes")));
        }
    }

    #[test]
    fn a_range_is_not_left_behind_its_end() {
        let span = Span { from: 10, end: Some(20), all: Some(1000) };
        let (written, result) = received(&mut io::repeat(7), span, Size::Exactly(1000));
        assert_eq!(written.len(), 10);
        assert!(matches!(result, Err(Stop::TooLong(_))));
        let (_, result) = received(&mut io::repeat(7).take(10), span, Size::Exactly(1000));
        assert_eq!(result.unwrap(), 20);
    }

    #[test]
    fn a_body_that_ends_too_early_tells_how_far_it_came() {
        let (written, result) = received(&mut io::repeat(7).take(700), whole(Some(1000)), Size::Exactly(1000));
        assert!(written.len() == 700 && matches!(result, Err(Stop::Broken(700, _))));
        let (_, result) = received(&mut io::repeat(7).take(700), whole(None), Size::Exactly(1000));
        assert!(matches!(result, Err(Stop::Broken(700, _))));
        let (_, result) = received(&mut io::repeat(7).take(700), whole(None), Size::AtMost(1000));
        assert_eq!(result.unwrap(), 700);
    }

    #[test]
    fn what_is_plainly_not_the_file_is_named_and_not_written() {
        assert!(refusal(b" \n<!doctype HTML><title>Sign in</title>", Some(38)).contains("a web page"));
        assert!(refusal(b"version https://git-lfs.github.com/spec/v1\noid x", None).contains("a git-lfs pointer"));
        assert!(refusal(b"", None).contains("is empty"));
        assert!(refusal(b"abc", Some(3)).contains("has 3 bytes, and the manifest's file 1000"));
    }
}
