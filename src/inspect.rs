//! What a model consists of, and whether its weights are whole.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::components::{Component, Components};
use crate::error::{Error, Field, Result};
use crate::systems::{class_of, row_of};
use crate::tensor::{Shape, Weights};
use crate::weights::checkpoint::seen::Seen;
use crate::weights::{Model, check};

/// A model as its files describe it.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Its path or name, as it was given.
    pub model: String,
    /// `None` where there is no UNet to tell it.
    pub family: Option<&'static str>,
    /// The class of its pipeline, if its `model_index.json` names one.
    pub class: Option<String>,
    /// `epsilon` or `v_prediction`, from the scheduler's configuration.
    pub prediction: Option<String>,
    /// How that is known of a checkpoint, which does not always say so.
    pub prediction_because: Option<String>,
    /// Whether its noise schedule ends in pure noise, by the scheduler's configuration or a checkpoint's markers.
    pub ends_in_pure_noise: bool,
    /// Every network of the model, in the order of its index.
    pub components: Vec<ComponentSummary>,
    /// Folders with a network of a class that is not built, and that class.
    pub others: Vec<(String, String)>,
    /// Tensors of a checkpoint that no network reads, knowingly.
    pub left_out: usize,
    /// Tensors of a checkpoint that belong to no component and are not known.
    pub unknown: Vec<String>,
}

/// One network.
#[derive(Debug, Serialize)]
pub struct ComponentSummary {
    /// Its folder in a diffusers model: `unet`.
    pub component: String,
    /// Of a network that makes pictures.
    #[serde(skip)]
    family: Option<&'static str>,
    /// What sets it apart, in words.
    pub about: String,
    /// How many tensors it has.
    pub tensors: usize,
    /// How many numbers those hold together.
    pub parameters: usize,
    /// Parameters of each element type.
    pub dtypes: BTreeMap<String, usize>,
    /// Every tensor that the network wants, with its shape.
    #[serde(skip)]
    wanted: Vec<(String, Shape)>,
}

/// Reads the model's configurations and the headers of its weights.
///
/// # Errors
/// If one cannot be read, or asks for what is not built.
pub fn inspect(model: &Model) -> Result<Inspection> {
    let Components { built, others } = Components::of(model)?;
    let components = built.iter().map(|component| part(model, component)).collect::<Result<Vec<_>>>()?;
    let class = class_of(model);
    // Families are of models that LoRA files are made for.
    let has_families = row_of(class.as_deref()).is_none_or(|row| row.takes(Field::Lora));
    let family = components.iter().find_map(|part| part.family).filter(|_| has_families);
    let scheduler = "scheduler/scheduler_config.json";
    let scheduler: Value = if model.has(scheduler) { model.json(scheduler)? } else { Value::Null };
    let word = |key: &str| scheduler[key].as_str().map(String::from);
    let checkpoint = model.checkpoint();
    Ok(Inspection {
        model: model.name(),
        family,
        class,
        prediction: word("prediction_type").or_else(|| family.map(|_| "epsilon".into())),
        prediction_because: word("_prediction_type_because"),
        ends_in_pure_noise: scheduler["rescale_betas_zero_snr"] == true,
        components,
        others,
        left_out: checkpoint.map_or(0, |checkpoint| checkpoint.left_out()),
        unknown: checkpoint.map_or_else(Vec::new, |checkpoint| checkpoint.unknown().to_vec()),
    })
}

fn part(model: &Model, component: &Component) -> Result<ComponentSummary> {
    let Component { folder, config } = component;
    let (weights, wanted) = (model.weights(folder)?, config.wanted(folder)?);
    let (mut tensors, mut dtypes) = (0, BTreeMap::new());
    for (name, shape) in wanted.iter().filter_map(|(name, _)| Some((name, weights.shape(name)?))) {
        tensors += 1;
        *dtypes.entry(weights.stored_as(name).unwrap_or_default()).or_insert(0) += shape.len();
    }
    let families = model.families();
    let denoises = families.components().any(|network| network.denoises && network.name == folder);
    let (family, about) = match families.of(&Seen::of(&weights)) {
        Some(family) if denoises => (Some(family.title), config.about()),
        Some(family) => (None, format!("for {}, {}", family.title, config.about())),
        None => (None, config.about()),
    };
    let (component, parameters) = (folder.clone(), dtypes.values().sum());
    Ok(ComponentSummary { component, family, about, tensors, parameters, dtypes, wanted })
}

/// Looks at every tensor that the networks want: whether it is there, of the right shape, and finite. `tell` is called
/// with each component that is.
///
/// # Errors
/// The first component that is not whole, with what it lacks.
pub fn verify(model: &Model, tell: &mut dyn FnMut(&ComponentSummary)) -> Result<()> {
    for part in inspect(model)?.components {
        let weights = model.weights(&part.component)?;
        check(&weights, &part.wanted)?;
        for (name, tensor) in part.wanted.iter().filter_map(|(name, _)| Some((name, weights.get(name)?))) {
            if let Some(index) = tensor.to_f32().iter().position(|value| !value.is_finite()) {
                let place = tensor.shape.place(index);
                let what = format!("{name} is NaN or infinite at element {place}; download or export it again");
                return Err(Error::weights(weights.place(), what));
            }
        }
        tell(&part);
    }
    Ok(())
}
