//! The model inside the binary: the files of `assets/demo-model` that drawing a picture needs.

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

/// The contents of the file at `path`, if the binary holds it.
pub fn read(path: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes)
}

/// The folders of the model, each once, in order.
pub fn folders() -> impl Iterator<Item = &'static str> {
    let folders: std::collections::BTreeSet<_> =
        FILES.iter().filter_map(|(name, _)| Some(name.split_once('/')?.0)).collect();
    folders.into_iter()
}

/// Whether `path` is a file, or a folder that has files.
pub fn has(path: &str) -> bool {
    FILES.iter().any(|(name, _)| name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}
