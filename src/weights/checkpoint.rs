//! A model in one file, in the key layout of the original Stable Diffusion code, seen as the folder that diffusers would
//! make of it.
//!
//! Every network's tensors stand under the names that networks ask for ([`keys`]); the configurations are inferred from
//! their shapes ([`infer`]); the tokenizer is CLIP's. A file that holds one network alone is a folder with one component.

mod infer;
mod keys;
mod original;
mod prediction;
mod refuse;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::component::{ComponentWeights, Stored};
use super::file::TensorFile;
use super::manifest::Family;
use super::names::canonical;
use super::vocabulary;
use crate::error::{Error, Result, ten};
use infer::{Seen, Trainer};
use keys::Layout;
pub(super) use original::Original;
use prediction::{Prediction, VELOCITY};

/// Starts of names, the component that they belong to, and how it is written.
const PARTS: &[(&str, &str, Layout)] = &[
    ("model.diffusion_model.", "unet", Layout::Unet),
    ("diffusion_model.", "unet", Layout::Unet),
    ("first_stage_model.", "vae", Layout::Vae),
    ("vae.", "vae", Layout::Vae),
    ("cond_stage_model.transformer.", "text_encoder", Layout::Clip),
    ("cond_stage_model.model.", "text_encoder", Layout::OpenClip),
    ("conditioner.embedders.0.transformer.", "text_encoder", Layout::Clip),
    ("conditioner.embedders.1.model.", "text_encoder_2", Layout::OpenClip),
    ("control_model.", "controlnet", Layout::ControlNet),
];

/// A tensor that tells what a file without such starts holds.
const ALONE: &[(&str, &str, Layout)] = &[
    // First: it has tensors of a UNet's names, too.
    ("input_hint_block.0.weight", "controlnet", Layout::ControlNet),
    ("controlnet_cond_embedding.conv_in.weight", "controlnet", Layout::ControlNet),
    ("input_blocks.0.0.weight", "unet", Layout::Unet),
    ("down_blocks.0.resnets.0.conv1.weight", "unet", Layout::Unet),
    ("decoder.conv_in.weight", "vae", Layout::Vae),
    ("text_model.embeddings.token_embedding.weight", "text_encoder", Layout::Clip),
    ("embeddings.token_embedding.weight", "text_encoder", Layout::Clip),
];

/// Layers of OpenCLIP's ViT-H that Stable Diffusion 2 reads: all but the last.
const SD2_TEXT_LAYERS: usize = 23;

/// A component's tensors: canonical name -> where it lies in the file.
type Tensors = BTreeMap<String, Stored>;

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
    /// A file that is no whole safetensors or GGUF file, or holds nothing that can be opened as a model; the message says
    /// what it is, where that is known.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open_any(path)?;
        if let Some(what) = refuse::other_kind(file.all_names()) {
            return Err(Error::file(path, what));
        }
        let Sorted { components, left_out, unknown } = sort(&file);
        if components.is_empty() {
            let names: Vec<_> = file.all_names().collect();
            let what = format!(
                "holds no network of Stable Diffusion 1, 2 or XL under a name that is known; it has {}",
                if names.is_empty() { "no tensors".into() } else { ten(&names) }
            );
            return Err(Error::file(path, what));
        }
        let mut checkpoint = Self { file: Arc::new(file), components, texts: BTreeMap::new(), left_out, unknown };
        let family = checkpoint.family()?;
        checkpoint.leave_out_unread(family)?;
        let read = |name: &str| {
            checkpoint.components.values().any(|tensors| tensors.values().any(|stored| stored.name == name))
        };
        checkpoint.file.refuse_unknown_types(read)?;
        checkpoint.texts = checkpoint.infer(family)?;
        Ok(checkpoint)
    }

    /// The family of its UNet, if it has one.
    fn family(&self) -> Result<Option<Family>> {
        if !self.components.contains_key("unet") {
            return Ok(None);
        }
        Ok(Some(infer::family(&Seen::of(&self.weights("unet")?))))
    }

    /// Who trained a text encoder.
    fn trainer(&self, component: &str, family: Option<Family>) -> Result<Trainer> {
        Ok(infer::trainer(&Seen::of(&self.weights(component)?), component, family))
    }

    /// Leaves out what no UNet of this family is conditioned by: of Stable Diffusion 1's and 2's text encoder the
    /// projection of the pooled text and, of OpenCLIP's layers, the last.
    fn leave_out_unread(&mut self, family: Option<Family>) -> Result<()> {
        const TEXT: &str = "text_encoder";
        if !self.components.contains_key(TEXT) {
            return Ok(());
        }
        let last = format!("text_model.encoder.layers.{SD2_TEXT_LAYERS}.");
        let is_cut = self.trainer(TEXT, family)? == Trainer::OpenClip;
        let is_read = |name: &str| name != "text_projection.weight" && !(is_cut && name.starts_with(&last));
        let tensors = self.components.remove(TEXT).unwrap_or_default();
        let (read, unread): (Tensors, Tensors) = tensors.into_iter().partition(|(name, _)| is_read(name));
        let stored: BTreeSet<_> = unread.values().map(|stored| &stored.name).collect();
        self.left_out += stored.len();
        self.components.insert(TEXT, read);
        Ok(())
    }

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
        match self.components.get(component) {
            Some(tensors) => {
                let place = format!("{} ({component})", self.path().display());
                Ok(ComponentWeights::of_files(place, vec![self.file.clone()], tensors.clone()))
            }
            None => Err(self.without(component)),
        }
    }

    /// The error of a component, or of one of its files, that is not there.
    pub fn without(&self, path: &str) -> Error {
        let component = path.split('/').next().unwrap_or(path);
        let held: Vec<_> = self.components().collect();
        Error::file(self.path(), format!("holds no {component}, only {}; give a file that has it", held.join(", ")))
    }

    /// The texts of the files beside the weights.
    fn infer(&self, family: Option<Family>) -> Result<BTreeMap<String, String>> {
        let mut texts = BTreeMap::new();
        let mut add = |path: String, value: Value| _ = texts.insert(path, value.to_string());
        if let Some(family) = family {
            let weights = self.weights("unet")?;
            let unet = Seen::of(&weights);
            if infer::is_refiner(&unet) {
                return Err(Error::file(
                    self.path(),
                    "is SDXL's refiner, which is not supported; give an SDXL base model",
                ));
            }
            let prediction = Prediction::of(&self.file, family, &weights);
            let side = match family {
                Family::Sdxl => 128,
                Family::Sd2 if prediction.kind == VELOCITY => 96,
                _ => 64,
            };
            add("unet/config.json".into(), infer::unet(&unet, self.trained_side().unwrap_or(side)));
            add("scheduler/scheduler_config.json".into(), infer::scheduler(family, &prediction));
            add("model_index.json".into(), infer::index(family));
        }
        if self.components.contains_key("controlnet") {
            add("controlnet/config.json".into(), infer::controlnet(&Seen::of(&self.weights("controlnet")?)));
        }
        if self.components.contains_key("vae") {
            add("vae/config.json".into(), infer::vae(&Seen::of(&self.weights("vae")?), family));
        }
        for suffix in ["", "_2"] {
            let component = format!("text_encoder{suffix}");
            if self.components.contains_key(component.as_str()) {
                let (weights, trainer) = (self.weights(&component)?, self.trainer(&component, family)?);
                add(format!("{component}/config.json"), infer::text_encoder(&Seen::of(&weights), trainer));
                add(format!("tokenizer{suffix}/tokenizer_config.json"), infer::tokenizer(trainer));
            }
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

/// A file's tensors by component.
#[derive(Default)]
struct Sorted {
    components: BTreeMap<&'static str, Tensors>,
    /// As [`Checkpoint::left_out`] and [`Checkpoint::unknown`].
    left_out: usize,
    unknown: Vec<String>,
}

fn sort(file: &TensorFile) -> Sorted {
    let mut left: Vec<&str> = file.all_names().collect();
    let in_parts = left.iter().any(|name| PARTS.iter().any(|(start, ..)| name.starts_with(start)));
    let alone = ALONE.iter().find(|(marker, ..)| !in_parts && file.has(marker));
    let alone = alone.map(|(_, component, layout)| vec![("", *component, *layout)]);
    let mut sorted = Sorted::default();
    for (start, component, layout) in alone.unwrap_or_else(|| PARTS.to_vec()) {
        let (own, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|name| name.starts_with(start));
        left = others;
        let own = own.iter().filter_map(|name| name.strip_prefix(start));
        let (leftovers, own): (Vec<_>, Vec<_>) = own.partition(|name| refuse::is_leftover(name));
        sorted.left_out += leftovers.len();
        if own.is_empty() {
            continue;
        }
        let tensors = sorted.components.entry(component).or_default();
        for (name, stored, view) in keys::tensors(layout, &own) {
            let name = canonical(component, &name).into_owned();
            tensors.insert(name, Stored { file: 0, name: format!("{start}{stored}"), view });
        }
    }
    let (leftovers, unknown): (Vec<_>, Vec<_>) = left.into_iter().partition(|name| refuse::is_leftover(name));
    sorted.left_out += leftovers.len();
    sorted.unknown = unknown.into_iter().map(String::from).collect();
    sorted
}
