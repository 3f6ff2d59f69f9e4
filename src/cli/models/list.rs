//! `ornstein models list`

use serde_json::json;

use crate::cli::{megabytes, print, print_json};
use crate::error::Result;
use crate::weights::Model;
use crate::weights::fetch::{self, HUB};
use crate::weights::manifest::{self, Entry, Kind};

/// Prints every model that has a name.
pub(super) fn list(as_json: bool) -> Result<()> {
    let entries = manifest::entries();
    if as_json {
        return print_json(&json!({"models": entries.iter().map(document).collect::<Vec<_>>()}));
    }
    let heading = row(["name", "size", "memory", "licence", "here"]);
    let rows: String = entries.iter().map(text).collect();
    let elsewhere = |entry: &Entry| {
        let repository = entry.repository.as_ref().filter(|_| entry.licence.is_none())?;
        Some(format!("licence of {}: {HUB}/{repository}\n", entry.name))
    };
    let elsewhere: String = entries.iter().filter_map(elsewhere).collect();
    let legend = "size: its files; memory: the most that one picture by the model's defaults takes on a GPU in \
                  f16\n(networks are loaded one after the other)\n";
    let here = "here: whether it is on this machine; if not, `ornstein models fetch NAME` downloads it";
    let here = format!("{here}\nto begin with: {}\n", BEGIN.join(" or "));
    let aside = |entry: &Entry| {
        let folder = entry.folder.as_ref().filter(|_| !is_here(entry))?;
        Some(format!("{}: not downloaded, but in Ornstein's repository, {}\n", entry.name, folder.display()))
    };
    let aside: String = entries.iter().filter_map(aside).collect();
    let folder = manifest::models_folder()
        .map(|folder| format!("folder: {} (ORNSTEIN_MODELS names another)\n", folder.display()));
    print(format!("{heading}{rows}\n{legend}{here}{aside}{elsewhere}{}", folder.unwrap_or_default()).as_bytes())
}

/// Models that are enough for most: what to fetch first.
pub(super) const BEGIN: [&str; 2] = ["sd15-checkpoint-fp16", "sdxl-checkpoint"];

/// Whether the model is part of the program or of the repository that it runs in, or its files are in the folder of
/// models.
fn is_here(entry: &Entry) -> bool {
    let in_folder = || manifest::models_folder().is_some_and(|folder| fetch::is_here(entry, &folder.join(&entry.name)));
    match entry.kind {
        Kind::BuiltIn => true,
        Kind::Repository => Model::resolve(Some(entry.name.as_ref())).is_ok(),
        Kind::Folder | Kind::File => in_folder(),
    }
}

fn document(entry: &Entry) -> serde_json::Value {
    json!({
        "name": entry.name,
        "about": entry.about,
        "bytes": entry.bytes(),
        "memory_bytes": entry.memory_mib.map(|mebibytes| mebibytes << 20),
        "licence": entry.licence,
        "repository": entry.repository,
        "here": is_here(entry),
    })
}

/// Two lines: what a table holds of a model, and what it is.
fn text(entry: &Entry) -> String {
    let size = entry.bytes().map_or("?".into(), megabytes);
    let memory = entry.memory_mib.map(memory).unwrap_or_default();
    let licence = entry.licence.as_deref().unwrap_or("see below");
    let here = if is_here(entry) { "yes" } else { "no" };
    row([&entry.name, &size, &memory, licence, here]) + &format!("  {}\n", entry.about)
}

fn row([name, size, memory, licence, here]: [&str; 5]) -> String {
    format!("{name:<32} {size:>7}  {memory:>8}  {licence:<21}  {here}").trim_end().to_string() + "\n"
}

/// As graphics cards count.
fn memory(mebibytes: u64) -> String {
    if mebibytes < 1024 { format!("{mebibytes} MiB") } else { format!("{:.1} GiB", mebibytes as f64 / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_fits_a_terminal() {
        let lines: String = manifest::entries().iter().map(text).collect();
        for line in lines.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn memory_has_the_unit_in_which_it_is_read() {
        assert_eq!([memory(17), memory(1023), memory(1900)], ["17 MiB", "1023 MiB", "1.9 GiB"]);
    }

    #[test]
    fn the_models_to_begin_with_can_be_fetched() {
        assert!(BEGIN.iter().all(|name| manifest::find(name).is_some_and(|entry| entry.repository.is_some())));
    }
}
