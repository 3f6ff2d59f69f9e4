//! A model with some of its networks from elsewhere: another folder, a file, or another model.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Model, Other, Storage};
use crate::error::{Error, Field, Remedy, Result, ten};
use crate::weights::checkpoint::content::field_of;
use crate::weights::checkpoint::seen::Seen;
use crate::weights::checkpoint::{Checkpoint, Part};
use crate::weights::component::variants;
use crate::weights::family::{CONTROLNET, Component, Families, Family};
use crate::weights::files::Folder;
use crate::weights::unreadable;

/// A network that diffusers shows what was drawn, and that nothing here runs.
const SAFETY_CHECKER: &str = "safety_checker";

/// diffusers' default of `scaling_factor`.
const SCALING: f64 = 0.18215;

impl Model {
    /// The same with what lies in a folder (a `config.json` and weights) in the place of a component.
    pub(super) fn with_component(self, component: &'static str, folder: &Path) -> Self {
        self.with_other(component, Storage::Folder(Folder::of_component(folder, component)))
    }

    fn with_other(mut self, component: &'static str, storage: Storage) -> Self {
        self.others.retain(|other| other.component != component);
        self.others.push(Other { component, storage });
        self
    }

    /// The same with a component of another place: its folder, or that of a model that has it; a file that holds it,
    /// alone or among others.
    ///
    /// # Errors
    /// If there is no such component, or it is not one for this model's family.
    pub fn with_part(self, component: &'static str, path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        let own = format!("{component}/config.json");
        let config: Option<Value> = self.has(&own).then(|| self.json(&own)).transpose()?;
        let family = self.family()?;
        if let Some(family) = family {
            self.check_place(component, family)?;
        }
        let part = if metadata.is_dir() {
            let folders = [path.to_path_buf(), path.join(component)];
            let Some(folder) = folders.iter().find(|folder| folder.join("config.json").exists()) else {
                let what = format!("holds no {component}: a component's folder has its config.json and weights");
                return Err(Error::file(path, what));
            };
            self.with_component(component, folder)
        } else {
            let part = Part { component, family, config: config.clone() };
            let checkpoint = Checkpoint::part(path, self.families, &part)?;
            self.with_other(component, Storage::File(checkpoint))
        };
        let misfit = match (family, part.family()?) {
            (Some(family), Some(found)) if !alike(family, found) => Some((found.title.to_string(), family.title)),
            _ => other_latents(&part.json(&own)?, config.as_ref(), family, part.families),
        };
        match misfit {
            None => Ok(part),
            Some((found, wanted)) => {
                let what =
                    format!("is a {component} of {found}, and the model is {wanted}; give one of the same family");
                Err(Error::file(path, what))
            }
        }
    }

    /// Refuses a network of other families than the model's, which nothing would read.
    fn check_place(&self, component: &str, family: &Family) -> Result<()> {
        let named = |other: &&Component| other.name == component;
        if self.families.components().all(|other| !named(&other)) || family.components.iter().any(|own| named(&own)) {
            return Ok(());
        }
        let (model, title) = (self.name(), family.title);
        let error = Error::usage(format!("is not for {model}, which is {title} and has no {component}"));
        Err(match field_of(component) {
            Some(field) => error.of(field).remedies([Remedy::Without(field)]),
            None => error,
        })
    }

    /// The same with every network of another model, from the place where that is.
    ///
    /// # Errors
    /// As [`Model::with_part`]; if one of them is a ControlNet, or the other lacks none of this model's networks.
    pub fn with_parts_of(mut self, other: &Self) -> Result<Self> {
        [&self, other].into_iter().try_for_each(Self::refuse_controlnet)?;
        let is_taken = |name: &String| ![CONTROLNET, SAFETY_CHECKER].contains(&name.as_str()) && !other.has(name);
        if !self.components().iter().any(is_taken) {
            let (base, model) = (self.name(), other.name());
            let what = format!("{base} gives nothing: {model} has every network that it has");
            return Err(Error::usage(what).of(Field::Base).remedies([Remedy::Without(Field::Base)]));
        }
        let called = Some(other.name());
        let names: Vec<&'static str> = self.families.components().map(|component| component.name).collect();
        for component in other.components() {
            let Some(name) = names.iter().find(|name| **name == component) else { continue };
            self = self.with_part(name, &other.path(if other.checkpoint().is_some() { "" } else { name }))?;
        }
        Ok(Self { called, ..self })
    }

    /// Refuses a ControlNet, as one that is asked for a network of a model.
    fn refuse_controlnet(&self) -> Result<()> {
        if self.components() == [CONTROLNET] { self.text("unet/config.json").map(drop) } else { Ok(()) }
    }

    /// The same with the weights that folders call so, as `fp16`, wherever they have them.
    ///
    /// # Errors
    /// If no component has a variant of this name.
    pub fn with_variant(mut self, variant: &str) -> Result<Self> {
        let folders = self.components();
        let all: BTreeSet<String> = match self.storage.files() {
            Ok(files) => folders.iter().flat_map(|component| variants(files, component)).collect(),
            Err(_) => BTreeSet::new(),
        };
        match &mut self.storage {
            Storage::Folder(folder) if all.contains(variant) => folder.variant = Some(variant.into()),
            _ => {
                let known = if all.is_empty() { "none".into() } else { ten(&all.iter().collect::<Vec<_>>()) };
                let what = format!("{variant} is not among the variants of {}, which has {known}", self.name());
                return Err(Error::usage(what).of(Field::Variant).remedies([Remedy::Without(Field::Variant)]));
            }
        }
        Ok(self)
    }

    /// The family that its network for pictures tells.
    pub(in crate::weights) fn family(&self) -> Result<Option<&'static Family>> {
        let denoiser = self.families.components().find(|network| network.denoises && self.has(network.name));
        let Some(Component { name, .. }) = denoiser else { return Ok(None) };
        Ok(self.families.of(&Seen::of(&self.weights(name)?)))
    }
}

/// Whether two families have the same networks next to the one for pictures.
fn alike(one: &Family, other: &Family) -> bool {
    let facts = |family: &Family| {
        let names: Vec<_> = family.components.iter().map(|component| component.name).collect();
        (names, family.untold.trainer, family.untold.scaling.to_bits())
    };
    facts(one) == facts(other)
}

/// Whose latents an autoencoder has, and whose the model wants, if those are known and not the same.
fn other_latents(
    found: &Value,
    own: Option<&Value>,
    family: Option<&'static Family>,
    families: &'static Families,
) -> Option<(String, &'static str)> {
    let scaling = |config: &Value| {
        let factor = config["scaling_factor"].as_f64().unwrap_or(SCALING);
        (config["_class_name"] == "AutoencoderKL").then_some(factor)
    };
    let of = |factor: f64| families.known.iter().filter(move |family| family.untold.scaling == factor);
    let (found, family) = (scaling(found)?, family?);
    let wanted = own.map_or(Some(family.untold.scaling), scaling)?;
    let titles: Vec<_> = of(found).map(|family| family.title).collect();
    (found != wanted && !titles.is_empty()).then(|| (titles.join(" or "), family.title))
}
