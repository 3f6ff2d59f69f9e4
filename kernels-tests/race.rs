//! Cooperative matrices pass through workgroup memory, and naga's barriers leave it to the driver to make what was
//! written there visible (gfx-rs/wgpu#8805). A kernel that is right once may be wrong now and then: here each runs
//! many times.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::Gpu;
use ornstein::gpu::check::{Check, variants};
use ornstein::graph::plan::Storage;
use ornstein::ops::attention::Attention;
use ornstein::ops::case::Fill;
use ornstein::ops::product::epilogue::Epilogue;
use ornstein::ops::product::matmul::MatMul;
use ornstein::ops::{Case, Kind, Ty};
use ornstein::tensor::DType;

use crate::support::with_matrices;

const STORAGE: Storage = Storage { act: DType::F16, weight: DType::F16 };

/// Tiles of every size in several workgroups, and many steps between two barriers.
fn product() -> Case {
    let epilogue = Epilogue { residual: true, ..Epilogue::bias(true) };
    let y = Ty::act([200, 264]);
    let inputs = [Ty::act([200, 1160]), Ty::new(Kind::Weight, [1160, 264]), Ty::new(Kind::F32, [264]), y];
    Case::new(MatMul { epilogue }, inputs)
}

/// Several workgroups, tiles of keys and steps of channels, and scores that grow from tile to tile.
fn attention() -> Case {
    let inputs = [[1, 150, 224], [1, 500, 224], [1, 500, 224]].map(Ty::act);
    Case::new(Attention { heads: 1, causal: false }, inputs).fill(0, Fill::Normal(8.0))
}

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let trial = |case: fn() -> Case| {
        let name = "race::every_run_of_a_cooperative_matrix_kernel_gives_the_same_right_output";
        with_matrices(format!("{name}::{}", case().op.name()), move |gpu| every_run_is_the_same(gpu, &case()))
    };
    vec![trial(product), trial(attention)]
}

fn every_run_is_the_same(gpu: &Arc<Gpu>, case: &Case) -> Result<(), Failed> {
    let runs = if gpu.caps.on_processor() { 10 } else { 2000 };
    let check = Check::of_case(case, STORAGE)?;
    for (index, variant) in variants(gpu, case, STORAGE)?.into_iter().enumerate() {
        if variant.launch.matrix.is_none() {
            continue;
        }
        let session = check.session(gpu, index)?;
        let mut first = None;
        for run in 0..runs {
            let found = pollster::block_on(session.run_poisoned())?;
            let first = first.get_or_insert_with(|| found.clone());
            if first.data.iter().map(|v| v.to_bits()).ne(found.data.iter().map(|v| v.to_bits())) {
                return Err(format!("{}: run {run} differs from the first", variant.name).into());
            }
        }
        let first = first.ok_or("no run")?;
        if let Some(fault) = check.expected.fault(&check.expected.compare(&first)) {
            return Err(format!("{}: {fault}", variant.name).into());
        }
    }
    Ok(())
}
