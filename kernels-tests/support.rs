//! What several test files need: an adapter, or the word that there is none.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use half::f16;
use libtest_mimic::{Failed, Trial};
use ornstein::caps::Caps;
use ornstein::gpu::Gpu;
use ornstein::gpu::adapter::{Choice, select, without_gl};
use ornstein::gpu::shader::{Dialect, Sources};
use ornstein::ops::{Case, Variant};
use ornstein::tensor::DType;

/// Set where an adapter must be there: tests that need one then fail instead of being left out.
pub const REQUIRE_ADAPTER: &str = "ORNSTEIN_REQUIRE_ADAPTER";
/// Which adapter to test on, as `--device` says it. By default the first.
pub const ADAPTER: &str = "ORNSTEIN_TEST_DEVICE";

/// The dialect of kernels that multiply cooperative matrices, before a launch says of which side.
pub const MATRICES: Dialect = Dialect { elem: DType::F16, weight: DType::F16, native_f16: true, matrix: None };

/// The device that the tests share, or why there is none.
pub fn gpu() -> Result<Arc<Gpu>, String> {
    static SHARED: OnceLock<Result<Arc<Gpu>, String>> = OnceLock::new();
    SHARED.get_or_init(|| open(Sources::default())).clone()
}

/// The same adapter opened once more, with kernels from these sources.
pub fn open(sources: Sources) -> Result<Arc<Gpu>, String> {
    pollster::block_on(async {
        let adapters = without_gl().await;
        let choice = std::env::var(ADAPTER).unwrap_or_else(|_| "0".into());
        let adapter = select(&Choice::from(choice.as_str()), &adapters).map_err(|e| e.to_string())?;
        let adapter = adapter.ok_or_else(|| format!("{ADAPTER}={choice} is not an adapter"))?;
        Gpu::open(adapter, sources, &mut |_| ()).await.map_err(|e| e.to_string())
    })
}

/// A test that needs an adapter: left out (and counted as ignored) where there is none, unless one is required.
pub fn on_gpu(name: String, test: impl FnOnce(&Arc<Gpu>) -> Result<(), Failed> + Send + 'static) -> Trial {
    let there = gpu().is_ok() || std::env::var_os(REQUIRE_ADAPTER).is_some();
    Trial::test(name, move || test(&gpu()?)).with_ignored_flag(!there)
}

/// A test that needs nothing.
pub fn test(name: impl Into<String>, test: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::test(name, test)
}

/// An error that tells `what`, unless it holds.
pub fn ensure(holds: bool, what: impl Into<Failed>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// A test that needs a tool: left out (and counted as ignored, of this kind) where there is none.
pub fn with_tool(
    tool: &str,
    there: bool,
    name: String,
    test: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    Trial::test(name, test).with_kind(tool).with_ignored_flag(!there)
}

/// A test that needs an adapter with cooperative matrices.
pub fn with_matrices(name: String, test: impl FnOnce(&Arc<Gpu>) -> Result<(), Failed> + Send + 'static) -> Trial {
    let there = gpu().is_ok_and(|gpu| gpu.caps.storing(MATRICES.elem, MATRICES.weight).matrix().is_some());
    with_tool("an adapter with cooperative matrices", there, name, move || test(&gpu()?))
}

/// How test names call a dialect.
pub fn dialect_name(dialect: Dialect) -> String {
    let native = if dialect.native_f16 { "native" } else { "packed" };
    format!("{}-{}-{native}", dialect.elem, dialect.weight)
}

/// The launches of a case on every kind of device that has kernels of its own, each with the first device that has it.
pub fn variants(case: &Case, dialect: Dialect) -> Result<Vec<(Variant, Caps)>, Failed> {
    let mut all: Vec<(Variant, Caps)> = Vec::new();
    for caps in Caps::kinds(dialect.native_f16, dialect.elem, dialect.weight) {
        for variant in case.variants(&caps)? {
            if !all.iter().any(|(known, _)| *known == variant) {
                all.push((variant, caps.clone()));
            }
        }
    }
    Ok(all)
}

/// A copy of the built-in model's runtime files in `model/`, to be damaged.
pub fn copy_of_the_model(at: &Path) -> Result<PathBuf, Failed> {
    let target = at.join("model");
    copy_model(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model"), &target)?;
    Ok(target)
}

/// Copies a model's index and the folders of its components.
pub fn copy_model(source: &Path, target: &Path) -> Result<(), Failed> {
    std::fs::create_dir(target)?;
    std::fs::copy(source.join("model_index.json"), target.join("model_index.json"))?;
    for part in ["scheduler", "text_encoder", "tokenizer", "unet", "vae"] {
        if !source.join(part).exists() {
            continue;
        }
        std::fs::create_dir(target.join(part))?;
        for entry in std::fs::read_dir(source.join(part))? {
            let path = entry?.path();
            std::fs::copy(&path, target.join(part).join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// Rewrites every element of an f16 tensor of a safetensors file.
pub fn change_tensor(path: &Path, name: &str, change: impl Fn(f32) -> f32) -> Result<(), Failed> {
    let mut bytes = std::fs::read(path)?;
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into()?))?;
    let index: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header])?;
    let offset = |i: usize| index[name]["data_offsets"][i].as_u64().ok_or_else(|| format!("there is no {name}"));
    let place = 8 + header + usize::try_from(offset(0)?)?..8 + header + usize::try_from(offset(1)?)?;
    for value in bytes[place].chunks_exact_mut(2) {
        let old = f16::from_le_bytes([value[0], value[1]]).to_f32();
        value.copy_from_slice(&f16::from_f32(change(old)).to_le_bytes());
    }
    Ok(std::fs::write(path, bytes)?)
}
