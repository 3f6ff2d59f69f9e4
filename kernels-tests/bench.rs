//! `ornstein bench` on the adapter at hand, and the kernels that measure its ceilings.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::{Gpu, Timer};
use ornstein::lab::bench::measure::Budget;
use ornstein::lab::bench::{Bench, Options, Suite, compare};
use ornstein::lab::ceilings::Probes;
use ornstein::network::Executor;
use ornstein::tensor::DType;

use crate::support::{ADAPTER, on_gpu, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        on_gpu("bench::the_ceilings_of_the_adapter_are_measured".into(), ceilings_are_measured),
        on_gpu("bench::a_json_report_has_timed_rows_and_a_page_beside_it".into(), a_report),
        on_gpu("bench::a_folders_ceiling_kernel_is_used_and_checked".into(), |_| a_folders_ceiling_kernel()),
        test("bench::the_cpu_is_timed_as_well", the_cpu),
        test("bench::rows_take_turns", rows_take_turns),
        test("bench::a_network_on_the_cpu_is_held_against_its_matrix_product", a_network_on_the_cpu),
        test("bench::an_unknown_op_is_a_usage_error", an_unknown_op),
    ]
}

fn bench(arguments: &[&str]) -> Result<std::process::Output, Failed> {
    Ok(Command::new(env!("CARGO_BIN_EXE_ornstein")).arg("bench").args(arguments).output()?)
}

fn ceilings_are_measured(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let timer = Timer::new(gpu)?;
    let mut probes = pollster::block_on(Probes::new(Some(&timer)))?;
    probes.round()?;
    let measured = probes.ceilings();
    assert!(measured.copy_gb_s > 0.01, "{measured:?}");
    assert!(measured.fma_f32_gflop_s.is_some_and(|rate| rate > 0.1), "{measured:?}");
    assert_eq!(measured.fma_f16_gflop_s.is_some(), gpu.caps.native_f16());
    let matrices = gpu.caps.storing(DType::F16, DType::F16).matrix();
    assert_eq!(measured.matrix_gflop_s.is_some_and(|rate| rate > 0.0), matrices.is_some(), "{measured:?}");
    let others = [measured.launch_us, measured.upload_gb_s, measured.download_gb_s];
    assert!(others.iter().all(|rate| rate.is_some_and(|rate| rate > 0.01)), "{measured:?}");
    Ok(())
}

fn a_report(_: &Arc<Gpu>) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (page, old) = (path("page.html"), path("old.json"));
    let device = std::env::var(ADAPTER).unwrap_or_else(|_| "0".into());
    let output = bench(&["scale", "--json", "--html", &page, "--device", &device])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert!(report["device"]["ceilings"]["copy_gb_s"].as_f64() > Some(0.0), "{report}");
    let rows = report["rows"].as_array().ok_or("there are no rows")?;
    assert!(!rows.is_empty());
    for row in rows {
        assert_eq!((&row["op"], &row["verdict"]), (&"scale".into(), &"right".into()), "{row}");
        assert!(row["median"].as_f64() > Some(0.0) && row["spread"].as_f64() >= Some(0.0), "{row}");
        assert_eq!(row["rounds"], Budget::QUICK.rounds, "{row}");
    }
    std::fs::write(&old, &output.stdout)?;
    assert_eq!(compare::read(old.as_ref())?.rows.len(), rows.len());
    let page = std::fs::read_to_string(page)?;
    assert!(page.contains("<svg") && !page.contains("http"), "the page is not whole, or not alone");
    Ok(())
}

/// A copy that leaves a part out would be a fast one.
fn a_folders_ceiling_kernel() -> Result<(), Failed> {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/lab/copy.wgsl");
    let text = std::fs::read_to_string(built_in)?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("lab"))?;
    let shorter = text.replace("i < params.vectors", "i < params.vectors / 2u");
    assert_ne!(text, shorter, "the fault is no longer one");
    std::fs::write(folder.path().join("lab/copy.wgsl"), shorter)?;
    let device = std::env::var(ADAPTER).unwrap_or_else(|_| "0".into());
    let shaders = folder.path().to_string_lossy();
    let output = bench(&["scale", "--suite", "cases", "--device", &device, "--shaders", &shaders])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the kernel copy that measures a ceiling is wrong"), "{said}");
    Ok(())
}

fn the_cpu() -> Result<(), Failed> {
    let output = bench(&["add", "--device", "cpu", "--suite", "cases", "--json"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&report["rows"][0]["clock"], &report["rows"][0]["variant"]), (&"wall".into(), &"reference".into()));
    Ok(())
}

fn rows_take_turns() -> Result<(), Failed> {
    let options = Options { ops: vec!["add".into()], suite: Suite::Cases, full: false };
    let mut turns = Vec::new();
    let mut tell = |what: &str| turns.push(what.to_string());
    let rows = pollster::block_on(async {
        Bench::new(&Executor::Cpu, None, false).await?.run(&options, None, &mut tell).await
    })?;
    let first_round = turns.iter().take_while(|turn| !turn.starts_with("round 2"));
    assert_eq!(first_round.filter(|turn| turn.starts_with("round 1")).count(), rows.len(), "{turns:?}");
    Ok(())
}

fn a_network_on_the_cpu() -> Result<(), Failed> {
    let output = bench(&["-m", "shapes", "--device", "cpu", "--latent", "8"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("of matrix product") && !text.contains("of fma"), "{text}");
    Ok(())
}

fn an_unknown_op() -> Result<(), Failed> {
    let output = bench(&["nonsense", "--device", "cpu"])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("matmul, matmul_geglu"));
    Ok(())
}
