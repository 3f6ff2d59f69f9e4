//! Inputs for a model's networks where it does not matter which: random, small, in a batch of two.

use crate::components::Components;
use crate::forward::Tensors;
use crate::models::ports::{Port, Sizes};
use crate::rng::Generator;

/// Sizes of networks whose own are not small.
pub const SIZES: Sizes = Sizes { batch: 2, height: 16, width: 16, tokens: 77 };
/// The model's own size is small up to this.
const SMALL: usize = 32;

/// The sizes to check a model's networks at.
pub fn sizes(components: &Components) -> Sizes {
    let own = components.own_sizes(SIZES);
    let is_small = own.height <= SMALL && own.width <= SMALL;
    if is_small { own } else { Sizes { height: SIZES.height, width: SIZES.width, ..own } }
}

/// What `ornstein forward` would read from a file for these ports.
pub fn random(ports: &[Port], sizes: &Sizes, seed: u64) -> Tensors {
    let mut generator = Generator::new(seed);
    ports.iter().map(|port| (port.name.into(), port.random(sizes, &mut generator))).collect()
}
