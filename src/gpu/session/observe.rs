//! A run whose every value is looked at. Nodes share slots, so a value is copied right after its node has run; what is
//! copied is read in groups, so that it needs little memory beside the session's own.

use std::ops::Range;

use super::{Session, readback_buffer};
use crate::error::Result;
use crate::graph::Outputs;
use crate::graph::interpret::Observe;
use crate::graph::plan::device_bytes;
use crate::tensor::Tensor;

/// Bytes of a group of copied values, unless a single one is larger.
const GROUP: u64 = 64 << 20;

impl Session {
    /// [`Session::run`] that shows every node's index and output to `observe`, in order. The dispatches are the same,
    /// so the outputs are bit for bit those of a run.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run_observed(&self, inputs: &[(&str, &Tensor)], observe: &mut Observe<'_>) -> Result<Outputs> {
        let sizes: Vec<u64> =
            self.graph.nodes.iter().map(|node| device_bytes(&self.graph, node.output, self.storage)).collect();
        let groups = groups(&sizes, GROUP);
        let largest = groups.iter().map(|nodes| sizes[nodes.clone()].iter().sum()).max().unwrap_or(0);
        let readback = readback_buffer(&self.gpu, largest);
        self.upload(inputs, &[])?;
        for nodes in groups {
            let mut submission = self.submission(&readback);
            for i in nodes.clone() {
                self.encode_pass(&mut submission.encoder, i..i + 1, 1, None);
                submission.copy(self.graph.nodes[i].output);
            }
            for (i, tensor) in nodes.zip(submission.read().await?) {
                observe(i, &tensor);
            }
        }
        self.outputs(self.submission(&self.readback)).await
    }
}

/// Neighbours whose sizes add up to `most` at most, or that are larger alone.
fn groups(sizes: &[u64], most: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (i, size) in sizes.iter().enumerate() {
        sum += size;
        match groups.last_mut() {
            Some(group) if sum <= most => group.end = i + 1,
            _ => {
                groups.push(i..i + 1);
                sum = *size;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_within_the_bound_and_leave_nothing_out() {
        assert_eq!(groups(&[3, 4, 3, 1, 20, 2], 10), [0..3, 3..4, 4..5, 5..6]);
        assert!(groups(&[], 10).is_empty());
    }
}
