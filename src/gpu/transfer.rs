//! Copies between the host and a device, as uploads and read-backs do them, to be timed.

use std::sync::Arc;

use web_time::Instant;

use super::device::Gpu;
use crate::error::{Error, Result};

/// More than what a copy costs by itself, and little enough for any device.
const BYTES: usize = 32 << 20;

/// A buffer on a device and what is copied into it.
#[derive(Debug)]
pub struct Transfer {
    gpu: Arc<Gpu>,
    sent: Vec<u8>,
    buffer: wgpu::Buffer,
    readback: wgpu::Buffer,
}

impl Transfer {
    /// Copies once in each direction.
    ///
    /// # Errors
    /// If the device fails, or what comes back is not what was sent.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        use wgpu::BufferUsages as Use;
        let sent: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
        let buffer = |label, usage| gpu.buffer(label, BYTES as u64, usage);
        let transfer = Self {
            gpu: Arc::clone(gpu),
            sent,
            buffer: buffer("transfer", Use::COPY_DST | Use::COPY_SRC),
            readback: buffer("transfer's readback", Use::COPY_DST | Use::MAP_READ),
        };
        transfer.upload(1)?;
        if transfer.read_back()? != transfer.sent {
            let what = "what it sends back is not what it was sent: update the driver or choose another device";
            return Err(Error::device(format!("{}: {what}", gpu.caps.name)));
        }
        Ok(transfer)
    }

    /// Of one copy.
    pub fn bytes(&self) -> usize {
        self.sent.len()
    }

    /// Seconds until this many uploads are done, by the host's clock.
    ///
    /// # Errors
    /// If the device fails.
    pub fn upload(&self, times: usize) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..times {
            self.gpu.queue.write_buffer(&self.buffer, 0, &self.sent);
            self.gpu.wait()?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds until this many read-backs are done, by the host's clock.
    ///
    /// # Errors
    /// If the device fails.
    pub fn download(&self, times: usize) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..times {
            std::hint::black_box(self.read_back()?);
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn read_back(&self) -> Result<Vec<u8>> {
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&self.buffer, 0, &self.readback, 0, BYTES as u64);
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.read_now(&self.readback, BYTES as u64)
    }
}
