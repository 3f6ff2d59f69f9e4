//! Adapters: which there are, which one is meant, and what each can do, as [`Caps`].

use std::cmp::Reverse;

use crate::caps::{Caps, CoopMatrix, DeviceType};
use crate::error::{Error, Field, Remedy, Result, ten};

/// An adapter that could be opened.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// What it can do.
    pub caps: Caps,
    pub(super) inner: wgpu::Adapter,
}

/// Which device is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The best hardware adapter, or the CPU where there is none.
    Auto,
    /// The CPU executor.
    Cpu,
    /// By place in the list of adapters.
    Index(usize),
    /// By backend, or by part of the adapter's name.
    Name(String),
}

impl From<&str> for Choice {
    fn from(text: &str) -> Self {
        match (text, text.parse()) {
            ("auto", _) => Self::Auto,
            ("cpu", _) => Self::Cpu,
            (_, Ok(index)) => Self::Index(index),
            _ => Self::Name(text.to_lowercase()),
        }
    }
}

/// Every adapter, Vulkan, Metal and DX12 before GL, in the order in which the drivers list them.
pub async fn adapters() -> Vec<Adapter> {
    let mut found = without_gl().await;
    found.extend(enumerate(wgpu::Backends::GL).await);
    found
}

/// Those of [`adapters`] that are not GL's.
pub async fn without_gl() -> Vec<Adapter> {
    enumerate(wgpu::Backends::all() - wgpu::Backends::GL).await
}

async fn enumerate(backends: wgpu::Backends) -> Vec<Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    let found = wgpu::Instance::new(descriptor).enumerate_adapters(backends).await;
    found.into_iter().map(|inner| Adapter { caps: caps(&inner), inner }).collect()
}

/// The adapter that a choice means; `None` is the CPU executor.
///
/// # Errors
/// If no adapter fits: never a fallback.
pub fn select<'a>(choice: &Choice, adapters: &'a [Adapter]) -> Result<Option<&'a Adapter>> {
    let called = |a: &&Adapter, name| if is_backend(name) { a.caps.backend == name } else { is_called(&a.caps, name) };
    let (wanted, found) = match choice {
        Choice::Cpu => return Ok(None),
        Choice::Auto => return Ok(hardware(adapters).first().copied()),
        Choice::Index(index) => (index.to_string(), adapters.get(*index)),
        Choice::Name(name) => (name.clone(), adapters.iter().find(|a| called(a, name))),
    };
    found.map(Some).ok_or_else(|| {
        let names: Vec<_> = adapters.iter().map(|a| format!("{} ({})", a.caps.name, a.caps.backend)).collect();
        let there =
            if names.is_empty() { "no adapter at all was found".into() } else { format!("found {}", ten(&names)) };
        let error = Error::device(format!("{wanted} fits no adapter: {there}; `ornstein devices` lists them"));
        error.of(Field::Device).remedies([Remedy::set(Field::Device, "cpu")])
    })
}

/// The adapters that [`Choice::Auto`] takes, the best first.
pub fn hardware(adapters: &[Adapter]) -> Vec<&Adapter> {
    // Of equals the last.
    let mut hardware: Vec<_> = adapters.iter().rev().filter(|a| rank(a) > 0).collect();
    hardware.sort_by_key(|a| Reverse(rank(a)));
    hardware
}

/// Whether the name is part of the adapter's. A software renderer behind GL is not taken for the Vulkan one of the
/// same name: it is chosen by `gl` or by its number.
fn is_called(caps: &Caps, name: &str) -> bool {
    let twin = caps.backend == "gl" && caps.on_processor();
    !twin && !name.is_empty() && caps.name.to_lowercase().contains(name)
}

fn is_backend(name: &str) -> bool {
    matches!(name, "vulkan" | "metal" | "dx12" | "gl" | "webgpu")
}

/// How good `auto` finds an adapter; 0 is worse than the CPU executor. Equal ranks go to the later in the list, so
/// ties are broken by the backend.
fn rank(adapter: &Adapter) -> u32 {
    let kind = match adapter.caps.device_type {
        DeviceType::Discrete => 4,
        DeviceType::Integrated => 3,
        DeviceType::Virtual => 2,
        DeviceType::Other => 1,
        DeviceType::Software => return 0,
    };
    kind * 2 + u32::from(adapter.caps.backend != "gl")
}

fn caps(adapter: &wgpu::Adapter) -> Caps {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let software = info.device_type == wgpu::DeviceType::Cpu || is_software(&info.name);
    Caps {
        name: info.name.clone(),
        backend: info.backend.to_str().to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        device_type: match info.device_type {
            _ if software => DeviceType::Software,
            wgpu::DeviceType::DiscreteGpu => DeviceType::Discrete,
            wgpu::DeviceType::IntegratedGpu => DeviceType::Integrated,
            wgpu::DeviceType::VirtualGpu => DeviceType::Virtual,
            _ => DeviceType::Other,
        },
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: features.contains(wgpu::Features::SUBGROUP).then(|| subgroups(&info)),
        lanes: None,
        coop_matrix: adapter.cooperative_matrix_properties().into_iter().map(coop_matrix).collect(),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        max_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroups: limits.max_compute_workgroups_per_dimension,
        // Mesa's software drivers count a shader's rounds down from this.
        loop_rounds: info.name.to_lowercase().contains("llvmpipe").then_some(65_535),
    }
}

/// wgpu names no sizes for Metal but the limits that it assumes, 4 and 64; Apple's own GPUs have SIMD groups of 32
/// threads (`threadExecutionWidth`).
fn subgroups(info: &wgpu::AdapterInfo) -> [u32; 2] {
    if info.backend == wgpu::Backend::Metal && info.name.starts_with("Apple") {
        return [32, 32];
    }
    [info.subgroup_min_size, info.subgroup_max_size]
}

/// GL reports no device type; its software renderers are known by name.
fn is_software(name: &str) -> bool {
    let name = name.to_lowercase();
    ["llvmpipe", "lavapipe", "softpipe", "swiftshader", "basic render"].iter().any(|known| name.contains(known))
}

fn coop_matrix(p: wgpu::CooperativeMatrixProperties) -> CoopMatrix {
    let scalar = |t| format!("{t:?}").to_lowercase();
    CoopMatrix { m: p.m_size, n: p.n_size, k: p.k_size, ab: scalar(p.ab_type), cr: scalar(p.cr_type) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_chosen_by_word_number_or_name() {
        assert_eq!(Choice::from("auto"), Choice::Auto);
        assert_eq!(Choice::from("cpu"), Choice::Cpu);
        assert_eq!(Choice::from("2"), Choice::Index(2));
        assert_eq!(Choice::from("LLVMpipe"), Choice::Name("llvmpipe".into()));
    }

    #[test]
    fn without_adapters_auto_is_the_cpu_and_a_name_is_an_error() {
        assert!(select(&Choice::Auto, &[]).unwrap().is_none());
        let error = select(&Choice::Name("geforce".into()), &[]).unwrap_err().to_string();
        assert!(error.contains("geforce") && error.contains("try device cpu"), "{error}");
        assert!(select(&Choice::Index(0), &[]).is_err());
    }
}
