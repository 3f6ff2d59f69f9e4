//! What kernels do outside of the elements that are compared: behind an output, in the padding of its rows, nowhere at
//! all.

use super::{Session, memory, readback_buffer};
use crate::error::{Error, Result, counted};
use crate::tensor::Tensor;

/// Bytes behind the end of every slot that no kernel should write, and what [`Session::poison`] fills them with.
pub(super) const GUARD: u64 = 256;
const GUARD_BYTE: u8 = 0xa5;

impl Session {
    /// Fills every slot with NaN, so that a kernel that leaves a part of its output unwritten shows, and what lies
    /// behind the slots with a pattern for [`Session::check_guards`].
    pub fn poison(&self) {
        for (slot, bytes) in self.slots.iter().zip(&self.plan.slots) {
            let mut fill = vec![0xff; *bytes as usize];
            fill.resize(slot.size() as usize, GUARD_BYTE);
            self.gpu.queue.write_buffer(slot, 0, &fill);
        }
    }

    /// The output of a session of a case ([`Graph::of_case`](crate::graph::Graph::of_case)), NaN where the kernel does
    /// not write it.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run_poisoned(&self) -> Result<Tensor> {
        self.poison();
        let mut outputs = self.run(&[]).await?;
        outputs.remove("output").ok_or_else(|| Error::shape("the graph of a case has no output"))
    }

    /// After [`Session::poison`] and a run: whether the pattern behind the slots is still there.
    ///
    /// # Errors
    /// If it is not, or it cannot be read back.
    pub async fn check_guards(&self) -> Result<()> {
        let guards =
            || self.slots.iter().zip(&self.plan.slots).map(|(slot, bytes)| (slot, *bytes, slot.size() - bytes));
        let readback = readback_buffer(&self.gpu, guards().map(|(_, _, len)| len).sum());
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut offset = 0;
        for (slot, start, len) in guards().filter(|(_, _, len)| *len > 0) {
            encoder.copy_buffer_to_buffer(slot, start, &readback, offset, len);
            offset += len;
        }
        self.gpu.queue.submit([encoder.finish()]);
        let bytes = self.gpu.read_back(&readback).await?;
        match bytes[..offset as usize].iter().filter(|b| **b != GUARD_BYTE).count() {
            0 => Ok(()),
            n => Err(Error::device(format!("{} behind the end of an output changed", counted(n, "byte")))),
        }
    }

    /// After a run: whether the lanes that pad the outputs' rows are zero, which the kernels that read them rely on.
    ///
    /// # Errors
    /// If they are not, or cannot be read back.
    pub async fn check_padding(&self) -> Result<()> {
        let mut submission = self.submission(&self.readback);
        for (_, id) in &self.graph.outputs {
            submission.copy(*id);
        }
        if submission.read_as(memory::padding_is_zero).await?.into_iter().all(|zero| zero) {
            return Ok(());
        }
        Err(Error::device("lanes that pad the rows of an output are not zero, or never written"))
    }
}
