//! The pipeline cache: each kernel is compiled once per device, dialect and set of constants, whoever asks.

use std::collections::HashMap;
use std::sync::Mutex;

#[cfg(not(target_arch = "wasm32"))]
use rayon::prelude::*;
use wgpu::ShaderModule;

use super::context::Context;
use super::shader::{Dialect, ENTRY_POINT, Prepared, Source, prepare, spirv_words};
use crate::error::{Error, Result};
use crate::ops::{Binding, Launch};

/// What makes two kernels the same: shader and core, dialect, the bits of its constants, and the kinds of its
/// bindings.
type Key = (&'static str, Option<&'static str>, Dialect, Vec<(&'static str, u64)>, Vec<wgpu::BufferBindingType>);

/// A compiled kernel with the layout of its bindings.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Compiled, with its constants set.
    pub pipeline: wgpu::ComputePipeline,
    /// In the order of the launch's bindings.
    pub layout: wgpu::BindGroupLayout,
}

/// The kernels that were compiled on a device, each once.
#[derive(Debug, Default)]
pub struct Kernels {
    compiled: Mutex<HashMap<Key, Kernel>>,
}

impl Kernels {
    /// The kernel of a launch, compiled now or before. Failures to compile are found by [`Context::check`].
    pub fn get(&self, context: &Context, launch: &Launch, dialect: Dialect) -> Result<Kernel> {
        let dialect = dialect.launching(launch);
        let key = key(launch, dialect);
        let mut compiled = self.compiled.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(kernel) = compiled.get(&key) {
            return Ok(kernel.clone());
        }
        let kernel = compile(context, launch, dialect)?;
        compiled.insert(key, kernel.clone());
        Ok(kernel)
    }

    /// Compiles what of these is not compiled yet, on all processors: a driver takes its time for each.
    ///
    /// # Errors
    /// If a shader is not what its launch takes it for.
    pub fn warm(&self, context: &Context, wanted: &[(&Launch, Dialect)]) -> Result<()> {
        let compiled = self.compiled.lock().unwrap_or_else(|e| e.into_inner());
        let mut missing: HashMap<Key, (&Launch, Dialect)> = HashMap::new();
        for (launch, dialect) in wanted {
            let dialect = dialect.launching(launch);
            let key = key(launch, dialect);
            if !compiled.contains_key(&key) {
                missing.insert(key, (launch, dialect));
            }
        }
        drop(compiled);
        let make = |(key, (launch, dialect)): (Key, (&Launch, Dialect))| Ok((key, compile(context, launch, dialect)?));
        // A browser's objects stay on the thread that made them.
        #[cfg(target_arch = "wasm32")]
        let made: Vec<_> = missing.into_iter().map(make).collect::<Result<_>>()?;
        #[cfg(not(target_arch = "wasm32"))]
        let made: Vec<_> = missing.into_par_iter().map(make).collect::<Result<_>>()?;
        self.compiled.lock().unwrap_or_else(|e| e.into_inner()).extend(made);
        context.pipelines.save();
        Ok(())
    }

    /// Puts a kernel made from SPIR-V, with the constants already in it, in the place of the launch's own: sessions
    /// made from now on run it. This is how what another compiler made of a kernel is checked.
    ///
    /// # Errors
    /// If the device takes no SPIR-V (only Vulkan's do) or its driver refuses this.
    ///
    /// # Safety
    /// Nobody looks at the words before the driver does. They must be a valid module for Vulkan 1.1 whose entry point
    /// is [`ENTRY_POINT`], whose resources are the launch's bindings, each of its kind at its place of set 0, and
    /// which reads and writes nothing else.
    pub unsafe fn replace(&self, context: &Context, launch: &Launch, dialect: Dialect, spirv: &[u32]) -> Result<()> {
        if !takes_spirv(context) {
            return Err(Error::device(format!("{} takes no SPIR-V: choose a Vulkan adapter", context.caps.name)));
        }
        // SAFETY: what wgpu leaves unchecked, the caller vouches for.
        let module = unsafe { passed_through(context, launch.shader, spirv) };
        let kernel = finish(context, launch, &module, &[], launch.shader);
        self.compiled.lock().unwrap_or_else(|e| e.into_inner()).insert(key(launch, dialect.launching(launch)), kernel);
        context.check()
    }

    /// Number of kernels compiled so far.
    pub fn count(&self) -> usize {
        self.compiled.lock().unwrap_or_else(|e| e.into_inner()).len()
    }
}

fn key(launch: &Launch, dialect: Dialect) -> Key {
    let constants = launch.constants.iter().map(|(name, value)| (*name, value.to_bits())).collect();
    (launch.shader, launch.core, dialect, constants, launch.bindings.iter().map(binding_type).collect())
}

fn binding_type(binding: &Binding) -> wgpu::BufferBindingType {
    match binding {
        Binding::Input(_) | Binding::Absent => wgpu::BufferBindingType::Storage { read_only: true },
        Binding::Output => wgpu::BufferBindingType::Storage { read_only: false },
        Binding::Params => wgpu::BufferBindingType::Uniform,
    }
}

fn takes_spirv(context: &Context) -> bool {
    context.device.features().contains(wgpu::Features::PASSTHROUGH_SHADERS) && context.caps.backend == "vulkan"
}

/// The module of SPIR-V that goes to the driver as it is.
///
/// # Safety
/// As [`Kernels::replace`].
unsafe fn passed_through(context: &Context, label: &str, words: &[u32]) -> ShaderModule {
    // The driver reads the workgroup's size from the words.
    let entry_points = [wgpu::PassthroughShaderEntryPoint { name: ENTRY_POINT.into(), workgroup_size: (1, 1, 1) }];
    let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
        label: Some(label),
        entry_points: (&entry_points).into(),
        spirv: Some(words.into()),
        ..Default::default()
    };
    // SAFETY: the caller's.
    unsafe { context.device.create_shader_module_passthrough(descriptor) }
}

fn compile(context: &Context, launch: &Launch, dialect: Dialect) -> Result<Kernel> {
    let source = context.sources.of_launch(launch, dialect)?;
    let prepared = prepare(&source, launch, dialect.native_f16)?;
    let module = shader_module(context, launch, &source, &prepared)?;
    Ok(finish(context, launch, &module, &launch.constants, &source.path))
}

/// The module of a kernel. What wgpu has to say of it names the file.
fn shader_module(context: &Context, launch: &Launch, source: &Source, prepared: &Prepared) -> Result<ShaderModule> {
    if launch.matrix.is_some() && source.is_builtin() && takes_spirv(context) {
        // SAFETY: it is what naga writes for a module that it found valid, with more memory operands and stronger
        // barriers (`shader::visible`, whose output spirv-val checks in the tests). Its bindings and constants are
        // those of the launch (`prepare`). That it needs no checks of indices and loops is what is said of trusted
        // text below.
        return Ok(unsafe { passed_through(context, &source.path, &spirv_words(prepared)?) });
    }
    let text = wgpu::ShaderSource::Wgsl(source.text.as_str().into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(&*source.path), source: text };
    if !source.is_builtin() {
        return Ok(context.device.create_shader_module(descriptor));
    }
    // SAFETY: without these checks a kernel must not index outside an array and its loops must end. The crate's own
    // text is known: every index into a buffer is below the sizes in `params`, which the launch takes from the very
    // types that the buffers are made for; every index into workgroup memory follows from constants; every loop counts
    // up to a bound. `validate` and the tests run them with guard words behind every output. A user's own text keeps
    // its checks.
    Ok(unsafe { context.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) })
}

/// The kernel of a module, with these constants still to be put into it.
fn finish(context: &Context, launch: &Launch, module: &ShaderModule, constants: &[(&str, f64)], label: &str) -> Kernel {
    let (label, device) = (Some(label), &context.device);
    let visibility = wgpu::ShaderStages::COMPUTE;
    let entry = |(binding, bound): (u32, &Binding)| {
        let ty = binding_type(bound);
        let ty = wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None };
        wgpu::BindGroupLayoutEntry { binding, visibility, ty, count: None }
    };
    let entries: Vec<_> = (0..).zip(&launch.bindings).map(entry).collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let layouts = wgpu::PipelineLayoutDescriptor { label, bind_group_layouts: &[Some(&layout)], immediate_size: 0 };
    let pipeline_layout = device.create_pipeline_layout(&layouts);
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module,
        entry_point: Some(ENTRY_POINT),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants,
            // Every kernel writes its workgroup memory before it reads it.
            zero_initialize_workgroup_memory: false,
        },
        cache: context.pipelines.get(),
    });
    Kernel { pipeline, layout }
}
