//! The tensors of one component of a model: one safetensors file, or the shards that an index file lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;

use super::file::TensorFile;
use super::files::{Files, json};
use super::format::Blocks;
use super::format::safetensors::PICKLE;
use super::names::canonical;
use super::view::View;
use crate::error::{Error, Result, ten};
use crate::tensor::{BlockLayout, DType, Quantized, RawTensor, Shape, Weights};

/// A component's files, best first: diffusers' names and then transformers', full precision before f16.
const FILES: [&str; 10] = [
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.gguf",
    "model.gguf",
];

/// Endings of files that hold PyTorch pickles.
const PICKLES: [&str; 4] = ["bin", "ckpt", "pt", "pth"];

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

impl Location {
    fn whole(file: usize, name: &str) -> Self {
        Self { file, name: name.into(), view: View::Whole }
    }
}

/// `*.safetensors.index.json`, as transformers and diffusers write it.
#[derive(Deserialize)]
struct ShardIndex {
    /// Tensor -> file in the same folder.
    weight_map: BTreeMap<String, String>,
}

impl ComponentWeights {
    /// Finds and maps the component's file or files.
    pub(super) fn open(files: &dyn Files, component: &str) -> Result<Self> {
        let found = FILES.iter().map(|file| format!("{component}/{file}")).find(|path| files.has(path));
        let path = found.ok_or_else(|| absent(files, component))?;
        if path.ends_with(".json") {
            return Self::sharded(files, component, &path);
        }
        let file = files.tensors(&path)?;
        let tensors = file.names().map(|name| (canonical(component, name).into_owned(), Location::whole(0, name)));
        let tensors = tensors.collect();
        Ok(Self { place: file.path().display().to_string(), files: vec![Arc::new(file)], tensors })
    }

    fn sharded(place: &dyn Files, component: &str, path: &str) -> Result<Self> {
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
        let mut tensors = BTreeMap::new();
        let mut lacking = Vec::new();
        for (name, shard) in &index.weight_map {
            match there.binary_search(&shard).ok().filter(|&file| files[file].has(name)) {
                Some(file) => _ = tensors.insert(canonical(component, name).into_owned(), Location::whole(file, name)),
                None => lacking.push(format!("{name} ({shard})")),
            }
        }
        if !lacking.is_empty() {
            let what =
                format!("names tensors that their shards lack: {}; download index and shards together", ten(&lacking));
            return Err(fail(what));
        }
        Ok(Self { place: place.path(path).display().to_string(), files, tensors })
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

/// Why a component has no weights, and what to do.
fn absent(files: &dyn Files, component: &str) -> Error {
    let folder = files.path(component);
    if !files.has(component) {
        return Error::file(folder, "no such folder: this model has no such component, or its download is incomplete");
    }
    let is_pickle = |name: &String| name.rsplit_once('.').is_some_and(|(_, ending)| PICKLES.contains(&ending));
    let (pickle, others): (Vec<_>, Vec<_>) = files.list(component).into_iter().partition(is_pickle);
    if let Some(pickle) = pickle.first() {
        let what = format!(
            "`{pickle}` {PICKLE}; download the .safetensors, or convert it in Python with `save_pretrained(.., \
             safe_serialization=True)`"
        );
        return Error::file(folder, what);
    }
    let found = if others.is_empty() { "it is empty".into() } else { format!("it has {}", ten(&others)) };
    Error::file(folder, format!("no weights: expected {} or {}, {found}", FILES[0], FILES[1]))
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
