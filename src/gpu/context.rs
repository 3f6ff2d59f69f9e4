//! A device that is open: where kernels are made and run, and what went wrong there.

use std::sync::{Arc, Mutex};

use super::adapter::Adapter;
use super::opening::{self, Opened};
use super::pipelines::Pipelines;
use super::shader::Sources;
use crate::caps::Caps;
use crate::error::{Error, Field, Remedy, Result};

/// An opened device, without kernels yet.
#[derive(Debug)]
pub struct Context {
    /// What the device can do.
    pub caps: Caps,
    /// What its adapter announces and its driver refused.
    pub without: Vec<String>,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: Pipelines,
    /// What the kernels are made from.
    pub sources: Sources,
    /// The first error that wgpu reported and nobody has seen yet.
    failure: Failure,
}

impl Context {
    /// Opens a device with all of the adapter's limits, for kernels made from these sources. Features in `without` are
    /// not asked for.
    ///
    /// # Errors
    /// If the driver refuses.
    pub async fn open(adapter: &Adapter, sources: Sources, without: &[String]) -> Result<Self> {
        let Opened { device, queue, caps, without } = opening::open(adapter, without).await?;
        let failure = Arc::new(Mutex::new(None));
        let (errors, losses) = (Arc::clone(&failure), Arc::clone(&failure));
        device.on_uncaptured_error(Arc::new(move |error| keep_first(&errors, explain(&error))));
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                keep_first(&losses, Error::device(format!("the device was lost: {message}")));
            }
        });
        let pipelines = Pipelines::open(&device, &caps);
        Ok(Self { caps, without, device, queue, pipelines, sources, failure })
    }

    /// The first error since the last look, if there was one.
    ///
    /// # Errors
    /// That error, with the adapter's name.
    pub fn check(&self) -> Result<()> {
        match self.failure.lock().unwrap_or_else(|e| e.into_inner()).take() {
            Some(error) => Err(error.on(&self.caps.name)),
            None => Ok(()),
        }
    }

    /// A buffer of these bytes.
    pub(super) fn buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let label = Some(label);
        self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    }

    /// Submits nothing and waits until everything submitted so far is done, which also frees the staging memory of
    /// finished uploads.
    pub(super) fn wait(&self) -> Result<()> {
        let nothing = self.queue.submit([]);
        self.wait_for(nothing)
    }

    /// Waits until that submission and all before it are done.
    pub(super) fn wait_for(&self, index: wgpu::SubmissionIndex) -> Result<()> {
        let waited = self.device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None });
        waited.map_err(|e| Error::device(format!("{}: {e}", self.caps.name)))?;
        self.check()
    }

    /// The bytes of a buffer that can be mapped, when all that was submitted is done.
    pub(super) async fn read_back(&self, readback: &wgpu::Buffer) -> Result<Vec<u8>> {
        let (sender, receiver) = futures_channel::oneshot::channel();
        // The receiver lives until the end of this function; a failed send means that nobody waits any more.
        readback.map_async(wgpu::MapMode::Read, .., move |result| drop(sender.send(result)));
        self.wait()?;
        let failed = |what: &dyn std::fmt::Display| Error::device(format!("{}: reading back: {what}", self.caps.name));
        receiver.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        let bytes = readback.get_mapped_range(..).map_err(|e| failed(&e))?.to_vec();
        readback.unmap();
        Ok(bytes)
    }

    /// The first bytes of a buffer that can be mapped, without anybody else having a turn meanwhile: for what is timed.
    pub(super) fn read_now(&self, readback: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
        let (sender, mut receiver) = futures_channel::oneshot::channel();
        // The receiver lives until the end of this function.
        readback.map_async(wgpu::MapMode::Read, ..bytes, move |result| drop(sender.send(result)));
        self.wait()?;
        let failed = |what: &dyn std::fmt::Display| Error::device(format!("{}: reading back: {what}", self.caps.name));
        match receiver.try_recv() {
            Ok(Some(mapped)) => mapped.map_err(|e| failed(&e))?,
            _ => return Err(failed(&"the device gave nothing")),
        }
        let read = readback.get_mapped_range(..bytes).map_err(|e| failed(&e))?.to_vec();
        readback.unmap();
        Ok(read)
    }
}

/// The first error since somebody looked.
type Failure = Arc<Mutex<Option<Error>>>;

fn keep_first(slot: &Failure, error: Error) {
    slot.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
}

fn explain(error: &wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            let others = [Remedy::set(Field::Dtype, "f16"), Remedy::set(Field::Device, "cpu")];
            let smaller = [Field::Width, Field::Height, Field::Batch].map(Remedy::Less);
            Error::too_large("out of device memory").remedies(others.into_iter().chain(smaller))
        }
        other => Error::device(other),
    }
}
