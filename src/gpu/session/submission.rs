//! What a session sends to the device at one time.

use std::ops::Range;

use super::{Session, memory};
use crate::error::Result;
use crate::graph::ValueId;
use crate::graph::plan::device_bytes;
use crate::ops::Ty;
use crate::tensor::{DType, Tensor};

/// Commands for the device, and the values that they copy into a buffer to be read.
pub(super) struct Submission<'a> {
    session: &'a Session,
    pub encoder: wgpu::CommandEncoder,
    readback: &'a wgpu::Buffer,
    /// The values with their bytes in the buffer.
    copied: Vec<(ValueId, Range<u64>)>,
}

impl Submission<'_> {
    /// Copies a value as it is after the commands so far.
    pub fn copy(&mut self, id: ValueId) {
        let session = self.session;
        let start = self.copied.last().map_or(0, |(_, range)| range.end);
        let bytes = device_bytes(&session.graph, id, session.storage);
        self.encoder.copy_buffer_to_buffer(session.buffer(id), 0, self.readback, start, bytes);
        self.copied.push((id, start..start + bytes));
    }

    /// Submits, and gives the copied values in their order.
    pub async fn read(self) -> Result<Vec<Tensor>> {
        self.read_as(memory::from_bytes).await
    }

    /// The same of what `convert` makes of a value's bytes, its type and the type of activations.
    pub async fn read_as<T>(self, convert: fn(&[u8], &Ty, DType) -> T) -> Result<Vec<T>> {
        let Session { gpu, graph, storage, .. } = self.session;
        gpu.queue.submit([self.encoder.finish()]);
        let bytes = self.session.gpu.read_back(self.readback).await?;
        let value = |(id, range): &(ValueId, Range<u64>)| {
            convert(&bytes[range.start as usize..range.end as usize], graph.ty(*id), storage.act)
        };
        Ok(self.copied.iter().map(value).collect())
    }
}

impl Session {
    /// Nothing to do yet; what is to be read goes through `readback`, which holds all of it.
    pub(super) fn submission<'a>(&'a self, readback: &'a wgpu::Buffer) -> Submission<'a> {
        let label = Some(self.graph.network.as_str());
        let encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
        Submission { session: self, encoder, readback, copied: Vec::new() }
    }
}
