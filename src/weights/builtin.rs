//! The model inside the binary: the files of `assets/demo-model` that drawing a picture needs.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::file::TensorFile;
use super::files::{Files, within};
use crate::error::Result;

/// Its name in `weights-manifest.toml`.
pub const NAME: &str = "shapes";

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo-model/", $path)).as_slice())),*]
    };
}

/// Path inside the model's folder, and contents.
static FILES: &[(&str, &[u8])] = files![
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// The model's files.
pub(super) struct BuiltIn;

impl Files for BuiltIn {
    fn path(&self, path: &str) -> PathBuf {
        Path::new("built-in model").join(path)
    }

    fn has(&self, path: &str) -> bool {
        FILES.iter().any(|(name, _)| within(name, path).is_some())
    }

    fn bytes(&self, path: &str) -> Result<Option<Cow<'static, [u8]>>> {
        Ok(contents(path).map(Cow::Borrowed))
    }

    fn tensors(&self, path: &str) -> Result<TensorFile> {
        TensorFile::embedded(self.path(path), contents(path).unwrap_or_default())
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let inside = FILES.iter().filter_map(|(name, _)| within(name, folder));
        let names: BTreeSet<_> = inside.filter_map(|rest| rest.split('/').next()).filter(|n| !n.is_empty()).collect();
        names.into_iter().map(String::from).collect()
    }
}

fn contents(path: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes)
}
