//! Single tensors in and out: what `forward` reads and writes, and latents.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::file::TensorFile;
use super::output::write_atomically;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Every tensor of a safetensors file by its name: the element type that it had there, and its values in f32.
/// Shapes are the file's own, PyTorch's `[B, C, H, W]` for pictures and latents.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, (DType, Tensor)>> {
    let file = TensorFile::open(path)?;
    let tensor = |name: &str| {
        let raw = file.get(name)?;
        Some((name.to_string(), (raw.dtype, Tensor::new(raw.shape.clone(), raw.to_f32()))))
    };
    Ok(file.names().filter_map(tensor).collect())
}

/// Writes the tensors as a safetensors file in f32, whole or not at all.
pub fn write_tensors(path: &Path, tensors: &[(&str, &Tensor)]) -> Result<()> {
    let fail = |error| Error::file(path, format!("cannot be written as safetensors: {error}"));
    let views = tensors.iter().map(|(name, tensor)| {
        let bytes = bytemuck::cast_slice(&tensor.data);
        Ok((*name, TensorView::new(Dtype::F32, tensor.shape.dims().to_vec(), bytes)?))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    // PyTorch's loaders look for this entry.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_atomically(path, &safetensors::serialize(views, Some(metadata)).map_err(fail)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latents.safetensors");
        let latents = Tensor::new([1, 2, 1, 3], vec![0.0, -1.5, f32::MIN_POSITIVE, 3e38, 1.0 / 3.0, 2.0]);
        let step = Tensor::new(Shape::default(), vec![981.0]);
        write_tensors(&path, &[("latents", &latents), ("step", &step)]).unwrap();
        let read = read_tensors(&path).unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["latents", "step"]);
        assert_eq!(read["latents"], (DType::F32, latents));
        assert_eq!(read["step"], (DType::F32, step));
    }
}
