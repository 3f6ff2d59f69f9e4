//! The extension itself, on a second device of the adapter: wgpu opens devices without it, and has no flag for
//! pipelines that are to be asked.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Mutex;

use ash::khr::pipeline_executable_properties as extension;
use ash::vk;
use naga::AddressSpace;
use wgpu::hal::OpenDevice;
use wgpu::hal::api::Vulkan;
use wgpu::hal::vulkan::CreateDeviceCallback;

use super::{Executable, Statistic, VULKAN_ONLY, silent};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::gpu::shader::translate::bindings;
use crate::gpu::shader::{ENTRY_POINT, Prepared, spirv_words};

/// A device that compiles kernels and tells of them. It runs none.
pub struct Compiler {
    adapter: String,
    /// As wgpu lets pipelines vary where a device has subgroups.
    stage: vk::PipelineShaderStageCreateFlags,
    tells: extension::Device,
    opened: OpenDevice<Vulkan>,
    /// What it told, by the words that it was given.
    told: Mutex<HashMap<Vec<u32>, Vec<Executable>>>,
}

impl Compiler {
    /// Opens the adapter once more, with the same features and limits.
    ///
    /// # Errors
    /// If it is not Vulkan's, its driver has not the extension, or refuses.
    pub fn open(gpu: &Gpu) -> Result<Self> {
        // SAFETY: the adapter is asked for its properties and opened; nothing of it is destroyed.
        let adapter = unsafe { gpu.adapter.inner.as_hal::<Vulkan>() };
        let adapter = adapter.ok_or_else(|| silent(gpu, VULKAN_ONLY))?;
        let (driver, instance) = (adapter.physical_device_capabilities(), adapter.shared_instance());
        if !driver.supports_extension(extension::NAME) {
            return Err(silent(gpu, "its driver is without VK_KHR_pipeline_executable_properties"));
        }
        if driver.properties().api_version.min(instance.instance_api_version()) < vk::API_VERSION_1_3 {
            return Err(silent(gpu, "its driver is older than Vulkan 1.3"));
        }
        let asked = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
        let asked = &mut asked.pipeline_executable_info(true);
        let ask: Box<CreateDeviceCallback> = Box::new(move |to_open| {
            to_open.extensions.push(extension::NAME);
            *to_open.create_info = to_open.create_info.push_next(asked);
        });
        let (features, limits) = (gpu.device.features(), gpu.device.limits());
        // SAFETY: the adapter opened a device with these features and limits before. What is added is an extension that
        // it has, with the one feature that everything which has the extension has (Vulkan's "Feature Requirements");
        // wgpu asks for neither, so that neither is there twice.
        let opened = unsafe { adapter.open_with_callback(features, &limits, &Default::default(), Some(ask)) };
        let opened = opened.map_err(|e| silent(gpu, &format!("it could not be opened for that: {e}")))?;
        let mut stage = vk::PipelineShaderStageCreateFlags::empty();
        if features.contains(wgpu::Features::SUBGROUP) {
            stage |= vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE;
        }
        let tells = extension::Device::new(instance.raw_instance(), opened.device.raw_device());
        Ok(Self { adapter: gpu.caps.name.clone(), stage, tells, opened, told: Mutex::default() })
    }

    /// What the driver makes of a kernel, which is compiled for that the first time.
    ///
    /// # Errors
    /// If SPIR-V cannot express the kernel or the driver refuses it.
    pub fn executables(&self, kernel: &Prepared) -> Result<Vec<Executable>> {
        let words = spirv_words(kernel)?;
        let mut known = self.told.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(told) = known.get(&words) {
            return Ok(told.clone());
        }
        let buffers: Vec<_> = bindings(&kernel.module)
            .into_iter()
            .map(|(at, space)| {
                let kind = match space {
                    AddressSpace::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
                    _ => vk::DescriptorType::STORAGE_BUFFER,
                };
                let buffer = vk::DescriptorSetLayoutBinding::default().binding(at.binding).descriptor_type(kind);
                buffer.descriptor_count(1).stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let mut made = Made::new(self.opened.device.raw_device());
        // SAFETY: the words are what naga writes for a module that it found valid, with an entry point of that name
        // and these buffers in set 0, which is where `prepare` lets them be. They take no more of the device than
        // wgpu's own pipelines do, for which the same text was written. The pipeline is made with the flag that
        // asking for its statistics takes, on a device with the feature, and lives until it was asked.
        let told = unsafe { made.compile(&words, &buffers, self.stage).and_then(|()| made.told(&self.tells)) };
        let told = told.map_err(|e| Error::device(format!("{}: the driver does not compile it: {e}", self.adapter)))?;
        known.insert(words, told.clone());
        Ok(told)
    }
}

/// A pipeline and what it is made of, as far as that is made. It is destroyed in the end.
struct Made<'a> {
    device: &'a ash::Device,
    set: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    module: vk::ShaderModule,
    pipeline: vk::Pipeline,
}

impl<'a> Made<'a> {
    fn new(device: &'a ash::Device) -> Self {
        let (set, layout) = Default::default();
        Self { device, set, layout, module: vk::ShaderModule::null(), pipeline: vk::Pipeline::null() }
    }

    /// # Safety
    /// The words are valid for the device, and their resources are these of set 0.
    unsafe fn compile(
        &mut self,
        words: &[u32],
        buffers: &[vk::DescriptorSetLayoutBinding],
        flags: vk::PipelineShaderStageCreateFlags,
    ) -> ash::prelude::VkResult<()> {
        const MAIN: &CStr = c"main";
        debug_assert_eq!(MAIN.to_str(), Ok(ENTRY_POINT));
        let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(buffers);
        // SAFETY: the caller's, for this and the calls below, each with what the ones before it made.
        self.set = unsafe { self.device.create_descriptor_set_layout(&set, None) }?;
        let sets = [self.set];
        let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        self.layout = unsafe { self.device.create_pipeline_layout(&layout, None) }?;
        let module = vk::ShaderModuleCreateInfo::default().code(words);
        self.module = unsafe { self.device.create_shader_module(&module, None) }?;
        let stage = vk::PipelineShaderStageCreateInfo::default().flags(flags).stage(vk::ShaderStageFlags::COMPUTE);
        let pipeline = vk::ComputePipelineCreateInfo::default()
            .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR)
            .stage(stage.module(self.module).name(MAIN))
            .layout(self.layout);
        let made = unsafe { self.device.create_compute_pipelines(vk::PipelineCache::null(), &[pipeline], None) };
        self.pipeline = made.map_err(|(_, error)| error)?[0];
        Ok(())
    }

    /// # Safety
    /// It was compiled, and `tells` is of its device.
    unsafe fn told(&self, tells: &extension::Device) -> ash::prelude::VkResult<Vec<Executable>> {
        let pipeline = vk::PipelineInfoKHR::default().pipeline(self.pipeline);
        // SAFETY: the caller's.
        let executables = unsafe { tells.get_pipeline_executable_properties(&pipeline) }?;
        let one = |(index, executable): (u32, &vk::PipelineExecutablePropertiesKHR)| {
            let which = vk::PipelineExecutableInfoKHR::default().pipeline(self.pipeline).executable_index(index);
            // SAFETY: the caller's, and there are more executables than the index.
            let statistics = unsafe { tells.get_pipeline_executable_statistics(&which) }?;
            let statistics = statistics.iter().map(|s| Statistic { name: text(s.name_as_c_str()), value: value(s) });
            Ok(Executable::new(text(executable.name_as_c_str()), executable.subgroup_size, statistics.collect()))
        };
        (0..).zip(&executables).map(one).collect()
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        // SAFETY: what was made here is used by nothing else, and destroying what was not made does nothing.
        unsafe {
            self.device.destroy_pipeline(self.pipeline, None);
            self.device.destroy_shader_module(self.module, None);
            self.device.destroy_pipeline_layout(self.layout, None);
            self.device.destroy_descriptor_set_layout(self.set, None);
        }
    }
}

fn text<E>(driver: Result<&CStr, E>) -> String {
    driver.map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
}

fn value(statistic: &vk::PipelineExecutableStatisticKHR) -> serde_json::Value {
    use vk::PipelineExecutableStatisticFormatKHR as Format;
    let value = statistic.value;
    // SAFETY: the format says which member of the union the driver wrote; all bytes of it are initialized, since it was
    // zeroed before, and every bit pattern is a number.
    unsafe {
        match statistic.format {
            Format::BOOL32 => (value.b32 != vk::FALSE).into(),
            Format::INT64 => value.i64.into(),
            Format::UINT64 => value.u64.into(),
            _ => value.f64.into(),
        }
    }
}
