//! `validate` finds what is wrong: faults planted in copies of the shaders, each a kind that real kernels had, and
//! what the command says about them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::Gpu;
use ornstein::gpu::check::Check;
use ornstein::gpu::shader::Sources;
use ornstein::graph::plan::Storage;
use ornstein::lab::validate::{Selection, Verdict, network, validate};
use ornstein::ops::product::matmul;
use ornstein::ops::{TABLE, attention};
use ornstein::tensor::DType;
use ornstein::weights::Model;

use crate::support::{ADAPTER, on_gpu, open, with_matrices};

/// A fault: its name, the op that shows it, the type of activations, the file, and what is replaced by what there.
struct Fault {
    name: &'static str,
    op: &'static str,
    act: DType,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "a_missing_barrier_before_a_tile_is_read",
        op: "matmul",
        act: DType::F32,
        file: "cores/gemm_tile.wgsl",
        right: "before anyone multiplies, ...\n        workgroupBarrier();",
        wrong: "\n",
    },
    Fault {
        name: "a_missing_barrier_before_a_tile_is_overwritten",
        op: "matmul",
        act: DType::F32,
        file: "cores/gemm_tile.wgsl",
        right: "before they are overwritten.\n        workgroupBarrier();",
        wrong: "\n",
    },
    Fault {
        name: "an_off_by_one_tile",
        op: "matmul",
        act: DType::F32,
        file: "cores/gemm_tile.wgsl",
        right: "if c4 >= params.c4 {",
        wrong: "if c4 + 1u >= params.c4 {",
    },
    Fault {
        name: "a_swapped_stride",
        op: "conv2d",
        act: DType::F32,
        file: "conv2d.wgsl",
        right: "row * params.in_width + column",
        wrong: "row * params.in_height + column",
    },
    Fault {
        name: "an_f16_accumulator",
        op: "matmul",
        act: DType::F16,
        file: "shared/accumulate.wgsl",
        right: "    return fma(vec4f(a.w), w.k3, fma(vec4f(a.z), w.k2, fma(vec4f(a.y), w.k1, \
                fma(vec4f(a.x), w.k0, sum))));",
        wrong: "    let s = fma(vec4f(a.w), w.k3, fma(vec4f(a.z), w.k2, fma(vec4f(a.y), w.k1, \
                fma(vec4f(a.x), w.k0, sum))));\n    \
                return vec4f(unpack2x16float(pack2x16float(s.xy)), unpack2x16float(pack2x16float(s.zw)));",
    },
    Fault {
        name: "an_unwritten_output",
        op: "upsample",
        act: DType::F16,
        file: "upsample.wgsl",
        right: "i >= params.vectors",
        wrong: "i + 1u >= params.vectors",
    },
];

/// Faults of kernels of cooperative matrices: only an adapter that has them can show these.
const MATRIX_FAULTS: &[Fault] = &[
    Fault {
        name: "a_missing_barrier_before_matrices_are_multiplied",
        op: "matmul",
        act: DType::F16,
        file: "cores/gemm_coop.wgsl",
        right: "before anyone multiplies, ...\n        workgroupBarrier();",
        wrong: "\n",
    },
    Fault {
        name: "a_missing_barrier_before_matrices_are_stored",
        op: "matmul",
        act: DType::F16,
        file: "cores/gemm_coop.wgsl",
        right: "before anyone reads them, ...\n        workgroupBarrier();",
        wrong: "\n",
    },
    Fault {
        name: "sums_that_are_not_scaled_down_as_scores_grow",
        op: "attention",
        act: DType::F16,
        file: "cores/attention_coop.wgsl",
        right: "scale_row(row, shrink);\n            workgroupBarrier();\n            low",
        wrong: "workgroupBarrier();\n            low",
    },
    Fault {
        name: "weights_that_are_read_before_they_are_whole",
        op: "attention",
        act: DType::F16,
        file: "cores/attention_coop.wgsl",
        right: "let grown_now = workgroupUniformLoad(&grown);",
        wrong: "let grown_now = array<u32, SUBGROUPS>();",
    },
];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let name = |fault: &Fault| format!("validate::finds::{}", fault.name);
    let mut trials: Vec<_> = FAULTS.iter().map(|fault| on_gpu(name(fault), |_| finds(fault, None))).collect();
    trials.extend(
        MATRIX_FAULTS.iter().map(|fault| with_matrices(name(fault), |_| finds(fault, case_of_matrices(fault)))),
    );
    trials.extend([
        on_gpu("validate::finds::a_write_behind_the_output".into(), |_| an_overrun_is_found()),
        on_gpu("validate::finds::padding_that_is_not_zero".into(), |_| padding_is_found()),
        on_gpu("validate::a_tensor_beyond_the_device_is_refused".into(), a_tensor_beyond_the_device_is_refused),
        on_gpu("validate::guards_that_changed_are_found".into(), guards_that_changed_are_found),
        on_gpu("validate::a_model_names_its_first_wrong_node".into(), |_| a_model_names_its_first_wrong_node()),
        on_gpu("validate::a_failing_row_is_rerun_by_its_own_command".into(), |_| a_failing_row_is_rerun()),
    ]);
    trials
}

/// A folder with this one file, the built-in one with the fault in it.
fn plant(fault: &Fault) -> Result<tempfile::TempDir, Failed> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders").join(fault.file);
    let text = std::fs::read_to_string(&file)?;
    if text.matches(fault.right).count() != 1 {
        return Err(format!("{} should hold once, to be replaced: {}", file.display(), fault.right).into());
    }
    let folder = tempfile::tempdir()?;
    let planted = folder.path().join(fault.file);
    std::fs::create_dir_all(planted.parent().unwrap_or(folder.path()))?;
    std::fs::write(planted, text.replace(fault.right, fault.wrong))?;
    Ok(folder)
}

fn planted(fault: &Fault) -> Result<Arc<Gpu>, Failed> {
    Ok(open(Sources::with_folder(plant(fault)?.path())?)?)
}

/// A case that cooperative matrices take, with more than one tile: enough to show their faults, and soon compiled. Of
/// attention, the one with large scores.
fn case_of_matrices(fault: &Fault) -> Option<usize> {
    let (cases, shape) = match fault.op {
        "attention" => (attention::cases(), [2, 40, 64]),
        _ => (matmul::cases(), [2, 65, 40]),
    };
    cases.iter().position(|case| case.types()[0].shape.dims() == shape)
}

/// Why rows of a planted fault fail, in that case or in all. Without it the same rows pass: the parity tests see to
/// that.
fn failures(fault: &Fault, case: Option<usize>) -> Result<Vec<String>, Failed> {
    let Fault { op, act, .. } = *fault;
    let selection = Selection {
        ops: vec![op.into()],
        case,
        act: Some(act),
        weight: Some(act),
        all_variants: true,
        ..Selection::default()
    };
    let rows = pollster::block_on(validate(&planted(fault)?, &selection, &mut |_| {}))?;
    let failed = rows.into_iter().filter(|row| row.verdict == Verdict::Failed);
    let reasons: Vec<_> = failed.filter_map(|row| row.reason).collect();
    if reasons.is_empty() { Err("nothing failed".into()) } else { Ok(reasons) }
}

fn finds(fault: &Fault, case: Option<usize>) -> Result<(), Failed> {
    // Values have to show it, of elements or, after a race that spared those, of padding: a shader that does not
    // compile would be no test.
    let shown = ["relative error", "lanes that pad the rows"];
    match failures(fault, case)?.iter().find(|reason| !shown.iter().any(|start| reason.starts_with(start))) {
        Some(other) => Err(format!("failed otherwise: {other}").into()),
        None => Ok(()),
    }
}

/// One thread too many: every element is right, and a vector behind them is written.
fn an_overrun_is_found() -> Result<(), Failed> {
    for act in [DType::F32, DType::F16] {
        let (right, wrong) = ("i >= params.vectors", "i > params.vectors");
        let overrun = Fault { name: "", op: "upsample", act, file: "upsample.wgsl", right, wrong };
        let bytes = format!("{} bytes behind the end", 4 * act.size());
        if let Some(other) = failures(&overrun, None)?.iter().find(|reason| !reason.starts_with(&bytes)) {
            return Err(format!("{act}: failed otherwise: {other}").into());
        }
    }
    Ok(())
}

/// What a kernel adds to every lane of a row's last vector, those past its end among them.
fn padding_is_found() -> Result<(), Failed> {
    let right = "* gamma[i] + beta[i]";
    let past = "vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u) >= vec4u(params.channels)";
    let wrong = format!("{right} + select(vec4f(0.0), vec4f(1.0), {past})").leak();
    for act in [DType::F32, DType::F16] {
        let fault = Fault { name: "", op: "layer_norm", act, file: "layer_norm.wgsl", right, wrong };
        if let Some(other) =
            failures(&fault, None)?.iter().find(|reason| !reason.starts_with("lanes that pad the rows"))
        {
            return Err(format!("{act}: failed otherwise: {other}").into());
        }
    }
    Ok(())
}

fn a_tensor_beyond_the_device_is_refused(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let row = TABLE.iter().find(|row| row.name == "scale").ok_or("there is no scale")?;
    let selection = Selection { ops: vec![row.name.into()], case: Some(row.cases().len()), ..Selection::default() };
    for row in pollster::block_on(validate(gpu, &selection, &mut |_| {}))? {
        let reason = row.reason.unwrap_or_default();
        if row.verdict != Verdict::Refused || !reason.contains("binds at most") {
            return Err(format!("{:?}: {reason}", row.verdict).into());
        }
    }
    Ok(())
}

/// The guard words of a session that was not poisoned hold something else.
fn guards_that_changed_are_found(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let case = matmul::cases().swap_remove(0);
    let session = Check::of_case(&case, Storage { act: DType::F32, weight: DType::F32 })?.session(gpu, 0)?;
    if pollster::block_on(session.check_guards()).is_ok() {
        return Err("guards that were never set are found intact".into());
    }
    session.poison();
    pollster::block_on(session.run(&[]))?;
    Ok(pollster::block_on(session.check_guards())?)
}

fn reference_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/cases/sd1")
}

fn a_model_names_its_first_wrong_node() -> Result<(), Failed> {
    let model = Model::open(&reference_model())?;
    let selection = Selection { act: Some(DType::F32), ..Selection::default() };
    let unwritten = Fault {
        name: "",
        op: "matmul_geglu",
        act: DType::F32,
        file: "matmul_geglu.wgsl",
        right: "row < params.rows",
        wrong: "row + 1u < params.rows",
    };
    let gpu = planted(&unwritten)?;
    let reports =
        pollster::block_on(network::validate(&gpu, network::of_model(&model)?, &selection, None, &mut |_| {}))?;
    let unet = reports.iter().find(|report| report.network == "unet").ok_or("there is no unet")?;
    let first = unet.first_wrong().and_then(|row| row.node.as_deref()).unwrap_or_default();
    let reason = unet.outputs[0].reason.clone().unwrap_or_default();
    if first.contains("down_blocks.0") && reason.contains(first) {
        return Ok(());
    }
    Err(format!("the first wrong node is {first:?}: {reason}").into())
}

fn run(arguments: &[&str]) -> Result<(Option<i32>, serde_json::Value), Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_ornstein")).args(arguments).output()?;
    let parsed = serde_json::from_slice(&output.stdout);
    let parsed = parsed.map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code(), parsed))
}

fn a_failing_row_is_rerun() -> Result<(), Failed> {
    let fault = FAULTS.iter().find(|fault| fault.name == "a_swapped_stride").ok_or("there is no such fault")?;
    let folder = plant(fault)?;
    let (folder, device) = (folder.path().to_string_lossy(), std::env::var(ADAPTER).unwrap_or_else(|_| "0".into()));
    let arguments = ["validate", "conv2d", "--device", &device, "--shaders", &folder, "--json"];
    let (status, document) = run(&arguments)?;
    let rows = document["rows"].as_array().ok_or("there are no rows")?;
    let failing: Vec<_> = rows.iter().filter(|row| row["verdict"] == "failed").collect();
    if status != Some(1) || failing.is_empty() || failing.len() == rows.len() {
        return Err(format!("status {status:?}, {} of {} rows failed", failing.len(), rows.len()).into());
    }
    let row = failing[failing.len() / 2];
    let command = row["rerun"].as_str().ok_or("there is no command")?;
    let words: Vec<_> = command.split(' ').skip(1).chain(["--json"]).collect();
    let (status, again) = run(&words)?;
    if status == Some(1) && again["rows"] == serde_json::json!([row]) {
        return Ok(());
    }
    Err(format!("{command}: status {status:?}, {} instead of {row}", again["rows"]).into())
}
