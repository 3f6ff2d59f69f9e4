//! Adapters: which there are, which one is meant, and a device opened on it with its facts as [`Caps`].

use std::sync::{Arc, Mutex};

use super::admission::Admission;
use super::kernels::Kernels;
use super::pipelines::Pipelines;
use super::shader::Sources;
use crate::caps::{Caps, CoopMatrix, DeviceType};
use crate::error::{Error, Result, ten};

/// An adapter that could be opened.
#[derive(Debug, Clone)]
pub struct Adapter {
    pub caps: Caps,
    inner: wgpu::Adapter,
}

/// What `--device` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The best hardware adapter, or the CPU where there is none.
    Auto,
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
    let found = match choice {
        Choice::Cpu => return Ok(None),
        Choice::Auto => return Ok(adapters.iter().filter(|a| rank(a) > 0).max_by_key(|a| rank(a))),
        Choice::Index(index) => adapters.get(*index),
        Choice::Name(name) if is_backend(name) => adapters.iter().find(|a| a.caps.backend == *name),
        Choice::Name(name) => adapters.iter().find(|a| is_called(&a.caps, name)),
    };
    let wanted = match choice {
        Choice::Index(index) => index.to_string(),
        Choice::Name(name) => name.clone(),
        Choice::Auto | Choice::Cpu => String::new(),
    };
    found.map(Some).ok_or_else(|| {
        let names: Vec<_> = adapters.iter().map(|a| format!("{} ({})", a.caps.name, a.caps.backend)).collect();
        let there =
            if names.is_empty() { "no adapter at all was found".into() } else { format!("found {}", ten(&names)) };
        Error::device(format!(
            "no adapter fits --device {wanted}: {there}; `ornstein devices` lists them, --device cpu needs none"
        ))
    })
}

/// Whether the name is part of the adapter's. A software renderer behind GL is not taken for the Vulkan one of the same
/// name: it is chosen by `gl` or by its number.
fn is_called(caps: &Caps, name: &str) -> bool {
    let twin = caps.backend == "gl" && caps.device_type == DeviceType::Software;
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

/// An opened device with its kernels.
#[derive(Debug)]
pub struct Gpu {
    pub caps: Caps,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub kernels: Kernels,
    pub(super) pipelines: Pipelines,
    pub admission: Admission,
    /// What the kernels are made from.
    pub sources: Sources,
    /// The first error that wgpu reported and nobody has seen yet.
    failure: Failure,
}

impl Gpu {
    /// Opens a device with all of the adapter's limits, for kernels made from these sources.
    ///
    /// # Errors
    /// If the driver refuses.
    pub async fn open(adapter: &Adapter, sources: Sources) -> Result<Arc<Self>> {
        let wanted = wgpu::Features::SHADER_F16
            | wgpu::Features::SUBGROUP
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::PIPELINE_CACHE
            | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
            | wgpu::Features::PASSTHROUGH_SHADERS;
        let features = adapter.inner.features() & wanted;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("ornstein"),
            required_features: features,
            required_limits: adapter.inner.limits(),
            experimental_features: experimental(features),
            ..Default::default()
        };
        let opened = adapter.inner.request_device(&descriptor).await;
        let name = &adapter.caps.name;
        let (device, queue) = opened.map_err(|e| Error::device(format!("{name} could not be opened: {e}")))?;
        let failure = Arc::new(Mutex::new(None));
        let (errors, losses) = (Arc::clone(&failure), Arc::clone(&failure));
        device.on_uncaptured_error(Arc::new(move |error| keep_first(&errors, explain(&error))));
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                keep_first(&losses, Error::device(format!("the device was lost: {message}")));
            }
        });
        let (caps, kernels) = (adapter.caps.clone(), Kernels::default());
        let pipelines = Pipelines::open(&device, &caps);
        Ok(Arc::new(Self {
            caps,
            device,
            queue,
            kernels,
            pipelines,
            admission: Admission::default(),
            sources,
            failure,
        }))
    }

    /// The first error since the last look, if there was one.
    ///
    /// # Errors
    /// That error, with the adapter's name.
    pub fn check(&self) -> Result<()> {
        match self.failure.lock().unwrap_or_else(|e| e.into_inner()).take() {
            Some(error) => Err(error.on(&self.caps.name)),
            None => Ok(()),
        }
    }

    /// Submits nothing and waits until everything submitted so far is done, which also frees the staging memory of
    /// finished uploads.
    pub(super) fn wait(&self) -> Result<()> {
        let nothing = self.queue.submit([]);
        self.wait_for(nothing)
    }

    /// Waits until that submission and all before it are done.
    pub(super) fn wait_for(&self, index: wgpu::SubmissionIndex) -> Result<()> {
        let waited = self.device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None });
        waited.map_err(|e| Error::device(format!("{}: {e}", self.caps.name)))?;
        self.check()
    }
}

/// The leave to use features that wgpu calls experimental, for a device that has one.
fn experimental(features: wgpu::Features) -> wgpu::ExperimentalFeatures {
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return wgpu::ExperimentalFeatures::disabled();
    }
    // SAFETY: wgpu asks for an acknowledgement that such a feature may have undefined behaviour that wgpu does not find.
    // What is known of cooperative matrices: a load or store of a matrix is not checked against the end of its array.
    // They are in `cores/gemm_coop.wgsl` and `cores/attention_coop.wgsl` alone, in workgroup memory, at places that
    // follow from the constants that its arrays are sized by, and a launch is only made where these fit the device
    // (`ops::product::gemm`, `ops::attention`). And naga's barriers leave it to the driver to make workgroup memory
    // visible (gfx-rs/wgpu#8805): a wrong result, not a wrong place, and mended in `shader::visible`. For a user's own
    // files (`--shaders`) neither holds: `docs/kernels.md` says so.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// The first error since somebody looked.
type Failure = Arc<Mutex<Option<Error>>>;

fn keep_first(slot: &Failure, error: Error) {
    slot.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
}

fn explain(error: &wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            let remedy = "a smaller --width and --height, --batch 1, --dtype f16 or --device cpu need less";
            Error::TooLarge(format!("out of device memory; {remedy}"))
        }
        other => Error::device(other),
    }
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
        assert!(error.contains("geforce") && error.contains("--device cpu"), "{error}");
        assert!(select(&Choice::Index(0), &[]).is_err());
    }
}
