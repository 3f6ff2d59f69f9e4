//! Wrong kernels, planted through `--shaders`, are found before they are used: another variant takes over or, where nobody
//! named the device, the CPU, and the user is told once.

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use ornstein::gpu::Gpu;
use ornstein::gpu::device::{Choice, select, without_gl};
use ornstein::gpu::shader::Sources;
use ornstein::graph::Graph;
use ornstein::network::{Executor, IfWrong, Network};
use ornstein::ops::Kind;
use ornstein::ops::activation::{Act, Activation};
use ornstein::tensor::{DType, NoWeights};

use crate::support::{ADAPTER, on_gpu};

/// What a planted fault changes in a shader: file, text to find, text instead.
type Fault = [&'static str; 3];

/// The product's large tile adds one to a sum; the small tile stays right.
const IN_ONE_TILE: Fault = ["gemm.wgsl", "store_y(sum0, ", "store_y(sum0 + select(0.0, 1.0, TILE_ROWS == 64u), "];
/// SiLU is a little off in every kernel that has it.
const EVERYWHERE: Fault = ["activation.wgsl", "return x * sigmoid(x);", "return x * sigmoid(1.01 * x);"];

pub fn trials() -> Vec<Trial> {
    vec![
        on_gpu("admission::a_wrong_variant_gives_way_to_another".into(), |_| another_variant_takes_over()),
        on_gpu("admission::a_named_device_is_not_replaced_and_a_changed_kernel_changes_its_picture".into(), |_| {
            a_named_device_is_not_replaced()
        }),
        on_gpu("admission::without_a_right_kernel_the_cpu_takes_over".into(), |_| {
            pollster::block_on(the_cpu_takes_over())
        }),
        on_gpu("admission::verdicts_are_kept_and_shown".into(), |_| verdicts_are_kept_and_shown()),
    ]
}

/// Runs the binary with its cache in `at`, on the tests' adapter; gives stdout and stderr.
fn ornstein(at: &Path, arguments: &[&str]) -> Result<(Vec<u8>, String), Failed> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
    command.current_dir(at).args(arguments).env("XDG_CACHE_HOME", at).env("HOME", at).env("LOCALAPPDATA", at);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok((output.stdout, said)) } else { Err(format!("failed: {said}").into()) }
}

/// A one-step picture in f32 with a fault planted, and what was said on stderr.
fn draw(at: &Path, fault: Option<Fault>, device: &str) -> Result<(Vec<u8>, String), Failed> {
    let mut arguments = vec!["generate", "a red circle", "--seed", "1", "--steps", "1", "--dtype", "f32", "-o", "-"];
    arguments.extend(["--device", device]);
    if let Some(fault) = fault {
        plant(at, fault)?;
        arguments.extend(["--shaders", "faulty"]);
    }
    let (png, said) = ornstein(at, &arguments)?;
    Ok((ornstein::image::decode_png("stdout", &png)?.rgb, said))
}

/// Writes the faulty shader into `at/faulty`, which is returned.
fn plant(at: &Path, [file, find, instead]: Fault) -> Result<PathBuf, Failed> {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/shared").join(file);
    let text = std::fs::read_to_string(built_in)?;
    if !text.contains(find) {
        return Err(format!("{find} is no longer in {file}: plant the fault elsewhere").into());
    }
    let folder = at.join("faulty");
    std::fs::create_dir_all(folder.join("shared"))?;
    std::fs::write(folder.join("shared").join(file), text.replace(find, instead))?;
    Ok(folder)
}

fn adapter() -> String {
    std::env::var(ADAPTER).unwrap_or_else(|_| "0".into())
}

fn ensure(holds: bool, what: &str, said: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{what}: {said}").into()) }
}

fn same_picture(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 1)
}

fn another_variant_takes_over() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let (right, _) = draw(at.path(), None, "cpu")?;
    let (picture, said) = draw(at.path(), Some(IN_ONE_TILE), &adapter())?;
    ensure(same_picture(&right, &picture), "the picture is wrong", &said)?;
    let warnings = said.lines().filter(|line| line.contains("matmul tile64") && line.contains("tile16 instead"));
    ensure(warnings.count() == 1, "not one warning of matmul", &said)?;
    let (picture, said) = draw(at.path(), Some(IN_ONE_TILE), &adapter())?;
    ensure(same_picture(&right, &picture), "the second picture is wrong", &said)?;
    ensure(said.is_empty(), "the second run warns again", &said)
}

fn a_named_device_is_not_replaced() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let (right, _) = draw(at.path(), None, "cpu")?;
    let (picture, said) = draw(at.path(), Some(EVERYWHERE), &adapter())?;
    ensure(!same_picture(&right, &picture), "the changed kernel did not run", &said)?;
    ensure(said.contains("unet runs on") && said.contains("will be wrong"), "nothing tells of it", &said)
}

/// The device as `auto` would have opened it: then nobody insists on it.
async fn the_cpu_takes_over() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let adapters = without_gl().await;
    let adapter = select(&Choice::from(adapter().as_str()), &adapters)?.ok_or("no adapter")?;
    let gpu = Gpu::open(adapter, Sources::with_folder(&plant(at.path(), EVERYWHERE)?)?).await?;
    let executor = Executor::Gpu(gpu, DType::F32, IfWrong::UseCpu);
    let mut graph = Graph::new("unet");
    let x = graph.input("x", Kind::Act, [1, 4, 4, 8]);
    let y = graph.node("act", Activation(Act::Silu), &[x])?;
    graph.output("y", y);
    let mut said = Vec::new();
    let wanted = graph.wanted();
    let network = Network::load(&executor, graph, &wanted, NoWeights, &mut |text| said.push(text.to_string())).await?;
    ensure(network.device_bytes() == 0, "the device was used", &said.join("\n"))?;
    ensure(said.iter().any(|line| line == "unet runs on the CPU"), "nothing tells of the CPU", &said.join("\n"))
}

fn verdicts_are_kept_and_shown() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    draw(at.path(), Some(IN_ONE_TILE), &adapter())?;
    let (devices, said) = ornstein(at.path(), &["devices", "--json"])?;
    let devices: serde_json::Value = serde_json::from_slice(&devices)?;
    let rows = devices["devices"].as_array().ok_or("no devices")?;
    let wrong: Vec<_> = rows.iter().filter_map(|row| row["kernels"]["wrong"].as_array()).flatten().collect();
    let tile = wrong.iter().any(|row| row["kernel"].as_str().is_some_and(|k| k.starts_with("matmul tile64 ")));
    ensure(tile, &devices.to_string(), &said)
}
