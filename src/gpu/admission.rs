//! Which kernels a device gets right. A variant of an op is used on a device only after all cases of that op passed
//! there; the verdicts are kept in the user's cache folder, by adapter, driver and the shader's text, so that the
//! check is made once. A variant that fails is put in quarantine, and the op's next one is used.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::Gpu;
use super::check::{Check, Checked, variants};
use super::shader::Dialect;
use super::tune::{self, Tuned};
use crate::cache;
use crate::caps::Caps;
use crate::error::{Error, Result, Tell};
use crate::files::read_text;
use crate::graph::plan::Storage;
use crate::graph::{Graph, Node};
use crate::ops::{Row, TABLE, Variant};

/// What is known of the kernels of one adapter with one driver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdicts {
    /// The adapter's name.
    pub adapter: String,
    /// The driver for which they hold: with another all is checked anew.
    pub driver: String,
    /// For each kernel (op, variant, shader, storage, constants, hash of its text) null if it passed; for each variant
    /// that failed, without constants, why.
    pub kernels: BTreeMap<String, Option<String>>,
    /// For each class of shapes that was met, which of the right variants was the fastest.
    #[serde(default)]
    pub tuned: BTreeMap<String, Tuned>,
}

impl Verdicts {
    /// Those kept for this adapter and driver: empty if there are none, or they cannot be read.
    pub fn load(caps: &Caps) -> Self {
        let fresh = Self { adapter: caps.name.clone(), driver: caps.driver.clone(), ..Self::default() };
        let text = file(caps, "json").and_then(|path| read_text(&path).ok());
        let kept = text.and_then(|text| serde_json::from_str::<Self>(&text).ok());
        kept.filter(|kept| (&kept.adapter, &kept.driver) == (&fresh.adapter, &fresh.driver)).unwrap_or(fresh)
    }

    fn save(&self, caps: &Caps) {
        if let (Some(path), Ok(text)) = (file(caps, "json"), serde_json::to_vec_pretty(self)) {
            cache::keep(&path, &text);
        }
    }

    /// Kernels that passed, and those that did not with the reason.
    pub fn summary(&self) -> (usize, Vec<(&str, &str)>) {
        let failed = self.kernels.iter().filter_map(|(kernel, why)| Some((kernel.as_str(), why.as_deref()?)));
        let failed: Vec<_> = failed.collect();
        (self.kernels.len() - failed.len(), failed)
    }
}

/// The file with this extension of an adapter with its backend and driver.
pub(super) fn file(caps: &Caps, extension: &str) -> Option<PathBuf> {
    let id = hash(&(&caps.name, &caps.backend, &caps.driver));
    Some(cache::folder()?.join("kernels").join(format!("{id:016x}.{extension}")))
}

pub(super) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A device's verdicts, read when they are first needed.
#[derive(Debug, Default)]
pub struct Admission(Mutex<Option<Verdicts>>);

impl Admission {
    fn with<T>(&self, caps: &Caps, use_them: impl FnOnce(&mut Verdicts) -> T) -> T {
        let mut verdicts = self.0.lock().unwrap_or_else(|e| e.into_inner());
        use_them(verdicts.get_or_insert_with(|| Verdicts::load(caps)))
    }

    fn known(&self, caps: &Caps, kernel: &str) -> Option<Option<String>> {
        self.with(caps, |verdicts| verdicts.kernels.get(kernel).cloned())
    }

    /// How many variants failed so far.
    fn quarantined(&self, caps: &Caps) -> usize {
        self.with(caps, |verdicts| verdicts.kernels.values().flatten().count())
    }

    /// Changes the verdicts, and keeps them.
    fn keep(&self, caps: &Caps, change: impl FnOnce(&mut Verdicts)) {
        self.with(caps, |verdicts| {
            change(verdicts);
            verdicts.save(caps);
        });
    }

    /// What was measured so far, by class of shapes.
    pub fn tuned(&self, caps: &Caps) -> BTreeMap<String, Tuned> {
        self.with(caps, |verdicts| verdicts.tuned.clone())
    }

    /// The name of the fastest of these variants for a class, where that is known.
    fn fastest(&self, caps: &Caps, class: &str, kernels: u64) -> Option<String> {
        let of_these = |tuned: &&Tuned| tuned.kernels == kernels;
        self.with(caps, |verdicts| verdicts.tuned.get(class).filter(of_these)?.fastest().map(str::to_string))
    }
}

/// For every node of a graph, in order, the place of the variant that this device should run: one that it gets right,
/// and where that pays the fastest of those. Kernels not met before are checked now, and `tell` is told of that, and
/// of each variant that is wrong.
///
/// # Errors
/// If the device gets none of a node's variants right in this storage.
pub async fn admit(gpu: &Arc<Gpu>, graph: &Graph, storage: Storage, tell: &mut Tell<'_>) -> Result<Vec<usize>> {
    admit_tuning(gpu, graph, storage, gpu.caps.tuning_pays(), tell).await
}

/// [`admit`], which says whether the right variants are timed or the first of them is taken.
///
/// # Errors
/// As [`admit`].
pub async fn admit_tuning(
    gpu: &Arc<Gpu>,
    graph: &Graph,
    storage: Storage,
    tune: bool,
    tell: &mut Tell<'_>,
) -> Result<Vec<usize>> {
    let mut told = false;
    let mut say = |what: Notice| match what {
        Notice::Checking if told => {}
        Notice::Checking => {
            told = true;
            tell(&format!("checking the kernels of {} on {}, this once", graph.network, gpu.caps.name));
        }
        Notice::Wrong(text) => tell(&text),
    };
    let caps = gpu.caps.storing(storage.act, storage.weight);
    // A kernel that fails takes its whole variant with it, so what was chosen before it is chosen anew.
    loop {
        let quarantined = gpu.admission.quarantined(&gpu.caps);
        let mut chosen = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let (inputs, output) = (graph.types(&node.inputs), graph.ty(node.output));
            let variants = node.op.variants(&inputs, output, &caps).map_err(|e| e.at(&node.name))?;
            let dialect = Dialect::of(storage, &inputs, output, gpu.caps.native_f16());
            let asked = Asked { gpu, graph, node, storage, variants: &variants, dialect };
            chosen.push(match tune && variants.len() > 1 {
                true => asked.fastest(&mut say).await?,
                false => asked.first_right(&mut say).await?,
            });
        }
        if gpu.admission.quarantined(&gpu.caps) == quarantined {
            return Ok(chosen);
        }
    }
}

/// What a user is told while kernels are admitted.
enum Notice {
    Checking,
    Wrong(String),
}

type Say<'a> = dyn FnMut(Notice) + Send + 'a;

/// A node whose kernel is to be chosen.
struct Asked<'a> {
    gpu: &'a Arc<Gpu>,
    graph: &'a Graph,
    node: &'a Node,
    storage: Storage,
    variants: &'a [Variant],
    dialect: Dialect,
}

impl Asked<'_> {
    /// The first right variant.
    async fn first_right(&self, say: &mut Say<'_>) -> Result<usize> {
        for index in 0..self.variants.len() {
            if self.is_right(index, say).await? {
                return Ok(index);
            }
        }
        let (op, elem, adapter) = (self.node.op.name(), self.dialect.elem, &self.gpu.caps.name);
        let what = format!("{}: {adapter} gets no {op} kernel right in {elem}", self.node.name);
        Err(Error::WrongKernel(format!("{what}; `ornstein devices` shows what failed").into()))
    }

    /// The fastest right variant. While it is known and right, no other is checked.
    async fn fastest(&self, say: &mut Say<'_>) -> Result<usize> {
        let Self { gpu, storage, .. } = *self;
        let ids: Vec<_> = self.variants.iter().map(|v| self.ids(v)).collect::<Result<_>>()?;
        let (class, kernels) = (tune::class(self.graph, self.node, storage), hash(&ids));
        let known = gpu.admission.fastest(&gpu.caps, &class, kernels);
        if let Some(index) = self.variants.iter().position(|v| known.as_deref() == Some(v.name))
            && self.is_right(index, say).await?
        {
            return Ok(index);
        }
        let first = self.first_right(say).await?;
        let mut right = vec![first];
        for index in first + 1..self.variants.len() {
            if self.is_right(index, say).await? {
                right.push(index);
            }
        }
        let seconds = tune::time(gpu, self.graph, self.node, storage, self.variants, &right).await?;
        let tuned = Tuned { kernels, seconds };
        let index = self.variants.iter().position(|v| tuned.fastest() == Some(v.name)).unwrap_or(first);
        gpu.admission.keep(&gpu.caps, |verdicts| drop(verdicts.tuned.insert(class, tuned)));
        Ok(index)
    }

    /// Whether the device gets the variant at this place right: as is known, or as is found out now. If it does not,
    /// the variant is put in quarantine.
    async fn is_right(&self, index: usize, say: &mut Say<'_>) -> Result<bool> {
        let Self { gpu, storage, .. } = *self;
        let (op, elem, adapter) = (self.node.op.name(), self.dialect.elem, &gpu.caps.name);
        let variant = &self.variants[index];
        let [whole, kernel] = self.ids(variant)?;
        if matches!(gpu.admission.known(&gpu.caps, &whole), Some(Some(_))) {
            return Ok(false);
        }
        if gpu.admission.known(&gpu.caps, &kernel).is_some() {
            return Ok(true);
        }
        say(Notice::Checking);
        let wrong = check(gpu, op, variant, storage).await?;
        if let Some(why) = &wrong {
            let next = self.variants.get(index + 1).map(|v| format!(", {} instead", v.name)).unwrap_or_default();
            let what = format!("{op} {} in {elem} is wrong on {adapter}", variant.name);
            say(Notice::Wrong(format!("{what} and will not be used there{next}: {why}")));
        }
        let (id, right) = if wrong.is_some() { (whole, false) } else { (kernel, true) };
        gpu.admission.keep(&gpu.caps, |verdicts| drop(verdicts.kernels.insert(id, wrong)));
        Ok(right)
    }

    /// What verdicts are about: the variant as a whole, which is what fails, and the kernel with its constants, which
    /// is what passes. Both with a hash of the text.
    fn ids(&self, variant: &Variant) -> Result<[String; 2]> {
        let Dialect { elem, weight, .. } = self.dialect;
        let text = self.gpu.sources.of_launch(&variant.launch, self.dialect)?.text;
        let constants: String =
            variant.launch.constants.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        let hash = hash(&(env!("CARGO_PKG_VERSION"), text));
        let id = |constants: &str| {
            let (op, name, shader) = (self.node.op.name(), variant.name, variant.launch.shader);
            format!("{op} {name} {shader} {elem}-{weight}{constants} {hash:016x}")
        };
        Ok([id(""), id(&constants)])
    }
}

/// Runs the cases of an op that have this very kernel (or, if none has these constants, this variant). `None` if all
/// are right, else what is wrong with the first that is not.
async fn check(gpu: &Arc<Gpu>, op: &str, wanted: &Variant, storage: Storage) -> Result<Option<String>> {
    let mut cases = Vec::new();
    for case in TABLE.iter().filter(|row| row.name == op).flat_map(Row::cases) {
        let variants = variants(gpu, &case, storage)?;
        let same = |v: &Variant| v.name == wanted.name && v.launch.shader == wanted.launch.shader;
        if let Some(index) = variants.iter().position(same) {
            cases.push((case, index, variants[index].launch.constants == wanted.launch.constants));
        }
    }
    let any_exact = cases.iter().any(|(_, _, exact)| *exact);
    for (case, variant, _) in cases.into_iter().filter(|(_, _, exact)| *exact || !any_exact) {
        match Check::of_case(&case, storage)?.variant(gpu, variant).await {
            Ok(Checked { fault: Some(fault), .. }) => return Ok(Some(format!("{}: {fault}", case.name()))),
            // A case that the device cannot hold tells nothing of its kernel.
            Ok(_) | Err(Error::TooLarge(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
