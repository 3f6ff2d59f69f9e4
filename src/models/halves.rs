//! What all autoencoders have in common: an encoder and a decoder.

use super::config::{DECODER, ENCODER};
use super::ports::{Changes, Fill, Port, Sizes};

/// The passes of every autoencoder.
pub const WAYS: [&str; 2] = [DECODER, ENCODER];

/// What a pass takes of an autoencoder with so many channels of pictures and latents. Pictures may have any size: what is
/// no whole latent is left out.
pub fn ports(way: &str, channels: usize, latent_channels: usize) -> Vec<Port> {
    match way {
        ENCODER => vec![Port::image("sample", channels, 1, Changes::Step, Fill::Signed)],
        _ => vec![Port::image("z", latent_channels, 1, Changes::Step, Fill::Normal)],
    }
}

/// The sizes of a pass, of latents with so many pixels each.
pub fn pass_sizes(way: &str, latents: Sizes, factor: usize) -> Sizes {
    let factor = if way == ENCODER { factor } else { 1 };
    Sizes { height: factor * latents.height, width: factor * latents.width, ..latents }
}

pub fn about(latent_channels: usize, factor: usize) -> String {
    format!("{latent_channels} latent channels, 1/{factor} of the size")
}
