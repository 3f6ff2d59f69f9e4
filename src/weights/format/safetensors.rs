//! The header of a safetensors file: eight bytes with its length, JSON (name -> dtype, shape, range), and then the
//! data.

use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::{Header, Stored};
use crate::files::{Stranger, is_text, stranger};
use crate::tensor::{DType, Shape};

/// The types of elements that are read, and what they are here.
pub const TYPES: [(Dtype, DType); 7] = [
    (Dtype::F32, DType::F32),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::BF16),
    (Dtype::F8_E4M3, DType::F8E4M3),
    (Dtype::F8_E5M2, DType::F8E5M2),
    (Dtype::I64, DType::I64),
    (Dtype::I32, DType::I32),
];

/// What is said of files that hold PyTorch pickles.
pub const PICKLE: &str = "is a PyTorch pickle, which can run any code when it is read, so it is not";

/// How such a file becomes one that is.
const CONVERT: &str = "convert it in Python: `t = torch.load(FILE, map_location=\"cpu\", weights_only=True); \
     t = t.get(\"state_dict\", t); safetensors.torch.save_file({k: v.contiguous() for k, v in t.items() if \
     torch.is_tensor(v)}, \"model.safetensors\")`";

/// Reads the header of a safetensors file; an error says what is wrong with it.
pub fn parse(data: &[u8]) -> Result<Header, String> {
    let fail = |error| broken(data, &error);
    let (header, metadata) = SafeTensors::read_metadata(data).map_err(fail)?;
    let tensors = SafeTensors::deserialize(data).map_err(fail)?;
    let metadata = metadata.metadata().clone().unwrap_or_default();
    // Bytes behind the last tensor are an error of `deserialize`.
    let mut found = Header { metadata, end: Some(data.len()), ..Header::default() };
    for (name, view) in tensors.iter() {
        let known = TYPES.iter().find(|(stored, _)| *stored == view.dtype());
        let Some(&(_, dtype)) = known else {
            found.unknown.insert(name.to_string(), view.dtype().to_string());
            continue;
        };
        // The view borrows from `data`, so its distance from there is its place in the file.
        let start = view.data().as_ptr() as usize - data.as_ptr() as usize;
        debug_assert!(start >= 8 + header);
        let range = start..start + view.data().len();
        found.index.insert(name.to_string(), Stored { dtype, shape: Shape::new(view.shape()), range, blocks: None });
    }
    Ok(found)
}

/// Why these bytes are not a whole safetensors file, and what to do.
fn broken(bytes: &[u8], error: &SafeTensorError) -> String {
    let begins = |start: &[u8]| bytes.starts_with(start);
    if bytes.is_empty() {
        "is empty; download or export it again".into()
    } else if let Some(whole) = described_length(bytes).filter(|&whole| whole != bytes.len() as u64) {
        let size = bytes.len();
        let verdict = if whole > size as u64 { "is truncated" } else { "has bytes after its last tensor" };
        format!("{verdict}: its header describes {whole} bytes, there are {size}; download or export it again")
    } else if begins(b"PK\x03\x04") || begins(b"\x80") {
        format!("{PICKLE}; {CONVERT}")
    } else {
        match stranger(bytes) {
            Some(Stranger::LfsPointer) => {
                "is a git-lfs pointer, not the weights; run `git lfs pull` in its folder".into()
            }
            Some(Stranger::WebPage) => "is a web page, not safetensors; download it again".into(),
            Some(Stranger::Picture) => "is a picture, not a model's weights".into(),
            None if is_text(bytes) => "is not a safetensors file, but a text".into(),
            None => format!("is not a safetensors file ({error}); download or export it again"),
        }
    }
}

/// The length in bytes that a file with this header should have, where the header can be read so far.
fn described_length(bytes: &[u8]) -> Option<u64> {
    let header = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let data = header.checked_add(8)?;
    // A safetensors header is at most 100 MB and begins with a brace: anything else is another kind of file.
    if header > 100_000_000 || bytes.get(8) != Some(&b'{') {
        return None;
    }
    if data > bytes.len() as u64 {
        return Some(data);
    }
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..data as usize]).ok()?;
    let ends = header.as_object()?.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    data.checked_add(ends.max().unwrap_or(0))
}
