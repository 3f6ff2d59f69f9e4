//! Networks that stay loaded from one picture to the next.

use std::collections::HashMap;

use crate::conditioning::{Encoder, Options};
use crate::graph::{Graph, Origin};
use crate::network::{Executor, Network};

/// What text encoders are loaded for: so many texts, looked at in every node or not, read and encoded so, with the changes
/// of these LoRA files.
pub(super) type Encoding = (usize, bool, Options, String);

/// A network, and what it was made for ([`made_for`]).
pub(super) struct Resident {
    pub made_for: String,
    pub network: Network,
}

/// Networks by what they are for.
#[derive(Default)]
pub(super) struct Kept {
    networks: HashMap<&'static str, Resident>,
    encoders: Option<(Encoding, Vec<Encoder>)>,
}

impl Kept {
    /// The network for this, if it was made for the same inputs. One that was made for others is let go first.
    pub fn take(&mut self, what: &'static str, made_for: &str) -> Option<Network> {
        self.networks.remove(what).filter(|kept| kept.made_for == made_for).map(|kept| kept.network)
    }

    pub fn put(&mut self, what: &'static str, network: Resident) {
        self.networks.insert(what, network);
    }

    pub fn take_encoders(&mut self, made_for: &Encoding) -> Option<Vec<Encoder>> {
        self.encoders.take().filter(|(kept, _)| kept == made_for).map(|(_, encoders)| encoders)
    }

    pub fn put_encoders(&mut self, made_for: Encoding, encoders: Vec<Encoder>) {
        self.encoders = Some((made_for, encoders));
    }

    pub fn device_bytes(&self) -> u64 {
        let encoders = self.encoders.iter().flat_map(|(_, encoders)| encoders).map(Encoder::device_bytes);
        encoders.chain(self.networks.values().map(|kept| kept.network.device_bytes())).sum()
    }
}

/// What a network of a model is made for: its inputs' names and sizes, the type of activations, and the changes of these
/// LoRA files.
pub(super) fn made_for(graph: &Graph, executor: &Executor, loras: &str) -> String {
    let inputs = graph.values.iter().filter_map(|value| match &value.origin {
        Origin::Input(name) => Some(format!(", {name} {}", value.ty.shape)),
        _ => None,
    });
    let loras = std::iter::once(format!(", {loras}"));
    std::iter::once(executor.dtype().to_string()).chain(inputs).chain(loras).collect()
}
