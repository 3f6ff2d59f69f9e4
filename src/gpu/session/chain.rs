//! Runs that follow each other on the device: what one leaves in an input the next reads, and nothing comes back
//! between them. Two are under way at a time, so that the device has the next when it is done with one, and whoever
//! waits hears of each when it is done.

use std::collections::VecDeque;

use web_time::Instant;

use super::{Session, memory, readback_buffer};
use crate::error::{Error, Result};
use crate::graph::ValueId;
use crate::graph::plan::device_bytes;
use crate::tensor::Tensor;

/// After a run: entry `from` (of the first dimension) of an output becomes entry `to` of an input.
#[derive(Debug, Clone, Copy)]
pub struct Carry<'a> {
    /// The output's name.
    pub output: &'a str,
    /// Index along the output's first dimension.
    pub from: usize,
    /// The input's name.
    pub input: &'a str,
    /// Index along the input's first dimension.
    pub to: usize,
}

/// Runs of a session that are under way.
#[derive(Debug)]
pub struct Chain<'a> {
    session: &'a Session,
    /// Inputs that the runs change.
    changing: Vec<ValueId>,
    under_way: VecDeque<(wgpu::SubmissionIndex, Instant)>,
    /// When the last one was done.
    done: Option<Instant>,
}

impl Session {
    /// No run yet. The runs are not given the inputs of these names, but read what was written to them or carried
    /// there.
    pub fn chain(&self, changing: &[&str]) -> Chain<'_> {
        let changing = changing.iter().filter_map(|name| self.graph.input_named(name)).collect();
        Chain { session: self, changing, under_way: VecDeque::new(), done: None }
    }

    /// The value of an input or output, with the bytes of one of its entries.
    fn entries(&self, id: Option<ValueId>, name: &str) -> Result<(ValueId, u64)> {
        let id = id.ok_or_else(|| Error::shape(format!("{} has no {name}", self.graph.network)))?;
        Ok((id, device_bytes(&self.graph, id, self.storage) / self.graph.shape(id).batch().max(1) as u64))
    }

    fn copy_entry(&self, encoder: &mut wgpu::CommandEncoder, carry: &Carry<'_>) -> Result<()> {
        let output = self.graph.outputs.iter().find(|(name, _)| name == carry.output).map(|(_, id)| *id);
        let (output, bytes) = self.entries(output, carry.output)?;
        let (input, size) = self.entries(self.graph.input_named(carry.input), carry.input)?;
        if bytes != size {
            return Err(Error::shape(format!("{} and {} differ in their entries' size", carry.output, carry.input)));
        }
        let (from, to) = (carry.from as u64 * bytes, carry.to as u64 * bytes);
        encoder.copy_buffer_to_buffer(self.buffer(output), from, self.buffer(input), to, bytes);
        Ok(())
    }
}

impl Chain<'_> {
    /// Gives the device another run, and does not wait for it.
    ///
    /// # Errors
    /// If an input is missing or misshapen, there is no such output or input, or the device fails.
    pub fn start(&mut self, inputs: &[(&str, &Tensor)], carries: &[Carry<'_>]) -> Result<()> {
        let session = self.session;
        session.upload(inputs, &self.changing)?;
        let begun = Instant::now();
        let submissions = session.pace().submissions();
        match submissions {
            Some(submissions) => submissions.into_iter().try_for_each(|share| session.submit(share))?,
            None => session.pace().measure(|share| session.measured(share))?,
        }
        let mut last = session.submission(&session.readback);
        carries.iter().try_for_each(|carry| session.copy_entry(&mut last.encoder, carry))?;
        self.under_way.push_back((session.gpu.queue.submit([last.encoder.finish()]), begun));
        Ok(())
    }

    /// Waits for the oldest runs until no more than `most` are under way.
    ///
    /// # Errors
    /// If the device fails.
    pub fn wait(&mut self, most: usize) -> Result<()> {
        while self.under_way.len() > most {
            let Some((index, begun)) = self.under_way.pop_front() else { break };
            self.session.gpu.wait_for(index)?;
            let now = Instant::now();
            // The device began with it when it was done with the one before.
            let since = self.done.map_or(begun, |done| done.max(begun));
            self.session.pace().correct((now - since).as_secs_f64());
            self.done = Some(now);
        }
        Ok(())
    }

    /// Writes an entry of an input, for the runs that are started from now on.
    ///
    /// # Errors
    /// If there is no such input, or its entries have another size.
    pub fn write(&self, input: &str, entry: usize, tensor: &Tensor) -> Result<()> {
        let session = self.session;
        let (id, size) = session.entries(session.graph.input_named(input), input)?;
        let bytes = memory::to_bytes(tensor, session.graph.ty(id).kind, session.storage.act);
        if bytes.len() as u64 != size {
            return Err(Error::shape(format!("an entry of {input} cannot be {}", tensor.shape)));
        }
        session.gpu.queue.write_buffer(session.buffer(id), entry as u64 * size, &bytes);
        Ok(())
    }

    /// An input as the runs have left it.
    ///
    /// # Errors
    /// If there is no such input, or the device fails.
    pub async fn read(mut self, input: &str) -> Result<Tensor> {
        self.wait(0)?;
        let session = self.session;
        let (id, _) = session.entries(session.graph.input_named(input), input)?;
        let readback = readback_buffer(&session.gpu, device_bytes(&session.graph, id, session.storage));
        let mut submission = session.submission(&readback);
        submission.copy(id);
        Ok(submission.read().await?.remove(0))
    }
}
