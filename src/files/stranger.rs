//! Files of other kinds that lie where one of a model or a text is expected, told by their first bytes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What such a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// What git leaves of a large file whose contents were not pulled.
    LfsPointer,
    /// A site's answer that was saved under the file's name.
    WebPage,
    /// PNG, JPEG, GIF or WebP.
    Picture,
}

/// What a file with these first bytes is, if it is not one of a model's.
pub fn stranger(first: &[u8]) -> Option<Stranger> {
    if first.starts_with(b"version https://git-lfs") {
        return Some(Stranger::LfsPointer);
    }
    let is_webp = || first.starts_with(b"RIFF") && first.get(8..12) == Some(b"WEBP");
    if [&b"\x89PNG"[..], b"\xff\xd8\xff", b"GIF8"].iter().any(|start| first.starts_with(start)) || is_webp() {
        return Some(Stranger::Picture);
    }
    let text = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first).trim_ascii_start();
    let begins = |start: &[u8]| text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start));
    // Read as the length of a safetensors header, each of these is longer than a header may be; `<!` alone is not.
    let pages = [&b"<!doctype"[..], b"<!--", b"<html", b"<head", b"<?xml"];
    pages.into_iter().any(begins).then_some(Stranger::WebPage)
}

/// Whether there is a picture's file.
pub fn is_picture(path: &Path) -> bool {
    let mut first = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut first));
    read.is_ok() && stranger(&first) == Some(Stranger::Picture)
}

/// Whether a file that begins so holds text: nothing of its beginning is a control character or not UTF-8.
pub fn is_text(bytes: &[u8]) -> bool {
    let first = &bytes[..bytes.len().min(512)];
    // The last character may be cut.
    let whole = match std::str::from_utf8(first) {
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&first[..error.valid_up_to()]),
        text => text,
    };
    whole.is_ok_and(|text| !text.is_empty() && !text.contains(|c: char| c.is_control() && !c.is_whitespace()))
}

/// What a file is that begins so, of those that are taken for a text.
pub(super) fn not_text(first: &[u8]) -> Option<&'static str> {
    match first {
        _ if stranger(first) == Some(Stranger::Picture) => Some("is a picture"),
        [b'G', b'G', b'U', b'F', ..] => Some("is a GGUF file"),
        [_, _, _, _, 0, 0, 0, 0, b'{', ..] => Some("is a safetensors file"),
        [b'P', b'K', 3, 4, ..] => Some("is an archive"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_from_files_of_bytes() {
        let cut = format!("{}é", "x".repeat(511));
        for text in [&b"a red circle\r\n"[..], b"{\t}", "größer".as_bytes(), cut.as_bytes()] {
            assert!(is_text(text) && not_text(text).is_none(), "{text:?}");
        }
        for (bytes, what) in [
            (&b"\x89PNG\r\n\x1a\n"[..], Some("is a picture")),
            (b"\x08\0\0\0\0\0\0\0{}", Some("is a safetensors file")),
            (b"GGUF\x03\0", Some("is a GGUF file")),
            (b"PK\x03\x04", Some("is an archive")),
            (b"caf\xe9 noir", None),
            (b"", None),
        ] {
            assert!(!is_text(bytes) && not_text(bytes) == what, "{bytes:?}");
        }
    }

    #[test]
    fn pages_pointers_and_pictures_are_told_from_files() {
        for page in ["<!DOCTYPE html>", "\n <!doctype html>", "\u{feff}<HTML lang=en>", "<?xml version='1.0'?>"] {
            assert_eq!(stranger(page.as_bytes()), Some(Stranger::WebPage), "{page}");
        }
        for picture in [&b"\x89PNG\r\n"[..], b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x20\0\0\0WEBPVP8"] {
            assert_eq!(stranger(picture), Some(Stranger::Picture));
        }
        assert_eq!(stranger(b"version https://git-lfs.github.com/spec/v1"), Some(Stranger::LfsPointer));
        for file in [&b""[..], b"{}", b"#version: 0.2", b"GGUF", b"<!\0\0\0\0\0\0{", b"<"] {
            assert_eq!(stranger(file), None);
        }
    }
}
