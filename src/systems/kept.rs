//! Networks that stay loaded from one picture to the next.

use std::collections::HashMap;

use crate::network::Network;

/// A network, and what it was made for.
pub(super) struct Resident {
    /// What it is for, which spans and kept networks are called by.
    pub what: String,
    pub made_for: String,
    pub network: Network,
}

/// Networks by what they are for.
#[derive(Default)]
pub(super) struct Kept(HashMap<String, Resident>);

impl Kept {
    /// The network for this, if it was made for the same. One that was made for something else is let go first.
    pub fn take(&mut self, what: &str, made_for: &str) -> Option<Network> {
        self.0.remove(what).filter(|kept| kept.made_for == made_for).map(|kept| kept.network)
    }

    pub fn put(&mut self, network: Resident) {
        self.0.insert(network.what.clone(), network);
    }

    pub fn device_bytes(&self) -> u64 {
        self.0.values().map(|kept| kept.network.device_bytes()).sum()
    }
}
