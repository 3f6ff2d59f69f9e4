//! The tensors of one component of a model: one safetensors file, or the shards that an index file lists.

mod find;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::check::is_harmless;
use super::checkpoint::sort::{Named, Sorted, sort};
use super::family::Families;
use super::file::TensorFile;
use super::files::{Files, json};
use super::format::Blocks;
use super::names::canonical;
use super::view::View;
use crate::error::{Error, Field, Remedy, Result, ten};
use crate::tensor::{BlockLayout, DType, Quantized, RawTensor, Shape, Weights};
pub(super) use find::variants;
use find::weights_of;

/// The weights of one network, under the names that networks ask for (see `names.rs`).
pub struct ComponentWeights {
    /// What messages call them.
    pub(super) place: String,
    pub(super) files: Vec<Arc<TensorFile>>,
    /// By canonical name.
    pub(super) tensors: BTreeMap<String, Location>,
}

/// Where a tensor is.
#[derive(Debug, Clone)]
pub(super) struct Location {
    /// Which of the component's files.
    pub file: usize,
    /// Its name there.
    pub name: String,
    pub view: View,
}

/// What may help where a model lacks a component, or a file of one: another model, or the component itself.
pub(super) fn from_elsewhere(path: &str) -> impl Iterator<Item = Remedy> {
    let component = path.split('/').next().unwrap_or(path);
    let own = Field::ALL.iter().copied().filter(move |field| field.word().replace(' ', "_") == component);
    let fields: Vec<_> = own.collect();
    let base = (!fields.is_empty()).then_some(Field::Base);
    base.into_iter().chain(fields).map(Remedy::Give)
}

/// `*.safetensors.index.json`, as transformers and diffusers write it.
#[derive(Deserialize)]
struct ShardIndex {
    /// Tensor -> file in the same folder.
    weight_map: BTreeMap<String, String>,
}

impl ComponentWeights {
    /// Finds and maps the component's file or files. Those of a family's network may be written as in checkpoints.
    pub(super) fn open(files: &dyn Files, component: &str, families: &Families) -> Result<Self> {
        let path = weights_of(files, component)?;
        if path.ends_with(".json") {
            return Self::sharded(files, component, &path, families);
        }
        let file = files.tensors(&path)?;
        let place = file.path().display().to_string();
        let names = file.all_names().map(String::from).collect();
        Self { place, files: vec![Arc::new(file)], tensors: BTreeMap::new() }.named(component, families, &[names])
    }

    /// These names of each file under those that networks ask for.
    ///
    /// # Errors
    /// If one that may be read is of a type that is not known.
    fn named(mut self, component: &str, families: &Families, names: &[Vec<String>]) -> Result<Self> {
        let all = names.iter().flatten().map(String::as_str).collect();
        let Sorted { tensors, unknown, .. } = sort(all, families, Some(component));
        let own = tensors.into_iter().filter(|named| named.component == component);
        let own = own.map(|Named { name, stored, view, .. }| (name, stored, view));
        let as_they_are = unknown.into_iter().map(|name| (canonical(component, &name).into_owned(), name, View::Whole));
        let all: Vec<_> = own.chain(as_they_are).collect();
        let files: HashMap<_, _> =
            names.iter().enumerate().flat_map(|(i, names)| names.iter().map(move |name| (name.as_str(), i))).collect();
        for (name, stored, view) in all {
            let Some(&file) = files.get(stored.as_str()) else { continue };
            if self.files[file].has(&stored) || !is_harmless(&name) {
                self.tensors.insert(name, Location { file, name: stored, view });
            }
        }
        let read: HashSet<_> = self.tensors.values().map(|stored| (stored.file, stored.name.as_str())).collect();
        let mut files = self.files.iter().enumerate();
        files.try_for_each(|(i, file)| file.refuse_unknown_types(|name| read.contains(&(i, name))))?;
        Ok(self)
    }

    fn sharded(place: &dyn Files, component: &str, path: &str, families: &Families) -> Result<Self> {
        let index: ShardIndex = json(place, path)?;
        let fail = |what: String| Error::file(place.path(path), what);
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        // A name with a folder in it would let a downloaded index read files anywhere.
        if let Some(outside) = shards.iter().find(|shard| shard.contains(['/', '\\']) || shard.starts_with("..")) {
            return Err(fail(format!("names the shard `{outside}`, which is not a file beside it")));
        }
        let (there, gone): (Vec<&String>, Vec<&String>) =
            shards.into_iter().partition(|shard| place.has(&format!("{component}/{shard}")));
        if !gone.is_empty() {
            return Err(fail(format!("names shards that are not there: {}; download them too", ten(&gone))));
        }
        let file = |shard: &&String| place.tensors(&format!("{component}/{shard}")).map(Arc::new);
        let files = there.iter().map(file).collect::<Result<Vec<_>>>()?;
        let mut names = vec![Vec::new(); files.len()];
        let mut lacking = Vec::new();
        for (name, shard) in &index.weight_map {
            match there.binary_search(&shard).ok().filter(|&file| files[file].has_any(name)) {
                Some(file) => names[file].push(name.clone()),
                None => lacking.push(format!("{name} ({shard})")),
            }
        }
        if !lacking.is_empty() {
            let what =
                format!("names tensors that their shards lack: {}; download index and shards together", ten(&lacking));
            return Err(fail(what));
        }
        let place = place.path(path).display().to_string();
        Self { place, files, tensors: BTreeMap::new() }.named(component, families, &names)
    }

    /// What the file calls the type of a tensor's elements: `f16`, `q8_0`.
    pub fn stored_as(&self, name: &str) -> Option<String> {
        let stored = self.tensors.get(name)?;
        self.files[stored.file].stored_as(&stored.name)
    }

    /// The blocks of a matrix, if it has any.
    fn blocks(&self, name: &str) -> Option<(Blocks, &[u8])> {
        let stored = self.tensors.get(name)?;
        let (blocks, bytes) = self.files[stored.file].blocks(&stored.name)?;
        let shape = self.files[stored.file].shape(&stored.name)?;
        let bytes = match (stored.view, shape.dims()) {
            (View::Whole, [_, _]) => bytes,
            (View::Third(third), [rows, _]) if rows % 3 == 0 => &bytes[third * (bytes.len() / 3)..][..bytes.len() / 3],
            _ => return None,
        };
        // Blocks run along rows of the matrix as the file has it.
        shape.channels().is_multiple_of(blocks.elements()).then_some((blocks, bytes))
    }
}

impl Weights for ComponentWeights {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        let stored = self.tensors.get(name)?;
        self.files[stored.file].get(&stored.name).map(|raw| stored.view.of(raw))
    }

    fn shape(&self, name: &str) -> Option<Shape> {
        let stored = self.tensors.get(name)?;
        Some(stored.view.shape(self.files[stored.file].shape(&stored.name)?))
    }

    fn dtype(&self, name: &str) -> Option<DType> {
        let stored = self.tensors.get(name)?;
        self.files[stored.file].dtype(&stored.name)
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn layout(&self, name: &str) -> Option<BlockLayout> {
        self.blocks(name).map(|(blocks, _)| blocks.layout())
    }

    fn quantized(&self, name: &str) -> Option<Quantized> {
        self.blocks(name).map(|(blocks, bytes)| blocks.take_apart(bytes))
    }
}
