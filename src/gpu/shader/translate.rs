//! What a driver will see: naga's translations, with the options that wgpu passes to naga on each platform. Trusted
//! text gets no checks, a user's own keeps those that wgpu adds.

use naga::back::{hlsl as dx, msl as metal, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::{AddressSpace, CooperativeSize, Expression, Module, ResourceBinding, ShaderStage, StorageAccess, TypeInner};

use super::prepare::{ENTRY_POINT, Prepared};
use super::visible::with_visible_workgroup_memory;
use crate::error::{Error, Result};

fn failed(target: &str, why: impl std::fmt::Display) -> Error {
    Error::config(format!("translation to {target}"), why)
}

/// SPIR-V 1.6, for Vulkan 1.3: little-endian words.
///
/// # Errors
/// If SPIR-V cannot express the kernel.
pub fn spirv(prepared: &Prepared) -> Result<Vec<u8>> {
    Ok(spirv_words(prepared)?.into_iter().flat_map(u32::to_le_bytes).collect())
}

/// The same as words. Trusted kernels of cooperative matrices share workgroup memory by the rules of Vulkan's memory
/// model.
///
/// # Errors
/// If SPIR-V cannot express the kernel.
pub fn spirv_words(Prepared { module, info, trusted }: &Prepared) -> Result<Vec<u32>> {
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS,
        // Buffers are left to the driver's robustBufferAccess2.
        bounds_check_policies: BoundsCheckPolicies {
            index: index_checks(*trusted),
            buffer: BoundsCheckPolicy::Unchecked,
            ..Default::default()
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: !trusted,
        emit_int_div_checks: !trusted,
        // Not every device has f16 between stages, and no kernel needs it.
        use_storage_input_output_16: false,
        ..Default::default()
    };
    let entry = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: ENTRY_POINT.into() };
    let words = spv::write_vec(module, info, &options, Some(&entry)).map_err(|e| failed("SPIR-V", e))?;
    Ok(if *trusted && matrices(module).next().is_some() { with_visible_workgroup_memory(&words) } else { words })
}

/// Metal's shading language 2.4, for macOS 12 and iOS 15. Buffers are numbered in the order of their bindings; a last
/// one holds the lengths of the runtime-sized arrays.
///
/// # Errors
/// If the language cannot express the kernel.
pub fn msl(prepared: &Prepared) -> Result<String> {
    let Prepared { module, info, trusted } = prepared;
    if matrices(module).any(|side| side != CooperativeSize::Eight) {
        return Err(failed("MSL", "Metal's cooperative matrices are 8 x 8"));
    }
    if loads_matrices_from_vectors(prepared) {
        return Err(failed("MSL", "Metal loads cooperative matrices from single elements alone"));
    }
    let buffers = bindings(module);
    let target = |slot: usize, mutable| metal::BindTarget { buffer: Some(slot as u8), mutable, ..Default::default() };
    let slots = buffers.iter().enumerate();
    let resources = metal::EntryPointResources {
        resources: slots.map(|(slot, (at, space))| (*at, target(slot, is_written(*space)))).collect(),
        immediates_buffer: None,
        sizes_buffer: Some(buffers.len() as u8),
    };
    let options = metal::Options {
        lang_version: (2, 4),
        per_entry_point_map: [(ENTRY_POINT.to_string(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: BoundsCheckPolicies {
            index: index_checks(*trusted),
            buffer: index_checks(*trusted),
            ..Default::default()
        },
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: !trusted,
        emit_int_div_checks: !trusted,
        ..Default::default()
    };
    let entry = Some((ShaderStage::Compute, ENTRY_POINT.to_string()));
    let pipeline = metal::PipelineOptions { entry_point: entry, ..Default::default() };
    let (text, translated) = metal::write_string(module, info, &options, &pipeline).map_err(|e| failed("MSL", e))?;
    translated.entry_point_names.into_iter().try_for_each(|name| name.map(drop).map_err(|e| failed("MSL", e)))?;
    Ok(text)
}

/// HLSL for DirectX 12, shader model 6.2 (the first with f16). Registers are numbered by kind: t for read-only
/// buffers, u for written ones, b for uniforms and, after those, for the number of workgroups.
///
/// # Errors
/// If the language cannot express the kernel.
pub fn hlsl(Prepared { module, info, trusted }: &Prepared) -> Result<String> {
    // naga would panic.
    if matrices(module).next().is_some() {
        return Err(failed("HLSL", "it has no cooperative matrices"));
    }
    let target = |register| dx::BindTarget { register, restrict_indexing: true, ..Default::default() };
    let (mut reads, mut writes, mut uniforms) = (0.., 0.., 0..);
    let mut registers = dx::BindingMap::default();
    for (at, space) in bindings(module) {
        let numbers = match space {
            AddressSpace::Uniform => &mut uniforms,
            space if is_written(space) => &mut writes,
            _ => &mut reads,
        };
        registers.extend(numbers.next().map(|register| (at, target(register))));
    }
    let options = dx::Options {
        shader_model: dx::ShaderModel::V6_2,
        binding_map: registers,
        fake_missing_bindings: false,
        special_constants_binding: uniforms.next().map(target),
        restrict_indexing: !trusted,
        force_loop_bounding: !trusted,
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let pipeline = dx::PipelineOptions { entry_point: Some((ShaderStage::Compute, ENTRY_POINT.to_string())) };
    let mut text = String::new();
    let written = dx::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    let mut names = written.map_err(|e| failed("HLSL", e))?.entry_point_names.into_iter();
    names.try_for_each(|name| name.map(drop).map_err(|e| failed("HLSL", e)))?;
    Ok(text)
}

/// What becomes of an index that may be too large.
fn index_checks(trusted: bool) -> BoundsCheckPolicy {
    if trusted { BoundsCheckPolicy::Unchecked } else { BoundsCheckPolicy::Restrict }
}

/// Sides of the cooperative matrices of a kernel.
fn matrices(module: &Module) -> impl Iterator<Item = CooperativeSize> {
    module.types.iter().filter_map(|(_, ty)| match ty.inner {
        TypeInner::CooperativeMatrix { rows, .. } => Some(rows),
        _ => None,
    })
}

fn loads_matrices_from_vectors(Prepared { module, info, .. }: &Prepared) -> bool {
    let helpers = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
    let entries = module.entry_points.iter().enumerate().map(|(i, e)| (&e.function, info.get_entry_point(i)));
    helpers.chain(entries).any(|(function, info)| {
        function.expressions.iter().any(|(_, expression)| {
            let Expression::CooperativeLoad { data, .. } = expression else { return false };
            match *info[data.pointer].ty.inner_with(&module.types) {
                TypeInner::Pointer { base, .. } => matches!(module.types[base].inner, TypeInner::Vector { .. }),
                TypeInner::ValuePointer { size, .. } => size.is_some(),
                _ => false,
            }
        })
    })
}

/// The buffers with their places, in the order of these.
pub fn bindings(module: &Module) -> Vec<(ResourceBinding, AddressSpace)> {
    let bound = module.global_variables.iter().filter_map(|(_, v)| Some((v.binding?, v.space)));
    let mut bindings: Vec<_> = bound.collect();
    bindings.sort_by_key(|(at, _)| *at);
    bindings
}

fn is_written(space: AddressSpace) -> bool {
    matches!(space, AddressSpace::Storage { access } if access.contains(StorageAccess::STORE))
}
