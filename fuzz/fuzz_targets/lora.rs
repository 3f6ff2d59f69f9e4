//! A LoRA file, merged into every tensor of the built-in model that it changes.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ornstein::tensor::Weights;
use ornstein::weights::{Changes, Lora, LoraFile, Model};
use ornstein_fuzz::with_file;

fuzz_target!(|data: &[u8]| {
    with_file("safetensors", data, |path| {
        let Ok(file) = LoraFile::open(path) else { return };
        let model = Model::builtin();
        let Ok(changes) = Changes::of(&model, &[Lora { file: Arc::new(file), unet: 0.7, text: -0.3 }]) else { return };
        for component in ["unet", "text_encoder"] {
            if changes.files(component).is_empty() {
                continue;
            }
            let merged = changes.merged(component, model.weights(component).expect("the model has it"));
            for name in merged.names() {
                let tensor = merged.get(&name).expect("a tensor of that name");
                assert_eq!(tensor.to_f32().len(), tensor.shape.len(), "{name}");
            }
        }
    });
});
