//! What is known of an adapter's kernels, kept in the user's cache folder and shared by all processes. Kernels of the
//! crate's own text and of a user's edited text are kept apart: of the latter only those of the last folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::shader::{Dialect, Sources};
use super::store::{Store, hash};
use super::tune::Tuned;
use crate::cache;
use crate::caps::Caps;
use crate::error::Result;
use crate::files::read_text;
use crate::ops::Variant;

/// Why a kernel is refused that a process did not survive.
const ENDED: &str = "it ended an earlier run";

/// What verdicts are about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Id {
    /// The variant as a whole (op, variant, shader, storage, hash of its text), which is what fails.
    pub whole: String,
    /// The kernel with its constants, which is what passes.
    pub exact: String,
    /// As a user reads it.
    pub words: String,
    /// Of the edited files that it is made from, [`edit`]; 0 if all of its text is the crate's.
    pub edit: u64,
}

impl Id {
    pub fn of(sources: &Sources, op: &str, variant: &Variant, dialect: Dialect) -> Result<Self> {
        let (Variant { name, launch }, Dialect { elem, weight, .. }) = (variant, dialect);
        let source = sources.of_launch(launch, dialect)?;
        let constants: String = launch.constants.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        let text = hash(&(env!("CARGO_PKG_VERSION"), &source.text));
        let id = |constants| format!("{op} {name} {} {elem}-{weight}{constants} {text:016x}", launch.shader);
        let edit = if source.is_builtin() { 0 } else { edit(sources) };
        Ok(Self { whole: id(""), exact: id(&constants), words: format!("{op} {name} in {elem}"), edit })
    }

    /// Of a kernel of the crate that is not an op's.
    pub fn alone(name: &str, words: &str) -> Self {
        Self { whole: name.into(), exact: name.into(), words: words.into(), edit: 0 }
    }
}

/// Which edited files stand before the crate's own; 0 if none does.
pub(super) fn edit(sources: &Sources) -> u64 {
    if sources.are_builtin() { 0 } else { hash(&sources.edited().collect::<Vec<_>>()) }
}

/// What is known of the kernels of one adapter with one driver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdicts {
    /// The adapter's name.
    pub adapter: String,
    /// The driver for which they hold: with another all is checked anew.
    pub driver: String,
    /// A hash of the edited files that the kernels are made from; 0 for the crate's own.
    #[serde(default)]
    pub edit: u64,
    /// What the adapter announces and the driver refused when the device was last opened.
    #[serde(default)]
    pub without: Vec<String>,
    /// For each kernel (op, variant, shader, storage, constants, hash of its text) null if it passed; for each variant
    /// that failed, without constants, why.
    pub kernels: BTreeMap<String, Option<String>>,
    /// For each class of shapes that was met, which of the right variants was the fastest.
    #[serde(default)]
    pub tuned: BTreeMap<String, Tuned>,
}

impl Verdicts {
    /// Those on the crate's own kernels, on this adapter with this driver: empty if there are none, or they cannot be
    /// read.
    pub fn load(caps: &Caps) -> Self {
        Self::kept(Store::of(caps).as_ref(), caps, 0)
    }

    /// Those on kernels made from a user's edited files, the last that were used.
    pub fn of_edited(caps: &Caps) -> Self {
        let fresh = Self::fresh(caps, 1);
        Store::of(caps).and_then(|store| fresh.on_disk(&store)).unwrap_or(fresh)
    }

    /// Those on kernels made from these edited files, or the crate's own.
    pub(super) fn kept(store: Option<&Store>, caps: &Caps, edit: u64) -> Self {
        let fresh = Self::fresh(caps, edit);
        let kept = store.and_then(|store| fresh.on_disk(store)).filter(|kept| kept.edit == edit);
        kept.unwrap_or(fresh)
    }

    fn fresh(caps: &Caps, edit: u64) -> Self {
        Self { adapter: caps.name.clone(), driver: caps.driver.clone(), edit, ..Self::default() }
    }

    /// What is kept in the place of these.
    fn on_disk(&self, store: &Store) -> Option<Self> {
        let kept = read(&store.file(self.kind()))?;
        ((&kept.adapter, &kept.driver) == (&self.adapter, &self.driver)).then_some(kept)
    }

    fn kind(&self) -> &'static str {
        if self.edit == 0 { "json" } else { "edited.json" }
    }

    /// Keeps what `change` adds, beside what other processes have kept meanwhile, of which these verdicts then know
    /// too. The store must be [`Store::locked`].
    pub(super) fn keep(&mut self, store: Option<&Store>, change: impl Fn(&mut Self)) {
        change(self);
        let Some(store) = store else { return };
        let mut kept = self.on_disk(store).filter(|kept| kept.edit == self.edit);
        let kept =
            kept.get_or_insert_with(|| Self { kernels: BTreeMap::new(), tuned: BTreeMap::new(), ..self.clone() });
        change(kept);
        if let Ok(text) = serde_json::to_vec_pretty(&kept) {
            cache::keep(&store.file(self.kind()), &text);
        }
        self.kernels.append(&mut kept.kernels);
        self.tuned.append(&mut kept.tuned);
    }

    /// That a process did not survive the kernel.
    pub(super) fn refuse(&mut self, id: &Id) {
        self.kernels.insert(id.whole.clone(), Some(ENDED.into()));
    }

    /// Whether one did not.
    pub(super) fn ended(&self, id: &Id) -> bool {
        self.kernels.get(&id.whole).is_some_and(|why| why.as_deref() == Some(ENDED))
    }

    /// Kernels that passed, and those that did not with the reason.
    pub fn summary(&self) -> (usize, Vec<(&str, &str)>) {
        let failed = self.kernels.iter().filter_map(|(kernel, why)| Some((kernel.as_str(), why.as_deref()?)));
        let failed: Vec<_> = failed.collect();
        (self.kernels.len() - failed.len(), failed)
    }
}

/// A file of verdicts.
pub(super) fn read(path: &Path) -> Option<Verdicts> {
    serde_json::from_str(&read_text(path).ok()?).ok()
}
