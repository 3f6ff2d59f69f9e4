//! Every kernel on the adapter at hand against its CPU reference, in every pair of storage types, on every case.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::Gpu;
use ornstein::gpu::check::{Check, variants};
use ornstein::graph::plan::Storage;
use ornstein::ops::{Case, TABLE};
use ornstein::tensor::DType;

use crate::support::on_gpu;

/// Storage of activations and matrices: what sessions use, and f32 with f32 weights as the plainest.
pub const STORAGES: [(DType, DType); 3] =
    [(DType::F32, DType::F32), (DType::F32, DType::F16), (DType::F16, DType::F16)];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for row in TABLE {
        for (act, weight) in STORAGES {
            for index in 0..row.cases().len() {
                let name = format!("parity::{}::{act}-{weight}::{index}", row.name);
                trials.push(on_gpu(name, move |gpu| check(gpu, &row.cases()[index], Storage { act, weight })));
            }
        }
    }
    trials
}

fn check(gpu: &Arc<Gpu>, case: &Case, storage: Storage) -> Result<(), Failed> {
    if storage.act == DType::F16 && !gpu.caps.f16 {
        return Err("the adapter has no f16: choose another by ORNSTEIN_TEST_DEVICE".into());
    }
    let check = Check::of_case(case, storage)?;
    for (index, variant) in variants(gpu, case, storage)?.iter().enumerate() {
        if let Some(fault) = pollster::block_on(check.variant(gpu, index))?.fault {
            return Err(format!("{} {}: {fault}", case.name(), variant.name).into());
        }
    }
    Ok(())
}
