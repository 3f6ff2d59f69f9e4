//! What all autoencoders have in common: an encoder and a decoder.

use super::config::{DECODER, ENCODER};
use super::ports::{Changes, Fill, Port};

/// The passes of every autoencoder.
pub const WAYS: [&str; 2] = [DECODER, ENCODER];

/// What a pass takes of an autoencoder with so many channels of pictures and latents, and pixels to a latent.
pub fn ports(way: &str, channels: usize, latent_channels: usize, factor: usize) -> Vec<Port> {
    match way {
        ENCODER => vec![Port::image("sample", channels, factor, Changes::Step, Fill::Signed)],
        _ => vec![Port::image("z", latent_channels, 1, Changes::Step, Fill::Normal)],
    }
}

pub fn about(latent_channels: usize, factor: usize) -> String {
    format!("{latent_channels} latent channels, 1/{factor} of the size")
}
