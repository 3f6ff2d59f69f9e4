//! A GGUF file: every tensor of it as numbers, its blocks taken apart, and the file written anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ornstein::weights::{Encoding, Model, convert, read_tensors};
use ornstein_fuzz::{look_at, place, with_file};

fuzz_target!(|data: &[u8]| {
    with_file("gguf", data, |path| {
        let Ok(tensors) = read_tensors(path) else { return };
        let again = place("again.gguf");
        convert(path, &again, Encoding::Q4_0).expect("what can be read can be written");
        let written = read_tensors(&again).expect("what was written can be read");
        std::fs::remove_file(&again).expect("it can be removed");
        for (name, (_, tensor)) in &tensors {
            assert_eq!(tensor.shape, written[name].1.shape, "{name}");
        }
        if let Ok(model) = Model::open(path) {
            look_at(model);
        }
    });
});
