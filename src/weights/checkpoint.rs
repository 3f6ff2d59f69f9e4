//! A model in one file, in the key layout of the original Stable Diffusion code, seen as the folder that diffusers
//! would make of it.
//!
//! Every network's tensors stand under the names that networks ask for ([`keys`]); the configurations are inferred
//! from their shapes ([`infer`]); the tokenizer is CLIP's. A file that holds one network alone is a folder with one
//! component.

pub mod infer;
pub mod keys;
mod original;
mod prediction;
mod refuse;
pub mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::component::{ComponentWeights, Location};
use super::family::{Component, Families, Family};
use super::file::TensorFile;
use super::names::canonical;
use super::vocabulary;
use crate::error::{Error, Result, ten};
pub(super) use original::Original;
use seen::Seen;

/// A component's tensors: canonical name -> where it lies in the file.
type Tensors = BTreeMap<String, Location>;

/// One file with the networks of a model.
pub struct Checkpoint {
    file: Arc<TensorFile>,
    components: BTreeMap<&'static str, Tensors>,
    /// The texts of the folder's files that are not weights, by path.
    texts: BTreeMap<String, String>,
    /// See the methods of these names.
    left_out: usize,
    unknown: Vec<String>,
}

impl Checkpoint {
    /// Reads the file's header and recognises what it holds.
    ///
    /// # Errors
    /// A file that is no whole safetensors or GGUF file, or holds nothing that can be opened as a model of one of
    /// these families; the message says what it is, where that is known.
    pub fn open(path: &Path, families: &'static Families) -> Result<Self> {
        let file = TensorFile::open_any(path)?;
        if let Some(what) = refuse::other_kind(file.all_names(), families.others) {
            return Err(Error::file(path, what));
        }
        let mut checkpoint = sort(file, families);
        if checkpoint.components.is_empty() {
            let names: Vec<_> = checkpoint.file.all_names().collect();
            let titles = families.known.iter().map(|family| family.title).collect::<Vec<_>>().join(", ");
            let has = if names.is_empty() { "no tensors".into() } else { ten(&names) };
            let what = format!("holds no network of {titles} under a name that is known; it has {has}");
            return Err(Error::file(path, what));
        }
        let networks = checkpoint.networks(families)?;
        networks.iter().try_for_each(|(network, family)| checkpoint.leave_out_unread(network, family))?;
        let read = |name: &str| {
            checkpoint.components.values().any(|tensors| tensors.values().any(|stored| stored.name == name))
        };
        checkpoint.file.refuse_unknown_types(read)?;
        checkpoint.texts = checkpoint.infer(families, &networks)?;
        Ok(checkpoint)
    }

    /// Its networks, each as it is in the family that it tells, or else that another network of the file does.
    fn networks(&self, families: &'static Families) -> Result<Vec<(&'static Component, &'static Family)>> {
        let tell = |name| Ok((name, families.of(&Seen::of(&self.weights(name)?))));
        let told = self.components().map(tell).collect::<Result<Vec<_>>>()?;
        let others = told.iter().find_map(|(_, family)| *family);
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

    /// The error of a component, or of one of its files, that is not there.
    pub fn without(&self, path: &str) -> Error {
        let component = path.split('/').next().unwrap_or(path);
        let held: Vec<_> = self.components().collect();
        Error::file(self.path(), format!("holds no {component}, only {}; give a file that has it", held.join(", ")))
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
fn sort(file: TensorFile, families: &Families) -> Checkpoint {
    let mut left: Vec<&str> = file.all_names().collect();
    let parts =
        families.components().flat_map(|c| c.parts.iter().map(move |(start, layout)| (*start, c.name, *layout)));
    let parts: Vec<_> = parts.collect();
    let in_parts = left.iter().any(|name| parts.iter().any(|(start, ..)| name.starts_with(start)));
    let mut alone =
        families.components().flat_map(|c| c.alone.iter().map(move |(marker, layout)| (marker, c.name, layout)));
    let alone = alone.find(|(marker, ..)| !in_parts && file.has(marker));
    let alone = alone.map(|(_, component, layout)| vec![("", component, *layout)]);
    let (mut components, mut left_out) = (BTreeMap::<_, Tensors>::new(), 0);
    for (start, component, layout) in alone.unwrap_or(parts) {
        let (own, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|name| name.starts_with(start));
        left = others;
        let own = own.iter().filter_map(|name| name.strip_prefix(start));
        let (leftovers, own): (Vec<_>, Vec<_>) = own.partition(|name| refuse::is_leftover(name));
        left_out += leftovers.len();
        if own.is_empty() {
            continue;
        }
        let tensors = components.entry(component).or_default();
        for (name, stored, view) in keys::tensors(layout, &own) {
            let name = canonical(component, &name).into_owned();
            tensors.insert(name, Location { file: 0, name: format!("{start}{stored}"), view });
        }
    }
    let is_leftover = |name: &&str| refuse::is_leftover(name) || families.is_leftover(name);
    let (leftovers, unknown): (Vec<_>, Vec<_>) = left.into_iter().partition(is_leftover);
    left_out += leftovers.len();
    let unknown = unknown.into_iter().map(String::from).collect();
    Checkpoint { file: Arc::new(file), components, texts: BTreeMap::new(), left_out, unknown }
}
