//! Every kernel, as every case launches it, in the languages of all platforms: SPIR-V through the validator, HLSL
//! through the DirectX shader compiler, MSL as far as naga writes it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::shader::{Dialect, Prepared, Sources, hlsl, msl, prepare, spirv};
use ornstein::ops::{Case, Launch, Row, TABLE, Variant};

use crate::layout::only_in_buffers;
use crate::support::{MATRICES, REQUIRE_ADAPTER, dialect_name, test, variants, with_tool};

/// Where the DirectX shader compiler's library is; without it what needs it is left out.
const DXC: &str = "ORNSTEIN_DXC";

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = vec![
        with_spirv_val("translate::spirv_val_refuses_a_cut_module".into(), spirv_val_refuses_a_cut_module),
        with_dxc("translate::dxc_refuses_too_much_shared_memory".into(), dxc_refuses_too_much_shared_memory),
    ];
    for row in TABLE {
        let op = row.name;
        for dialect in Dialect::all() {
            let name = |target| format!("translate::{target}::{op}::{}", dialect_name(dialect));
            let plain = |variant: &Variant| variant.launch.matrix.is_none();
            trials.push(with_spirv_val(name("spirv"), move || each(&row.cases(), dialect, plain, spirv, check_spirv)));
            trials.push(with_dxc(name("hlsl"), move || each(&row.cases(), dialect, plain, hlsl, check_hlsl)));
            trials.push(test(name("msl"), move || each(&row.cases(), dialect, plain, msl, check_msl)));
        }
        for name in with_matrices(&row.cases()) {
            trials.extend(of_matrices(row, name));
        }
    }
    trials
}

/// Names of the variants that multiply cooperative matrices.
fn with_matrices(cases: &[Case]) -> BTreeSet<&'static str> {
    let all = cases.iter().flat_map(|case| variants(case, MATRICES).unwrap_or_default());
    all.filter(|(variant, _)| variant.launch.matrix.is_some()).map(|(variant, _)| variant.name).collect()
}

/// One of those in each language: checked, or seen to be refused where the language cannot express it.
fn of_matrices(row: &'static Row, name: &'static str) -> [Trial; 3] {
    let is = move |variant: &Variant| variant.name == name;
    let called = |target, what| format!("translate::{target}::{}::{name}{what}", row.name);
    let not_expressible = "::not_expressible";
    // What Metal is given.
    let metal = if name.ends_with("-scalar") {
        test(called("msl", ""), move || each(&row.cases(), MATRICES, is, msl, check_msl))
    } else {
        test(called("msl", not_expressible), move || none(&row.cases(), is, msl))
    };
    [
        with_newer_spirv_val(called("spirv", ""), move || each(&row.cases(), MATRICES, is, spirv, check_spirv)),
        test(called("hlsl", not_expressible), move || none(&row.cases(), is, hlsl)),
        metal,
    ]
}

fn with_spirv_val(name: String, test: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    static THERE: OnceLock<bool> = OnceLock::new();
    let there = *THERE.get_or_init(|| Command::new("spirv-val").arg("--version").output().is_ok());
    with_tool("spirv-val", there || std::env::var_os(REQUIRE_ADAPTER).is_some(), name, test)
}

/// For kernels of cooperative matrices, which spirv-val knows since 2023.4: older ones cannot name the capability.
fn with_newer_spirv_val(name: String, test: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    static THERE: OnceLock<bool> = OnceLock::new();
    let there = *THERE.get_or_init(|| {
        let said = Command::new("spirv-val").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let version = said.split_whitespace().find_map(|word| word.strip_prefix('v')?.split_once('.'));
        let number = |text: &str| text.parse::<u32>().ok();
        version.and_then(|(year, minor)| Some((number(year)?, number(minor)?))).is_some_and(|v| v >= (2023, 4))
    });
    with_tool("spirv-val 2023.4 or later", there, name, test)
}

pub fn with_dxc(name: String, test: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    with_tool("ORNSTEIN_DXC", std::env::var_os(DXC).is_some(), name, test)
}

/// Translates each different kernel of the cases into a file of its own, and checks all files at once.
fn each<T: AsRef<[u8]>>(
    cases: &[Case],
    dialect: Dialect,
    wanted: impl Fn(&Variant) -> bool,
    translate: impl Fn(&Prepared) -> ornstein::error::Result<T>,
    check: impl Fn(&[PathBuf]) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let mut files = Vec::new();
    for launch in launches(cases, dialect, wanted)? {
        let source = Sources::default().of_launch(&launch, dialect)?;
        let prepared = prepare(&source, &launch, dialect.native_f16)?;
        let path = folder.path().join(format!("{}-{}.hlsl", launch.shader, files.len()));
        std::fs::write(
            &path,
            translate(&prepared).map_err(|e| format!("{} {:?}: {e}", launch.shader, launch.constants))?,
        )?;
        files.push(path);
    }
    check(&files)
}

/// The language cannot express any of these kernels, for what cooperative matrices are.
fn none<T>(
    cases: &[Case],
    wanted: impl Fn(&Variant) -> bool,
    translate: impl Fn(&Prepared) -> ornstein::error::Result<T>,
) -> Result<(), Failed> {
    for launch in launches(cases, MATRICES, wanted)? {
        let source = Sources::default().of_launch(&launch, MATRICES)?;
        match translate(&prepare(&source, &launch, MATRICES.native_f16)?) {
            Err(error) if error.to_string().contains("cooperative matrices") => {}
            Err(error) => return Err(format!("refused for another reason: {error}").into()),
            Ok(_) => return Err("it was translated".into()),
        }
    }
    Ok(())
}

/// One launch for each shader and set of constants of these variants.
fn launches(cases: &[Case], dialect: Dialect, wanted: impl Fn(&Variant) -> bool) -> Result<Vec<Launch>, Failed> {
    let mut seen = BTreeSet::new();
    let mut launches = Vec::new();
    for case in cases {
        for (variant, _) in variants(case, dialect)?.into_iter().filter(|(variant, _)| wanted(variant)) {
            let launch = variant.launch;
            if seen.insert(format!("{} {:?} {:?}", launch.shader, launch.core, launch.constants)) {
                launches.push(launch);
            }
        }
    }
    Ok(launches)
}

pub fn ran(output: &Output) -> Result<(), Failed> {
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    Err(String::from_utf8_lossy(&said).into_owned().into())
}

fn spirv_val(file: &Path) -> Result<Output, Failed> {
    let ran = Command::new("spirv-val").args(["--target-env", "vulkan1.3"]).arg(file).output();
    ran.map_err(|e| format!("spirv-val cannot be run ({e}): it is part of Debian's spirv-tools").into())
}

fn check_spirv(files: &[PathBuf]) -> Result<(), Failed> {
    for file in files {
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&std::fs::read(file)?);
        std::fs::write(file, bytemuck::cast_slice::<u32, u8>(&only_in_buffers(&words)))?;
        ran(&spirv_val(file)?)?;
    }
    Ok(())
}

/// Compiles HLSL files to DXIL, or by `options` to something else beside them.
pub fn dxc(options: &[String], files: &[PathBuf]) -> Result<Output, Failed> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/dxc.py");
    let library: OsString = std::env::var_os(DXC).ok_or_else(|| format!("{DXC} is not set"))?;
    let ran = Command::new("python3").arg(script).arg(library).args(options).arg("--").args(files).output();
    ran.map_err(|e| format!("python3 cannot be run: {e}").into())
}

fn check_hlsl(files: &[PathBuf]) -> Result<(), Failed> {
    ran(&dxc(&[], files)?)
}

/// There is no compiler for it outside macOS.
fn check_msl(files: &[PathBuf]) -> Result<(), Failed> {
    for file in files {
        let text = std::fs::read_to_string(file)?;
        if !text.contains("kernel void main_(") || text.contains("fake") {
            return Err(format!("no kernel with real buffers:\n{text}").into());
        }
    }
    Ok(())
}

/// The checks must be able to fail.
fn spirv_val_refuses_a_cut_module() -> Result<(), Failed> {
    // Whole it passes, so that it is the cut which is refused and not, say, a missing tool.
    each(&ornstein::ops::scale::cases(), Dialect::all()[0], |_| true, spirv, check_spirv)?;
    let refused = each(&ornstein::ops::scale::cases(), Dialect::all()[0], |_| true, |p| spirv(p).map(cut), check_spirv);
    if refused.is_err() { Ok(()) } else { Err("it was passed".into()) }
}

fn cut(mut module: Vec<u8>) -> Vec<u8> {
    module.truncate(module.len() / 8 * 4);
    module
}

fn dxc_refuses_too_much_shared_memory() -> Result<(), Failed> {
    each(&ornstein::ops::attention::cases(), Dialect::all()[0], |_| true, hlsl, check_hlsl)?;
    let grown = |p: &Prepared| hlsl(p).map(|text| text.replace("kv_tile[256]", "kv_tile[4000]"));
    let refused = each(&ornstein::ops::attention::cases(), Dialect::all()[0], |_| true, grown, check_hlsl);
    if refused.is_err() { Ok(()) } else { Err("it was passed".into()) }
}
