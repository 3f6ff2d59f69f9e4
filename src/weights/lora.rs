//! LoRA files: small changes to a model's weights, added while those are loaded.
//!
//! [`LoraFile`] is a file as it is; [`Changes`] are those of several files, found in a model by the names that each
//! trainer gives its modules (`names`), their shapes checked; [`Merged`] adds them to a tensor when a network asks for
//! it. So nothing else knows of them, and no tensor is in memory twice but the one that is being loaded.

mod change;
mod factor;
mod file;
mod merged;
mod names;
mod orthogonal;
mod roles;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use change::Change;
pub use file::LoraFile;
use file::Parts;
pub use merged::Merged;
use names::Names;
use roles::Role;

use super::{ComponentWeights, Model, family};
use crate::error::{Error, Result, ten};
use crate::tensor::Weights;

/// A file and how much of its changes is added: 1 is all, a negative number takes away.
#[derive(Debug, Clone)]
pub struct Lora {
    /// Whose changes are added.
    pub file: Arc<LoraFile>,
    /// To the UNet.
    pub unet: f32,
    /// To the text encoders.
    pub text: f32,
}

impl Lora {
    /// How much is added to this network.
    fn strength(&self, network: &family::Component) -> f32 {
        if network.denoises { self.unet } else { self.text }
    }
}

/// What several files change in a model.
#[derive(Debug, Default)]
pub struct Changes {
    components: BTreeMap<&'static str, Component>,
    /// Nanoseconds that merging took since somebody asked.
    clock: Arc<AtomicU64>,
}

/// What they change in one network.
#[derive(Debug, Default)]
struct Component {
    changes: Arc<BTreeMap<String, Vec<Change>>>,
    /// The files that change it, and how much.
    files: Vec<String>,
}

impl Changes {
    /// Finds the tensors of `model` that the files change. What they change by adds up, each against the model's own.
    ///
    /// # Errors
    /// If a file changes what the model does not have, has parts that do not fit each other or the model's tensors, or
    /// lacks some.
    pub fn of(model: &Model, loras: &[Lora]) -> Result<Self> {
        let mut found = Self::default();
        if loras.is_empty() {
            return Ok(found);
        }
        let networks = networks(model)?;
        let names = Names::of(networks.iter().map(|(network, weights)| (*network, weights.names())));
        let mut all: Vec<BTreeMap<String, Vec<Change>>> = networks.iter().map(|_| BTreeMap::new()).collect();
        let mut files: Vec<Vec<String>> = networks.iter().map(|_| Vec::new()).collect();
        for lora in loras {
            for (place, changes) in changes_of(lora, &names, &networks, model)?.into_iter().enumerate() {
                if !changes.is_empty() {
                    files[place].push(format!("{} {}", lora.file.path().display(), lora.strength(networks[place].0)));
                }
                for (tensor, change) in changes {
                    all[place].entry(tensor).or_default().push(change);
                }
            }
        }
        for (((network, _), changes), files) in networks.iter().zip(all).zip(files) {
            found.components.insert(network.name, Component { changes: Arc::new(changes), files });
        }
        Ok(found)
    }

    /// The component's weights with its changes in them.
    pub fn merged<W: Weights>(&self, component: &str, inner: W) -> Merged<W> {
        let own = self.components.get(component);
        let changes = own.map(|own| Arc::clone(&own.changes)).unwrap_or_default();
        Merged { inner, changes, files: self.files(component), clock: self.clock.clone() }
    }

    /// The files that change this component, and how much.
    pub fn files(&self, component: &str) -> String {
        self.components.get(component).map(|own| own.files.join(", ")).unwrap_or_default()
    }

    /// How long merging took since the last call.
    pub fn take_time(&self) -> Duration {
        Duration::from_nanos(self.clock.swap(0, Ordering::Relaxed))
    }
}

/// A network that LoRA files change, and its weights.
type Network = (&'static family::Component, ComponentWeights);

/// Those of a model.
fn networks(model: &Model) -> Result<Vec<Network>> {
    let mut networks: Vec<Network> = Vec::new();
    for network in model.families().components().filter(|network| network.lora.iter().any(|starts| !starts.is_empty()))
    {
        let is_new = networks.iter().all(|(other, _)| other.name != network.name);
        if is_new && model.has(network.name) {
            networks.push((network, model.weights(network.name)?));
        }
    }
    Ok(networks)
}

/// What one file changes in a network, by tensor.
type Changed = BTreeMap<String, Change>;

/// What one file changes, by network.
fn changes_of(lora: &Lora, names: &Names, networks: &[Network], model: &Model) -> Result<Vec<Changed>> {
    let mut changes: Vec<Changed> = networks.iter().map(|_| BTreeMap::new()).collect();
    let (mut strange, mut misfits) = (Vec::new(), Vec::new());
    for (module, parts) in &lora.file.modules {
        let found = names.find(module);
        for (ending, parts) in by_tensor(parts) {
            let target = found.and_then(|(place, weight)| {
                let tensor = format!("{}{ending}", weight.strip_suffix(".weight")?);
                Some((*place, networks[*place].1.shape(&tensor)?, tensor))
            });
            let Some((place, shape, tensor)) = target else {
                strange.extend(parts.into_values());
                continue;
            };
            let network = networks[place].0;
            match Change::new(&lora.file, &parts, (network.name, &tensor), &shape, lora.strength(network)) {
                Ok(_) if changes[place].contains_key(&tensor) => {
                    misfits.push(format!("{module}: {} {tensor} twice", network.name))
                }
                Ok(change) => _ = changes[place].insert(tensor, change),
                Err(what) => misfits.push(format!("{module}: {what}")),
            }
        }
    }
    if !lora.file.modules.keys().any(|module| names.knows(module)) {
        let two: Vec<_> = lora.file.modules.keys().take(2).map(String::as_str).collect();
        let what = "names its modules in a way that is not known, as";
        let what = format!("{what} {}; save it with kohya's or PEFT's names", two.join(" and "));
        return Err(Error::file(lora.file.path(), what));
    }
    let wrong = [("it has nothing that these tensors change", strange), ("these changes cannot be made", misfits)];
    let wrong = wrong.iter().filter(|(_, names)| !names.is_empty());
    let wrong: Vec<_> = wrong.map(|(what, names)| format!("{what}: {}", ten(names))).collect();
    if wrong.is_empty() {
        return Ok(changes);
    }
    let made_for = model.families().of_lora(lora.file.modules.keys().map(String::as_str));
    if let (Some(made_for), Some(family)) = (made_for, model.family()?)
        && !made_for.families.contains(&family.name)
    {
        let (title, model) = (made_for.title, model.name());
        let what = format!("was made for {title}, and {model} is {}; give one for its family", family.title);
        return Err(Error::file(lora.file.path(), what));
    }
    let what = format!("was not made for {}: {}", model.name(), wrong.join("; "));
    Err(Error::file(lora.file.path(), what))
}

/// The parts of a module by the ending of the tensor that they change.
fn by_tensor(parts: &Parts) -> impl Iterator<Item = (&'static str, Parts)> {
    let (mut weight, mut bias) = (parts.clone(), Parts::new());
    bias.extend(weight.remove(&Role::DiffBias).map(|name| (Role::Diff, name)));
    [(".weight", weight), (".bias", bias)].into_iter().filter(|(_, parts)| !parts.is_empty())
}
