//! What a device can do, as plain data: the `gpu` floor fills it, ops and plans read it.
//!
//! Floor 0: may import floor 0.

use crate::tensor::DType;

/// The kind of hardware behind an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceType {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU inside a virtual machine.
    Virtual,
    /// A software implementation such as lavapipe, SwiftShader or WARP.
    Software,
    /// What the driver does not tell.
    Other,
}

/// One shape of cooperative matrix product that the adapter offers: `[m, k] x [k, n]`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CoopMatrix {
    /// Rows of the first factor and of the result.
    pub m: u32,
    /// Columns of the second factor and of the result.
    pub n: u32,
    /// Columns of the first factor, rows of the second.
    pub k: u32,
    /// Element type of the two factors.
    pub ab: String,
    /// Element type of the accumulator and result.
    pub cr: String,
}

/// Threads of a subgroup that a kernel is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lanes {
    /// So many or more: the kernel uses those alone.
    AtLeast(u32),
    /// So many, neither more nor fewer.
    Exactly(u32),
}

/// What a kernel needs beyond what every device has ([`Caps::webgpu_default`]). Where [`Caps::meets`] does not hold, it
/// is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Threads of a subgroup.
    pub lanes: Lanes,
    /// Threads of a workgroup.
    pub threads: u32,
    /// Workgroup memory, in bytes.
    pub workgroup_memory: u32,
    /// Side of its cooperative matrices, if it multiplies any.
    pub matrix: Option<u32>,
}

/// Of the cores that hand one lane's load to the others (`shaders/shared/broadcast.wgsl`).
pub const BROADCAST: Needs = Needs { lanes: Lanes::AtLeast(8), threads: 8, workgroup_memory: 0, matrix: None };

/// An adapter's facts and limits. Sizes are bytes. What is read without one of them has that of WebGPU.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default = "Caps::webgpu_default", deny_unknown_fields)]
pub struct Caps {
    /// The adapter's name, as its driver gives it.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub backend: String,
    /// Name and version of the driver; empty where it tells none.
    pub driver: String,
    /// For people; kernels and measurements ask what is cheap instead (`on_processor` and those below it).
    pub device_type: DeviceType,
    /// f16 arithmetic and storage in shaders.
    pub f16: bool,
    /// Smallest and largest subgroup, where subgroup operations exist.
    pub subgroups: Option<[u32; 2]>,
    /// Threads of the subgroups that a kernel really gets, where [`Self::subgroups`] is a range and a kernel that
    /// counts them has been run.
    pub lanes: Option<u32>,
    /// Cooperative matrix products that kernels may use; empty where there are none.
    pub coop_matrix: Vec<CoopMatrix>,
    /// Whether the device measures times by itself.
    pub timestamps: bool,
    /// Largest window of a storage buffer that one binding shows.
    pub max_binding: u64,
    /// Largest buffer, in bytes.
    pub max_buffer: u64,
    /// Workgroup memory of a kernel, in bytes.
    pub workgroup_memory: u32,
    /// Threads of a workgroup.
    pub max_invocations: u32,
    /// Workgroups in one dimension of a dispatch.
    pub max_workgroups: u32,
    /// Rounds of a thread's loops, all together, after which the driver ends them without a word, if it does.
    pub loop_rounds: Option<u32>,
}

/// How a kernel loads a cooperative matrix from workgroup memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixLoad {
    /// From an array of vectors of four.
    Vec4,
    /// From an array of single elements.
    Scalar,
}

/// What is cheap on the device. Nothing else asks for its type.
impl Caps {
    /// Whether it is the host's own processor that computes, so that its work is a processor's: measured in processor
    /// time, and a hundredth of a GPU's in the same time.
    pub fn on_processor(&self) -> bool {
        self.device_type == DeviceType::Software
    }

    /// Whether kernels read and write f16 by the device's own type. A processor computes it by emulation, many times
    /// slower than f32: there kernels unpack pairs and compute in f32.
    pub fn native_f16(&self) -> bool {
        self.f16 && !self.on_processor()
    }

    /// Whether a cooperative product is faster than one by single threads. A processor computes it element by element:
    /// it is offered there to be checked.
    pub fn fast_matrices(&self) -> bool {
        !self.on_processor()
    }

    /// How cooperative matrices can be loaded, the preferred way first. Metal knows single elements alone; what it
    /// runs can be checked on a processor.
    pub fn matrix_loads(&self) -> &'static [MatrixLoad] {
        match &*self.backend {
            "metal" => &[MatrixLoad::Scalar],
            _ if !self.fast_matrices() && self.matrix() == Some(8) => &[MatrixLoad::Vec4, MatrixLoad::Scalar],
            _ => &[MatrixLoad::Vec4],
        }
    }

    /// Whether a subgroup is the SIMD lanes of one processor thread: there one lane's load, handed to the others by
    /// subgroup operations, replaces a tile in workgroup memory, whose barriers are expensive.
    pub fn broadcasts(&self) -> bool {
        self.on_processor() && self.meets(&BROADCAST)
    }

    /// Whether products are bound by arithmetic even at the size of a tile, so that Winograd's algorithm, which trades
    /// multiplications for memory, makes convolutions faster.
    pub fn winograd_pays(&self) -> bool {
        self.broadcasts()
    }

    /// Whether measuring the variants of an op finds a faster one. A processor's differ by factors that are known
    /// beforehand, and trying the slow ones takes minutes.
    pub fn tuning_pays(&self) -> bool {
        !self.on_processor()
    }

    /// Whether a thread may have some 150 registers (64 sums, what they are multiplied with, what is on its way) while
    /// the others of its processor still hide latency: a card with subgroups of 32 or more. Where subgroups may be of 8
    /// or 16, as Intel's, a thread has 128 at most; integrated GPUs run fewer such threads, or spill.
    pub fn many_registers(&self) -> bool {
        self.device_type == DeviceType::Discrete && self.subgroups.is_some_and(|[least, _]| least >= 32)
    }

    /// More bytes than its caches hold.
    pub fn beyond_caches(&self) -> u64 {
        if self.on_processor() { 64 << 20 } else { 256 << 20 }
    }
}

impl Caps {
    /// This device as kernels see it whose activations and matrices of parameters are of these types: cooperative
    /// matrices are for f16 alone.
    pub fn storing(&self, act: DType, weight: DType) -> Self {
        let coop_matrix =
            if [act, weight] == [DType::F16; 2] && self.f16 { self.coop_matrix.clone() } else { Vec::new() };
        Self { coop_matrix, ..self.clone() }
    }

    /// Side of the largest square matrices of f16 that a subgroup multiplies into sums in f32: 8 or, but for Metal,
    /// 16.
    pub fn matrix(&self) -> Option<u32> {
        let sides = if self.backend == "metal" { &[8][..] } else { &[8, 16] };
        let fits = |c: &&CoopMatrix| (c.m, c.n) == (c.k, c.k) && (&*c.ab, &*c.cr) == ("f16", "f32");
        self.coop_matrix.iter().filter(fits).map(|c| c.k).filter(|side| sides.contains(side)).max()
    }

    /// Threads of a subgroup, where that is known: it is one number, or was counted.
    pub fn subgroup_size(&self) -> Option<u32> {
        self.subgroups.and_then(|[least, most]| if least == most { Some(most) } else { self.lanes })
    }

    /// Whether the device has what a kernel needs. (A driver may still choose other subgroups for one kernel of many:
    /// that is found when the kernel is checked.)
    pub fn meets(&self, needs: &Needs) -> bool {
        let least = self.subgroup_size().or(self.subgroups.map(|[least, _]| least));
        let lanes = match needs.lanes {
            Lanes::AtLeast(lanes) => least.is_some_and(|least| least >= lanes),
            Lanes::Exactly(lanes) => self.subgroup_size() == Some(lanes),
        };
        lanes
            && needs.threads <= self.max_invocations
            && needs.workgroup_memory <= self.workgroup_memory
            && (needs.matrix.is_none() || needs.matrix == self.matrix())
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
            lanes: None,
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
        let vulkan = Self { device_type: DeviceType::Discrete, ..coop("vulkan", 16, 48 << 10) };
        let lanes_64 = Self { subgroups: Some([64, 64]), workgroup_memory: 64 << 10, ..vulkan.clone() };
        let metal = coop("metal", 8, 32 << 10);
        let lavapipe =
            Self { device_type: DeviceType::Software, subgroups: software.subgroups, ..coop("vulkan", 8, 32 << 10) };
        [portable, software, vulkan, metal, lavapipe, lanes_64].map(|caps| caps.storing(act, weight)).into()
    }

    /// Devices with every combination of these abilities, and the limits that WebGPU has at least.
    #[cfg(test)]
    pub fn made_up() -> Vec<Self> {
        let fixed = (0..8).map(|power| ([1 << power; 2], None));
        let ranges = [[4, 32], [8, 32], [16, 64], [32, 64], [4, 128]];
        let ranges = ranges.into_iter().flat_map(|[least, most]| {
            [None, Some(least), Some(2 * least), Some(most)].map(|counted| ([least, most], counted))
        });
        let subgroups = fixed.chain(ranges).map(|(range, counted)| (Some(range), counted)).chain([(None, None)]);
        let mut devices = Vec::new();
        for (subgroups, lanes) in subgroups {
            for (f16, side) in [(false, None), (true, None), (true, Some(8)), (true, Some(16))] {
                for (device_type, backend) in [
                    (DeviceType::Software, "vulkan"),
                    (DeviceType::Discrete, "vulkan"),
                    (DeviceType::Integrated, "metal"),
                ] {
                    for (workgroup_memory, max_invocations) in [(16 << 10, 256), (32 << 10, 1024), (64 << 10, 512)] {
                        let matrix =
                            |side| CoopMatrix { m: side, n: side, k: side, ab: "f16".into(), cr: "f32".into() };
                        devices.push(Self {
                            backend: backend.into(),
                            device_type,
                            f16,
                            subgroups,
                            lanes,
                            coop_matrix: side.map(matrix).into_iter().collect(),
                            workgroup_memory,
                            max_invocations,
                            ..Self::webgpu_default()
                        });
                    }
                }
            }
        }
        devices
    }
}
