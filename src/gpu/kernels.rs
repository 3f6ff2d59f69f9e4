//! The pipeline cache: each kernel is compiled once per device, dialect and set of constants, whoever asks.

use std::collections::HashMap;
use std::sync::Mutex;

use super::device::Gpu;
use super::shader::{Dialect, ENTRY_POINT, Prepared, Source, prepare, spirv_words};
use crate::error::Result;
use crate::ops::{Binding, Launch};

/// What makes two kernels the same: shader and core, dialect, the bits of its constants, and the kinds of its bindings.
type Key = (&'static str, Option<&'static str>, Dialect, Vec<(&'static str, u64)>, Vec<wgpu::BufferBindingType>);

/// A compiled kernel with the layout of its bindings.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

#[derive(Debug, Default)]
pub struct Kernels {
    compiled: Mutex<HashMap<Key, Kernel>>,
}

impl Kernels {
    /// The kernel of a launch, compiled now or before. Failures to compile are found by [`Gpu::check`].
    pub fn get(&self, gpu: &Gpu, launch: &Launch, dialect: Dialect) -> Result<Kernel> {
        let constants = launch.constants.iter().map(|(name, value)| (*name, value.to_bits())).collect();
        let dialect = dialect.launching(launch);
        let key = (launch.shader, launch.core, dialect, constants, launch.bindings.iter().map(binding_type).collect());
        let mut compiled = self.compiled.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(kernel) = compiled.get(&key) {
            return Ok(kernel.clone());
        }
        let source = gpu.sources.source(launch.shader, launch.core, dialect)?;
        let prepared = prepare(&source, launch, dialect.native_f16)?;
        let module = shader_module(gpu, launch, &source, &prepared)?;
        let kernel = compile(&gpu.device, launch, &source, &module);
        compiled.insert(key, kernel.clone());
        Ok(kernel)
    }

    /// Number of kernels compiled so far.
    pub fn count(&self) -> usize {
        self.compiled.lock().unwrap_or_else(|e| e.into_inner()).len()
    }
}

fn binding_type(binding: &Binding) -> wgpu::BufferBindingType {
    match binding {
        Binding::Input(_) | Binding::Absent => wgpu::BufferBindingType::Storage { read_only: true },
        Binding::Output => wgpu::BufferBindingType::Storage { read_only: false },
        Binding::Params => wgpu::BufferBindingType::Uniform,
    }
}

/// The module of a kernel. What wgpu has to say of it names the file.
fn shader_module(gpu: &Gpu, launch: &Launch, source: &Source, prepared: &Prepared) -> Result<wgpu::ShaderModule> {
    let (device, label) = (&gpu.device, Some(&*source.path));
    let passes = device.features().contains(wgpu::Features::PASSTHROUGH_SHADERS) && gpu.caps.backend == "vulkan";
    if launch.matrix.is_some() && source.builtin && passes {
        let workgroup_size = prepared.module.entry_points[0].workgroup_size.into();
        let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
            label,
            entry_points: vec![wgpu::PassthroughShaderEntryPoint { name: ENTRY_POINT.into(), workgroup_size }].into(),
            spirv: Some(spirv_words(prepared)?.into()),
            ..Default::default()
        };
        // SAFETY: it is what naga writes for a module that it found valid, with more memory operands and stronger barriers
        // (`shader::visible`, whose output spirv-val checks in the tests). Its bindings and constants are those of the
        // launch (`prepare`). That it needs no checks of indices and loops is what is said of trusted text below.
        return Ok(unsafe { device.create_shader_module_passthrough(descriptor) });
    }
    let text = wgpu::ShaderSource::Wgsl(source.text.as_str().into());
    let descriptor = wgpu::ShaderModuleDescriptor { label, source: text };
    Ok(if source.builtin {
        // SAFETY: without these checks a kernel must not index outside an array and its loops must end. The crate's own
        // text is known: every index into a buffer is below the sizes in `params`, which the launch takes from the very
        // types that the buffers are made for; every index into workgroup memory follows from constants; every loop
        // counts up to a bound. `validate` and the tests run them with guard words behind every output, and the same
        // text with the checks when it is read from a folder. A user's own text keeps its checks.
        unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    } else {
        device.create_shader_module(descriptor)
    })
}

fn compile(device: &wgpu::Device, launch: &Launch, source: &Source, module: &wgpu::ShaderModule) -> Kernel {
    let label = Some(&*source.path);
    let entries: Vec<_> = launch
        .bindings
        .iter()
        .enumerate()
        .map(|(i, binding)| wgpu::BindGroupLayoutEntry {
            binding: i as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: binding_type(binding),
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module,
        entry_point: Some(ENTRY_POINT),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &launch.constants,
            // Every kernel writes its workgroup memory before it reads it.
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    });
    Kernel { pipeline, layout }
}
