//! What every network's configuration tells.

use std::fmt;

use super::ports::{Port, Sizes, Tensors};
use crate::error::Result;
use crate::graph::Graph;
use crate::tensor::Shape;

/// A network's configuration: what it is, what it takes, and the graph that it describes.
pub trait NetworkConfig: fmt::Debug + Send + Sync {
    /// What sets it apart, in words.
    fn about(&self) -> String;

    /// The passes that it has.
    fn ways(&self) -> &'static [&'static str] {
        &[FORWARD]
    }

    /// What a pass takes.
    fn ports(&self, way: &str) -> Vec<Port>;

    /// Puts in the sizes that it was made for, as far as it knows them.
    fn own_sizes(&self, _sizes: &mut Sizes) {}

    /// The sizes of a pass for latents of these sizes: an encoder's are its picture's.
    fn pass_sizes(&self, _way: &str, latents: Sizes) -> Sizes {
        latents
    }

    /// The graph of a pass. `network` is the folder of its weights.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or no graph has these sizes.
    fn graph(&self, network: &str, way: &str, sizes: &Sizes) -> Result<Graph>;

    /// Every tensor that its file should hold, with its shape there.
    ///
    /// # Errors
    /// As [`NetworkConfig::graph`].
    fn wanted(&self, network: &str) -> Result<Vec<(String, Shape)>> {
        // Large enough to be halved as often as any network does; none of its tensors depends on it.
        let sizes = Sizes { batch: 1, height: 256, width: 256, tokens: 1 };
        let of = |way: &&str| Ok(self.graph(network, way, &self.pass_sizes(way, sizes))?.wanted());
        Ok(self.ways().iter().map(of).collect::<Result<Vec<_>>>()?.concat())
    }

    /// Adds to a pass's inputs what the graph takes that follows from them, and takes away what it does not.
    ///
    /// # Errors
    /// If an input holds what it cannot.
    fn prepare(&self, _way: &str, _inputs: &mut Tensors) -> Result<()> {
        Ok(())
    }

    /// A pass's outputs under diffusers' names, of those of the graph; `given` are the ports' tensors, before they
    /// were prepared.
    ///
    /// # Errors
    /// If they are not the graph's.
    fn finish(&self, _way: &str, _given: &Tensors, outputs: Tensors) -> Result<Tensors> {
        Ok(outputs)
    }
}

/// The pass of a network that has only one.
pub const FORWARD: &str = "forward";
/// The passes of an autoencoder.
pub const ENCODER: &str = "encoder";
/// From latents to a picture.
pub const DECODER: &str = "decoder";
