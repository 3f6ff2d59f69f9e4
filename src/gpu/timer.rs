//! How long a session's kernels take on the device: by its own timestamps where it has them, else by the wall clock.
//!
//! Times are of what the buffers hold, so a session should have run once. Repeats follow each other in one compute
//! pass, each waiting for the last, as nodes do in a network; small tensors stay in the device's caches.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use web_time::Instant;

use super::device::Gpu;
use super::session::Session;
use crate::error::{Error, Field, Remedy, Result};

/// What a time was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// The device's, around the kernels alone.
    Timestamps,
    /// The host's, around a submission, less what an empty submission takes.
    Wall,
    /// Not a time but work: what the host's processors spent on a submission, all threads together. For software
    /// devices on a shared machine, since other programs hardly change it.
    Processor,
}

/// Compute passes that one submission can time.
const PASSES: u32 = 1024;

/// Seconds that all threads of this program have spent on processors, where the system tells.
fn processor_time() -> Option<f64> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    // A thread that ends meanwhile is left out.
    let each = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    let nanoseconds: Option<Vec<u64>> = each.map(|text| text.split_whitespace().next()?.parse().ok()).collect();
    nanoseconds.filter(|list| !list.is_empty()).map(|list| list.iter().sum::<u64>() as f64 * 1e-9)
}

/// Times sessions on one device by one clock.
#[derive(Debug)]
pub struct Timer {
    gpu: Arc<Gpu>,
    clock: Clock,
    stamps: Option<Stamps>,
    /// Seconds of a submission that does nothing.
    empty: f64,
}

/// Room for a beginning and an end of every pass.
#[derive(Debug)]
struct Stamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readback: wgpu::Buffer,
    /// Seconds of one tick.
    period: f64,
}

impl Stamps {
    fn new(gpu: &Gpu) -> Self {
        let buffer = |label, usage| gpu.buffer(label, u64::from(2 * PASSES * wgpu::QUERY_SIZE), usage);
        let (label, ty) = (Some("timestamps"), wgpu::QueryType::Timestamp);
        Self {
            queries: gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label, ty, count: 2 * PASSES }),
            resolved: buffer("timestamps", wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readback: buffer("timestamps' readback", wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ),
            period: f64::from(gpu.queue.get_timestamp_period()) * 1e-9,
        }
    }

    fn around(&self, pass: u32) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * pass),
            end_of_pass_write_index: Some(2 * pass + 1),
        }
    }

    /// Submits, waits, and returns the seconds of each of the first `passes` passes.
    fn finish(&self, gpu: &Gpu, mut encoder: wgpu::CommandEncoder, passes: u32) -> Result<Vec<f64>> {
        let bytes = u64::from(2 * passes * wgpu::QUERY_SIZE);
        encoder.resolve_query_set(&self.queries, 0..2 * passes, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, bytes);
        gpu.queue.submit([encoder.finish()]);
        let mapped = gpu.read_now(&self.readback, bytes)?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&mapped);
        Ok(ticks.chunks_exact(2).map(|pass| pass[1].saturating_sub(pass[0]) as f64 * self.period).collect())
    }
}

impl Timer {
    /// A timer by the device's timestamps, or by the wall clock if it has none.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        Self::by(gpu, if gpu.caps.timestamps { Clock::Timestamps } else { Clock::Wall })
    }

    /// A timer by processor time, which is only something to measure by where the device is the processor.
    ///
    /// # Errors
    /// If the device is not software, the system does not tell the time, or the device fails.
    pub fn by_processor(gpu: &Arc<Gpu>) -> Result<Self> {
        if !gpu.caps.on_processor() || processor_time().is_none() {
            let what = "processor time is measured on software devices under Linux only";
            let error = Error::device(format!("{}: {what}", gpu.caps.name));
            return Err(error.remedies([Remedy::Without(Field::ProcessorTime)]));
        }
        Self::by(gpu, Clock::Processor)
    }

    fn by(gpu: &Arc<Gpu>, clock: Clock) -> Result<Self> {
        let stamps = (clock == Clock::Timestamps).then(|| Stamps::new(gpu));
        let mut timer = Self { gpu: Arc::clone(gpu), clock, stamps, empty: 0.0 };
        let mut empty: Vec<f64> = (0..9).map(|_| timer.submit(|_| ())).collect::<Result<_>>()?;
        empty.sort_by(f64::total_cmp);
        timer.empty = empty[empty.len() / 2];
        gpu.check()?;
        Ok(timer)
    }

    /// The device that is timed.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// What its times are read from.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Seconds below which a time says nothing: a tick of the device's clock, or a tenth of what an empty submission
    /// takes by the host's, since that is taken off.
    pub fn resolution(&self) -> f64 {
        self.stamps.as_ref().map_or(self.empty / 10.0, |stamps| stamps.period)
    }

    /// Seconds of one submission by the host's clock.
    fn submit(&self, encode: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<f64> {
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encode(&mut encoder);
        let commands = encoder.finish();
        let (start, spent) = (Instant::now(), processor_time());
        self.gpu.queue.submit([commands]);
        self.gpu.wait()?;
        match (self.clock, spent, processor_time()) {
            (Clock::Processor, Some(before), Some(after)) => Ok(after - before),
            _ => Ok(start.elapsed().as_secs_f64()),
        }
    }

    /// Seconds of the session's whole graph, `repeats` times over.
    ///
    /// # Errors
    /// If the device fails.
    pub fn whole(&self, session: &Session, repeats: usize) -> Result<f64> {
        let all = 0..session.graph().nodes.len();
        Ok(self.passes(session, &[all], repeats)?.iter().sum())
    }

    /// Seconds from a submission of the whole graph until the host knows that it is done.
    ///
    /// # Errors
    /// If the device fails.
    pub fn wall(&self, session: &Session) -> Result<f64> {
        let start = Instant::now();
        self.submit(|encoder| session.encode_pass(encoder, 0..session.graph().nodes.len(), 1, None))?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds of every node, each in a pass (or, by the wall clock, a submission) of its own.
    ///
    /// # Errors
    /// If the device fails.
    pub fn nodes(&self, session: &Session) -> Result<Vec<f64>> {
        let each: Vec<_> = (0..session.graph().nodes.len()).map(|node| node..node + 1).collect();
        self.passes(session, &each, 1)
    }

    /// Seconds of each of these ranges of nodes, `repeats` times over, in a pass or a submission of its own.
    fn passes(&self, session: &Session, parts: &[Range<usize>], repeats: usize) -> Result<Vec<f64>> {
        let Some(stamps) = &self.stamps else {
            let one = |nodes: &Range<usize>| {
                let seconds = self.submit(|encoder| session.encode_pass(encoder, nodes.clone(), repeats, None))?;
                Ok((seconds - self.empty).max(0.0))
            };
            return parts.iter().map(one).collect();
        };
        let mut seconds = Vec::with_capacity(parts.len());
        for parts in parts.chunks(PASSES as usize) {
            let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for (pass, nodes) in (0..).zip(parts) {
                session.encode_pass(&mut encoder, nodes.clone(), repeats, Some(stamps.around(pass)));
            }
            seconds.extend(stamps.finish(&self.gpu, encoder, parts.len() as u32)?);
        }
        Ok(seconds)
    }
}
