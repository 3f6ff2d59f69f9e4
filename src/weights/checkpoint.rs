//! A model in one file, in the key layout of the original Stable Diffusion code, seen as the folder that diffusers
//! would make of it.
//!
//! Every network's tensors stand under the names that networks ask for ([`keys`]); the configurations are inferred
//! from their shapes ([`infer`]); the tokenizer is CLIP's. A file that holds one network alone is a folder with one
//! component.

pub mod content;
pub mod infer;
pub mod keys;
mod lacking;
mod original;
mod prediction;
mod refuse;
pub mod seen;
pub(super) mod sort;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::check::is_harmless;
use super::component::{ComponentWeights, Location};
use super::family::{CONTROLNET, Component, Families, Family};
use super::file::TensorFile;
use super::vocabulary;
use crate::error::{Error, Field, Result, ten};
use content::Content;
pub(super) use original::Original;
use seen::Seen;
use sort::{Named, Sorted, sort};

/// A component's tensors: canonical name -> where it lies in the file.
type Tensors = BTreeMap<String, Location>;

/// What an autoencoder's configuration has of the scale of its latents.
const SCALES: [&str; 4] = ["scaling_factor", "shift_factor", "latents_mean", "latents_std"];

/// A network that is to stand for that of a model.
pub struct Part {
    /// The folder of its configuration and weights.
    pub component: &'static str,
    /// The model's family.
    pub family: Option<&'static Family>,
    /// The configuration of the one that it stands for.
    pub config: Option<Value>,
}

/// One file with the networks of a model.
pub struct Checkpoint {
    file: Arc<TensorFile>,
    components: BTreeMap<&'static str, Tensors>,
    /// The texts of the folder's files that are not weights, by path.
    texts: BTreeMap<String, String>,
    /// See the methods of these names.
    left_out: usize,
    unknown: Vec<String>,
    /// Networks that are there under names that are not known, and what is said of each.
    astray: Vec<(&'static str, String)>,
}

impl Checkpoint {
    /// Reads the file's header and recognises what it holds.
    ///
    /// # Errors
    /// A file that is not a whole safetensors or GGUF file, or holds nothing that can be opened as a model of one of
    /// these families; the message says what it is, where that is known.
    pub fn open(path: &Path, families: &'static Families) -> Result<Self> {
        let file = TensorFile::open_any(path)?;
        if let Some(content) = Content::of_names(&file, families) {
            return Err(content.error(path, Field::Model));
        }
        let checkpoint = sorted(file, families);
        if let (true, Some((_, what))) = (checkpoint.components.is_empty(), checkpoint.astray.first()) {
            return Err(Error::file(path, what));
        }
        if checkpoint.components.is_empty() {
            let names: Vec<_> = checkpoint.file.all_names().collect();
            let titles = families.known.iter().map(|family| family.title).collect::<Vec<_>>().join(", ");
            let has = if names.is_empty() { "no tensors".into() } else { ten(&names) };
            let what = format!("holds no network of {titles} under a name that is known; it has {has}");
            return Err(Error::file(path, what));
        }
        let networks = checkpoint.networks(families, None)?;
        checkpoint.with(families, &networks)
    }

    /// One network of a file, alone or among others, as a part of a model.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; if the file does not hold it, or it is not one for the model's family.
    pub fn part(path: &Path, families: &'static Families, part: &Part) -> Result<Self> {
        let file = TensorFile::open_any(path)?;
        let whole = sorted(file, families);
        let Sorted { tensors, .. } = sort(whole.file.all_names().collect(), families, Some(part.component));
        // Tensors of a ControlNet have a UNet's names.
        let is_control = whole.components().eq([CONTROLNET]) && part.component != CONTROLNET;
        let own = located(tensors).remove(part.component).filter(|_| !is_control);
        let Some(own) = own else { return Err(whole.is_not(part.component, families)) };
        let told = whole.told(families)?.into_iter().find_map(|(_, family)| family);
        let checkpoint = Self { components: BTreeMap::from([(part.component, own)]), ..whole };
        let networks = checkpoint.networks(families, told.or(part.family))?;
        let mut checkpoint = checkpoint.with(families, &networks)?;
        if let (None, Some(config)) = (told, &part.config) {
            checkpoint.scale_as(part.component, config);
        }
        Ok(checkpoint)
    }

    /// Gives an autoencoder that tells no family the scale of the one that it stands for.
    fn scale_as(&mut self, component: &str, config: &Value) {
        let path = format!("{component}/config.json");
        let own = self.texts.get(&path).and_then(|text| serde_json::from_str::<Value>(text).ok());
        if let Some(mut own) = own.filter(|own| own["_class_name"] == config["_class_name"]) {
            for key in SCALES.iter().filter(|key| !config[**key].is_null()) {
                own[*key] = config[*key].clone();
            }
            self.texts.insert(path, own.to_string());
        }
    }

    /// The same with what follows from its networks.
    fn with(mut self, families: &Families, networks: &[(&Component, &Family)]) -> Result<Self> {
        networks.iter().try_for_each(|(network, family)| self.leave_out_unread(network, family))?;
        self.refuse_unknown_types()?;
        self.texts = self.infer(families, networks)?;
        Ok(self)
    }

    /// Its networks, and the family that each tells.
    fn told(&self, families: &'static Families) -> Result<Vec<(&'static str, Option<&'static Family>)>> {
        self.components().map(|name| Ok((name, families.of(&Seen::of(&self.weights(name)?))))).collect()
    }

    /// Its networks, each as it is in the family that it tells, or else that another network of the file does, or else
    /// in this.
    fn networks(
        &self,
        families: &'static Families,
        of: Option<&'static Family>,
    ) -> Result<Vec<(&'static Component, &'static Family)>> {
        let told = self.told(families)?;
        let others = told.iter().find_map(|(_, family)| *family).or(of);
        let network = |(name, own): (&str, Option<&'static Family>)| {
            let ranked = own.into_iter().chain(others).chain(families.known.iter().rev().copied());
            let mut all = ranked.flat_map(|family| family.components.iter().map(move |component| (component, family)));
            all.find(|(component, _)| component.name == name)
        };
        Ok(told.into_iter().filter_map(network).collect())
    }

    /// Leaves out what a network holds and nothing reads.
    fn leave_out_unread(&mut self, network: &Component, family: &Family) -> Result<()> {
        let unread = (network.unread)(&Seen::of(&self.weights(network.name)?), &family.untold);
        let Some(tensors) = self.components.get_mut(network.name) else { return Ok(()) };
        let unread = tensors.extract_if(.., |name, _| unread.iter().any(|start| name.starts_with(start)));
        self.left_out += unread.map(|(_, stored)| stored.name).collect::<BTreeSet<_>>().len();
        Ok(())
    }

    /// Refuses a type that is not known, of tensors that may be read.
    fn refuse_unknown_types(&mut self) -> Result<()> {
        let Self { components, file, .. } = self;
        for tensors in components.values_mut() {
            tensors.retain(|name, stored| file.has(&stored.name) || !is_harmless(name));
        }
        let read: HashSet<_> = components.values().flat_map(|tensors| tensors.values().map(|s| &*s.name)).collect();
        file.refuse_unknown_types(|name| read.contains(name))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The components that it holds.
    pub fn components(&self) -> impl Iterator<Item = &'static str> {
        self.components.keys().copied()
    }

    /// How many tensors are left out knowingly: what training leaves behind, and what no network of the family reads.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Names in the file that belong to no network, and are not known.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// Whether the folder would have this file, or a folder of this name.
    pub fn has(&self, path: &str) -> bool {
        let is_folder_of = |file: &str| file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        self.text(path).is_some() || self.texts.keys().any(|file| is_folder_of(file))
    }

    /// The text of a file that the folder would have.
    pub fn text(&self, path: &str) -> Option<String> {
        let tokenizer =
            |file: &str| path.ends_with(file) && self.texts.contains_key(&path.replace(file, "tokenizer_config.json"));
        match path {
            _ if tokenizer("vocab.json") => Some(vocabulary::vocabulary()),
            _ if tokenizer("merges.txt") => Some(vocabulary::merges()),
            _ => self.texts.get(path).cloned(),
        }
    }

    /// The tensors of a component.
    pub fn weights(&self, component: &str) -> Result<ComponentWeights> {
        let tensors = self.components.get(component).ok_or_else(|| self.without(component))?.clone();
        let place = format!("{} ({component})", self.path().display());
        Ok(ComponentWeights { place, files: vec![self.file.clone()], tensors })
    }

    /// The texts of the files beside the weights.
    fn infer(&self, families: &Families, networks: &[(&Component, &Family)]) -> Result<BTreeMap<String, String>> {
        let mut texts = BTreeMap::new();
        let mut add = |path: String, value: Value| _ = texts.insert(path, value.to_string());
        for (network, family) in networks {
            let weights = self.weights(network.name)?;
            let seen = Seen::of(&weights);
            let mut config = (network.config)(&seen, &family.untold);
            let mut others = (network.others)(&seen, &family.untold);
            if network.denoises {
                if let Some(what) = (family.refuses)(&seen) {
                    return Err(Error::file(self.path(), what));
                }
                let prediction = prediction::of(&self.file, (families, family), &seen);
                config["sample_size"] = self.trained_side().unwrap_or_else(|| (family.side)(&prediction)).into();
                others.extend((family.files)(&prediction));
            }
            add(format!("{}/config.json", network.name), config);
            others.into_iter().for_each(|(path, value)| add(path.into(), value));
        }
        Ok(texts)
    }

    /// What the file's metadata says of its resolution, as latents.
    fn trained_side(&self) -> Option<usize> {
        let (width, height) = self.file.metadata("modelspec.resolution")?.split_once('x')?;
        let pixels: usize = width.parse().ok().filter(|_| width == height)?;
        (pixels.is_multiple_of(8) && (64..=4096).contains(&pixels)).then_some(pixels / 8)
    }
}

/// A file, with its tensors by component.
fn sorted(file: TensorFile, families: &Families) -> Checkpoint {
    let Sorted { tensors, left_out, unknown } = sort(file.all_names().collect(), families, None);
    let (components, astray) = (located(tensors), refuse::astray(file.all_names(), &unknown, families));
    Checkpoint { file: Arc::new(file), components, texts: BTreeMap::new(), left_out, unknown, astray }
}

fn located(tensors: Vec<Named>) -> BTreeMap<&'static str, Tensors> {
    let mut components = BTreeMap::<_, Tensors>::new();
    for Named { component, name, stored, view } in tensors {
        components.entry(component).or_default().insert(name, Location { file: 0, name: stored, view });
    }
    components
}
