//! The floors of the house: a module imports only from floors below its own, and each outside crate has one door.

use std::path::Path;

use libtest_mimic::{Failed, Trial};

use crate::support::test;

const FLOORS: &[(&str, u32)] = &[
    ("cli", 5),
    ("main", 5),
    ("lib", 5),
    ("pipeline", 4),
    ("lab", 4),
    ("components", 4),
    ("conditioning", 4),
    ("forward", 4),
    ("inspect", 4),
    ("network", 4),
    ("gpu", 3),
    ("models", 3),
    ("weights", 3),
    ("tokenizer", 3),
    ("samplers", 3),
    ("image", 3),
    ("graph", 2),
    ("ops", 1),
    ("tensor", 0),
    ("pack", 0),
    ("caps", 0),
    ("cache", 0),
    ("files", 0),
    ("host", 0),
    ("prompt", 0),
    ("rng", 0),
    ("error", 0),
];

/// Crates and the modules that may name them.
const DOORS: &[(&str, &[&str])] = &[
    ("wgpu::", &["gpu"]),
    ("naga::", &["gpu"]),
    ("safetensors::", &["weights"]),
    ("memmap2::", &["weights"]),
    ("flate2::", &["weights"]),
    ("ureq::", &["weights"]),
    ("sha2::", &["weights"]),
    ("httpdate::", &["weights"]),
    ("tokenizers::", &["tokenizer"]),
    ("png::", &["image"]),
    ("clap::", &["cli"]),
    ("indicatif::", &["cli"]),
    ("pollster::", &["cli"]),
    ("signal_hook::", &["cli"]),
    ("libc::", &["cli"]),
    ("tempfile::", &["files"]),
    ("sysinfo::", &["host"]),
    ("String::from_utf8(", &["files"]),
    ("fs::read_to_string(", &[]),
    // Of the system's own files.
    ("std::fs::read_to_string(", &["gpu"]),
    ("half::", &["tensor", "pack", "gpu", "ops", "weights", "lab"]),
    ("println!", &[]),
    ("eprintln!", &[]),
];

pub fn trials() -> Vec<Trial> {
    vec![
        test("floors::imports_go_down_only", imports_go_down_only),
        test("floors::each_crate_has_one_door", each_crate_has_one_door),
    ]
}

/// Calls `look` with every source file's module, path and text up to its unit tests.
fn each_file(mut look: impl FnMut(&str, &str, &str)) {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let top = folders[0].clone();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("src can be listed").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file can be read");
            let relative = path.strip_prefix(&top).expect("it is below src").to_string_lossy().replace('\\', "/");
            let module = relative.split(['/', '.']).next().unwrap_or_default().to_string();
            look(&module, &relative, text.split("#[cfg(test)]").next().unwrap_or_default());
        }
    }
}

fn floor(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

fn imports_go_down_only() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    each_file(|module, path, text| {
        let Some(own) = floor(module) else {
            wrong.push(format!("{path}: module {module} has no floor"));
            return;
        };
        for rest in text.split("crate::").skip(1) {
            let other = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            let above = floor(other).is_some_and(|f| f > own || (f == own && other != module && (1..4).contains(&f)));
            if above {
                wrong.push(format!("{path} imports {other}"));
            }
        }
    });
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn each_crate_has_one_door() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    each_file(|module, path, text| {
        for (name, doors) in DOORS {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let named = code.into_iter().any(|line| {
                line.match_indices(name)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
            });
            if named && !doors.contains(&module) {
                wrong.push(format!("{path} names {name}"));
            }
        }
    });
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
