//! `weights-manifest.toml`: the models that have a name, where they come from, and what they like.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::cache;

/// How a model is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Inside the program.
    BuiltIn,
    /// A folder in the diffusers layout.
    Folder,
    /// One checkpoint file with every component in it.
    File,
    /// A folder in the diffusers layout in this program's own repository, at [`Entry::folder`].
    Repository,
}

/// What a picture is drawn with where a user says nothing else. `None` leaves it to the model's configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// As `samplers` names it.
    pub sampler: Option<String>,
    /// Of the sampler; at least 1.
    pub steps: Option<usize>,
    /// How far the prediction goes from the one without a text towards the one with it; 1 is the latter.
    pub guidance: Option<f32>,
    /// Width and height in pixels.
    pub size: Option<[usize; 2]>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Inside the repository, and inside the model's folder.
    pub path: String,
    /// Its length.
    pub bytes: Option<u64>,
    /// Lower-case hexadecimal.
    pub sha256: Option<String>,
    /// How many independent public files give this sum.
    pub agree: Option<u32>,
    /// Where a sum stands that only one file gives.
    pub source: Option<String>,
}

impl File {
    /// Whether it is not one of text.
    fn is_weights(&self) -> bool {
        self.path.ends_with(".safetensors")
    }
}

/// One known model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What users call it; the folder among the models of a machine is called so, too.
    pub name: String,
    /// One line for a list.
    pub about: String,
    /// The name of its family, if it is of one.
    pub family: Option<String>,
    /// What `files` are.
    pub kind: Kind,
    /// `owner/name` on Hugging Face.
    pub repository: Option<String>,
    /// Where it lies in this program's own repository.
    pub folder: Option<PathBuf>,
    /// The commit that the sums are of; `main` where it is not known.
    pub revision: Option<String>,
    /// Its weights' licence in a few words, where it is known for sure.
    pub licence: Option<String>,
    /// Megabytes (10^6) of all its files, where not each of [`Entry::files`] says its own.
    pub size_mb: Option<u64>,
    /// Mebibytes of a device's memory that drawing one picture by its defaults takes at most, in f16.
    pub memory_mib: Option<u64>,
    /// What it was made to be drawn with.
    #[serde(default)]
    pub defaults: Defaults,
    /// What it draws, where that is little.
    pub knows: Option<String>,
    /// The words that it was taught to draw that by, in small letters; none where they are too many to tell.
    #[serde(default)]
    pub words: Vec<String>,
    /// Others that a prompt may have, in small letters.
    #[serde(default)]
    pub plain: Vec<String>,
    /// All that is downloaded.
    #[serde(default, rename = "file")]
    pub files: Vec<File>,
}

impl Entry {
    /// Bytes of all its files, but for a few of text; `None` where they are not known.
    pub fn bytes(&self) -> Option<u64> {
        let weights = self.files.iter().filter(|file| file.is_weights()).map(|file| file.bytes);
        let known = || weights.sum::<Option<u64>>().filter(|bytes| *bytes > 0);
        self.size_mb.map(|megabytes| megabytes * 1_000_000).or_else(known)
    }

    /// The words of these texts that it was not taught, in small letters and each once; none where it was taught more
    /// than can be told. What has no letter is not a word.
    pub fn unknown_words<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let words = texts.into_iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
        for word in words.filter(|word| word.contains(char::is_alphabetic)).map(str::to_lowercase) {
            if ![&self.words, &self.plain, &found].into_iter().any(|known| known.contains(&word)) {
                found.push(word);
            }
        }
        if self.words.is_empty() { Vec::new() } else { found }
    }

    /// Where the file can be downloaded from a hub such as `https://huggingface.co`, for a model that is published.
    pub fn url(&self, hub: &str, file: &File) -> Option<String> {
        let repository = self.repository.as_ref()?;
        let revision = self.revision.as_deref().unwrap_or("main");
        Some(format!("{hub}/{repository}/resolve/{revision}/{}", file.path))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    model: Vec<Entry>,
}

/// Every known model, in the manifest's order.
pub fn entries() -> &'static [Entry] {
    static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| {
        // The text is part of the program, so a mistake in it is one of this source; a test reads it.
        toml::from_str(include_str!("../../weights-manifest.toml")).expect("weights-manifest.toml can be understood")
    });
    &MANIFEST.model
}

/// The model of this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    entries().iter().find(|entry| entry.name == name)
}

/// The folder that holds the models of this machine by their names: `$ORNSTEIN_MODELS`, or `ornstein/models` in the
/// user's cache. `None` where the environment names neither.
pub fn models_folder() -> Option<PathBuf> {
    models_folder_from(cache::variable)
}

fn models_folder_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("ORNSTEIN_MODELS").or_else(|| Some(cache::folder_from(variable)?.join("models")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_entry_is_whole() {
        let names: HashSet<&str> = entries().iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names.len(), entries().len(), "a name stands twice");
        for entry in entries() {
            assert!(is_one_part(&entry.name) && !entry.about.is_empty(), "{}", entry.name);
            let published = matches!(entry.kind, Kind::Folder | Kind::File);
            assert_eq!(entry.folder.is_some(), entry.kind == Kind::Repository, "{}", entry.name);
            assert!(entry.repository.is_some() == published && entry.files.is_empty() != published, "{}", entry.name);
            assert!(entry.kind != Kind::File || entry.files.len() == 1, "{}", entry.name);
            let repository =
                entry.repository.iter().all(|name| name.split('/').filter(|p| is_one_part(p)).count() == 2);
            assert!(repository && entry.revision.iter().all(|commit| is_hex(commit, 40)), "{}", entry.name);
            let paths: HashSet<&str> = entry.files.iter().map(|file| file.path.as_str()).collect();
            assert_eq!(paths.len(), entry.files.len(), "{}: a file stands twice", entry.name);
        }
    }

    #[test]
    fn a_model_of_few_words_names_those_that_it_does_not_know() {
        let unknown = |name: &str, text: &str| find(name).unwrap().unknown_words([text, "blue"]).join(" ");
        let text = "a RED cat, (Cat:1.3) on 2 dogs";
        assert_eq!(["shapes", "sd15", "shapes-ddpm"].map(|name| unknown(name, text)), ["cat dogs", "", ""]);
        for text in ["", " ", "a RED circle", "(star:1.3) BREAK 3", "Please draw an ORANGE diamond, gray background!"] {
            assert_eq!(unknown("shapes", text), "", "{text}");
        }
    }

    #[test]
    fn what_a_model_says_that_it_knows_it_knows() {
        for entry in entries() {
            assert_eq!(entry.unknown_words(entry.knows.as_deref()), [""; 0], "{}", entry.name);
            assert!(entry.knows.is_some() != entry.words.is_empty(), "{}", entry.name);
        }
    }

    #[test]
    fn the_size_of_a_model_is_said_once() {
        for entry in entries() {
            let mut weights = entry.files.iter().filter(|file| file.is_weights());
            let each = weights.clone().count() > 0 && weights.all(|file| file.bytes.is_some());
            assert!(!each || entry.size_mb.is_none(), "{}", entry.name);
        }
        let bytes = |name: &str| find(name).unwrap().bytes();
        assert_eq!((bytes("vega-checkpoint"), bytes("pix2pix-checkpoint")), (Some(3_293_395_670), None));
    }

    #[test]
    fn every_file_is_described_well() {
        for file in entries().iter().flat_map(|entry| &entry.files) {
            assert!(file.path.split('/').all(is_one_part), "{}: not a path inside a folder", file.path);
            assert!(file.bytes != Some(0), "{}: an empty file", file.path);
            match &file.sha256 {
                Some(sum) => {
                    assert!(is_hex(sum, 64), "{}: {sum} is not a SHA-256", file.path);
                    assert!(
                        file.agree > Some(1) || file.source.is_some(),
                        "{}: a lone sum needs its source",
                        file.path
                    );
                }
                None => assert!(file.agree.is_none() && file.source.is_none(), "{}: of which sum?", file.path),
            }
        }
    }

    fn is_hex(text: &str, digits: usize) -> bool {
        text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    }

    /// Whether a name is one that a folder or file can have anywhere.
    fn is_one_part(name: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !name.starts_with('.') && !name.is_empty() && name.chars().all(plain)
    }

    #[test]
    fn the_built_in_model_has_its_own_defaults() {
        let defaults = &find("shapes").unwrap().defaults;
        assert_eq!(
            (defaults.sampler.as_deref(), defaults.steps, defaults.guidance),
            (Some("ddim"), Some(25), Some(4.0))
        );
    }

    #[test]
    fn a_url_names_the_revision() {
        let entry = find("sd15").unwrap();
        let url = entry.url("https://huggingface.co", &entry.files[0]).unwrap();
        assert_eq!(
            url,
            "https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/\
             451f4fe16113bff5a5d2269ed5ad43b0592e9a14/model_index.json"
        );
    }

    #[test]
    fn the_users_folder_comes_before_the_cache() {
        let both = |variable: &str| match variable {
            "ORNSTEIN_MODELS" => Some(PathBuf::from("/models")),
            _ => Some(PathBuf::from("/home/me")),
        };
        assert_eq!(models_folder_from(both), Some("/models".into()));
        assert_eq!(models_folder_from(|_| None), None);
        let home = models_folder_from(|variable| (variable == "HOME").then(|| "/home/me".into()));
        if cfg!(target_os = "linux") {
            assert_eq!(home, Some("/home/me/.cache/ornstein/models".into()));
        }
    }
}
