//! What the fuzz targets share: inputs as files, and looks at all that a model's files hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use ornstein::inspect::{inspect, verify};
use ornstein::systems::{Studio, Request};
use ornstein::tensor::{BlockLayout, Weights};
use ornstein::weights::Model;

/// A place of this process alone, in memory where there is such a place.
pub fn place(name: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    folder.join(format!("ornstein-fuzz-{}-{name}", process::id()))
}

/// Shows `look` the input as a file with this ending.
pub fn with_file<R>(ending: &str, data: &[u8], look: impl FnOnce(&Path) -> R) -> R {
    let path = place(&format!("input.{ending}"));
    fs::write(&path, data).expect("the input can be written");
    let result = look(&path);
    fs::remove_file(&path).expect("the input can be removed");
    result
}

/// An input of several files: each after a line `=== NAME`.
pub fn sections(text: &str) -> Vec<(&str, &str)> {
    let parts = text.split("=== ").skip(1);
    parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).map(|(name, text)| (name.trim(), text)).collect()
}

/// Opens every network that the model has: its configuration as a graph, its tensors, and what `generate` would make
/// of all together.
pub fn look_at(model: Model) {
    drop(inspect(&model));
    drop(verify(&model, &mut |_| {}));
    for component in ["unet", "vae", "text_encoder", "text_encoder_2", "controlnet"] {
        if let Ok(weights) = model.weights(component) {
            read_all(&weights);
        }
    }
    if let Ok(pipeline) = Studio::open(model) {
        drop(pipeline.settings(&Request { batch: 1, ..Request::default() }));
    }
}

/// Reads every tensor as numbers, and in blocks where it is kept so: each must have as many as its shape says.
pub fn read_all(weights: &impl Weights) {
    for name in weights.names() {
        let tensor = weights.get(&name).expect("a tensor of that name");
        let elements = tensor.shape.len();
        assert_eq!(tensor.to_f32().len(), elements, "{name}");
        assert_eq!(weights.shape(&name).as_ref(), Some(&tensor.shape), "{name}");
        let Some(BlockLayout { bits, block, minimum }) = weights.layout(&name) else { continue };
        let parts = weights.quantized(&name).expect("a tensor with a layout has blocks");
        assert_eq!(parts.quants.len(), elements * bits / 8, "{name}");
        assert_eq!(parts.scales.len(), elements / block, "{name}");
        assert_eq!(parts.minima.len(), if minimum { elements / block } else { 0 }, "{name}");
    }
}
