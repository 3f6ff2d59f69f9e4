//! What the driver of the adapter at hand says of a kernel, or that it says nothing.

use std::path::Path;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::Gpu;
use ornstein::gpu::shader::Dialect;
use ornstein::gpu::statistics::Compiler;
use ornstein::tensor::DType;

use crate::cli::{ornstein, text};
use crate::support::{ADAPTER, ensure, on_gpu};

const DIALECT: Dialect = Dialect { elem: DType::F32, weight: DType::F32, native_f16: false, matrix: None };

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        on_gpu("statistics::a_driver_tells_of_every_kernel_or_of_none".into(), every_kernel_or_none),
        on_gpu("statistics::they_are_printed_or_the_driver_is_named".into(), printed_or_named),
        on_gpu("statistics::an_unknown_variant_is_refused_with_the_devices_own".into(), unknown_variant),
    ]
}

fn every_kernel_or_none(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let compiler = match Compiler::open(gpu) {
        Ok(compiler) => compiler,
        Err(why) => return ensure(why.to_string().contains(&gpu.caps.name), why.to_string()),
    };
    for row in ornstein::ops::TABLE {
        let Some(case) = row.cases().into_iter().next() else { continue };
        let caps = gpu.caps.storing(DIALECT.elem, DIALECT.weight);
        for variant in case.variants(&caps)? {
            let told = compiler.of_launch(gpu, &variant.launch, DIALECT)?;
            ensure(told.iter().any(|made| !made.statistics.is_empty()), format!("{} {told:?}", case.name()))?;
        }
    }
    Ok(())
}

fn stats(arguments: &[&str]) -> Result<std::process::Output, Failed> {
    let device = std::env::var(ADAPTER).unwrap_or_else(|_| "0".into());
    ornstein(Path::new("."), &[&["shader", "matmul", "--stats", "--device", &device], arguments].concat())
}

fn printed_or_named(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let output = stats(&["--variant", "tile64", "--json"])?;
    if Compiler::open(gpu).is_ok() {
        let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        return ensure(told["executables"][0]["statistics"][0]["name"].is_string(), told.to_string());
    }
    let said = text(&output.stderr);
    let named =
        said.contains(&gpu.caps.name) && said.contains("tells nothing of its kernels") && said.contains("--device");
    ensure(output.status.code() == Some(1) && output.stdout.is_empty() && named, said)
}

fn unknown_variant(_: &Arc<Gpu>) -> Result<(), Failed> {
    let output = stats(&["--variant", "nonsense"])?;
    let said = text(&output.stderr);
    ensure(output.status.code() == Some(2) && said.contains("nonsense") && said.contains("tile64"), said)
}
