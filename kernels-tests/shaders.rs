//! Every shader in every dialect through naga: it parses, validates inside the limits of the kind of device that it is
//! for (WebGPU's defaults, but for cooperative matrices), and its bindings, overrides and `Params` are what the Rust side
//! launches it with.

use std::collections::BTreeSet;

use libtest_mimic::{Failed, Trial};
use ornstein::caps::Caps;
use ornstein::gpu::shader::{Dialect, Sources, names, prepare};
use ornstein::ops::{Case, Launch, TABLE, Variant};

use crate::support::{MATRICES, dialect_name, test, variants};

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![test("shaders::every_file_belongs_to_an_op", every_file_belongs_to_an_op)];
    for row in TABLE {
        let op = row.name;
        for dialect in Dialect::all() {
            trials.push(test(format!("shaders::{op}::{}", dialect_name(dialect)), move || {
                launches_fit(&row.cases(), dialect)
            }));
        }
        if row.cases().iter().any(|case| !with_matrices(case).unwrap_or_default().is_empty()) {
            trials.push(test(format!("shaders::{op}::matrices_are_offered_where_their_memory_fits"), move || {
                row.cases().iter().try_for_each(memory_is_reckoned_with)
            }));
        }
    }
    trials
}

fn every_file_belongs_to_an_op() -> Result<(), Failed> {
    let files: BTreeSet<_> = names().into_iter().collect();
    let ops: BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
    if files == ops { Ok(()) } else { Err(format!("only one side has {:?}", files.symmetric_difference(&ops)).into()) }
}

fn with_matrices(case: &Case) -> Result<Vec<(Variant, Caps)>, Failed> {
    let mut all = variants(case, MATRICES)?;
    all.retain(|(variant, _)| variant.launch.matrix.is_some());
    Ok(all)
}

/// A device with exactly the workgroup memory of a kernel is offered it, and one with a byte less is not.
fn memory_is_reckoned_with(case: &Case) -> Result<(), Failed> {
    let types = case.types();
    let output = case.op.output(&types)?;
    for (Variant { name, launch }, caps) in with_matrices(case)? {
        let source = Sources::default().of_launch(&launch, MATRICES)?;
        let bytes = workgroup_bytes(&prepare(&source, &launch, MATRICES.native_f16)?.module)?;
        let offered = |workgroup_memory| {
            let variants = case.op.variants(&types, &output, &Caps { workgroup_memory, ..caps.clone() });
            variants.map(|variants| variants.iter().any(|variant| variant.name == name))
        };
        if !offered(bytes)? || offered(bytes - 1)? {
            return Err(format!("{name} takes {bytes} bytes, and its launch reckons with others").into());
        }
    }
    Ok(())
}

/// Of all variables of a kernel.
fn workgroup_bytes(module: &naga::Module) -> Result<u32, Failed> {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx())?;
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    Ok(shared.map(|(_, v)| layouter[v.ty].size.next_multiple_of(16)).sum())
}

fn launches_fit(cases: &[Case], dialect: Dialect) -> Result<(), Failed> {
    for case in cases {
        for (Variant { name, launch }, caps) in variants(case, dialect)? {
            let what = |e: Failed| format!("{} {name}: {}", case.name(), e.message().unwrap_or_default());
            fits(&launch, dialect, &caps).map_err(what)?;
        }
    }
    Ok(())
}

fn fits(launch: &Launch, dialect: Dialect, caps: &Caps) -> Result<(), Failed> {
    let source = Sources::default().of_launch(launch, dialect)?;
    limits_hold(&prepare(&source, launch, dialect.native_f16)?.module, launch, caps)
}

fn limits_hold(module: &naga::Module, launch: &Launch, caps: &Caps) -> Result<(), Failed> {
    let storage = module.global_variables.iter().filter(|(_, v)| matches!(v.space, naga::AddressSpace::Storage { .. }));
    let [x, y, z] = module.entry_points[0].workgroup_size;
    let most_workgroups = launch.workgroups.into_iter().max().unwrap_or_default();
    let limits = [
        ("threads", x * y * z, caps.max_invocations),
        ("threads along z", z, 64),
        ("bytes of workgroup memory", workgroup_bytes(module)?, caps.workgroup_memory),
        ("storage buffers", storage.count() as u32, 8),
        ("workgroups in one dimension", most_workgroups, caps.max_workgroups),
    ];
    match limits.into_iter().find(|(_, value, limit)| value > limit) {
        None => Ok(()),
        Some((what, value, limit)) => Err(format!("{value} {what} exceed the limit of {limit}").into()),
    }
}
