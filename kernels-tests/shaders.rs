//! Every shader in every dialect through naga: it parses, validates inside WebGPU's default limits, and its bindings,
//! overrides and `Params` are what the Rust side launches it with.

use std::collections::BTreeSet;

use libtest_mimic::{Failed, Trial};
use ornstein::caps::Caps;
use ornstein::gpu::shader::{Dialect, Sources, names, prepare};
use ornstein::ops::{Case, Launch, TABLE};

use crate::support::test;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![test("shaders::every_file_belongs_to_an_op", every_file_belongs_to_an_op)];
    for (op, cases) in TABLE {
        let cases = *cases;
        for dialect in Dialect::all() {
            let native = if dialect.native_f16 { "native" } else { "packed" };
            let name = format!("shaders::{op}::{}-{}-{native}", dialect.elem, dialect.weight);
            trials.push(test(name, move || launches_fit(&cases(), dialect)));
        }
    }
    trials
}

fn every_file_belongs_to_an_op() -> Result<(), Failed> {
    let files: BTreeSet<_> = names().into_iter().collect();
    let ops: BTreeSet<_> = TABLE.iter().map(|(name, _)| *name).collect();
    if files == ops { Ok(()) } else { Err(format!("only one side has {:?}", files.symmetric_difference(&ops)).into()) }
}

fn launches_fit(cases: &[Case], dialect: Dialect) -> Result<(), Failed> {
    let caps = Caps { f16: dialect.native_f16, ..Caps::webgpu_default() };
    for case in cases {
        let types = case.types();
        let launch = case.op.launch(&types, &case.op.output(&types)?, &caps)?;
        fits(&launch, dialect).map_err(|e| format!("{}: {}", case.name(), e.message().unwrap_or_default()))?;
    }
    Ok(())
}

fn fits(launch: &Launch, dialect: Dialect) -> Result<(), Failed> {
    let source = Sources::default().source(launch.shader, dialect)?;
    limits_hold(&prepare(&source, launch, dialect.native_f16)?.module)
}

fn limits_hold(module: &naga::Module) -> Result<(), Failed> {
    let caps = Caps::webgpu_default();
    let threads: u32 = module.entry_points[0].workgroup_size.iter().product();
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx())?;
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, v)| layouter[v.ty].size).sum();
    if threads <= caps.max_invocations && bytes <= caps.workgroup_memory {
        return Ok(());
    }
    Err(format!("{threads} threads and {bytes} bytes of workgroup memory exceed WebGPU's defaults").into())
}
