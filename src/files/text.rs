//! Text from files and pipes: in UTF-8, or in UTF-16 with a byte order mark, as Notepad and PowerShell's `>` write it.
//! The mark is not part of the text.

use std::path::Path;

use super::stranger::not_text;
use crate::error::{Error, Result};

/// The text of these bytes; `place` is what messages call their file.
///
/// # Errors
/// If they are not text, with what to do.
pub fn text(place: &Path, bytes: Vec<u8>) -> Result<String> {
    text_of(place, bytes, "text")
}

/// The same; `wanted` is what the text should be, for a message where the bytes are of another kind of file.
///
/// # Errors
/// As [`text`].
pub fn text_of(place: &Path, bytes: Vec<u8>, wanted: &str) -> Result<String> {
    if let Some(what) = not_text(&bytes) {
        return Err(Error::file(place, format!("{what}; expected {wanted}")));
    }
    decode(bytes).map_err(|what| Error::file(place, what))
}

fn decode(mut bytes: Vec<u8>) -> Result<String, &'static str> {
    const UTF8: &str = "is not text in UTF-8; save it again in that encoding";
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes[2..].as_chunks();
        let units: Vec<u16> = units.iter().map(|pair| unit(*pair)).collect();
        let text = String::from_utf16(&units).ok().filter(|_| rest.is_empty());
        text.ok_or("begins as text in UTF-16, but is not; save it again as UTF-8")
    };
    match *bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, ..] => {
            bytes.drain(..3);
            String::from_utf8(bytes).map_err(|_| UTF8)
        }
        _ => String::from_utf8(bytes).map_err(|_| UTF8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        assert_eq!(decode(b"\xef\xbb\xbfa\r\nb".to_vec()).unwrap(), "a\r\nb");
        assert_eq!(decode("a\u{feff}b".into()).unwrap(), "a\u{feff}b");
        assert_eq!(decode(Vec::new()).unwrap(), "");
    }

    #[test]
    fn utf_16_of_either_order_is_text() {
        let units = "\u{feff}é 🎨".encode_utf16();
        let (little, big): (Vec<_>, Vec<_>) = units.map(|unit| (unit.to_le_bytes(), unit.to_be_bytes())).unzip();
        assert_eq!(decode(little.concat()).unwrap(), "é 🎨");
        assert_eq!(decode(big.concat()).unwrap(), "é 🎨");
    }

    #[test]
    fn what_is_no_text_says_how_to_save_it() {
        assert!(decode(b"caf\xe9".to_vec()).unwrap_err().contains("not text in UTF-8; save it"));
        for broken in [&b"\xff\xfea"[..], b"\xff\xfe\x00\xd8", b"\xfe\xff\xd8\x00a\0"] {
            assert!(decode(broken.to_vec()).unwrap_err().contains("UTF-16, but is not; save it again as UTF-8"));
        }
    }
}
