//! What a driver's compiler says of a kernel: registers, spills, occupancy and whatever else it counts
//! (VK_KHR_pipeline_executable_properties). Each driver has names of its own for these.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::Gpu;
use super::shader::{Dialect, prepare};
use crate::error::{Error, Field, Remedy, Result, short};
use crate::ops::Launch;

#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
mod vulkan;

#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub use vulkan::Compiler;

/// Of one thread.
const REGISTERS: [&str; 7] = [
    "VGPRs",
    "Number of GPRs",
    "GPRs",
    "Registers used",
    "Max live registers",
    // The vendors' own drivers: NVIDIA's, AMD's.
    "Register Count",
    "numUsedVgprs",
];
/// Registers that did not fit, to memory or to another kind of register.
const SPILLS: [&str; 6] =
    ["Spilled VGPRs", "Spilled SGPRs", "Spills to memory", "Spills to reg", "Spills", "STP Count"];
/// In bytes.
const SCRATCH: [&str; 5] = ["Scratch size", "SLM size", "Scratch", "Scratch Memory Size", "scratchMemUsageInBytes"];
/// How many run at a time, in units of the driver's.
const OCCUPANCY: [&str; 4] = ["Subgroups per SIMD", "Max warps/SM", "Threads", "Max Waves Per Core"];

/// One program that a driver made of a kernel: most make one, some one for each size of subgroups.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Executable {
    /// In the driver's words.
    pub name: String,
    /// Threads of a subgroup; 0 where the driver does not tell.
    pub subgroup_size: u32,
    /// The common figures.
    pub summary: Summary,
    /// All that the driver tells, in its order.
    pub statistics: Vec<Statistic>,
}

/// One fact about an [`Executable`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistic {
    /// In the driver's words.
    pub name: String,
    /// A number or a boolean.
    pub value: serde_json::Value,
}

/// What most drivers tell of an [`Executable`]; `None` is what this one does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Registers of a thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registers: Option<u64>,
    /// Registers that did not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spills: Option<u64>,
    /// Bytes of memory that a thread has for them, and for arrays that are not in registers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scratch: Option<u64>,
    /// How many subgroups, or threads, are resident at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occupancy: Option<u64>,
    /// Of what that is a number, in the driver's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occupancy_unit: Option<String>,
}

impl Executable {
    /// As a driver told of it.
    pub fn new(name: String, subgroup_size: u32, statistics: Vec<Statistic>) -> Self {
        Self { name, subgroup_size, summary: Summary::of(&statistics), statistics }
    }
}

impl Summary {
    fn of(statistics: &[Statistic]) -> Self {
        let value = |wanted: &str| statistics.iter().find(|s| s.name == wanted).and_then(|s| s.value.as_u64());
        let first = |names: &[&'static str]| names.iter().find_map(|name| Some((value(name)?, *name)));
        let occupancy = first(&OCCUPANCY);
        Self {
            registers: first(&REGISTERS).map(|(registers, _)| registers),
            spills: SPILLS.iter().filter_map(|name| value(name)).reduce(u64::saturating_add),
            scratch: first(&SCRATCH).map(|(bytes, _)| bytes),
            occupancy: occupancy.map(|(resident, _)| resident),
            occupancy_unit: occupancy.map(|(_, unit)| unit.into()),
        }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let known = [
            self.registers.map(|n| format!("{n} registers")),
            self.spills.map(|n| format!("{n} spills")),
            self.scratch.map(|n| format!("{n} bytes of scratch memory")),
            self.occupancy.zip(self.occupancy_unit.as_ref()).map(|(n, unit)| format!("occupancy {n} ({unit})")),
        ];
        f.write_str(&known.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// What sums it up.
impl Display for Executable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let subgroup = Some(self.subgroup_size).filter(|size| *size > 0).map(|size| format!("subgroups of {size}"));
        let summary = Some(self.summary.to_string()).filter(|summary| !summary.is_empty());
        let known: Vec<_> = subgroup.into_iter().chain(summary).collect();
        write!(f, "{}: {}", short(&self.name), known.join(", "))
    }
}

impl Compiler {
    /// Of the kernel of a launch in a dialect, from the device's sources.
    ///
    /// # Errors
    /// If its text is not what the launch takes it for, or as [`Compiler::executables`].
    pub fn of_launch(&self, gpu: &Gpu, launch: &Launch, dialect: Dialect) -> Result<Vec<Executable>> {
        let source = gpu.sources.of_launch(launch, dialect)?;
        self.executables(&prepare(&source, launch, dialect.native_f16)?)
    }
}

const VULKAN_ONLY: &str = "only Vulkan's drivers do";

/// That this device's driver tells nothing, and why.
fn silent(gpu: &Gpu, why: &str) -> Error {
    let what = format!("{} ({}) tells nothing of its kernels: {why}", gpu.caps.name, gpu.caps.backend);
    Error::device(what).remedies([Remedy::Other(Field::Device)])
}

/// Where there is no Vulkan, no driver tells anything.
#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
#[derive(Debug)]
pub enum Compiler {}

#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
impl Compiler {
    /// There is none.
    ///
    /// # Errors
    /// Always.
    pub fn open(gpu: &Gpu) -> Result<Self> {
        Err(silent(gpu, VULKAN_ONLY))
    }

    /// Cannot be asked.
    ///
    /// # Errors
    /// None.
    pub fn executables(&self, _: &super::shader::Prepared) -> Result<Vec<Executable>> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executable(statistics: &[(&str, u64)]) -> Executable {
        let statistics = statistics.iter().map(|(name, n)| Statistic { name: (*name).into(), value: (*n).into() });
        Executable::new("compute".into(), 64, statistics.collect())
    }

    #[test]
    fn a_summary_knows_the_drivers_names() {
        let amd = [("SGPRs", 108), ("VGPRs", 96), ("Spilled SGPRs", 3), ("Spilled VGPRs", 4), ("Scratch size", 16)];
        let summary = executable(&[&amd[..], &[("Subgroups per SIMD", 14)]].concat()).summary;
        let expected = Summary {
            registers: Some(96),
            spills: Some(7),
            scratch: Some(16),
            occupancy: Some(14),
            occupancy_unit: Some("Subgroups per SIMD".into()),
        };
        assert_eq!(summary, expected);
        let nvidia = executable(&[("Number of GPRs", 88), ("Spills to memory", 0), ("SLM size", 0)]).summary;
        assert_eq!((nvidia.registers, nvidia.spills, nvidia.scratch), (Some(88), Some(0), Some(0)));
    }

    #[test]
    fn what_a_driver_does_not_tell_is_left_out() {
        let summary = executable(&[("Instructions", 5), ("Spills", 0)]).summary;
        assert_eq!(summary, Summary { spills: Some(0), ..Summary::default() });
        assert_eq!(summary.to_string(), "0 spills");
        assert_eq!(executable(&[]).to_string(), "compute: subgroups of 64");
    }

    #[test]
    fn a_title_sums_up() {
        let told = executable(&[("Registers used", 32), ("Max Waves Per Core", 6)]);
        let expected = "compute: subgroups of 64, 32 registers, occupancy 6 (Max Waves Per Core)";
        assert_eq!(told.to_string(), expected);
    }
}
