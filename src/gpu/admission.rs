//! Which kernels a device gets right. A variant of an op is used on a device only after all cases of that op passed
//! there; the verdicts are kept in the user's cache folder, by adapter, driver and the shader's text, so that the check
//! is made once. A variant that fails is put in quarantine, and the op's next one is used.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::shader::Dialect;
use super::{Gpu, Session};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::graph::plan::Storage;
use crate::graph::{Graph, Node};
use crate::ops::case::tolerance;
use crate::ops::{Case, TABLE, Variant};
use crate::tensor::{NoWeights, Tensor};

/// What is known of the kernels of one adapter with one driver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdicts {
    pub adapter: String,
    pub driver: String,
    /// For each kernel (op, variant, storage, constants, hash of its text) why it failed, or null if it passed.
    pub kernels: BTreeMap<String, Option<String>>,
}

impl Verdicts {
    /// Those kept for this adapter and driver: empty if there are none, or they cannot be read.
    pub fn load(caps: &Caps) -> Self {
        let fresh = Self { adapter: caps.name.clone(), driver: caps.driver.clone(), kernels: BTreeMap::new() };
        let text = file(caps).and_then(|path| std::fs::read_to_string(path).ok());
        let kept = text.and_then(|text| serde_json::from_str::<Self>(&text).ok());
        kept.filter(|kept| (&kept.adapter, &kept.driver) == (&fresh.adapter, &fresh.driver)).unwrap_or(fresh)
    }

    /// Kept on a best-effort basis: without a cache folder the check is made again next time.
    fn save(&self, caps: &Caps) -> Option<()> {
        let path = file(caps)?;
        let folder = path.parent()?;
        std::fs::create_dir_all(folder).ok()?;
        let beside = tempfile::NamedTempFile::new_in(folder).ok()?;
        serde_json::to_writer_pretty(&beside, self).ok()?;
        beside.persist(path).ok().map(drop)
    }

    /// Kernels that passed, and those that did not with the reason.
    pub fn summary(&self) -> (usize, Vec<(&str, &str)>) {
        let failed = self.kernels.iter().filter_map(|(kernel, why)| Some((kernel.as_str(), why.as_deref()?)));
        let failed: Vec<_> = failed.collect();
        (self.kernels.len() - failed.len(), failed)
    }
}

/// The file of an adapter with its backend and driver.
fn file(caps: &Caps) -> Option<PathBuf> {
    let id = hash(&(&caps.name, &caps.backend, &caps.driver));
    Some(crate::cache::folder()?.join("kernels").join(format!("{id:016x}.json")))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A device's verdicts, read when they are first needed.
#[derive(Debug, Default)]
pub struct Admission(Mutex<Option<Verdicts>>);

impl Admission {
    fn known(&self, caps: &Caps, kernel: &str) -> Option<Option<String>> {
        let mut verdicts = self.0.lock().unwrap_or_else(|e| e.into_inner());
        verdicts.get_or_insert_with(|| Verdicts::load(caps)).kernels.get(kernel).cloned()
    }

    fn keep(&self, caps: &Caps, kernel: String, verdict: Option<String>) {
        let mut verdicts = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let verdicts = verdicts.get_or_insert_with(|| Verdicts::load(caps));
        verdicts.kernels.insert(kernel, verdict);
        verdicts.save(caps);
    }
}

/// For every node of a graph, in order, the place of the first of its variants that this device gets right. Variants not
/// met before are checked now, and `tell` is told of that, and of each that is wrong.
///
/// # Errors
/// If the device gets none of a node's variants right in this storage.
pub async fn admit(gpu: &Arc<Gpu>, graph: &Graph, storage: Storage, tell: &mut dyn FnMut(&str)) -> Result<Vec<usize>> {
    let mut chosen = Vec::with_capacity(graph.nodes.len());
    let mut told = false;
    let tell = &mut |text: Notice| match text {
        Notice::Checking if told => {}
        Notice::Checking => {
            told = true;
            tell(&format!("checking the kernels of {} on {}, this once", graph.network, gpu.caps.name));
        }
        Notice::Wrong(text) => tell(&text),
    };
    for node in &graph.nodes {
        let (inputs, output) = (graph.types(&node.inputs), graph.ty(node.output));
        let variants = node.op.variants(&inputs, output, &gpu.caps).map_err(|e| e.at(&node.name))?;
        let dialect = Dialect::of(storage, &inputs, gpu.caps.f16);
        chosen.push(first_right(gpu, node, &variants, dialect, storage, tell).await?);
    }
    Ok(chosen)
}

/// What a user is told while kernels are admitted.
enum Notice {
    Checking,
    Wrong(String),
}

async fn first_right(
    gpu: &Arc<Gpu>,
    node: &Node,
    variants: &[Variant],
    dialect: Dialect,
    storage: Storage,
    tell: &mut dyn FnMut(Notice),
) -> Result<usize> {
    for (index, variant) in variants.iter().enumerate() {
        let (op, name) = (node.op.name(), variant.name);
        let kernel = kernel_id(gpu, op, variant, dialect)?;
        let verdict = match gpu.admission.known(&gpu.caps, &kernel) {
            Some(verdict) => verdict,
            None => {
                tell(Notice::Checking);
                let verdict = check(gpu, op, variant, storage).await?;
                if let Some(why) = &verdict {
                    let next = variants.get(index + 1).map_or("no other variant", |v| v.name);
                    tell(Notice::Wrong(format!(
                        "{op} {name} in {} is wrong on {} and will not be used there, {next} instead: {why}",
                        dialect.elem, gpu.caps.name
                    )));
                }
                gpu.admission.keep(&gpu.caps, kernel, verdict.clone());
                verdict
            }
        };
        if verdict.is_none() {
            return Ok(index);
        }
    }
    Err(Error::WrongKernel(format!(
        "{}: {} gets no {} kernel right in {}; `ornstein devices` shows what failed",
        node.name,
        gpu.caps.name,
        node.op.name(),
        dialect.elem
    )))
}

/// What a verdict is about: op, variant, storage, constants, and a hash of the text.
fn kernel_id(gpu: &Gpu, op: &str, variant: &Variant, dialect: Dialect) -> Result<String> {
    let text = gpu.sources.source(variant.launch.shader, dialect)?.text;
    let constants: String = variant.launch.constants.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    let hash = hash(&(env!("CARGO_PKG_VERSION"), text));
    Ok(format!("{op} {} {}-{}{constants} {hash:016x}", variant.name, dialect.elem, dialect.weight))
}

/// Runs the cases of an op that have this very kernel (or, if none has these constants, this variant). `None` if all are
/// right, else what is wrong with the first that is not.
async fn check(gpu: &Arc<Gpu>, op: &str, wanted: &Variant, storage: Storage) -> Result<Option<String>> {
    let mut cases = Vec::new();
    for case in TABLE.iter().filter(|(name, _)| *name == op).flat_map(|(_, cases)| cases()) {
        let types = case.types();
        let variants = case.op.variants(&types, &case.op.output(&types)?, &gpu.caps)?;
        let same = |v: &Variant| v.name == wanted.name && v.launch.shader == wanted.launch.shader;
        if let Some(index) = variants.iter().position(same) {
            cases.push((case, index, variants[index].launch.constants == wanted.launch.constants));
        }
    }
    let any_exact = cases.iter().any(|(_, _, exact)| *exact);
    for (case, variant, _) in cases.into_iter().filter(|(_, _, exact)| *exact || !any_exact) {
        let types = case.types();
        let output = case.op.output(&types)?;
        let inputs = case.tensors(1, storage.act, storage.weight);
        let reference = case.op.reference(&inputs.iter().collect::<Vec<_>>(), &output.shape);
        let output = run_case(gpu, &case, inputs, storage, variant).await?;
        let (error, limit) = (
            case.compare(&output, &reference, storage.act).relative,
            tolerance(storage.act, case.op.sum_length(&types)),
        );
        if error > limit {
            return Ok(Some(format!("{} is off by {error:.1e}, more than {limit:.0e}", case.name())));
        }
    }
    Ok(None)
}

/// A case's output on a device, by the variant at that place in the op's list; the output is NaN where the kernel does
/// not write it.
pub async fn run_case(
    gpu: &Arc<Gpu>,
    case: &Case,
    inputs: Vec<Tensor>,
    storage: Storage,
    variant: usize,
) -> Result<Tensor> {
    let graph = Graph::of_case(case, inputs)?;
    let session = Session::choosing(gpu, graph, &NoWeights, storage, &|_| variant)?;
    session.poison();
    let mut outputs = session.run(&[]).await?;
    outputs.remove("output").ok_or_else(|| Error::shape("the graph of a case has no output"))
}
