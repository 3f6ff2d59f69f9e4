//! A textual inversion: its vectors for each encoder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ornstein::conditioning::Embedding;
use ornstein_fuzz::with_file;

fuzz_target!(|data: &[u8]| {
    with_file("safetensors", data, |path| {
        let Ok(embedding) = Embedding::read(path) else { return };
        assert!(!embedding.widths().is_empty());
        for (encoder, width) in [(0, 8), (1, 8), (0, 128), (1, 1280)] {
            let Some(vectors) = embedding.vectors(encoder, width) else { continue };
            assert_eq!(vectors.data.len(), vectors.shape.batch() * width);
        }
    });
});
