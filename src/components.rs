//! The networks of a model: which of its folders hold one, and what their configurations say.

use crate::error::{Error, Result};
use crate::models::config::{FORWARD, NetworkConfig};
use crate::models::ports::Sizes;
use crate::models::table;
use crate::weights::Model;

/// A network of a model.
pub struct Component {
    /// The folder of its configuration and weights.
    pub folder: String,
    /// Its `config.json`, read.
    pub config: Box<dyn NetworkConfig>,
}

/// The networks of a model.
pub struct Components {
    /// In the order of their folders' names.
    pub built: Vec<Component>,
    /// The folders whose networks are of a class that is not built, and that class.
    pub others: Vec<(String, String)>,
}

impl Component {
    /// What `ornstein forward` calls a pass of it: `vae-decoder`, or `unet` where there is only one.
    pub fn pass_name(&self, way: &str) -> String {
        let folder = self.folder.replace('_', "-");
        if way == FORWARD { folder } else { format!("{folder}-{way}") }
    }
}

impl Components {
    /// Reads the configurations of a model's networks.
    ///
    /// # Errors
    /// If one cannot be read or asks for what is not built of its class, or there is no network.
    pub fn of(model: &Model) -> Result<Self> {
        let (mut built, mut others) = (Vec::new(), Vec::new());
        for folder in model.components() {
            let path = format!("{folder}/config.json");
            let (text, place) = (model.text(&path)?, model.path(&path).display().to_string());
            match table::open(&folder, &text, &place)? {
                Some(config) => built.push(Component { folder, config }),
                None => others.push((folder, table::class_of(&text, &place)?.unwrap_or_default())),
            }
        }
        if built.is_empty() {
            let classes = table::classes().collect::<Vec<_>>().join(", ");
            let what = format!("has no network that is built: no folder's config.json is of a class of {classes}");
            return Err(Error::config(model.name(), what));
        }
        Ok(Self { built, others })
    }

    /// The sizes that the networks were made for, as far as they know them.
    pub fn own_sizes(&self, mut sizes: Sizes) -> Sizes {
        self.built.iter().for_each(|component| component.config.own_sizes(&mut sizes));
        sizes
    }

    /// Every pass of every network.
    pub fn passes(&self) -> impl Iterator<Item = (&Component, &'static str)> {
        self.built.iter().flat_map(|component| component.config.ways().iter().map(move |way| (component, *way)))
    }

    /// The pass of that name: as [`Component::pass_name`] has it, or with `_` for `-`.
    ///
    /// # Errors
    /// If the model has no such pass.
    pub fn pass(&self, model: &Model, name: &str) -> Result<(&Component, &'static str)> {
        let wanted = name.replace('_', "-");
        let found = self.passes().find(|(component, way)| component.pass_name(way) == wanted);
        found.ok_or_else(|| {
            let names: Vec<_> = self.passes().map(|(component, way)| component.pass_name(way)).collect();
            let other = self.others.iter().find(|(folder, _)| folder.replace('_', "-") == wanted);
            let why = other.map_or("is not one of its networks".into(), |(_, class)| {
                format!("is of the class {class}, which is not built")
            });
            Error::usage(format!("{}: {name} {why}; it has {}", model.name(), names.join(", ")))
        })
    }
}
