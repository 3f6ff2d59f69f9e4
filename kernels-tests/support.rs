//! What several test files need: an adapter, or the word that there is none.

use std::sync::{Arc, OnceLock};

use libtest_mimic::{Failed, Trial};
use ornstein::caps::Caps;
use ornstein::gpu::Gpu;
use ornstein::gpu::device::{Choice, select, without_gl};
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
        Gpu::open(adapter, sources).await.map_err(|e| e.to_string())
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
    let types = case.types();
    let output = case.op.output(&types)?;
    let mut all: Vec<(Variant, Caps)> = Vec::new();
    for caps in Caps::kinds(dialect.native_f16, dialect.elem, dialect.weight) {
        for variant in case.op.variants(&types, &output, &caps)? {
            if !all.iter().any(|(known, _)| *known == variant) {
                all.push((variant, caps.clone()));
            }
        }
    }
    Ok(all)
}
