//! What DirectX 12 would compute, without Windows: every kernel's HLSL, turned into SPIR-V by the DirectX shader
//! compiler, runs on the Vulkan adapter at hand and is held against the CPU reference, in the first cases of each text.
//! What this cannot see is how a DirectX driver binds resources, and what it makes of DXIL.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::Gpu;
use ornstein::gpu::check::{Check, variants};
use ornstein::gpu::shader::{Dialect, Sources, hlsl, prepare};
use ornstein::graph::plan::Storage;
use ornstein::ops::{Binding, Case, Launch, TABLE};
use ornstein::tensor::DType;

use crate::parity::STORAGES;
use crate::support::{gpu, open};
use crate::translate::{dxc, ran, with_dxc};

/// Cases that a kernel of one text computes here. As SPIR-V of naga's it computes all (`parity`).
const MOST_CASES: usize = 2;

/// A fault: what is replaced in the text by what.
type Fault = [&'static str; 2];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let there = gpu().is_ok_and(|gpu| gpu.caps.backend == "vulkan");
    let with = |name: String, test: Box<dyn FnOnce() -> Result<(), Failed> + Send>| {
        let trial = with_dxc(name, test);
        let ignored = trial.has_ignored_flag() || !there;
        trial.with_ignored_flag(ignored)
    };
    let mut trials = vec![with("hlsl::a_fault_is_found".into(), Box::new(a_fault_is_found))];
    for row in TABLE {
        for (act, weight) in STORAGES {
            let test = move || check(&row.cases(), Storage { act, weight }, None);
            trials.push(with(format!("hlsl::{}::{act}-{weight}", row.name), Box::new(test)));
        }
    }
    trials
}

/// One variant of one case, and its place among its case's.
struct Run<'a> {
    case: &'a Case,
    variant: usize,
    launch: Launch,
    /// The one that the session asks for.
    dialect: Dialect,
    hlsl: String,
}

fn check(cases: &[Case], storage: Storage, fault: Option<Fault>) -> Result<(), Failed> {
    // Replaced kernels are this device's alone.
    let gpu = open(Sources::default())?;
    let mut runs = Vec::new();
    for case in cases {
        runs.extend(translated(&gpu, case, storage, fault)?);
    }
    // Of a kernel whose cases differ in their sizes alone the text is one, but for the number of workgroups.
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    runs.retain(|Run { launch, dialect, .. }| {
        let kernel = format!("{:?} {:?} {:?} {dialect:?}", launch.shader, launch.core, launch.constants);
        let cases = seen.entry(kernel).or_default();
        *cases += 1;
        *cases <= MOST_CASES
    });
    let modules = compiled(&runs)?;
    for (Run { case, variant, launch, dialect, .. }, spirv) in runs.iter().zip(modules) {
        // SAFETY: DXC made and validated the module from HLSL that naga wrote of a validated kernel, with every
        // register bound to the place that the launch gives it; a kernel's own bounds keep it inside its buffers.
        unsafe { gpu.kernels.replace(&gpu, launch, *dialect, &spirv)? };
        if let Some(fault) = pollster::block_on(Check::of_case(case, storage)?.variant(&gpu, *variant))?.fault {
            return Err(format!("{} variant {variant}: {fault}", case.name()).into());
        }
    }
    Ok(())
}

fn translated<'a>(
    gpu: &Arc<Gpu>,
    case: &'a Case,
    storage: Storage,
    fault: Option<Fault>,
) -> Result<Vec<Run<'a>>, Failed> {
    let types = case.types();
    let output = case.op.output(&types)?;
    let dialect = Dialect::of(storage, &types, &output, gpu.caps.native_f16());
    // What DirectX 12 devices are given, with an f16 of their own. It is stored the same as packed pairs.
    let native = Dialect::of(storage, &types, &output, gpu.caps.f16);
    let run = |(variant, launch): (usize, Launch)| {
        let source = gpu.sources.of_launch(&launch, native)?;
        let text = hlsl(&prepare(&source, &launch, native.native_f16)?)?;
        let mut hlsl = with_workgroups(&text, launch.workgroups)?;
        if let Some([right, wrong]) = fault {
            if !hlsl.contains(right) {
                return Err(format!("there is no {right} to be replaced in\n{hlsl}").into());
            }
            hlsl = hlsl.replace(right, wrong);
        }
        Ok(Run { case, variant, launch, dialect, hlsl })
    };
    // HLSL has no matrices.
    let launches = variants(gpu, case, storage)?
        .into_iter()
        .map(|v| v.launch)
        .enumerate()
        .filter(|(_, launch)| launch.matrix.is_none());
    launches.map(run).collect()
}

/// The number of workgroups as a constant: in DirectX 12 it is a root constant that wgpu fills in.
fn with_workgroups(text: &str, [x, y, z]: [u32; 3]) -> Result<String, Failed> {
    let declared = "ConstantBuffer<NagaConstants> _NagaConstants: register(";
    let start = text.find(declared).ok_or("naga declares the number of workgroups otherwise")?;
    let end = start + text[start..].find('\n').ok_or("the text ends in a declaration")?;
    let constant = format!("static const NagaConstants _NagaConstants = {{ {x}, {y}, {z} }};");
    Ok([&text[..start], &constant, &text[end..]].concat())
}

/// The runs' modules. Those with the same bindings are compiled by one call.
fn compiled(runs: &[Run]) -> Result<Vec<Vec<u32>>, Failed> {
    let folder = tempfile::tempdir()?;
    let path = |index: usize, extension| folder.path().join(format!("{index}.{extension}"));
    let mut calls: BTreeMap<Vec<String>, Vec<PathBuf>> = BTreeMap::new();
    for (index, run) in runs.iter().enumerate() {
        std::fs::write(path(index, "hlsl"), &run.hlsl)?;
        calls.entry(options(&run.launch)).or_default().push(path(index, "hlsl"));
    }
    calls.iter().try_for_each(|(options, files)| ran(&dxc(options, files)?))?;
    let words = |bytes: Vec<u8>| bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (0..runs.len()).map(|index| Ok(words(std::fs::read(path(index, "spv"))?))).collect()
}

/// Each register, numbered by its kind as naga numbers it, at its place in the launch.
fn options(launch: &Launch) -> Vec<String> {
    let mut options = vec!["--spirv".to_string()];
    let mut next = BTreeMap::new();
    for (place, binding) in launch.bindings.iter().enumerate() {
        let kind = match binding {
            Binding::Input(_) | Binding::Absent => 't',
            Binding::Output => 'u',
            Binding::Params => 'b',
        };
        let number = next.entry(kind).or_insert(0);
        let register = ["-fvk-bind-register".to_string(), format!("{kind}{number}"), "0".into()];
        options.extend(register.into_iter().chain([place.to_string(), "0".into()]));
        *number += 1;
    }
    options
}

/// The check must be able to fail, and by the HLSL that it is given.
fn a_fault_is_found() -> Result<(), Failed> {
    let storage = Storage { act: DType::F32, weight: DType::F32 };
    let fault = ["_e16 = params.factor", "_e16 = 1.01 * params.factor"];
    match check(&ornstein::ops::scale::cases(), storage, Some(fault)) {
        Err(failed) if failed.message().is_some_and(|why| why.contains("relative error")) => Ok(()),
        other => Err(format!("it gave {other:?}").into()),
    }
}
