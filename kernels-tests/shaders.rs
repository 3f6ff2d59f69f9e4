//! Every shader in every dialect through naga: it parses, validates inside WebGPU's default limits, and its bindings,
//! overrides and `Params` are what the Rust side launches it with.

use std::collections::BTreeSet;

use libtest_mimic::{Failed, Trial};
use ornstein::caps::Caps;
use ornstein::gpu::shader::{Dialect, Sources, names, validate};
use ornstein::ops::{Binding, Case, Launch, TABLE};

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
        for variant in case.op.variants(&types, &case.op.output(&types)?, &caps)? {
            fits(&variant.launch, dialect).map_err(|e| format!("{} {}: {e}", case.name(), variant.name))?;
        }
    }
    Ok(())
}

fn fits(launch: &Launch, dialect: Dialect) -> Result<(), String> {
    let source = Sources::default().source(launch.shader, dialect).map_err(|e| e.to_string())?;
    let (module, info) = validate(&source, dialect.native_f16).map_err(|e| e.to_string())?;
    let constants = launch.constants.iter().map(|(name, value)| ((*name).to_string(), *value)).collect();
    let stage = Some((naga::ShaderStage::Compute, "main"));
    let (module, _) = naga::back::pipeline_constants::process_overrides(&module, &info, stage, &constants)
        .map_err(|e| e.to_string())?;
    bindings_fit(&module, launch)?;
    params_fit(&module, launch)?;
    limits_hold(&module)
}

fn bindings_fit(module: &naga::Module, launch: &Launch) -> Result<(), String> {
    for (index, binding) in launch.bindings.iter().enumerate() {
        let at = |v: &naga::GlobalVariable| v.binding.is_some_and(|b| b.group == 0 && b.binding == index as u32);
        let found = module.global_variables.iter().find(|(_, v)| at(v));
        let space = found.map(|(_, v)| v.space).ok_or_else(|| format!("nothing at @binding({index})"))?;
        let fits = match (binding, space) {
            (Binding::Params, naga::AddressSpace::Uniform) => true,
            (Binding::Output, naga::AddressSpace::Storage { access }) => access.contains(naga::StorageAccess::STORE),
            (Binding::Input(_) | Binding::Absent, naga::AddressSpace::Storage { access }) => {
                access == naga::StorageAccess::LOAD
            }
            _ => false,
        };
        if !fits {
            return Err(format!("@binding({index}) is {space:?}, launched as {binding:?}"));
        }
    }
    Ok(())
}

fn params_fit(module: &naga::Module, launch: &Launch) -> Result<(), String> {
    let found = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Params"));
    let Some((_, naga::Type { inner: naga::TypeInner::Struct { members, .. }, .. })) = found else {
        return if launch.params.is_empty() { Ok(()) } else { Err("there is no struct Params".into()) };
    };
    let shader: Vec<_> = members.iter().map(|m| (m.name.clone().unwrap_or_default(), m.offset)).collect();
    let rust: Vec<_> = launch.params.iter().zip(0..).map(|((name, _), i)| ((*name).to_string(), 4 * i)).collect();
    if shader == rust { Ok(()) } else { Err(format!("Params are {shader:?} in the shader, {rust:?} in the launch")) }
}

fn limits_hold(module: &naga::Module) -> Result<(), String> {
    let caps = Caps::webgpu_default();
    let threads: u32 = module.entry_points[0].workgroup_size.iter().product();
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, v)| layouter[v.ty].size).sum();
    if threads <= caps.max_invocations && bytes <= caps.workgroup_memory {
        return Ok(());
    }
    Err(format!("{threads} threads and {bytes} bytes of workgroup memory exceed WebGPU's defaults"))
}
