//! A driver that ends the process while it compiles a kernel costs one run: the next refuses that kernel's variant,
//! says so once, and takes another. The processes are this test binary, run again with [`ROLE`] set.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Notice;
use ornstein::gpu::Gpu;
use ornstein::gpu::adapter::{Choice, select, without_gl};
use ornstein::gpu::admission::admit_tuning;
use ornstein::gpu::shader::Sources;
use ornstein::graph::Graph;
use ornstein::graph::plan::Storage;
use ornstein::ops::Kind;
use ornstein::ops::product::matmul::MatMul;
use ornstein::tensor::{DType, Tensor};

use crate::support::{ADAPTER, ensure, on_gpu};

/// What a process does when it is about to check a kernel: `die`s, `wait`s until its stdin ends, or `go`es on.
const ROLE: &str = "ORNSTEIN_TEST_CRASH";

const STORAGE: Storage = Storage { act: DType::F32, weight: DType::F32 };

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        on_gpu("crash::a_crash_costs_one_run".into(), a_crash_costs_one_run),
        on_gpu("crash::what_another_process_checks_is_not_refused".into(), what_another_checks_is_not_refused),
        #[cfg(unix)]
        on_gpu("crash::a_signal_that_ends_a_run_refuses_nothing".into(), |_| a_signal_refuses_nothing()),
    ]
}

/// A product with variants on every device.
fn product() -> Result<Graph, Failed> {
    let mut graph = Graph::new("layer");
    let x = graph.input("x", Kind::Act, [13, 48]);
    let w = graph.constant(Kind::Weight, Tensor::new([48, 48], vec![0.1; 48 * 48]));
    let y = graph.node("product", MatMul::new(false), &[x, w])?;
    graph.output("y", y);
    Ok(graph)
}

/// The names of its variants on a device.
fn names(gpu: &Gpu) -> Result<Vec<&'static str>, Failed> {
    let graph = product()?;
    let node = &graph.nodes[0];
    let caps = gpu.caps.storing(STORAGE.act, STORAGE.weight);
    let variants = node.op.variants(&graph.types(&node.inputs), graph.ty(node.output), &caps)?;
    Ok(variants.iter().map(|variant| variant.name).collect())
}

/// The whole of a process that has a role: it admits the product, and prints what it is told and what it chose.
pub fn child() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    let admitted = pollster::block_on(admit(&role));
    match admitted {
        Ok(name) => println!("chosen: {name}"),
        Err(error) => println!("failed: {}", error.message().unwrap_or_default()),
    }
    Some(ExitCode::SUCCESS)
}

async fn admit(role: &str) -> Result<&'static str, Failed> {
    let adapters = without_gl().await;
    let choice = std::env::var(ADAPTER).unwrap_or_else(|_| "0".into());
    let adapter = select(&Choice::from(choice.as_str()), &adapters)?.ok_or("no adapter")?;
    let gpu = Gpu::open(adapter, Sources::default(), &mut |text| println!("{text}")).await?;
    let mut tell = |notice: Notice<'_>| {
        let Some(text) = notice.warning() else { return };
        println!("{text}");
        match role {
            // From another thread, as this one goes on to compile.
            "die" => drop(std::thread::spawn(|| std::process::abort())),
            "wait" => drop(std::io::stdin().read_to_end(&mut Vec::new())),
            _ => {}
        }
    };
    let chosen = admit_tuning(&gpu, &product()?, STORAGE, false, &mut tell).await?;
    Ok(names(&gpu)?[chosen[0]])
}

fn start(at: &Path, role: &str) -> Result<Child, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ROLE, role).env("XDG_CACHE_HOME", at).env("HOME", at).env("LOCALAPPDATA", at);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
}

/// What a process with this role prints, and whether it lived.
fn run(at: &Path, role: &str) -> Result<(String, bool), Failed> {
    let output = start(at, role)?.wait_with_output()?;
    Ok((String::from_utf8(output.stdout)?, output.status.success()))
}

/// Waits until a process checks a kernel, and with that has noted it.
fn until_it_checks(child: &mut Child) -> Result<BufReader<ChildStdout>, Failed> {
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    ensure(line.starts_with("checking the kernels"), line)?;
    Ok(lines)
}

fn a_crash_costs_one_run(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let names = names(gpu)?;
    let (said, lived) = run(at.path(), "die")?;
    ensure(!lived && !said.contains("chosen"), said)?;
    let (said, lived) = run(at.path(), "go")?;
    let refused = format!("matmul {} in f32 ended an earlier run on ", names[0]);
    ensure(lived && said.matches(&refused).count() == 1, format!("{refused}: {said}"))?;
    ensure(said.contains(&format!("chosen: {}\n", names[1])), said)?;
    let (said, _) = run(at.path(), "go")?;
    ensure(said == format!("chosen: {}\n", names[1]), said)
}

fn what_another_checks_is_not_refused(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let names = names(gpu)?;
    let mut first = start(at.path(), "wait")?;
    let mut lines = until_it_checks(&mut first)?;
    let (said, _) = run(at.path(), "go")?;
    ensure(!said.contains("ended an earlier run") && said.ends_with(&format!("chosen: {}\n", names[0])), said)?;
    drop(first.stdin.take());
    let mut said = String::new();
    lines.read_to_string(&mut said)?;
    first.wait()?;
    ensure(said == format!("chosen: {}\n", names[0]), said)
}

#[cfg(unix)]
fn a_signal_refuses_nothing() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let device = std::env::var(ADAPTER).unwrap_or_else(|_| "0".into());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
    command.args(["generate", "a red circle", "--steps", "1", "-o", "-", "--device", &device]);
    command.env("XDG_CACHE_HOME", at.path()).env("HOME", at.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut run = command.spawn()?;
    let mut said = BufReader::new(run.stderr.take().ok_or("no stderr")?).lines();
    ensure(said.next().transpose()?.is_some_and(|line| line.contains("checking the kernels")), "it checks nothing")?;
    let noted = || -> Result<usize, Failed> {
        let cache = ornstein::cache::folder_from(|_| Some(at.path().to_path_buf())).ok_or("no cache folder")?;
        let names = std::fs::read_dir(cache.join("kernels"))?.flatten().map(|entry| entry.file_name());
        Ok(names.filter(|name| name.to_string_lossy().ends_with(".running")).count())
    };
    ensure(noted()? == 1, "there is no note")?;
    Command::new("kill").arg(run.id().to_string()).status()?;
    ensure(!run.wait()?.success(), "the signal did not end it")?;
    ensure(noted()? == 0, "the note stays")
}
