//! Which shapes of an op are timed where not all are.
//!
//! All shapes of the real networks would take a software device hours, so by default each op shows two: one that is
//! sure to be quick, and the largest that, going by that one's speed, fits the op's part of the time.

use super::measure::Route;
use super::{Bench, Ceilings, Row, Verdict, Workload};
use crate::error::Result;
use crate::graph::Graph;
use crate::graph::plan::Storage;
use crate::ops::Case;

/// Seconds that one run may take unless all shapes are asked for, as far as can be known before: of an op that is all
/// of the networks, and of any op.
const MOST_SECONDS: f64 = 1.2;
const LEAST_SECONDS: f64 = 0.1;
/// Seconds that a case's check on the host may take.
const MOST_CHECK: f64 = 1.0;
/// A kernel is expected to reach at least this share of a ceiling.
const LEAST_SHARE: f64 = 0.02;
/// Seconds for which the host makes one element of a case's tensors.
const HOST_ELEMENT: f64 = 4e-8;

/// An workload with what it costs.
pub(super) struct Candidate<'e> {
    pub workload: &'e Workload,
    /// Seconds at the device's ceilings, and of the check on the host.
    ideal: f64,
    host: f64,
}

impl<'e> Candidate<'e> {
    pub fn new(workload: &'e Workload, storage: Storage, ceilings: &Ceilings) -> Result<Self> {
        let row = Row::new("", workload, "", storage, Verdict::Unchecked)?;
        let (flops, bytes) = (row.flops as f64, row.bytes as f64);
        let ideal = (flops / ceilings.gflop_s(storage.act, false)).max(bytes / ceilings.copy_gb_s) / 1e9;
        let elements: usize = workload.case.inputs.iter().map(|(ty, _)| ty.shape.len()).sum();
        let per_thread = 2e10 * rayon::current_num_threads() as f64;
        Ok(Self { workload, ideal, host: flops / per_thread + elements as f64 * HOST_ELEMENT })
    }
}

/// A shape that should take a small part of `most` seconds.
pub(super) fn quick<'c, 'e>(candidates: &'c [Candidate<'e>], most: f64) -> Option<&'c Candidate<'e>> {
    let smallest = || candidates.iter().min_by(|a, b| a.ideal.total_cmp(&b.ideal));
    largest(candidates, LEAST_SHARE * most).or_else(smallest)
}

/// The largest shape that should not take longer than `most` seconds if it is as fast as `quick`, which took
/// `seconds`.
pub(super) fn large<'c, 'e>(
    candidates: &'c [Candidate<'e>],
    quick: &Candidate,
    seconds: f64,
    most: f64,
) -> Option<&'c Candidate<'e>> {
    let slowness = (seconds / quick.ideal).max(1.0);
    largest(candidates, most / slowness).filter(|large| large.ideal > quick.ideal)
}

fn largest<'c, 'e>(candidates: &'c [Candidate<'e>], ideal: f64) -> Option<&'c Candidate<'e>> {
    let fit = candidates.iter().filter(|c| c.host <= MOST_CHECK && c.ideal <= ideal);
    fit.max_by(|a, b| a.ideal.total_cmp(&b.ideal))
}

/// Seconds that one run of this op may take unless all shapes are asked for: the more, the larger its part in the
/// networks is.
pub(super) fn most_seconds(op: &str, workloads: &[Workload], storage: Storage, ceilings: &Ceilings) -> Result<f64> {
    let (mut own, mut all) = (0.0, 0.0);
    for workload in workloads {
        let count = workload.uses.values().sum::<usize>() as f64;
        let ideal = count * Candidate::new(workload, storage, ceilings)?.ideal;
        all += ideal;
        own += if workload.case.op.name() == op { ideal } else { 0.0 };
    }
    Ok((MOST_SECONDS * own / f64::max(all, 1e-12)).clamp(LEAST_SECONDS, MOST_SECONDS))
}

impl Bench<'_> {
    /// Why this device cannot run the case at all.
    pub(super) fn refusal(&self, case: &Case) -> Result<Option<String>> {
        let Some(timer) = self.timer else { return Ok(None) };
        let gpu = timer.gpu();
        let types = case.types();
        let output = case.op.output(&types)?;
        let most = gpu.caps.max_binding.min(gpu.caps.max_buffer);
        for ty in types.iter().chain([&output]) {
            let bytes = (ty.device_len() * self.storage().element_size(ty.kind)) as u64;
            if bytes > most {
                let (needed, most) = (bytes.div_ceil(1 << 20), most >> 20);
                return Ok(Some(format!("{} needs {needed} MiB in one buffer, of at most {most}", ty.shape)));
            }
        }
        match case.op.launch(&types, &output, &self.caps(gpu)) {
            Err(error) => Ok(Some(error.to_string())),
            Ok(launch) if launch.workgroups.iter().any(|n| *n > gpu.caps.max_workgroups) => {
                Ok(Some(format!("{:?} workgroups are too many", launch.workgroups)))
            }
            Ok(_) => Ok(None),
        }
    }

    /// The routes to measure by their names, the preferred one first.
    pub(super) fn routes(&self, case: &Case) -> Result<Vec<(&'static str, Route)>> {
        let Some(timer) = self.timer else { return Ok(vec![("reference", Route::Variant(0))]) };
        let caps = self.caps(timer.gpu());
        let variants = case.variants(&caps)?;
        let variants = variants.iter().enumerate().map(|(index, variant)| (variant.name, Route::Variant(index)));
        let lowered = Graph::of_types(&case.op, &case.types())?.lowered(&caps)?.nodes.len() > 1;
        let routes = lowered.then_some(("winograd", Route::Lowered)).into_iter().chain(variants);
        Ok(routes.take(if self.all_variants { usize::MAX } else { 1 }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::published::SD15;
    use crate::lab::suite;
    use crate::tensor::DType;

    const STORAGE: Storage = Storage { act: DType::F32, weight: DType::F32 };

    #[test]
    fn the_large_shape_is_smaller_on_a_slower_device() {
        let ceilings = Ceilings { copy_gb_s: 10.0, fma_f32_gflop_s: Some(100.0), ..Ceilings::default() };
        let workloads = suite::nodes(&SD15).unwrap();
        let convs = workloads.iter().filter(|workload| workload.case.op.name() == "conv2d");
        let candidates: Vec<_> = convs.map(|workload| Candidate::new(workload, STORAGE, &ceilings).unwrap()).collect();
        let quick = quick(&candidates, 1.0).unwrap();
        let ideal = |slowness: f64| large(&candidates, quick, quick.ideal * slowness, 1.0).map(|c| c.ideal);
        assert!(quick.ideal <= 0.02 && ideal(1.0) > ideal(10.0), "{:?} {:?}", ideal(1.0), ideal(10.0));
        assert_eq!(ideal(1e9), None);
    }

    #[test]
    fn an_op_has_its_part_of_the_time_within_limits() {
        let ceilings = Ceilings { copy_gb_s: 10.0, fma_f32_gflop_s: Some(100.0), ..Ceilings::default() };
        let workloads = suite::nodes(&SD15).unwrap();
        let seconds = |op| most_seconds(op, &workloads, STORAGE, &ceilings).unwrap();
        assert_eq!(seconds("upsample"), LEAST_SECONDS);
        assert!(seconds("conv2d") > seconds("attention") && seconds("conv2d") < MOST_SECONDS);
    }
}
