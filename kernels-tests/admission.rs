//! Wrong kernels, planted through `--shaders`, are found before they are used: another variant takes over or, where
//! nobody named the device, the CPU, and the user is told once.

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use std::sync::Arc;

use ornstein::caps::Caps;
use ornstein::error::{Message, Notice};
use ornstein::gpu::Gpu;
use ornstein::gpu::adapter::{Choice, select, without_gl};
use ornstein::gpu::admission::admit_tuning;
use ornstein::gpu::check::Check;
use ornstein::gpu::shader::Sources;
use ornstein::gpu::verdicts::Verdicts;
use ornstein::graph::Graph;
use ornstein::graph::plan::Storage;
use ornstein::network::{Executor, IfWrong, Network};
use ornstein::ops::activation::{Act, Activation};
use ornstein::ops::add::Add;
use ornstein::ops::attention::Attention;
use ornstein::ops::case::round_to;
use ornstein::ops::product::conv2d::Conv2d;
use ornstein::ops::product::matmul::MatMul;
use ornstein::ops::scale::Scale;
use ornstein::ops::{Case, Kind, Ty};
use ornstein::tensor::{DType, NoWeights, Tensor};

use crate::support::{ADAPTER, on_gpu, with_matrices};

/// What a planted fault changes in a shader: file, text to find, text instead.
type Fault = [&'static str; 3];

/// The product's large tile adds one to a sum, in the core that the device prefers; the small tile stays right.
const IN_ONE_TILE: &[Fault] = &[
    ["cores/gemm_tile.wgsl", "store_y(sums.a, ", "store_y(sums.a + select(0.0, 1.0, TILE_ROWS == 64u), "],
    ["cores/gemm_broadcast.wgsl", "load_x(run0, c4)", "load_x(run0, c4) + select(0.0, 1.0, ROW_GROUPS == 4u)"],
];
/// SiLU is a little off in every kernel that has it.
const EVERYWHERE: &[Fault] = &[["shared/activation.wgsl", "return x * sigmoid(x);", "return x * sigmoid(1.01 * x);"]];

/// The picture is wrong by one kernel and by another.
const IN_TWO_FILES: &[Fault] = &[
    ["layer_norm.wgsl", "* gamma[i] + beta[i]", "* gamma[i] - beta[i]"],
    ["timestep_embedding.wgsl", "y[i] = store(v);", "y[i] = store(1.1 * v);"],
];

/// A Winograd convolution is wrong where it begins, the convolution itself is right.
const IN_WINOGRAD: &[Fault] = &[["shared/winograd.wgsl", "y[first] = row.a;", "y[first] = 1.1 * row.a;"]];

/// The large tile's variant and the one that takes over, in either core.
const GIVES_WAY: [[&str; 2]; 2] = [["matmul tile64", "tile16"], ["matmul broadcast32", "broadcast16"]];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        on_gpu("admission::a_wrong_variant_gives_way_to_another".into(), |_| another_variant_takes_over()),
        on_gpu("admission::a_named_device_is_not_replaced_and_a_changed_kernel_changes_its_picture".into(), |_| {
            a_named_device_is_not_replaced()
        }),
        on_gpu("admission::each_wrong_file_is_a_line".into(), |_| each_wrong_file_is_a_line()),
        on_gpu("admission::without_a_right_kernel_the_cpu_takes_over".into(), |_| {
            pollster::block_on(the_cpu_takes_over())
        }),
        on_gpu("admission::a_wrong_winograd_convolution_gives_way_to_the_convolution_itself".into(), |_| {
            pollster::block_on(the_convolution_itself_takes_over())
        }),
        on_gpu("admission::a_networks_bench_runs_what_is_admitted".into(), |_| a_bench_runs_what_is_admitted()),
        on_gpu("admission::verdicts_are_kept_shown_and_forgotten".into(), |_| verdicts_are_kept_shown_and_forgotten()),
        on_gpu("admission::what_validate_finds_is_known".into(), |_| what_validate_finds_is_known()),
        on_gpu("admission::the_fastest_right_variant_is_found_once".into(), |gpu| {
            pollster::block_on(the_fastest_is_found_once(gpu))
        }),
        on_gpu("admission::first_checks_are_counted".into(), |_| pollster::block_on(first_checks_are_counted())),
        on_gpu("admission::the_lanes_of_a_range_are_counted".into(), |gpu| {
            pollster::block_on(the_lanes_are_counted(&gpu.caps))
        }),
        with_matrices("admission::a_wrong_count_of_lanes_is_found".into(), |_| {
            pollster::block_on(a_wrong_count_is_found())
        }),
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
fn draw(at: &Path, faults: &[Fault], device: &str) -> Result<(Vec<u8>, String), Failed> {
    draw_with(at, faults, device, &[])
}

/// The same with further arguments.
fn draw_with(at: &Path, faults: &[Fault], device: &str, more: &[&str]) -> Result<(Vec<u8>, String), Failed> {
    let mut arguments = vec!["generate", "a red circle", "--seed", "1", "--steps", "1", "--dtype", "f32", "-o", "-"];
    arguments.extend(["--device", device]);
    arguments.extend(more);
    if !faults.is_empty() {
        plant(at, faults)?;
        arguments.extend(["--shaders", "faulty"]);
    }
    let (png, said) = ornstein(at, &arguments)?;
    Ok((ornstein::image::decode("stdout", &png)?.rgb, said))
}

/// Writes the faulty shaders into `at/faulty`, which is returned.
fn plant(at: &Path, faults: &[Fault]) -> Result<PathBuf, Failed> {
    let folder = at.join("faulty");
    for below in ["cores", "shared"] {
        std::fs::create_dir_all(folder.join(below))?;
    }
    for [file, find, instead] in faults {
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders").join(file);
        let text = std::fs::read_to_string(built_in)?;
        if !text.contains(find) {
            return Err(format!("{find} is no longer in {file}: plant the fault elsewhere").into());
        }
        std::fs::write(folder.join(file), text.replace(find, instead))?;
    }
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

/// Whether a warning says that the one is wrong and the other used instead.
fn tells(said: &str, [wrong, instead]: [&str; 2]) -> bool {
    said.contains(wrong) && said.contains(&format!("{instead} instead"))
}

fn another_variant_takes_over() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let (right, _) = draw(at.path(), &[], "cpu")?;
    let (picture, said) = draw(at.path(), IN_ONE_TILE, &adapter())?;
    ensure(same_picture(&right, &picture), "the picture is wrong", &said)?;
    let tells =
        |line: &str, [wrong, instead]: [&str; 2]| line.contains(wrong) && line.contains(&format!("{instead} instead"));
    let warnings = said.lines().filter(|line| GIVES_WAY.iter().any(|names| tells(line, *names)));
    ensure(warnings.count() == 1, "not one warning of matmul", &said)?;
    let of_file = |line: &str| line.starts_with("ornstein: faulty/cores/gemm_");
    ensure(said.lines().filter(|line| line.contains("is wrong")).all(of_file), "an edited file is not named", &said)?;
    let (picture, said) = draw(at.path(), IN_ONE_TILE, &adapter())?;
    ensure(same_picture(&right, &picture), "the second picture is wrong", &said)?;
    ensure(said.is_empty(), "the second run warns again", &said)
}

fn a_named_device_is_not_replaced() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let (right, _) = draw(at.path(), &[], "cpu")?;
    let (picture, said) = draw(at.path(), EVERYWHERE, &adapter())?;
    ensure(!same_picture(&right, &picture), "the changed kernel did not run", &said)?;
    // SiLU is in two kernels, in both parts of the UNet and in the VAE.
    let lines: Vec<_> = said.lines().filter(|line| !line.contains("checking")).collect();
    let [line] = lines[..] else { return Err(format!("not one line: {said}").into()) };
    let file = Path::new("faulty/shared/activation.wgsl").display();
    let told = line.starts_with(&format!("ornstein: {file}: "))
        && line.contains(": it is used all the same, and the result may be wrong; see `ornstein validate ")
        && line.ends_with("` with the same --device and --shaders");
    ensure(told, "the line does not tell what happens", line)
}

/// Two edited kernels that are wrong are two lines, in the first run and in later ones.
fn each_wrong_file_is_a_line() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    for _ in 0..2 {
        let (_, said) = draw(at.path(), IN_TWO_FILES, &adapter())?;
        let lines = |file: &str| said.lines().filter(|line| line.contains(file)).count();
        ensure(IN_TWO_FILES.iter().all(|[file, ..]| lines(file) == 1), "a file is not one line", &said)?;
        ensure(lines("wrong") == 2, "there are other lines", &said)?;
    }
    Ok(())
}

/// The device as `auto` would have opened it: then nobody insists on it.
async fn the_cpu_takes_over() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let adapters = without_gl().await;
    let adapter = select(&Choice::from(adapter().as_str()), &adapters)?.ok_or("no adapter")?;
    let gpu = Gpu::open(adapter, Sources::with_folder(&plant(at.path(), EVERYWHERE)?)?, &mut |_| ()).await?;
    let executor = Executor::Gpu(gpu, DType::F32, IfWrong::UseCpu);
    let mut graph = Graph::new("unet");
    let x = graph.input("x", Kind::Act, [1, 4, 4, 8]);
    let y = graph.node("act", Activation(Act::Silu), &[x])?;
    graph.output("y", y);
    let mut said = Vec::new();
    let wanted = graph.wanted();
    let mut tell = |notice: Notice<'_>| said.extend(notice.warning().map(Message::to_string));
    let network = Network::load(&executor, graph, &wanted, NoWeights, &mut tell).await?;
    ensure(network.device_bytes() == 0, "the device was used", &said.join("\n"))?;
    ensure(
        said.iter().any(|line| line.contains(": what uses it runs on the CPU; see `ornstein")),
        "nothing tells of the CPU",
        &said.join("\n"),
    )
}

/// In the type that was asked for and on the device, with one warning where the device would run Winograd's at all.
async fn the_convolution_itself_takes_over() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let adapters = without_gl().await;
    let adapter = select(&Choice::from(adapter().as_str()), &adapters)?.ok_or("no adapter")?;
    let act = if adapter.caps.f16 { DType::F16 } else { DType::F32 };
    let folder = plant(at.path(), IN_WINOGRAD)?;
    // Text that no run before this has left a verdict on.
    let part = folder.join("shared/winograd.wgsl");
    std::fs::write(&part, format!("{}// {}\n", std::fs::read_to_string(&part)?, at.path().display()))?;
    let case = Case::new(
        Conv2d::same(3),
        [Ty::act([1, 32, 32, 96]), Ty::new(Kind::Weight, [3, 3, 96, 96]), Ty::new(Kind::F32, [96])],
    );
    let check = Check::of_case(&case, Storage { act, weight: act })?;
    let graph = check.graph()?;
    let lowers = graph.clone().lowered(&adapter.caps)?.nodes.len() > 1;
    for run in 0..2 {
        let gpu = Gpu::open(adapter, Sources::with_folder(&folder)?, &mut |_| ()).await?;
        let executor = Executor::Gpu(gpu, act, IfWrong::UseCpu);
        let mut said = Vec::new();
        let mut warn = |text: &Message| said.push(text.to_string());
        let tell = &mut |notice: Notice<'_>| notice.warning().into_iter().for_each(&mut warn);
        let mut network = Network::load(&executor, graph.clone(), &[], NoWeights, tell).await?;
        let found = network.run(&[], &mut warn).await?.remove("output").ok_or("there is no output")?;
        let said = said.into_iter().filter(|line| !line.starts_with("checking")).collect::<Vec<_>>();
        ensure(network.device_bytes() > 0, "the device was not used", &said.join("\n"))?;
        ensure(said.len() <= usize::from(lowers), "there are more warnings", &said.join("\n"))?;
        ensure(
            said.iter().all(|line| line.contains("winograd_weights") && line.contains("is wrong on")),
            "something else was told",
            &said.join("\n"),
        )?;
        ensure(run > 0 || said.len() == usize::from(lowers), "nothing tells of the fault", "")?;
        let fault = check.expected.fault(&check.expected.compare(&found));
        ensure(fault.is_none(), "the convolution is wrong", &fault.unwrap_or_default())?;
        // Rounded as activations are stored: it did not run in a wider type.
        ensure(found.data == round_to(act, found.data.clone()), "it ran in another type", &said.join("\n"))?;
    }
    Ok(())
}

fn a_bench_runs_what_is_admitted() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    plant(at.path(), IN_ONE_TILE)?;
    let arguments = ["bench", "-m", "shapes", "--latent", "8", "--json", "--dtype", "f32", "--shaders", "faulty"];
    let (report, said) = ornstein(at.path(), &[&arguments[..], &["--device", &adapter()]].concat())?;
    let report: serde_json::Value = serde_json::from_slice(&report)?;
    let rows = report["rows"].as_array().ok_or("no rows")?;
    let tiles: Vec<_> = rows.iter().filter(|row| row["op"] == "matmul").map(|row| &row["variant"]).collect();
    ensure(
        !tiles.is_empty()
            && tiles
                .iter()
                .all(|tile| ["tile16", "broadcast16", "broadcast8"].contains(&tile.as_str().unwrap_or_default())),
        &format!("{tiles:?}"),
        &said,
    )?;
    ensure(GIVES_WAY.iter().any(|names| tells(&said, *names)), "nothing tells of the fault", &said)
}

/// A kernel all of whose cases passed there is not checked again.
fn what_validate_finds_is_known() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let right = || -> Result<u64, Failed> {
        let (devices, _) = ornstein(at.path(), &["devices", "--json"])?;
        let devices: serde_json::Value = serde_json::from_slice(&devices)?;
        let rows = devices["devices"].as_array().ok_or("no devices")?;
        Ok(rows.iter().filter_map(|row| row["kernels"]["right"].as_u64()).sum())
    };
    ornstein(at.path(), &["validate", "scale", "--case", "1", "--device", &adapter()])?;
    ensure(right()? == 0, "one case is not all of them", "")?;
    ornstein(at.path(), &["validate", "scale", "--dtype", "f32", "--device", &adapter()])?;
    ensure(right()? == 1, "the kernel is not known", "")
}

/// A class of shapes is timed at its first node; a second node of it, or a second run, takes what was found.
async fn the_fastest_is_found_once(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let storage = Storage { act: DType::F32, weight: DType::F32 };
    let mut graph = Graph::new("layers");
    let mut x = graph.input("x", Kind::Act, [13, 48]);
    for name in ["one", "two"] {
        let w = graph.constant(Kind::Weight, Tensor::new([48, 48], vec![0.1; 48 * 48]));
        x = graph.node(name, MatMul::new(false), &[x, w])?;
    }
    graph.output("y", x);
    let chosen = admit_tuning(gpu, &graph, storage, true, &mut |_| ()).await?;
    let tuned = |gpu: &Gpu| {
        let tuned = gpu.ledger.tuned();
        tuned.into_iter().filter(|(class, _)| class.ends_with(" rows 16 columns 48 terms 48")).collect::<Vec<_>>()
    };
    let found = tuned(gpu);
    let [(_, tried)] = &found[..] else { return Err(format!("{found:?}").into()) };
    let fastest = tried.fastest().unwrap_or_default();
    let types = graph.types(&graph.nodes[0].inputs);
    let variants = graph.nodes[0].op.variants(
        &types,
        graph.ty(graph.nodes[0].output),
        &gpu.caps.storing(storage.act, storage.weight),
    )?;
    ensure(chosen[0] == chosen[1] && variants[chosen[0]].name == fastest, "the chosen is not the fastest", fastest)?;
    ensure(tried.seconds.len() == variants.len(), "not every right variant was tried", &format!("{tried:?}"))?;
    ensure(
        tried.seconds.values().all(|time| *time >= tried.seconds[fastest]),
        "a faster one was tried",
        &format!("{tried:?}"),
    )?;
    admit_tuning(gpu, &graph, storage, true, &mut |_| ()).await?;
    ensure(tuned(gpu) == found, "it was measured again", "")
}

/// Each with its number of all and its op, and only the first time.
async fn first_checks_are_counted() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let adapters = without_gl().await;
    let adapter = select(&Choice::from(adapter().as_str()), &adapters)?.ok_or("no adapter")?;
    let folder = plant(at.path(), &[])?;
    // Right kernels with a text that no run before this has left a verdict on.
    for file in ["scale.wgsl", "add.wgsl"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders").join(file);
        std::fs::write(folder.join(file), format!("{}// {}\n", std::fs::read_to_string(path)?, at.path().display()))?;
    }
    let gpu = Gpu::open(adapter, Sources::with_folder(&folder)?, &mut |_| ()).await?;
    let mut graph = Graph::new("sums");
    let x = graph.input("x", Kind::Act, [1, 4, 4, 8]);
    let once = graph.node("once", Add, &[x, x])?;
    let twice = graph.node("twice", Add, &[once, x])?;
    let scaled = graph.node("scaled", Scale { factor: 2.0 }, &[twice])?;
    graph.output("y", scaled);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let tell = &mut |notice: Notice<'_>| {
            if let Notice::Checking(kernel) = notice {
                seen.push((kernel.nth, kernel.all, kernel.op.to_string()));
            }
        };
        admit_tuning(&gpu, &graph, Storage { act: DType::F32, weight: DType::F32 }, false, tell).await?;
    }
    let wanted = [(1, 2, "add".to_string()), (2, 2, "scale".to_string())];
    ensure(seen == wanted, "checks are not counted", &format!("{seen:?}"))
}

/// The tests' adapter, opened as if its driver told a range: so many lanes, or twice or half as many. What is found
/// there is kept apart by `what`.
async fn with_a_range(lanes: u32, what: &str) -> Result<Arc<Gpu>, Failed> {
    let adapters = without_gl().await;
    let mut adapter = select(&Choice::from(adapter().as_str()), &adapters)?.ok_or("no adapter")?.clone();
    adapter.caps.subgroups = Some([lanes / 2, 2 * lanes]);
    adapter.caps.driver.push_str(what);
    Ok(Gpu::open(&adapter, Sources::default(), &mut |_| ()).await?)
}

/// Only where the driver names one number are there two to compare.
async fn the_lanes_are_counted(caps: &Caps) -> Result<(), Failed> {
    let Some([lanes, most]) = caps.subgroups.filter(|[least, most]| least == most) else { return Ok(()) };
    let counted = with_a_range(lanes, "").await?.caps.subgroup_size();
    ensure(counted == Some(most), "counted", &format!("{counted:?}, not {most}"))
}

/// A driver that gives cooperative kernels other subgroups than it gave the one that counted them.
async fn a_wrong_count_is_found() -> Result<(), Failed> {
    let adapters = without_gl().await;
    let adapter = select(&Choice::from(adapter().as_str()), &adapters)?.ok_or("no adapter")?;
    let Some([lanes, _]) = adapter.caps.subgroups.filter(|[least, most]| least == most) else { return Ok(()) };
    let mut gpu = with_a_range(lanes, " with a wrong count").await?;
    let context = &mut Arc::get_mut(&mut gpu).ok_or("the device is shared")?.context;
    context.caps.lanes = Some(2 * lanes);
    let storage = Storage { act: DType::F16, weight: DType::F16 };
    let mut graph = Graph::new("heads");
    let x = graph.input("x", Kind::Act, [1, 64, 32]);
    let y = graph.node("attention", Attention { heads: 1, causal: false }, &[x, x, x])?;
    graph.output("y", y);
    // Every variant is tried where variants are timed.
    let mut said = Vec::new();
    let mut tell = |notice: Notice<'_>| said.extend(notice.warning().map(Message::to_string));
    admit_tuning(&gpu, &graph, storage, true, &mut tell).await?;
    let told = said.iter().any(|line| line.contains("attention coop") && line.contains("is wrong"));
    let known = Verdicts::load(&gpu.caps);
    let kept = known.kernels.iter().any(|(kernel, why)| kernel.starts_with("attention coop") && why.is_some());
    ensure(told || kept, "no cooperative kernel was refused", &said.join("\n"))
}

fn verdicts_are_kept_shown_and_forgotten() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    // The time of the checks is a line of its own, if there were any.
    let spans = |said: &str| {
        said.lines().filter(|line| line.ends_with(" s  checking kernels that are new to the device")).count()
    };
    for checks in [1, 0] {
        let (_, said) = draw_with(at.path(), IN_ONE_TILE, &adapter(), &["-v"])?;
        ensure(spans(&said) == checks && said.contains(" s  loading the "), "the checks' time is not told", &said)?;
    }
    let (devices, said) = ornstein(at.path(), &["devices", "--json"])?;
    let devices: serde_json::Value = serde_json::from_slice(&devices)?;
    let rows = devices["devices"].as_array().ok_or("no devices")?;
    let wrong: Vec<_> = rows.iter().filter_map(|row| row["edited"]["wrong"].as_array()).flatten().collect();
    let is_large = |kernel: &str| GIVES_WAY.iter().any(|[large, _]| kernel.starts_with(&format!("{large} ")));
    let tile = wrong.iter().any(|row| row["kernel"].as_str().is_some_and(is_large));
    ensure(tile, &devices.to_string(), &said)?;
    let own = rows.iter().filter_map(|row| row["kernels"]["wrong"].as_array()).flatten();
    ensure(own.count() == 0, "an edit marks the crate's own kernels", &devices.to_string())?;
    let (forgotten, said) = ornstein(at.path(), &["devices", "--forget"])?;
    let forgotten = String::from_utf8(forgotten)?;
    ensure(forgotten.contains("wrong edited kernels"), &forgotten, &said)?;
    let (nothing, said) = ornstein(at.path(), &["devices", "--forget"])?;
    ensure(nothing == b"nothing was known of any device\n", "it was not forgotten", &said)
}
