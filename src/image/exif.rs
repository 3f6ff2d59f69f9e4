//! Text in EXIF's UserComment, where AUTOMATIC1111's web UI keeps a picture's parameters in JPEG and WebP files.

use std::io::Cursor;

use exif::experimental::Writer;
use exif::{Error, Field, In, Reader, Tag, Value};

/// What stands before a text: that it is in UTF-16, or in ASCII.
const UNICODE: &[u8; 8] = b"UNICODE\0";
const ASCII: &[u8; 8] = b"ASCII\0\0\0";

/// A block of EXIF with nothing but this text, as `piexif` writes it: UTF-16, the high byte first.
pub(super) fn with_comment(text: &str) -> Result<Vec<u8>, Error> {
    let units = text.encode_utf16().flat_map(u16::to_be_bytes);
    let comment = Field {
        tag: Tag::UserComment,
        ifd_num: In::PRIMARY,
        value: Value::Undefined(UNICODE.iter().copied().chain(units).collect(), 0),
    };
    let mut writer = Writer::new();
    writer.push_field(&comment);
    let mut block = Cursor::new(Vec::new());
    writer.write(&mut block, false)?;
    Ok(block.into_inner())
}

/// The text in a block of EXIF, if there is one that can be read.
pub(super) fn comment(block: Vec<u8>) -> Option<String> {
    // `piexif` leaves out where the next block would be, and the web UI writes with it.
    let mut reader = Reader::new();
    let block = reader.continue_on_error(true).read_raw(block).or_else(|error| error.distill_partial_result(|_| ()));
    let block = block.ok()?;
    let Value::Undefined(bytes, _) = &block.get_field(Tag::UserComment, In::PRIMARY)?.value else { return None };
    let (kind, text) = bytes.split_first_chunk::<8>()?;
    match kind {
        UNICODE => {
            // Some write the low byte first, as the block's numbers may be: no text begins with a control character.
            let little = !block.buf().starts_with(b"MM") && text.first().is_some_and(|first| *first != 0);
            let unit = |pair: &[u8]| match little {
                true => u16::from_le_bytes([pair[0], pair[1]]),
                false => u16::from_be_bytes([pair[0], pair[1]]),
            };
            String::from_utf16(&text.chunks_exact(2).map(unit).collect::<Vec<_>>()).ok()
        }
        ASCII => std::str::from_utf8(text).ok().map(String::from),
        _ => None,
    }
}
