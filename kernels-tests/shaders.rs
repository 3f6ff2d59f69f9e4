//! Every shader in every dialect through naga: it parses, validates inside the limits of the kind of device that it is
//! for (WebGPU's defaults, but for cooperative matrices), and its bindings, overrides and `Params` are what the Rust
//! side launches it with.

use std::collections::BTreeSet;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::caps::Caps;
use ornstein::gpu::shader::{Dialect, Sources, names, prepare};
use ornstein::ops::{Case, Launch, TABLE, Variant};

use crate::support::{MATRICES, dialect_name, test, variants};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("shaders::every_file_belongs_to_an_op", every_file_belongs_to_an_op),
        test("shaders::every_file_writes_types_workgroups_and_conditions_in_one_way", one_way_to_write),
    ];
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

/// `vec4f` and not `vec4<f32>` or `vec4`, a workgroup's size by name, and no parentheses around a condition.
fn one_way_to_write() -> Result<(), Failed> {
    let mut texts: Vec<(String, String)> =
        Dialect::all().into_iter().map(|dialect| (dialect_name(dialect), dialect.prelude())).collect();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    for folder in ["", "cores", "shared", "lab"] {
        for entry in std::fs::read_dir(top.join(folder))? {
            let path = entry?.path();
            if path.is_file() {
                texts.push((path.display().to_string(), std::fs::read_to_string(&path)?));
            }
        }
    }
    let lines = texts.iter().flat_map(|(file, text)| text.lines().zip(1..).map(move |(line, n)| (file, n, line)));
    let wrong = |line: &str| long_type(line) || unnamed_size(line) || parenthesised(line.trim());
    let wrong: Vec<_> =
        lines.filter(|(.., line)| wrong(line)).map(|(file, n, line)| format!("{file}:{n}: {line}")).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// The line names a vector or a matrix whose elements have a short form by another.
fn long_type(line: &str) -> bool {
    let types = ["vec2", "vec3", "vec4", "mat2x2", "mat2x4", "mat4x2", "mat4x4"];
    let mut behind = types.iter().flat_map(|name| line.match_indices(name).map(|(at, _)| &line[at + name.len()..]));
    behind.any(|rest| rest.starts_with('(') || (rest.starts_with('<') && !rest.starts_with("<bool>")))
}

fn unnamed_size(line: &str) -> bool {
    let sizes = line.split_once("@workgroup_size(").and_then(|(_, rest)| rest.split_once(')'));
    sizes.is_some_and(|(sizes, _)| sizes.split(',').any(|size| size.trim().starts_with(|c: char| c.is_ascii_digit())))
}

fn parenthesised(line: &str) -> bool {
    let line = line.strip_prefix("} else ").unwrap_or(line);
    let Some(inside) = line.strip_prefix("if (").and_then(|rest| rest.strip_suffix(") {")) else { return false };
    // The first parenthesis may be closed before the end.
    let depths = inside.chars().scan(0, |depth, c| {
        *depth += i32::from(c == '(') - i32::from(c == ')');
        Some(*depth)
    });
    depths.into_iter().all(|depth| depth >= 0)
}

fn with_matrices(case: &Case) -> Result<Vec<(Variant, Caps)>, Failed> {
    let mut all = variants(case, MATRICES)?;
    all.retain(|(variant, _)| variant.launch.matrix.is_some());
    Ok(all)
}

/// A device with exactly the workgroup memory of a kernel is offered it, and one with a byte less is not.
fn memory_is_reckoned_with(case: &Case) -> Result<(), Failed> {
    for (Variant { name, launch }, caps) in with_matrices(case)? {
        let source = Sources::default().of_launch(&launch, MATRICES)?;
        let bytes = workgroup_bytes(&prepare(&source, &launch, MATRICES.native_f16)?.module)?;
        let offered = |workgroup_memory| {
            let variants = case.variants(&Caps { workgroup_memory, ..caps.clone() });
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
