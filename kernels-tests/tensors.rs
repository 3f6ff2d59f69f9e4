//! Reference data: tensors of safetensors files as f32, channels-last, and as weights.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ornstein::tensor::{DType, RawTensor, Shape, Tensor, Weights};
use safetensors::{Dtype, SafeTensors};

/// A path below `kernels-tests/data`.
pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data").join(path)
}

/// The tensors of one safetensors file, as it stores them.
pub struct Tensors {
    path: PathBuf,
    tensors: HashMap<String, RawTensor<'static>>,
}

impl Tensors {
    pub fn read(path: &Path) -> Result<Self, String> {
        let place = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let bytes = std::fs::read(path).map_err(|e| place(&e))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| place(&e))?;
        let raw = |view: safetensors::tensor::TensorView| {
            let dtype = match view.dtype() {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::I64 => DType::I64,
                other => return Err(place(&format!("{other:?} is no reference's type"))),
            };
            let bytes = Cow::Owned(view.data().to_vec());
            Ok(RawTensor { dtype, shape: Shape::new(view.shape()), bytes })
        };
        let tensors = file.tensors().into_iter().map(|(name, view)| Ok((name, raw(view)?)));
        Ok(Self { path: path.to_path_buf(), tensors: tensors.collect::<Result<_, String>>()? })
    }

    /// The tensor of that name in f32; one of rank 4 channels-last.
    pub fn tensor(&self, name: &str) -> Result<Tensor, String> {
        let raw = self.tensors.get(name).ok_or_else(|| format!("{}: no {name}", self.path.display()))?;
        let tensor = Tensor::new(raw.shape.clone(), raw.to_f32());
        if tensor.shape.rank() == 4 { tensor.to_channels_last().map_err(|e| e.to_string()) } else { Ok(tensor) }
    }

    /// Every tensor, as [`Tensors::tensor`] gives it.
    pub fn all(&self) -> Result<Vec<(String, Tensor)>, String> {
        self.names().into_iter().map(|name| Ok((name.clone(), self.tensor(&name)?))).collect()
    }
}

impl Weights for Tensors {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        // transformers 5 writes a text encoder without this prefix, 4 with it.
        let short = || self.tensors.get(name.strip_prefix("text_model.")?);
        self.tensors.get(name).or_else(short).cloned()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.tensors.keys().cloned().collect();
        names.sort();
        names
    }
}
