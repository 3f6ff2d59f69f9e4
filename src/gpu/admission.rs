//! Which kernels a device gets right. A variant of an op is used on a device only after all cases of that op passed
//! there; the verdicts are kept in the user's cache folder, by adapter, driver and the shader's text, so that the
//! check is made once. A variant that fails is put in quarantine, and the op's next one is used. So is one that ends
//! the process: what is being checked is noted meanwhile (`ledger`).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Gpu;
use super::check::ids;
use super::shader::Dialect;
use super::showing::check;
use super::store::hash;
use super::tune::{self, Tuned};
use super::verdicts::Id;
use crate::error::{Checking, Error, Field, Message, Notice, Notify, Remedy, Result, ten};
use crate::graph::plan::Storage;
use crate::graph::{Graph, Node};
use crate::ops::Variant;

/// For every node of a graph, in order, the place of the variant that this device should run: one that it gets right,
/// and where that pays the fastest of those. Kernels not met before are checked now, and `tell` is called with that,
/// and of those that are wrong where others take their place.
///
/// # Errors
/// If the device gets none of a node's variants right in this storage.
pub async fn admit(gpu: &Arc<Gpu>, graph: &Graph, storage: Storage, tell: &mut Notify<'_>) -> Result<Vec<usize>> {
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
    tell: &mut Notify<'_>,
) -> Result<Vec<usize>> {
    choose(gpu, graph, storage, [tune, false], tell).await
}

/// [`admit`], where a node without a right variant runs the first that no run failed to survive; `tell` is called with
/// that.
///
/// # Errors
/// If a node has none.
pub async fn admit_anyway(
    gpu: &Arc<Gpu>,
    graph: &Graph,
    storage: Storage,
    tell: &mut Notify<'_>,
) -> Result<Vec<usize>> {
    choose(gpu, graph, storage, [gpu.caps.tuning_pays(), true], tell).await
}

async fn choose(
    gpu: &Arc<Gpu>,
    graph: &Graph,
    storage: Storage,
    [tune, anyway]: [bool; 2],
    tell: &mut Notify<'_>,
) -> Result<Vec<usize>> {
    let mut checks = Checks { tell, made: 0, all: 0, wrong: Vec::new() };
    let chosen = checks.choose(gpu, graph, storage, [tune, anyway]).await;
    if checks.made > 0 {
        (checks.tell)(Notice::Checked);
    }
    chosen
}

/// The checks of one network's kernels.
struct Checks<'a, 'b> {
    tell: &'a mut Notify<'b>,
    made: usize,
    /// Those that can be foreseen; known once one is made.
    all: usize,
    /// The places of a node's variants that were found wrong, and why.
    wrong: Vec<(usize, String)>,
}

impl Checks<'_, '_> {
    async fn choose(
        &mut self,
        gpu: &Arc<Gpu>,
        graph: &Graph,
        storage: Storage,
        [tune, anyway]: [bool; 2],
    ) -> Result<Vec<usize>> {
        // A kernel that fails takes its whole variant with it, so what was chosen before it is chosen anew.
        loop {
            let quarantined = gpu.ledger.quarantined();
            let mut chosen = Vec::with_capacity(graph.nodes.len());
            for node in &graph.nodes {
                let asked = Asked::of(gpu, graph, node, storage, tune)?;
                let right = if asked.tune { asked.fastest(self).await } else { asked.first_right(self).await };
                let wrong = std::mem::take(&mut self.wrong);
                chosen.push(match right {
                    Err(Error::WrongKernel(what)) if anyway => asked.used_anyway(what, self)?,
                    right => {
                        let right = right?;
                        asked.tell_wrong(&wrong, right, self)?;
                        right
                    }
                });
            }
            if gpu.ledger.quarantined() == quarantined {
                return Ok(chosen);
            }
        }
    }

    fn warn(&mut self, text: impl Into<Message>) {
        (self.tell)(Notice::Warning(&text.into()));
    }

    /// One more is made, of this node's op.
    fn begin(&mut self, asked: &Asked<'_>) -> Result<()> {
        let Asked { gpu, graph, node, storage, tune, .. } = *asked;
        if gpu.ledger.is_first_check() {
            self.warn(format!("checking the kernels that are new to {}, this once", gpu.caps.name));
        }
        if self.made == 0 {
            self.all = unknown(gpu, graph, storage, tune)?;
        }
        self.made += 1;
        self.all = self.all.max(self.made);
        (self.tell)(Notice::Checking(Checking { nth: self.made, all: self.all, op: node.op.name() }));
        Ok(())
    }
}

/// How many kernels of a graph are checked as long as none is wrong.
fn unknown(gpu: &Arc<Gpu>, graph: &Graph, storage: Storage, tune: bool) -> Result<usize> {
    let mut all = BTreeSet::new();
    for node in &graph.nodes {
        let asked = Asked::of(gpu, graph, node, storage, tune)?;
        let ids = asked.variants.iter().map(|variant| asked.id(variant)).collect::<Result<Vec<_>>>()?;
        let tried = if asked.tune { ids.len() } else { 1 };
        let open = ids.into_iter().filter(|id| gpu.ledger.wrong(id).is_none()).take(tried);
        all.extend(open.filter(|id| !gpu.ledger.right(id)));
    }
    Ok(all.len())
}

/// A node whose kernel is to be chosen.
struct Asked<'a> {
    gpu: &'a Arc<Gpu>,
    graph: &'a Graph,
    node: &'a Node,
    storage: Storage,
    variants: Vec<Variant>,
    dialect: Dialect,
    /// Whether the right variants are timed.
    tune: bool,
}

impl<'a> Asked<'a> {
    fn of(gpu: &'a Arc<Gpu>, graph: &'a Graph, node: &'a Node, storage: Storage, tune: bool) -> Result<Self> {
        let (inputs, output) = (graph.types(&node.inputs), graph.ty(node.output));
        let caps = gpu.caps.storing(storage.act, storage.weight);
        let variants = node.op.variants(&inputs, output, &caps).map_err(|e| e.at(&node.name))?;
        let dialect = Dialect::of(storage, &inputs, output, gpu.caps.native_f16());
        let tune = tune && variants.len() > 1;
        Ok(Self { gpu, graph, node, storage, variants, dialect, tune })
    }

    /// The first right variant.
    async fn first_right(&self, checks: &mut Checks<'_, '_>) -> Result<usize> {
        for index in 0..self.variants.len() {
            if self.is_right(index, checks).await? {
                return Ok(index);
            }
        }
        let all = self.variants.iter().collect::<Vec<_>>();
        let (op, files) = (self.node.op.name(), self.edited(&all)?);
        let wrong = self.wrong(&[], files);
        let fields: &[Field] = if wrong.place.is_empty() { &[Field::Device] } else { &[Field::Device, Field::Shaders] };
        Err(Error::WrongKernel(wrong.remedies([Remedy::Validate(op.into(), fields)])))
    }

    /// That these variants of the op are wrong, or all where none is named, as edited in these files.
    fn wrong(&self, names: &[&str], files: Vec<Arc<str>>) -> Message {
        let (op, elem, adapter) = (self.node.op.name(), self.dialect.elem, &self.gpu.caps.name);
        let verb = if names.len() > 1 { "are" } else { "is" };
        let names = if names.is_empty() { String::new() } else { format!(" {}", ten(names)) };
        let what = format!("{op}{names} in {elem} {verb} wrong on {adapter}");
        if files.is_empty() { what.into() } else { Message::at(ten(&files), what) }
    }

    /// The user's files that these variants are made from.
    fn edited(&self, variants: &[&Variant]) -> Result<Vec<Arc<str>>> {
        let mut files = BTreeSet::new();
        for variant in variants {
            files.extend(self.gpu.sources.of_launch(&variant.launch, self.dialect)?.edited);
        }
        Ok(files.into_iter().collect())
    }

    /// The first variant that no run failed to survive, where none is right. Of one edited file that is said once,
    /// whatever is made from it.
    fn used_anyway(&self, mut wrong: Message, checks: &mut Checks<'_, '_>) -> Result<usize> {
        let index = first_survived(self.gpu, self.graph, self.node, self.storage)?;
        if wrong.place.is_empty() {
            wrong.remedies = vec![Remedy::set(Field::Device, "cpu")];
        }
        let about = if wrong.place.is_empty() { &wrong.what } else { &wrong.place };
        if self.gpu.ledger.is_news(about) {
            wrong.what += ": it is used all the same, and the result may be wrong";
            checks.warn(wrong);
        }
        Ok(index)
    }

    /// That the variants at these places are wrong, for the first of these reasons, where another is right.
    fn tell_wrong(&self, wrong: &[(usize, String)], right: usize, checks: &mut Checks<'_, '_>) -> Result<()> {
        let Some((_, why)) = wrong.first() else { return Ok(()) };
        let variants: Vec<_> = wrong.iter().map(|(index, _)| &self.variants[*index]).collect();
        let names: Vec<_> = variants.iter().map(|variant| variant.name).collect();
        let mut what = self.wrong(&names, self.edited(&variants)?);
        what.what += &format!(" and will not be used there, {} instead: {why}", self.variants[right].name);
        checks.warn(what);
        Ok(())
    }

    /// The fastest right variant. While it is known and right, no other is checked.
    async fn fastest(&self, checks: &mut Checks<'_, '_>) -> Result<usize> {
        let Self { gpu, storage, .. } = *self;
        let ids: Vec<_> = self.variants.iter().map(|v| self.id(v)).collect::<Result<_>>()?;
        let texts: Vec<_> = ids.iter().map(|id| [&id.whole, &id.exact]).collect();
        let (class, kernels) = (tune::class(self.graph, self.node, storage), hash(&texts));
        let known = gpu.ledger.fastest(&class, kernels);
        if let Some(index) = self.variants.iter().position(|v| known.as_deref() == Some(v.name))
            && self.is_right(index, checks).await?
        {
            return Ok(index);
        }
        let first = self.first_right(checks).await?;
        let mut right = vec![first];
        for index in first + 1..self.variants.len() {
            if self.is_right(index, checks).await? {
                right.push(index);
            }
        }
        let seconds = tune::time(gpu, self.graph, self.node, storage, &self.variants, &right).await?;
        let tuned = Tuned { kernels, seconds };
        let index = self.variants.iter().position(|v| tuned.fastest() == Some(v.name)).unwrap_or(first);
        gpu.ledger.tune(&class, &tuned, ids.iter().any(|id| id.edit != 0));
        Ok(index)
    }

    /// Whether the device gets the variant at this place right: as is known, or as is found out now. If it does not,
    /// the variant is put in quarantine.
    async fn is_right(&self, index: usize, checks: &mut Checks<'_, '_>) -> Result<bool> {
        let Self { gpu, storage, .. } = *self;
        let variant = &self.variants[index];
        let id = self.id(variant)?;
        if gpu.ledger.wrong(&id).is_some() {
            return Ok(false);
        }
        if gpu.ledger.right(&id) {
            return Ok(true);
        }
        // Until the verdict is kept.
        let _note = gpu.ledger.note(vec![id.clone()])?;
        checks.begin(self)?;
        let wrong = check(gpu, self.node.op.name(), variant, storage).await?;
        checks.wrong.extend(wrong.clone().map(|why| (index, why)));
        let right = wrong.is_none();
        gpu.ledger.judge(&id, wrong);
        Ok(right)
    }

    fn id(&self, variant: &Variant) -> Result<Id> {
        Id::of(&self.gpu.sources, self.node.op.name(), variant, self.dialect)
    }
}

/// For every node of a graph, in order, the place of the first variant that no run failed to survive, whether the
/// device gets it right or not.
///
/// # Errors
/// If a node has none.
pub fn survived(gpu: &Arc<Gpu>, graph: &Graph, storage: Storage) -> Result<Vec<usize>> {
    graph.nodes.iter().map(|node| first_survived(gpu, graph, node, storage)).collect()
}

/// The same for one of its nodes.
fn first_survived(gpu: &Gpu, graph: &Graph, node: &Node, storage: Storage) -> Result<usize> {
    for (index, id) in ids(gpu, graph, node, storage).map_err(|e| e.at(&node.name))?.enumerate() {
        if !gpu.ledger.ended(&id?) {
            return Ok(index);
        }
    }
    let what = format!("{}: every {} kernel ended an earlier run on {}", node.name, node.op.name(), gpu.caps.name);
    Err(Error::device(what).remedies([Remedy::Other(Field::Device)]))
}
