//! What a network's tensors tell by their names and shapes.

use crate::tensor::Weights;

/// A network's tensors under the names that networks ask for.
pub struct Seen<'a> {
    weights: &'a dyn Weights,
    /// Sorted.
    names: Vec<String>,
}

impl<'a> Seen<'a> {
    /// Of the network with these weights.
    pub fn of(weights: &'a dyn Weights) -> Self {
        let mut names = weights.names();
        names.sort();
        Self { weights, names }
    }

    /// Whether a name begins so.
    pub fn has(&self, start: &str) -> bool {
        let at = self.names.partition_point(|name| name.as_str() < start);
        self.names.get(at).is_some_and(|name| name.starts_with(start))
    }

    /// How many numbers from 0 on follow `start`.
    pub fn count(&self, start: &str) -> usize {
        (0..).take_while(|i| self.has(&format!("{start}{i}."))).count()
    }

    /// A tensor's shape as the file has it.
    pub fn dims(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.weights.shape(name)?.dims().to_vec())
    }

    /// One dimension of it.
    pub fn dim(&self, name: &str, index: usize) -> Option<usize> {
        self.dims(name)?.get(index).copied()
    }

    /// The shape of the first tensor whose name ends so.
    pub fn dims_of_any(&self, end: &str) -> Option<Vec<usize>> {
        self.dims(self.names.iter().find(|name| name.ends_with(end))?)
    }

    /// The output channels of a residual block, from whichever of its tensors is there.
    pub fn channels(&self, resnet: &str) -> Option<usize> {
        let tensors = ["conv1.weight", "conv1.bias", "norm2.weight", "conv2.weight"];
        tensors.iter().find_map(|tensor| self.dim(&format!("{resnet}.{tensor}"), 0))
    }

    /// A tensor's values.
    pub fn values(&self, name: &str) -> Option<Vec<f32>> {
        Some(self.weights.get(name)?.to_f32())
    }
}
