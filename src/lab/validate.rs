//! Whether a device's kernels are right: every case of every op against its CPU reference, in every pair of storage
//! types that the device has, in every variant. Outputs are NaN before a run and guarded behind their ends, so that
//! what a kernel leaves out or writes too much shows. [`network`] does the same for the nodes of a model's graphs.

use std::sync::Arc;

use serde::Serialize;

use crate::caps::Caps;
use crate::error::{Error, Field, Remedy, Result};
use crate::gpu::Gpu;
use crate::gpu::check::{Check, Checked};
use crate::gpu::showing::{Ran, keep};
use crate::graph::Graph;
use crate::graph::plan::{Storage, check_limits};
use crate::ops::case::{Difference, tolerance};
use crate::ops::{Case, Kind, Op, TABLE, Ty, check_names};
use crate::tensor::DType;

mod inputs;
pub mod network;

/// Seed of all inputs.
const SEED: u64 = 1;

/// Storage of activations and matrices: what sessions use, and f32 with f32 weights as the plainest.
const STORAGES: [Storage; 3] = [
    Storage { act: DType::F32, weight: DType::F32 },
    Storage { act: DType::F32, weight: DType::F16 },
    Storage { act: DType::F16, weight: DType::F16 },
];

/// Which rows are wanted; what is absent or empty leaves nothing out.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names of ops.
    pub ops: Vec<String>,
    /// Number of a case in its op: those of [`TABLE`], then those that `full` adds.
    pub case: Option<usize>,
    /// Type of activations.
    pub act: Option<DType>,
    /// Type of matrices of parameters.
    pub weight: Option<DType>,
    /// Name of a variant.
    pub variant: Option<String>,
    /// Every variant that the device can run, not only the one that it would use.
    pub all_variants: bool,
    /// The largest shapes of real models too, and tensors that the device cannot bind.
    pub full: bool,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The output, its padding and what lies behind it are as they should be.
    Passed,
    /// The device cannot hold it and said so before anything ran, which is right.
    Refused,
    /// Something is not, or it did not run.
    #[default]
    Failed,
}

/// Where the largest absolute difference is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Worst {
    /// Of the element, in the logical tensor.
    pub index: usize,
    /// What the device wrote.
    pub found: f32,
    /// What the reference says, as the device stores it.
    pub wanted: f32,
}

/// One case or node, in one variant and one pair of storage types.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// The op's name.
    pub op: &'static str,
    /// The case's number in its op, or
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case: Option<usize>,
    /// the node's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The variant's name, `-` where none was reached.
    pub variant: &'static str,
    /// Type of activations.
    pub dtype: String,
    /// Type of matrices of parameters, where there are any.
    pub weights: Option<String>,
    /// Of the inputs.
    pub shapes: Vec<Vec<usize>>,
    /// The op with its attributes.
    pub attributes: String,
    /// Errors, absent if nothing came out: as in [`Difference`].
    pub relative: Option<f64>,
    /// The largest absolute difference.
    pub max_abs: Option<f64>,
    /// The largest difference in units in the last place of the stored type, where that says something.
    pub ulp: Option<f64>,
    /// Where the largest difference is.
    pub worst: Option<Worst>,
    /// The largest relative error that passes.
    pub limit: f64,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, unless it passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The line of a kernel's text in which it is, and one that points there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excerpt: Vec<String>,
    /// Whether that is a kernel's text, which fails every row that runs it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub does_not_compile: bool,
}

impl Row {
    /// The relative error as a share of the largest that passes.
    pub fn share_of_limit(&self) -> Option<f64> {
        self.relative.map(|relative| relative / self.limit)
    }
}

/// An op with given input types in given storage, about to be checked.
struct Subject<'a> {
    op: &'a Arc<dyn Op>,
    types: &'a [Ty],
    storage: Storage,
    variant: Choice,
}

/// A variant's place among the op's own, and its name.
type Choice = (usize, &'static str);

/// What rows say where no variant was reached.
const NO_VARIANT: Choice = (0, "-");

impl Subject<'_> {
    fn row(&self, verdict: Verdict) -> Row {
        let reads_matrix = self.types.iter().any(|ty| ty.kind == Kind::Weight);
        Row {
            op: self.op.name(),
            variant: self.variant.1,
            dtype: self.storage.act.to_string(),
            weights: reads_matrix.then(|| self.storage.weight.to_string()),
            shapes: self.types.iter().map(|ty| ty.shape.dims().to_vec()).collect(),
            attributes: format!("{:?}", self.op),
            limit: tolerance(self.storage.act, self.op.sum_length(self.types)),
            verdict,
            ..Row::default()
        }
    }

    fn refused(&self, why: &Error) -> Row {
        Row { reason: Some(why.to_string()), ..self.row(Verdict::Refused) }
    }

    fn failed(&self, why: &Error) -> Row {
        let does_not_compile = matches!(why, Error::Shader(_));
        let excerpt = why.excerpt().to_vec();
        Row { reason: Some(why.to_string()), excerpt, does_not_compile, ..self.row(Verdict::Failed) }
    }

    /// The row of a run whose output was compared.
    fn measured(&self, Checked { difference, fault, .. }: &Checked) -> Row {
        let Difference { relative, max_abs, max_ulp, worst: (index, found, wanted) } = *difference;
        Row {
            relative: Some(relative),
            max_abs: Some(max_abs),
            ulp: max_ulp,
            worst: Some(Worst { index, found, wanted }),
            reason: fault.clone(),
            ..self.row(if fault.is_none() { Verdict::Passed } else { Verdict::Failed })
        }
    }

    /// Runs it on the device: the output is right, and so is what lies around it.
    async fn check(&self, gpu: &Arc<Gpu>, check: &Check) -> Row {
        let checked = async {
            let checked = check.variant(gpu, self.variant.0).await?;
            checked.session.check_guards().await?;
            // Wrong elements say more than wrong padding, which they often bring along.
            if checked.fault.is_none() {
                checked.session.check_padding().await?;
            }
            Ok(checked)
        };
        checked.await.map_or_else(|error| self.failed(&error), |checked| self.measured(&checked))
    }
}

/// Checks the selected cases on a device and hands each row to `tell` as it comes. Verdicts on kernels of which all
/// cases ran are kept.
///
/// # Errors
/// [`Error::Usage`] if an op is unknown or nothing is selected. What is wrong with a kernel is not an error but a row.
pub async fn validate(gpu: &Arc<Gpu>, selection: &Selection, tell: &mut dyn FnMut(&Row)) -> Result<Vec<Row>> {
    check_names(&selection.ops)?;
    let mut rows = Vec::new();
    for op in TABLE {
        if !selection.ops.is_empty() && !selection.ops.iter().any(|name| name == op.name) {
            continue;
        }
        let (cases, mut ran) = (op.cases(), Vec::new());
        let count = cases.len();
        for (index, case) in cases.into_iter().chain(op.largest(&gpu.caps)).enumerate() {
            let wanted = selection.case.map_or(selection.full || index < count, |wanted| wanted == index);
            if !wanted {
                continue;
            }
            for storage in storages(&case, &gpu.caps, selection) {
                check_case(gpu, &case, storage, selection, &mut |row, variant| {
                    let row = Row { case: Some(index), ..row };
                    // What lies around an output is no part of such a verdict.
                    if index < count && (row.verdict == Verdict::Passed || row.relative > Some(row.limit)) {
                        ran.push(Ran { case: index, variant, storage, fault: row.reason.clone() });
                    }
                    tell(&row);
                    rows.push(row);
                })
                .await;
            }
        }
        keep(gpu, op, &ran)?;
    }
    if rows.is_empty() {
        return Err(nothing_selected(selection, &gpu.caps));
    }
    Ok(rows)
}

fn nothing_selected(selection: &Selection, caps: &Caps) -> Error {
    if selection.act == Some(DType::F16) && !caps.f16 {
        return Error::usage(format!("{} has no f16", caps.name)).remedies([Remedy::set(Field::Dtype, "f32")]);
    }
    let op = selection.ops.first().map_or("any op", String::as_str);
    let all = format!("`ornstein validate {op}` without them lists all");
    Error::usage(format!("no case of {op} has this number, type or variant; {all}"))
}

/// The pairs of types in which a case is checked. What reads no matrix does not depend on their type.
fn storages(case: &Case, caps: &Caps, selection: &Selection) -> Vec<Storage> {
    let reads_matrix = case.inputs.iter().any(|(ty, _)| ty.kind == Kind::Weight);
    let wanted = |filter: Option<DType>, dtype| filter.is_none_or(|f| f == dtype);
    let mut storages = STORAGES.to_vec();
    storages.retain(|s| (s.act != DType::F16 || caps.f16) && wanted(selection.act, s.act));
    if reads_matrix {
        storages.retain(|s| wanted(selection.weight, s.weight));
    } else {
        storages.retain(|s| s.act == s.weight);
    }
    storages
}

/// Every selected variant of a case in one pair of types. The reference is computed once.
async fn check_case(
    gpu: &Arc<Gpu>,
    case: &Case,
    storage: Storage,
    selection: &Selection,
    add: &mut dyn FnMut(Row, usize),
) {
    let types = case.types();
    let subject = |variant| Subject { op: &case.op, types: &types, storage, variant };
    let output = case.op.output(&types);
    if let Ok(Err(error)) = output.as_ref().map(|output| fits(case, output, storage, &gpu.caps)) {
        return add(subject(NO_VARIANT).refused(&error), NO_VARIANT.0);
    }
    let caps = gpu.caps.storing(storage.act, storage.weight);
    let variants = output.and_then(|output| variants(&case.op, &types, &output, &caps, selection));
    if variants.as_ref().is_ok_and(Vec::is_empty) {
        return;
    }
    match variants.and_then(|variants| Ok((variants, Check::of_case(case, storage)?))) {
        Err(error) => add(subject(NO_VARIANT).failed(&error), NO_VARIANT.0),
        Ok((variants, check)) => {
            for variant in variants {
                add(subject(variant).check(gpu, &check).await, variant.0);
            }
        }
    }
}

/// Whether the device can hold a case, asked as a session asks it, before any tensor is made.
fn fits(case: &Case, output: &Ty, storage: Storage, caps: &Caps) -> Result<()> {
    let mut graph = Graph::new(case.op.name());
    for (i, ty) in case.types().into_iter().enumerate() {
        graph.input(&i.to_string(), ty.kind, ty.shape);
    }
    graph.input("the output", output.kind, output.shape.clone());
    check_limits(&graph, storage, caps)
}

/// The variants to check of an op on these inputs: the one of that name, all, or the one that the device would use.
fn variants(op: &Arc<dyn Op>, inputs: &[Ty], output: &Ty, caps: &Caps, selection: &Selection) -> Result<Vec<Choice>> {
    let mut choices: Vec<_> = op.variants(inputs, output, caps)?.iter().map(|v| v.name).enumerate().collect();
    match &selection.variant {
        Some(wanted) => choices.retain(|(_, name)| name == wanted),
        None if selection.all_variants => {}
        None => choices.truncate(1),
    }
    Ok(choices)
}
