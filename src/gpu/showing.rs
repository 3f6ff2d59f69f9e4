//! Which of an op's cases show a kernel, and the verdict that follows from them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Gpu;
use super::check::{Check, Checked, variants};
use super::shader::Dialect;
use super::verdicts::Id;
use crate::error::{Error, Result};
use crate::graph::plan::Storage;
use crate::ops::{Case, Row, TABLE, Variant};

/// Runs the cases that show a kernel. `None` if all are right, else what is wrong with the first that is not.
pub(super) async fn check(gpu: &Arc<Gpu>, op: &str, wanted: &Variant, storage: Storage) -> Result<Option<String>> {
    for (_, case, variant) in showing(gpu, op, wanted, storage)? {
        match Check::of_case(&case, storage)?.variant(gpu, variant).await {
            Ok(Checked { fault: Some(fault), .. }) => return Ok(Some(reason(&case, &fault))),
            // A case that the device cannot hold tells nothing of its kernel.
            Ok(_) | Err(Error::TooLarge(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn reason(case: &Case, fault: &str) -> String {
    format!("{}: {fault}", case.name())
}

/// The cases of an op that have this very kernel (or, if none has these constants, this variant), with their numbers
/// and the places of the variant.
fn showing(gpu: &Gpu, op: &str, wanted: &Variant, storage: Storage) -> Result<Vec<(usize, Case, usize)>> {
    let (mut exact, mut others) = (Vec::new(), Vec::new());
    for (number, case) in TABLE.iter().filter(|row| row.name == op).flat_map(Row::cases).enumerate() {
        let variants = variants(gpu, &case, storage)?;
        let same = |v: &Variant| v.name == wanted.name && v.launch.shader == wanted.launch.shader;
        if let Some(index) = variants.iter().position(same) {
            let has_these = variants[index].launch.constants == wanted.launch.constants;
            if has_these { &mut exact } else { &mut others }.push((number, case, index));
        }
    }
    Ok(if exact.is_empty() { others } else { exact })
}

/// What [`Check::variant`] found with a case.
#[derive(Debug)]
pub struct Ran {
    /// The case's number in its op.
    pub case: usize,
    /// The variant's place there.
    pub variant: usize,
    /// How it was stored.
    pub storage: Storage,
    /// What was wrong.
    pub fault: Option<String>,
}

/// Keeps the verdicts that follow from cases of an op that were run otherwise: on kernels of which
/// [`check`] would have run no other.
///
/// # Errors
/// If a case contradicts its op's shape rule, or a kernel's text is not valid.
pub fn keep(gpu: &Gpu, op: &Row, ran: &[Ran]) -> Result<()> {
    let (cases, mut seen) = (op.cases(), BTreeSet::new());
    for Ran { case, variant, storage, .. } in ran {
        let case = &cases[*case];
        let wanted = variants(gpu, case, *storage)?.swap_remove(*variant);
        let id = Id::of(&gpu.sources, op.name, &wanted, Dialect::of_case(*storage, case, gpu.caps.native_f16())?)?;
        if gpu.ledger.right(&id) || !seen.insert(id.clone()) {
            continue;
        }
        let found = |(number, case, variant): (usize, Case, usize)| {
            let same = |ran: &&Ran| (ran.case, ran.variant, ran.storage) == (number, variant, *storage);
            ran.iter().find(same).map(|ran| ran.fault.as_ref().map(|fault| reason(&case, fault)))
        };
        let found: Vec<_> = showing(gpu, op.name, &wanted, *storage)?.into_iter().map(found).collect();
        let wrong = found.iter().flatten().flatten().next();
        if wrong.is_some() || found.iter().all(Option::is_some) {
            gpu.ledger.judge(&id, wrong.cloned());
        }
    }
    Ok(())
}
