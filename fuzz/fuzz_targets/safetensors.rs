//! A safetensors file: every tensor of it as numbers, and the file written anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ornstein::weights::{Encoding, convert, read_tensors};
use ornstein_fuzz::{place, with_file};

fuzz_target!(|data: &[u8]| {
    with_file("safetensors", data, |path| {
        let Ok(tensors) = read_tensors(path) else { return };
        let again = place("again.safetensors");
        convert(path, &again, Encoding::F16).expect("what can be read can be written");
        let written = read_tensors(&again).expect("what was written can be read");
        std::fs::remove_file(&again).expect("it can be removed");
        assert!(tensors.keys().eq(written.keys()));
    });
});
