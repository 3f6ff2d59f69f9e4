//! A checkpoint in one file: what it is recognised as, its configurations, its tensors under the networks' names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ornstein::weights::Model;
use ornstein_fuzz::{look_at, with_file};

fuzz_target!(|data: &[u8]| {
    with_file("safetensors", data, |path| {
        if let Ok(model) = Model::open(path) {
            look_at(model);
        }
    });
});
