//! The networks that a system runs, as a list that can be read before anything is loaded.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::error::Result;
use crate::graph::{Graph, Origin};
use crate::models::controlnet;
use crate::network::Executor;
use crate::tensor::{Shape, Tensor};
use crate::weights::{Bundle, Changes, ComponentWeights, Extended, Merged, Model};

/// A network of a model, or a part of one, as it is loaded.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it is for, which spans and kept networks are called by.
    pub what: String,
    /// The folder of its weights.
    pub component: String,
    /// What of it runs.
    pub graph: Graph,
    /// Every tensor that its file should hold.
    pub wanted: Vec<(String, Shape)>,
    /// Rows that are added to a table of this name.
    pub added: Option<(&'static str, Tensor)>,
    /// How often it runs for the pictures that it is made for.
    pub times: usize,
}

/// The models that a system draws with.
pub struct Models {
    /// Its own.
    pub model: Model,
    /// ControlNets.
    pub controls: Vec<Model>,
    /// What finishes the pictures.
    pub refiner: Option<Box<Models>>,
    /// What its networks' names begin with: nothing, or [`REFINERS`].
    pub role: &'static str,
}

/// What the names of a refiner's networks begin with.
pub const REFINERS: &str = "refiner's ";

impl Models {
    /// A model alone.
    pub fn of(model: Model) -> Self {
        Self { model, controls: Vec::new(), refiner: None, role: "" }
    }

    /// A part of these models by its name among those of all.
    pub(super) fn named(&self, part: Part) -> Part {
        Part { what: format!("{}{}", self.role, part.what), ..part }
    }
}

/// A part's weights: its component's with the changes of LoRA files, those of ControlNets, and added rows.
pub(super) type PartWeights = Extended<Bundle<Merged<ComponentWeights>, ComponentWeights>>;

impl Part {
    /// # Errors
    /// If a file of them is missing or cannot be read.
    pub(super) fn weights(&self, models: &Models, changes: &Changes) -> Result<PartWeights> {
        let own = changes.merged(&self.component, models.model.weights(&self.component)?);
        let mut others = Vec::new();
        for (index, control) in models.controls.iter().enumerate() {
            let path = controlnet::path(index);
            if self.wanted.iter().any(|(name, _)| name.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'))) {
                others.push((path, control.weights("controlnet")?));
            }
        }
        let none = ("", Tensor::zeros([0]));
        let (table, rows) = self.added.as_ref().unwrap_or(&none);
        Ok(Extended::new(Bundle::new(own, others), table, rows))
    }

    /// What it is made for: its inputs' names and sizes, the type of activations, its outputs (of a text encoder,
    /// those of one layer or another), the changes of LoRA files, and added rows.
    pub(super) fn made_for(&self, executor: &Executor, changes: &Changes) -> String {
        let inputs = self.graph.values.iter().filter_map(|value| match &value.origin {
            Origin::Input(name) => Some(format!(", {name} {}", value.ty.shape)),
            _ => None,
        });
        let mut added = DefaultHasher::new();
        let rows = self.added.iter().flat_map(|(_, rows)| &rows.data);
        rows.for_each(|value| value.to_bits().hash(&mut added));
        let files = changes.files(&self.component);
        let rest = format!(", {:?}, {files}, {}", self.graph.outputs, added.finish());
        std::iter::once(executor.dtype().to_string()).chain(inputs).chain([rest]).collect()
    }
}
