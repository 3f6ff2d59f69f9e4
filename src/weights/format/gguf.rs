//! The header of a GGUF file: what tensors it has, and where.
//!
//! The format: magic and version, two counts, a table of keys and values, the tensors' names, dimensions (innermost
//! first), types and places, and then, aligned, the data. Everything is little-endian. Nothing is allocated by a
//! number that the file's own length does not bear out.
//!
//! Source: ggml's `docs/gguf.md`; ComfyUI-GGUF for `comfy.gguf.orig_shape`.

use std::collections::{BTreeMap, HashMap};

use super::{Blocks, Form, Header, Stored};
use crate::tensor::{DType, Shape};

pub const MAGIC: &[u8] = b"GGUF";

/// Where quantisers that know only matrices leave a convolution's dimensions.
const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";

/// What is read of a value. Longer lists than a shape are vocabularies, which nobody reads.
enum Value {
    Numbers(Vec<u64>),
    Text(String),
    Other,
}

/// Most dimensions of a tensor.
const MOST_DIMENSIONS: u32 = 8;

const ALIGNMENT_KEY: &str = "general.alignment";

/// Types of values.
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Reads the header; an error says what is wrong with it.
pub fn parse(data: &[u8]) -> Result<Header, String> {
    let mut rest = Reader { data, at: MAGIC.len() };
    let version = rest.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("is of GGUF version {version}; versions 2 and 3 are supported"));
    }
    let (tensors, keys) = (rest.u64()?, rest.u64()?);
    let mut values = HashMap::new();
    for _ in 0..keys {
        let key = rest.text()?;
        let kind = rest.u32()?;
        let value = rest.value(kind)?;
        if matches!(value, Value::Text(_)) || key == ALIGNMENT_KEY || key.starts_with(ORIGINAL_SHAPE) {
            values.insert(key, value);
        }
    }
    let info = |_| Ok((rest.text()?, rest.dims()?, rest.u32()?, rest.u64()?));
    let infos = (0..tensors).map(info).collect::<Result<Vec<_>, String>>()?;
    let alignment = match values.get(ALIGNMENT_KEY) {
        Some(Value::Numbers(n)) if n.len() == 1 && n[0].is_power_of_two() && n[0] <= 1 << 20 => n[0] as usize,
        None => 32,
        Some(_) => return Err("has an alignment that is not a power of two".into()),
    };
    let start = rest.at.next_multiple_of(alignment);
    let (mut index, mut unknown, mut last) = (BTreeMap::new(), BTreeMap::new(), start);
    for (name, dims, kind, offset) in infos {
        let Some((_, dtype, blocks)) = TYPES.into_iter().find(|(known, ..)| *known == kind) else {
            let called = OTHERS.iter().find(|(other, _)| *other == kind).map(|(_, name)| name.to_string());
            unknown.insert(name, called.unwrap_or_else(|| format!("ggml type {kind}")));
            continue;
        };
        let fail = |what: &str| format!("is truncated or damaged: its tensor {name} {what}; download it again");
        let len = dims.iter().try_fold(1usize, |len, n| len.checked_mul(*n)).ok_or_else(|| fail("is too large"))?;
        let (elements, size) = blocks.map_or((1, dtype.size()), |blocks| (blocks.elements(), blocks.bytes()));
        let row = dims.last().copied().unwrap_or(1);
        if row % elements != 0 {
            return Err(fail("has rows that are not whole blocks"));
        }
        let begin = usize::try_from(offset).ok().and_then(|offset| start.checked_add(offset));
        let end = begin.zip((len / elements).checked_mul(size)).and_then(|(begin, bytes)| begin.checked_add(bytes));
        let range = begin.zip(end).filter(|(_, end)| *end <= data.len());
        let (begin, end) = range.ok_or_else(|| fail("lies beyond the end of the file"))?;
        let shape = original_shape(&values, &name, len).unwrap_or(dims);
        last = last.max(end);
        index.insert(name, Stored { dtype, shape: Shape::new(shape), range: begin..end, blocks });
    }
    let texts = values.into_iter().filter_map(|(key, value)| match value {
        Value::Text(text) => Some((key, text)),
        Value::Numbers(_) | Value::Other => None,
    });
    let end = unknown.is_empty().then(|| last.next_multiple_of(alignment));
    Ok(Header { index, unknown, metadata: texts.collect(), end })
}

/// The ggml types that are known: what their elements are read as, and their blocks if they have any.
const TYPES: [(u32, DType, Option<Blocks>); 18] = [
    (0, DType::F32, None),
    (1, DType::F16, None),
    (26, DType::I32, None),
    (27, DType::I64, None),
    (30, DType::BF16, None),
    (2, DType::F32, Some(Blocks::Q4_0)),
    (3, DType::F32, Some(Blocks::Q4_1)),
    (6, DType::F32, Some(Blocks::Q5_0)),
    (7, DType::F32, Some(Blocks::Q5_1)),
    (8, DType::F32, Some(Blocks::Q8_0)),
    (10, DType::F32, Some(Blocks::Q2K)),
    (11, DType::F32, Some(Blocks::Q3K)),
    (12, DType::F32, Some(Blocks::Q4K)),
    (13, DType::F32, Some(Blocks::Q5K)),
    (14, DType::F32, Some(Blocks::Q6K)),
    (15, DType::F32, Some(Blocks::Q8K)),
    (20, DType::F32, Some(Blocks::Iq4Nl)),
    (23, DType::F32, Some(Blocks::Iq4Xs)),
];

/// What people call the others.
const OTHERS: [(u32, &str); 14] = [
    (9, "q8_1"),
    (16, "iq2_xxs"),
    (17, "iq2_xs"),
    (18, "iq3_xxs"),
    (19, "iq1_s"),
    (21, "iq3_s"),
    (22, "iq2_s"),
    (24, "i8"),
    (25, "i16"),
    (28, "f64"),
    (29, "iq1_m"),
    (34, "tq1_0"),
    (35, "tq2_0"),
    (39, "mxfp4"),
];

fn original_shape(values: &HashMap<String, Value>, name: &str, len: usize) -> Option<Vec<usize>> {
    let Value::Numbers(dims) = values.get(&format!("{ORIGINAL_SHAPE}{name}"))? else { return None };
    let dims: Vec<usize> = dims.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<_>>()?;
    let product = dims.iter().try_fold(1usize, |product, n| product.checked_mul(*n))?;
    (product == len).then_some(dims)
}

/// Bytes between whole tensors.
const ALIGNMENT: usize = 32;

/// Zeros behind a tensor of so many bytes.
pub fn padding(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT) - bytes
}

/// The header of a file with these texts and tensors, up to where the data begins: each tensor's, with its padding.
pub fn header<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>, tensors: &[(&str, &Shape, Form)]) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let mut texts: Vec<_> = texts.filter(|(key, _)| *key != "general.architecture").collect();
    texts.push(("general.architecture", "sd"));
    texts.sort_unstable();
    let counts = [tensors.len(), texts.len()].map(|count| (count as u64).to_le_bytes());
    let mut out = [MAGIC, &3u32.to_le_bytes(), &counts.concat()].concat();
    for (key, value) in texts {
        text(&mut out, key);
        out.extend(TEXT.to_le_bytes());
        text(&mut out, value);
    }
    let mut offset = 0;
    for (name, shape, form) in tensors {
        text(&mut out, name);
        out.extend((shape.rank() as u32).to_le_bytes());
        shape.dims().iter().rev().for_each(|n| out.extend((*n as u64).to_le_bytes()));
        out.extend(kind(*form).to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        let bytes = form.bytes(shape.len());
        offset += bytes + padding(bytes);
    }
    out.resize(out.len() + padding(out.len()), 0);
    out
}

/// The ggml type of what is written.
fn kind(form: Form) -> u32 {
    let wanted = match form {
        Form::Plain(dtype) => (dtype, None),
        Form::Blocks(blocks) => (DType::F32, Some(blocks)),
    };
    TYPES.into_iter().find(|(_, dtype, blocks)| (*dtype, *blocks) == wanted).map_or(0, |(kind, ..)| kind)
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8], String> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        let bytes = end.and_then(|end| self.data.get(self.at..end));
        let bytes = bytes.ok_or("is truncated: it ends within its header; download it again")?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn number(&mut self, bytes: u64) -> Result<u64, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(self.number(4)? as u32)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.number(8)
    }

    fn text(&mut self) -> Result<String, String> {
        let len = self.u64()?;
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    /// A tensor's dimensions in PyTorch's order, outermost first.
    fn dims(&mut self) -> Result<Vec<usize>, String> {
        let rank = self.u32()?;
        if rank > MOST_DIMENSIONS {
            return Err(format!("is damaged: it has a tensor of {rank} dimensions; download it again"));
        }
        let dim = |_| Ok(usize::try_from(self.u64()?).unwrap_or(usize::MAX));
        let mut dims = (0..rank).map(dim).collect::<Result<Vec<_>, String>>()?;
        dims.reverse();
        Ok(dims)
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        match kind {
            TEXT => Ok(Value::Text(self.text()?)),
            LIST => {
                let (kind, count) = (self.u32()?, self.u64()?);
                if kind == TEXT {
                    for _ in 0..count {
                        let len = self.u64()?;
                        self.take(len)?;
                    }
                    return Ok(Value::Other);
                }
                let size = size(kind)?;
                let bytes = self.take(count.saturating_mul(size))?;
                if count > u64::from(MOST_DIMENSIONS) {
                    return Ok(Value::Other);
                }
                let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
                Ok(Value::Numbers(bytes.chunks_exact(size as usize).map(number).collect()))
            }
            _ => Ok(Value::Numbers(vec![self.number(size(kind)?)?])),
        }
    }
}

/// Bytes of a value of fixed size.
fn size(kind: u32) -> Result<u64, String> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(format!("is damaged: it has a value of type {kind}; download it again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one tensor, with what stands before its data cut at every length.
    fn file(kind: u32, dims: &[u64], data: usize) -> Vec<u8> {
        let mut bytes = [MAGIC, &3u32.to_le_bytes(), &1u64.to_le_bytes(), &0u64.to_le_bytes()].concat();
        bytes.extend([&1u64.to_le_bytes()[..], b"x", &(dims.len() as u32).to_le_bytes()].concat());
        dims.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
        bytes.extend([&kind.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
        bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
        bytes
    }

    #[test]
    fn dimensions_are_turned_round() {
        let header = parse(&file(8, &[64, 3], 6 * 34)).unwrap();
        let entry = &header.index["x"];
        assert_eq!((entry.shape.dims(), entry.blocks, entry.range.len()), (&[3, 64][..], Some(Blocks::Q8_0), 6 * 34));
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let whole = file(1, &[4], 8);
        assert!(parse(&whole).is_ok());
        for length in MAGIC.len()..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn what_contradicts_the_files_length_is_refused() {
        for (kind, dims) in [(0, vec![u64::MAX, 2]), (0, vec![1 << 40]), (8, vec![33]), (0, vec![1; 9])] {
            assert!(parse(&file(kind, &dims, 34)).is_err(), "{dims:?}");
        }
        assert_eq!(parse(&file(17, &[256], 74)).unwrap().unknown["x"], "iq2_xs");
        assert_eq!(parse(&file(99, &[256], 84)).unwrap().unknown["x"], "ggml type 99");
    }

    #[test]
    fn lists_that_are_no_shapes_are_not_kept() {
        const LIST: u32 = 9;
        let list = |kind: u32, count: u64, each: &[u8]| {
            [&kind.to_le_bytes()[..], &count.to_le_bytes(), &each.repeat(count as usize)].concat()
        };
        for (kind, each, most) in [(0, &[1][..], 8), (5, &[1, 0, 0, 0][..], 8), (8, &[0; 8][..], 0)] {
            for count in [8, 9, 100_000] {
                let data = list(kind, count, each);
                let mut reader = Reader { data: &data, at: 0 };
                let kept = matches!(reader.value(LIST).unwrap(), Value::Numbers(n) if n.len() as u64 == count);
                assert_eq!((kept, reader.at), (count <= most, data.len()), "type {kind}, {count}");
            }
        }
    }

    #[test]
    fn a_count_that_no_file_has_ends_with_the_file() {
        let counts = |tensors: u64, keys: u64| {
            [MAGIC, &3u32.to_le_bytes(), &tensors.to_le_bytes(), &keys.to_le_bytes(), &[0; 64]].concat()
        };
        assert!(parse(&counts(u64::MAX, 0)).is_err());
        assert!(parse(&counts(0, u64::MAX)).is_err());
        assert!(parse(&[MAGIC, &1u32.to_le_bytes()].concat()).unwrap_err().contains("version 1"));
    }
}
