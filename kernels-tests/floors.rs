//! The floors of the house: a module imports only from floors below its own, and each outside crate has one door.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::systems::families::FAMILIES;

use crate::support::test;

const FLOORS: &[(&str, u32)] = &[
    ("cli", 5),
    ("main", 5),
    ("lib", 5),
    ("systems", 4),
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

/// Crates and other names, and the modules or files that may say them.
const DOORS: &[(&str, &[&str])] = &[
    ("wgpu::", &["gpu"]),
    ("naga::", &["gpu"]),
    ("ash::", &["gpu"]),
    ("safetensors::", &["weights"]),
    ("memmap2::", &["weights"]),
    ("flate2::", &["weights"]),
    ("ureq::", &["weights"]),
    ("sha2::", &["weights"]),
    ("httpdate::", &["weights", "cli"]),
    ("tokenizers::", &["tokenizer"]),
    ("png::", &["image"]),
    ("embedded_graphics::", &["image"]),
    ("clap_complete::", &["cli"]),
    ("clap_mangen::", &["cli"]),
    ("percent_encoding::", &["cli"]),
    ("supports_hyperlinks::", &["cli"]),
    ("shlex::", &["cli"]),
    ("exif::{", &["image"]),
    ("puruspe::", &["samplers"]),
    ("clap::", &["cli"]),
    ("indicatif::", &["cli"]),
    ("console::", &["cli"]),
    ("pollster::", &["cli"]),
    ("strsim::", &["cli", "error"]),
    ("signal_hook::", &["cli"]),
    ("libc::", &["cli"]),
    ("tempfile::", &["files"]),
    ("sysinfo::", &["host"]),
    ("String::from_utf8(", &["files"]),
    ("fs::read_to_string(", &[]),
    // Of the system's own files.
    ("std::fs::read_to_string(", &["gpu"]),
    // What is cheap on a device is asked of its `Caps`: the command line prints the type, and nothing decides by it.
    ("DeviceType", &["caps", "gpu/adapter.rs"]),
    ("device_type", &["caps", "gpu/adapter.rs", "cli", "lab/predict/cards.toml"]),
    ("half::", &["tensor", "pack", "gpu", "ops", "weights", "lab"]),
    ("println!", &[]),
    ("eprintln!", &[]),
];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        test("floors::imports_go_down_only", imports_go_down_only),
        test("floors::each_module_says_what_it_may_import", each_module_says_what_it_may_import),
        test("floors::each_crate_has_one_door", each_crate_has_one_door),
        test("floors::no_flag_is_named_below_the_command_line", no_flags),
        test("floors::weights_name_no_family", weights_name_no_family),
        test("floors::no_files_import_each_other_in_a_circle", no_circles),
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

/// In its first comment, and of the floors from 3 down: those above may import all.
fn each_module_says_what_it_may_import() -> Result<(), Failed> {
    let named = |floor| FLOORS.iter().filter(move |(_, f)| *f == floor).map(|(name, _)| format!("`{name}`, "));
    let mut wrong = Vec::new();
    each_file(|module, path, text| {
        let top = [format!("{module}.rs"), format!("{module}/mod.rs")].iter().any(|file| file == path);
        let Some(own) = floor(module).filter(|own| top && *own < 4) else { return };
        let below: String = (1..own).rev().flat_map(named).collect();
        let below = below.strip_suffix(", ").map_or(String::new(), |names| format!("{names} and "));
        let line = format!("//! Floor {own}: may import {below}floor 0.");
        if !text.lines().take_while(|l| l.starts_with("//!")).any(|l| l == line) {
            wrong.push(format!("{path} should say {line}"));
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
            if named && ![module, path].iter().any(|at| doors.contains(at)) {
                wrong.push(format!("{path} names {name}"));
            }
        }
    });
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// What to change is data (`error::Remedy`), which the command line says in flags and a server in fields.
fn no_flags() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    each_file(|module, path, text| {
        let is_flag = |(at, _): (usize, &str)| text[at + 2..].starts_with(|c: char| c.is_ascii_lowercase() || c == '{');
        if module != "cli" && path.ends_with(".rs") && text.match_indices("--").any(is_flag) {
            wrong.push(format!("{path} names a flag"));
        }
    });
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// What is known of a family is in its value alone.
fn weights_name_no_family() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    each_file(|module, path, text| {
        let text = text.to_lowercase();
        for family in FAMILIES.known.iter().filter(|_| module == "weights") {
            for name in [family.name, family.title].map(str::to_lowercase) {
                let whole = |at: usize| !text[at + name.len()..].starts_with(char::is_alphanumeric);
                if text.match_indices(&name).any(|(at, _)| whole(at)) {
                    wrong.push(format!("{path} names {name}"));
                }
            }
        }
    });
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// Two things in one room, or one thing in two. A module and those inside it count as apart: a child may use what its
/// parent defines.
fn no_circles() -> Result<(), Failed> {
    let mut files = BTreeMap::new();
    each_file(|_, path, text| {
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod").to_string();
        files.insert(module, uses(text));
    });
    let names: Vec<&String> = files.keys().collect();
    let arrows = |module: &String| -> BTreeSet<usize> {
        let target = |path: &Vec<String>| module_of(module, path, &files);
        let found = files[module].iter().filter_map(target).filter(|other| {
            let inside =
                |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            !inside(module, other) && !inside(other, module)
        });
        found.filter_map(|other| names.binary_search(&&other).ok()).collect()
    };
    let arrows: Vec<BTreeSet<usize>> = names.iter().map(|module| arrows(module)).collect();
    let reached: Vec<BTreeSet<usize>> = (0..names.len()).map(|from| reached(&arrows, from)).collect();
    let mut circles = BTreeSet::new();
    for from in 0..names.len() {
        let circle: Vec<&str> = (0..names.len())
            .filter(|to| reached[from].contains(to) && reached[*to].contains(&from))
            .map(|i| names[i].as_str())
            .collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    assert!(names.len() > 150 && arrows.iter().map(BTreeSet::len).sum::<usize>() > 300, "the imports are not found");
    if circles.is_empty() { Ok(()) } else { Err(format!("circles: {circles:?}").into()) }
}

/// All that can be reached from a file.
fn reached(arrows: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(file) = left.pop() {
        left.extend(arrows[file].iter().filter(|next| seen.insert(**next)));
    }
    seen
}

/// The paths that a file's `use` items name.
fn uses(text: &str) -> Vec<Vec<String>> {
    let items = text.lines().scan(String::new(), |open, line| {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ");
        if open.is_empty() && !line.starts_with("use ") {
            return Some(None);
        }
        *open += line.trim();
        Some(open.ends_with(';').then(|| std::mem::take(open)))
    });
    let mut paths = Vec::new();
    for item in items.flatten() {
        expand(&item["use".len()..].replace([' ', ';'], ""), &[], &mut paths);
    }
    paths
}

/// `a::{b, c::{d}}` as `a b`, `a c d`.
fn expand(tree: &str, before: &[String], paths: &mut Vec<Vec<String>>) {
    let Some((start, group)) = tree.split_once('{') else {
        paths.push(before.iter().cloned().chain(tree.split("::").map(String::from)).collect());
        return;
    };
    let before: Vec<String> =
        before.iter().cloned().chain(start.split("::").filter(|part| !part.is_empty()).map(String::from)).collect();
    let (mut depth, mut branch) = (0, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&std::mem::take(&mut branch), &before, paths);
                continue;
            }
            _ => {}
        }
        branch.push(c);
    }
    if !branch.is_empty() {
        expand(&branch, &before, paths);
    }
}

/// The file that a path means, seen from a module: the deepest of which there is one.
fn module_of(from: &str, path: &[String], files: &BTreeMap<String, Vec<Vec<String>>>) -> Option<String> {
    let mut place: Vec<&str> = from.split('/').collect();
    let mut rest = path.iter().map(String::as_str).peekable();
    match rest.peek() {
        Some(&"crate") => {
            place.clear();
            rest.next();
        }
        Some(&"super") => {
            while rest.next_if_eq(&"super").is_some() {
                place.pop();
            }
        }
        Some(&"self") => _ = rest.next(),
        // A child of this module, or another crate.
        _ => {}
    }
    let mut found = None;
    for part in rest {
        place.push(part);
        let module = place.join("/");
        if !files.contains_key(&module) {
            break;
        }
        found = Some(module);
    }
    found
}
