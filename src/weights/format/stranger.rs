//! Files of other kinds that lie where a model's file is expected, told by their first bytes.

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

#[cfg(test)]
mod tests {
    use super::*;

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
