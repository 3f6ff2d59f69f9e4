//! Every shader in every dialect through naga: it parses, validates inside the limits of the kind of device that it is
//! for (WebGPU's defaults, but for cooperative matrices), and its bindings, overrides and `Params` are what the Rust side
//! launches it with.

use std::collections::BTreeSet;

use libtest_mimic::{Failed, Trial};
use ornstein::caps::Caps;
use ornstein::gpu::shader::{Dialect, Sources, names, prepare};
use ornstein::ops::{Case, Launch, TABLE, Variant};

use crate::support::{dialect_name, test, variants};

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![test("shaders::every_file_belongs_to_an_op", every_file_belongs_to_an_op)];
    for (op, cases) in TABLE {
        let cases = *cases;
        for dialect in Dialect::all() {
            trials.push(test(format!("shaders::{op}::{}", dialect_name(dialect)), move || {
                launches_fit(&cases(), dialect)
            }));
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
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx())?;
    let variables = || module.global_variables.iter().map(|(_, variable)| variable);
    let shared = variables().filter(|v| v.space == naga::AddressSpace::WorkGroup);
    let storage = variables().filter(|v| matches!(v.space, naga::AddressSpace::Storage { .. }));
    let [x, y, z] = module.entry_points[0].workgroup_size;
    let most_workgroups = launch.workgroups.into_iter().max().unwrap_or_default();
    let limits = [
        ("threads", x * y * z, caps.max_invocations),
        ("threads along z", z, 64),
        (
            "bytes of workgroup memory",
            shared.map(|v| layouter[v.ty].size.next_multiple_of(16)).sum(),
            caps.workgroup_memory,
        ),
        ("storage buffers", storage.count() as u32, 8),
        ("workgroups in one dimension", most_workgroups, caps.max_workgroups),
    ];
    match limits.into_iter().find(|(_, value, limit)| value > limit) {
        None => Ok(()),
        Some((what, value, limit)) => Err(format!("{value} {what} exceed the limit of {limit}").into()),
    }
}
