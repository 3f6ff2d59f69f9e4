//! A model in the diffusers layout: a folder with `model_index.json` and a folder for each component, or a checkpoint
//! that is seen as one. A ControlNet, which is published by itself, is a model with that component alone.

mod parts;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::builtin::{self, BuiltIn};
use super::checkpoint::content::Content;
use super::component::from_elsewhere;
use super::family::{CONTROLNET, Families};
use super::files::{Files, Folder, within};
use super::manifest::{self, Entry, Kind};
use super::{Checkpoint, ComponentWeights, hub, unreadable};
use crate::error::{Error, Field, Result, instead};
use crate::files::text;

/// What is there to read, whether on the disk or inside the binary.
///
/// `Model::open` and `Model::resolve`, which know the families that this program draws with, are in `systems`.
pub struct Model {
    storage: Storage,
    entry: Option<&'static Entry>,
    /// What stands for some of its components.
    others: Vec<Other>,
    families: &'static Families,
    /// What it is called, where that is not what its storage is.
    called: Option<String>,
}

/// A component that lies elsewhere.
struct Other {
    component: &'static str,
    storage: Storage,
}

enum Storage {
    /// A model's, or a ControlNet's, which stands for a model's folder [`CONTROLNET`].
    Folder(Folder),
    File(Checkpoint),
    BuiltIn,
}

impl Storage {
    /// The files, where they are not those that a checkpoint stands for.
    fn files(&self) -> Result<&dyn Files, &Checkpoint> {
        match self {
            Self::Folder(folder) => Ok(folder),
            Self::BuiltIn => Ok(&BuiltIn),
            Self::File(checkpoint) => Err(checkpoint),
        }
    }

    fn has(&self, path: &str) -> bool {
        self.files().map_or_else(|checkpoint| checkpoint.has(path), |files| files.has(path))
    }
}

/// How files of weights end that people name, readable or not.
const WEIGHTS: [&str; 7] = ["safetensors", "sft", "gguf", "ckpt", "pt", "pth", "bin"];

/// The file in a known model's folder that those who fetch into it lock.
pub(super) const LOCK: &str = ".lock";

/// The folder of a model's schedule.
const SCHEDULER: &str = "scheduler";

impl Model {
    /// What a user names: a diffusers folder or a checkpoint, else a name from `weights-manifest.toml` whose folder or
    /// file is among the models of this machine; the built-in model for none.
    ///
    /// # Errors
    /// A path or name that is neither; a known model that is not here, a folder or file that is not a model.
    pub fn resolve_among(families: &'static Families, model: Option<&OsStr>) -> Result<Self> {
        let Some(name) = model else { return Ok(Self::builtin_among(families)) };
        let path = Path::new(name);
        if path.symlink_metadata().is_ok() {
            return Self::open_among(families, path);
        }
        if let Some(entry) = name.to_str().and_then(manifest::find) {
            return Self::known(families, entry, manifest::models_folder());
        }
        // What has folders or the ending of a file of weights is meant as a path.
        let ending = path.extension().unwrap_or_default();
        if path.components().count() != 1 || WEIGHTS.iter().any(|known| ending.eq_ignore_ascii_case(known)) {
            return Err(Error::file(name, "no such file or folder; check the path"));
        }
        let names = manifest::entries().iter().map(|entry| entry.name.as_str());
        let known = instead(&name.to_string_lossy(), names);
        Err(Error::file(name, format!("no such file or folder, and no model of this name; {known}")))
    }

    /// The model that is part of the program.
    pub fn builtin_among(families: &'static Families) -> Self {
        Self { entry: manifest::find(builtin::NAME), ..Self::of(Storage::BuiltIn, families) }
    }

    fn of(storage: Storage, families: &'static Families) -> Self {
        Self { storage, entry: None, others: Vec::new(), families, called: None }
    }

    /// The diffusers folder or the checkpoint at `path`, which is recognised as one of these families.
    ///
    /// The first folders for diffusers (google/ddpm-cifar10-32) have their only network and its schedule at the top.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn open_among(families: &'static Families, path: &Path) -> Result<Self> {
        let of = |storage| Self::of(storage, families);
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if !metadata.is_dir() {
            if path.extension().is_some_and(|ending| ending == "json") {
                return Err(Error::file(path, "is a file of a model; give the folder with model_index.json"));
            }
            return Ok(of(Storage::File(Checkpoint::open(path, families)?)));
        }
        if let Some(snapshot) = hub::snapshot(path)? {
            return Ok(Self { called: hub::name(path), ..Self::open_among(families, &snapshot)? });
        }
        let model = of(Storage::Folder(Folder::of_model(path)));
        if ["config.json", "scheduler_config.json"].iter().all(|file| model.has(file)) && !model.has("unet") {
            return Ok(model.with_component("unet", path).with_component(SCHEDULER, path));
        }
        let components = families.components().map(|component| component.name);
        if ["model_index.json", "tokenizer", SCHEDULER].into_iter().chain(components).any(|name| model.has(name)) {
            return Ok(model);
        }
        if is_controlnet(&model)? {
            return Ok(of(Storage::Folder(Folder::of_component(path, CONTROLNET))));
        }
        Err(no_model(&model, path))
    }

    fn known(families: &'static Families, entry: &'static Entry, models: Option<PathBuf>) -> Result<Self> {
        if entry.name == builtin::NAME {
            return Ok(Self::builtin_among(families));
        }
        let Some(mut path) = models.map(|models| models.join(&entry.name)) else {
            let what = "is a known model, but this machine names no home folder to look in; set ORNSTEIN_MODELS to the \
                        folder that holds your models";
            return Err(Error::file(&entry.name, what));
        };
        if let Some(folder) = entry.folder.as_ref().filter(|_| !path.exists()) {
            if !folder.exists() {
                let what = format!(
                    "is not downloaded, it lies in Ornstein's repository: run from a clone of it, or copy its {} to {}",
                    folder.display(),
                    path.display()
                );
                return Err(Error::file(&entry.name, what));
            }
            path.clone_from(folder);
        }
        let is_file = entry.kind == Kind::File;
        if let Some(file) = entry.files.first().filter(|_| is_file) {
            path.push(&file.path);
        }
        if !path.exists() || has_only_a_lock(&path) {
            let (name, place) = (&entry.name, path.display());
            let lacks = if path.exists() { "is empty" } else { "does not exist" };
            let kind = if is_file { "checkpoint" } else { "diffusers folder" };
            let fetch = format!("`ornstein models fetch {name}` downloads its {kind}");
            let repository = entry.repository.as_deref().unwrap_or("its author");
            let what = format!("is a known model, but {place} {lacks}; {fetch} from {repository}");
            return Err(Error::file(name, what));
        }
        Ok(Self { entry: Some(entry), ..Self::open_among(families, &path)? })
    }

    /// The place that a path is in, where that is not a checkpoint. What a model lacks may come with another component:
    /// its tokenizer with a text encoder.
    fn files(&self, path: &str) -> Result<&dyn Files, &Checkpoint> {
        let own = |other: &&Other| within(path, other.component).is_some();
        let named = self.others.iter().find(own).map(|other| &other.storage);
        let besides = || self.others.iter().map(|other| &other.storage).find(|storage| storage.has(path));
        let lacking = || if self.storage.has(path) { None } else { besides() };
        named.or_else(lacking).unwrap_or(&self.storage).files()
    }

    /// What messages and pictures call this model: the name in the manifest, the folder's, or the file's without
    /// ending.
    pub fn name(&self) -> String {
        if let Some(name) = &self.called {
            return name.clone();
        }
        match (&self.entry, &self.storage) {
            (Some(entry), _) => entry.name.clone(),
            (None, Storage::BuiltIn) => builtin::NAME.into(),
            (None, Storage::Folder(Folder { path, .. })) => {
                let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
                whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned()
            }
            (None, Storage::File(checkpoint)) => {
                let path = checkpoint.path();
                path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
            }
        }
    }

    /// What it may be of.
    pub fn families(&self) -> &'static Families {
        self.families
    }

    /// The manifest's entry, for a model that was found by its name.
    pub fn entry(&self) -> Option<&'static Entry> {
        self.entry
    }

    /// What error messages call a file of the model; `unet/config.json` is `path`, the empty one is the model itself.
    pub fn path(&self, path: &str) -> PathBuf {
        match self.files(path) {
            Ok(files) => files.path(path),
            Err(checkpoint) if path.is_empty() => checkpoint.path().to_path_buf(),
            Err(checkpoint) => format!("{} ({path})", checkpoint.path().display()).into(),
        }
    }

    /// Whether the model has this file or folder.
    pub fn has(&self, path: &str) -> bool {
        self.files(path).map_or_else(|checkpoint| checkpoint.has(path), |files| files.has(path))
    }

    /// The contents of a file, `None` if there is none.
    pub fn bytes(&self, path: &str) -> Result<Option<Cow<'static, [u8]>>> {
        match self.files(path) {
            Ok(files) => files.bytes(path),
            Err(checkpoint) => Ok(checkpoint.text(path).map(|text| Cow::Owned(text.into_bytes()))),
        }
    }

    /// The text of a file that must be there.
    pub fn text(&self, path: &str) -> Result<String> {
        let Some(bytes) = self.bytes(path)? else {
            return Err(match &self.storage {
                Storage::File(checkpoint) => checkpoint.without(path),
                Storage::Folder(folder) if !folder.holds(path) => {
                    Content::of(Field::Control).error(&folder.path, Field::Model)
                }
                _ => {
                    let error =
                        Error::file(self.path(path), "no such file: the model is incomplete, download it again");
                    error.remedies(from_elsewhere(path))
                }
            });
        };
        text(&self.path(path), bytes.into_owned())
    }

    /// A JSON file that must be there, such as `unet/config.json`.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_str(&self.text(path)?)
            .map_err(|error| Error::file(self.path(path), format!("cannot be understood: {error}")))
    }

    /// The folders that hold the configuration of a network, sorted.
    pub fn components(&self) -> Vec<String> {
        let mut folders: Vec<String> = match self.storage.files() {
            Ok(files) => files.list(""),
            Err(checkpoint) => checkpoint.components().map(String::from).collect(),
        };
        folders.extend(self.others.iter().map(|other| other.component.to_string()));
        folders.retain(|folder| folder != SCHEDULER && self.has(&format!("{folder}/config.json")));
        folders.sort();
        folders.dedup();
        folders
    }

    /// The tensors of a component: `unet`, `vae`, `text_encoder`, `text_encoder_2`.
    pub fn weights(&self, component: &str) -> Result<ComponentWeights> {
        match self.files(component) {
            Ok(files) => ComponentWeights::open(files, component, self.families),
            Err(checkpoint) => checkpoint.weights(component),
        }
    }

    /// The checkpoint, if the model is one.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.storage.files().err()
    }
}

/// Whether a folder is one into which nothing was fetched yet.
fn has_only_a_lock(folder: &Path) -> bool {
    let mut names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.next().is_some_and(|name| name == LOCK) && names.next().is_none()
}

/// Why a folder is none of a model, and what to do.
fn no_model(folder: &Model, path: &Path) -> Error {
    let what = if folder.has("config.json") {
        "is a component's folder; give the model's folder, which holds it"
    } else {
        "is not a diffusers folder: it has no model_index.json"
    };
    let mut names = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let file = names.find(|name| Path::new(name).extension().is_some_and(|ending| ending == "safetensors"));
    let file = file.map(|file| format!("; give one of its files, as {}", path.join(file).display()));
    Error::file(path, format!("{what}{}", file.unwrap_or_default()))
}

/// Whether a folder with a `config.json` of its own is a ControlNet's.
fn is_controlnet(folder: &Model) -> Result<bool> {
    if !folder.has("config.json") {
        return Ok(false);
    }
    let config: serde_json::Value = folder.json("config.json")?;
    Ok(config["_class_name"] == "ControlNetModel")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::families::FAMILIES;

    fn message(model: Result<Model>) -> String {
        model.err().unwrap().to_string()
    }

    #[test]
    fn without_a_choice_it_is_the_built_in_model() {
        for model in [Model::resolve(None).unwrap(), Model::resolve(Some("shapes".as_ref())).unwrap()] {
            assert_eq!(model.name(), "shapes");
            assert_eq!(model.entry().unwrap().defaults.steps, Some(25));
        }
    }

    #[test]
    fn a_known_model_that_is_not_here_says_where_it_belongs() {
        let entry = manifest::find("sd15").unwrap();
        let text = message(Model::known(&FAMILIES, entry, Some("/models".into())));
        let repository = "stable-diffusion-v1-5/stable-diffusion-v1-5";
        assert!(text.starts_with("sd15: ") && text.contains("/models/sd15") && text.contains(repository), "{text}");
        assert!(message(Model::known(&FAMILIES, entry, None)).contains("ORNSTEIN_MODELS"));
    }

    #[test]
    fn a_known_model_is_opened_where_it_belongs() {
        let models = tempfile::tempdir().unwrap();
        fs::create_dir_all(models.path().join("sd15/unet")).unwrap();
        let model = Model::known(&FAMILIES, manifest::find("sd15").unwrap(), Some(models.path().into())).unwrap();
        assert_eq!((model.name().as_str(), model.path("unet")), ("sd15", models.path().join("sd15/unet")));
    }

    #[test]
    fn a_model_in_the_repository_is_opened_there_unless_the_models_have_it() {
        let (models, entry) = (tempfile::tempdir().unwrap(), manifest::find("shapes-ddpm").unwrap());
        let own = models.path().join("shapes-ddpm");
        let opened = || Model::known(&FAMILIES, entry, Some(models.path().into()));
        // Tests run in the repository.
        assert_eq!(opened().unwrap().path(""), *entry.folder.as_ref().unwrap());
        fs::create_dir_all(own.join("unet")).unwrap();
        assert_eq!(opened().unwrap().path(""), own);
        let elsewhere = manifest::Entry { folder: Some("assets/nonesuch".into()), ..entry.clone() };
        let text = message(Model::known(&FAMILIES, Box::leak(Box::new(elsewhere)), Some("/models".into())));
        assert!(text.contains("run from a clone of it, or copy its assets/nonesuch to /models/shapes-ddpm"), "{text}");
    }

    #[test]
    fn a_known_model_of_which_nothing_came_is_not_here() {
        let models = tempfile::tempdir().unwrap();
        fs::create_dir(models.path().join("sd15")).unwrap();
        fs::write(models.path().join("sd15").join(LOCK), "").unwrap();
        let text = message(Model::known(&FAMILIES, manifest::find("sd15").unwrap(), Some(models.path().into())));
        assert!(text.contains("`ornstein models fetch sd15`"), "{text}");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let text = message(Model::resolve(Some("nonesuch".as_ref())));
        assert!(
            text.starts_with("nonesuch: no such file or folder") && text.contains("shapes, shapes-ddpm, sd15"),
            "{text}"
        );
        assert!(message(Model::resolve(Some("".as_ref()))).contains("no such file or folder"));
    }

    #[test]
    fn a_known_checkpoint_is_looked_for_under_its_own_name() {
        let text = message(Model::known(&FAMILIES, manifest::find("sd15-checkpoint").unwrap(), Some("/models".into())));
        assert!(text.contains("/models/sd15-checkpoint/v1-5-pruned-emaonly.safetensors does not exist"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_model_says_what_to_give_instead() {
        let folder = tempfile::tempdir().unwrap();
        let text = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            message(Model::resolve(Some(path.as_ref())))
        };
        assert!(text("a.ckpt", b"PK\x03\x04").contains("pickle"));
        assert!(text("a.safetensors", b"x").contains("not a safetensors file"));
        assert!(message(Model::open(folder.path())).contains("a.safetensors"));
        assert!(text("model_index.json", b"{}").contains("give the folder"));
    }

    #[test]
    fn a_folder_that_is_no_model_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(message(Model::open(folder.path())).contains("no model_index.json"));
        fs::write(folder.path().join("config.json"), b"{}").unwrap();
        assert!(message(Model::open(folder.path())).contains("a component's folder"));
        fs::write(folder.path().join("config.json"), b"{").unwrap();
        assert!(message(Model::open(folder.path())).contains("config.json: cannot be understood"));
    }

    #[test]
    fn a_controlnets_folder_is_a_model_with_that_component_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), br#"{"_class_name": "ControlNetModel"}"#).unwrap();
        let model = Model::open(folder.path()).unwrap();
        assert!(model.has("controlnet") && model.has("controlnet/config.json"));
        assert!(!model.has("unet") && !model.has("controlnets/config.json") && !model.has("config.json"));
        assert_eq!(model.path("controlnet/config.json"), folder.path().join("config.json"));
        assert!(model.text("controlnet/config.json").unwrap().contains("ControlNetModel"));
        let error = model.text("unet/config.json").unwrap_err().to_string();
        assert!(error.ends_with("is a ControlNet, not a model; give it as control"), "{error}");
        let error = model.weights("controlnet").err().unwrap().to_string();
        assert!(error.contains("no weights: expected diffusion_pytorch_model.safetensors"), "{error}");
    }
}
