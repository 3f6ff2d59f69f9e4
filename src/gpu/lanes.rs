//! How many threads the subgroups of a kernel have, where a driver names a range: counted by running one.

use super::context::Context;
use crate::caps::Caps;

/// As many threads as a workgroup of every device may have: a subgroup of any size fits.
const COUNTS: &str = "
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(subgroup_size) lanes: u32) {
    if thread == 0u { y[0] = lanes; }
}";

/// The number for [`Caps::lanes`]: `None` where the size is not a range, or the device does not count right.
pub(super) async fn counted(context: &Context) -> Option<u32> {
    let Caps { subgroups, .. } = context.caps;
    let [least, most] = subgroups.filter(|[least, most]| least < most)?;
    let bytes = run(context).await;
    // A device that fails at this is one without a known size, and nothing else that is asked of it fails by it.
    context.check().ok()?;
    let lanes = u32::from_le_bytes(bytes?.first_chunk().copied()?);
    ((least..=most).contains(&lanes) && lanes.is_power_of_two()).then_some(lanes)
}

async fn run(context: &Context) -> Option<Vec<u8>> {
    use wgpu::BufferUsages as Usages;
    let (device, label) = (&context.device, Some("lanes"));
    let module = wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Wgsl(COUNTS.into()) };
    let module = device.create_shader_module(module);
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: context.pipelines.get(),
    });
    let counted = context.buffer("lanes", 16, Usages::STORAGE | Usages::COPY_SRC);
    let readback = context.buffer("readback", 16, Usages::COPY_DST | Usages::MAP_READ);
    let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: counted.as_entire_binding() }],
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &bind_group, &[]);
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&counted, 0, &readback, 0, 16);
    context.queue.submit([encoder.finish()]);
    context.read_back(&readback).await.ok()
}
