//! The networks: from a `config.json` to a [`Graph`](crate::graph::Graph), without weights and without a device.
//!
//! Each file holds one network: its `Config`, read and checked key by key, and the graph that it describes. They are
//! built of the layers of `nn` and the blocks of `blocks`, which carry the checkpoint's own names, so that a node's
//! path is the key of its parameters. [`table`] lists them by their classes, with what each takes ([`ports`]).
//!
//! Floor 3: may import `graph`, `ops` and floor 0.

pub mod autoencoder;
pub mod clip;
pub mod clip_vision;
pub mod config;
pub mod latents;
pub mod ldm_bert;
pub mod ports;
pub mod table;
pub mod taesd;
pub mod unet;
pub mod unet2d;
pub mod vae;

mod blocks;
mod keys;
mod nn;

pub use unet::controlnet;
