//! What a device can do, as plain data: the `gpu` floor fills it, ops and plans read it.

use crate::tensor::DType;

/// The kind of hardware behind an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceType {
    Discrete,
    Integrated,
    Virtual,
    /// A software implementation such as lavapipe, SwiftShader or WARP.
    Software,
    Other,
}

/// One shape of cooperative matrix product that the adapter offers: `[m, k] x [k, n]`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CoopMatrix {
    pub m: u32,
    pub n: u32,
    pub k: u32,
    /// Element type of the two factors.
    pub ab: String,
    /// Element type of the accumulator and result.
    pub cr: String,
}

/// An adapter's facts and limits. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Caps {
    pub name: String,
    pub backend: String,
    pub driver: String,
    pub device_type: DeviceType,
    /// f16 arithmetic and storage in shaders.
    pub f16: bool,
    /// Smallest and largest subgroup, where subgroup operations exist.
    pub subgroups: Option<[u32; 2]>,
    pub coop_matrix: Vec<CoopMatrix>,
    pub timestamps: bool,
    /// Largest window of a storage buffer that one binding shows.
    pub max_binding: u64,
    pub max_buffer: u64,
    pub workgroup_memory: u32,
    pub max_invocations: u32,
    /// Workgroups in one dimension of a dispatch.
    pub max_workgroups: u32,
    /// Rounds of a thread's loops, all together, after which the driver ends them without a word, if it does.
    pub loop_rounds: Option<u32>,
}

impl Caps {
    /// Whether kernels read and write f16 by the device's own type. A software device computes it by emulation, many
    /// times slower than f32: there kernels unpack pairs and compute in f32.
    pub fn native_f16(&self) -> bool {
        self.f16 && self.device_type != DeviceType::Software
    }

    /// This device as kernels see it whose activations and matrices of parameters are of these types: cooperative
    /// matrices are for f16 alone.
    pub fn storing(&self, act: DType, weight: DType) -> Self {
        let coop_matrix =
            if [act, weight] == [DType::F16; 2] && self.f16 { self.coop_matrix.clone() } else { Vec::new() };
        Self { coop_matrix, ..self.clone() }
    }

    /// Side of the largest square matrices of f16 that a subgroup multiplies into sums in f32.
    pub fn matrix(&self) -> Option<u32> {
        let fits = |c: &&CoopMatrix| (c.m, c.n) == (c.k, c.k) && (&*c.ab, &*c.cr) == ("f16", "f32");
        self.coop_matrix.iter().filter(fits).map(|c| c.k).filter(|side| [8, 16].contains(side)).max()
    }

    /// Threads of a subgroup, where it is one number that no kernel can change.
    pub fn subgroup_size(&self) -> Option<u32> {
        self.subgroups.and_then(|[least, most]| (least == most).then_some(most))
    }

    /// What every WebGPU implementation offers: the limits that the portable kernels must stay inside.
    pub fn webgpu_default() -> Self {
        Self {
            name: "WebGPU defaults".into(),
            backend: "webgpu".into(),
            driver: String::new(),
            device_type: DeviceType::Other,
            f16: false,
            subgroups: None,
            coop_matrix: Vec::new(),
            timestamps: false,
            max_binding: 128 << 20,
            max_buffer: 256 << 20,
            workgroup_memory: 16 << 10,
            max_invocations: 256,
            max_workgroups: 65_535,
            loop_rounds: None,
        }
    }

    /// Whether it runs the kernels made for software devices, whose lanes share what they load by subgroup operations.
    pub fn broadcasts(&self) -> bool {
        self.device_type == DeviceType::Software && self.subgroups.is_some()
    }

    /// One device for each family of kernels: together they launch every variant that there is for these types of
    /// activations and matrices on devices with or without an f16 of their own. Without cooperative matrices a device
    /// stays inside WebGPU's default limits.
    pub fn kinds(native_f16: bool, act: DType, weight: DType) -> Vec<Self> {
        let portable = Self { f16: native_f16, ..Self::webgpu_default() };
        let software = Self { device_type: DeviceType::Software, subgroups: Some([8, 8]), ..portable.clone() };
        let coop = |backend: &str, side, workgroup_memory| Self {
            backend: backend.into(),
            subgroups: Some([32, 32]),
            coop_matrix: vec![CoopMatrix { m: side, n: side, k: side, ab: "f16".into(), cr: "f32".into() }],
            workgroup_memory,
            max_invocations: 1024,
            ..portable.clone()
        };
        let [vulkan, metal] = [coop("vulkan", 16, 48 << 10), coop("metal", 8, 32 << 10)];
        let lavapipe =
            Self { device_type: DeviceType::Software, subgroups: software.subgroups, ..coop("vulkan", 8, 32 << 10) };
        [portable, software, vulkan, metal, lavapipe].map(|caps| caps.storing(act, weight)).into()
    }
}
