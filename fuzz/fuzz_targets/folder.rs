//! A model's folder in the diffusers layout: its index, its configurations, shards and what lists them.
#![no_main]

use std::fs;
use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use ornstein::weights::Model;
use ornstein_fuzz::{look_at, place, sections};

fuzz_target!(|text: &str| {
    let folder = place("folder");
    fs::create_dir_all(&folder).expect("a folder can be made");
    for (name, text) in sections(text) {
        // Names in the input are not what is tested: those that lead elsewhere are left out.
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if let (true, Some(parent)) = (inside, folder.join(name).parent()) {
            drop(fs::create_dir_all(parent).and_then(|()| fs::write(folder.join(name), text)));
        }
    }
    if let Ok(model) = Model::open(&folder) {
        look_at(model);
    }
    fs::remove_dir_all(&folder).expect("the folder can be removed");
});
