//! What full and tiny autoencoders say alike of their pictures and latents.

use super::keys::Keys;
use crate::error::Result;

/// The keys of an autoencoder's `config.json` that are those of either.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    /// Channels of the latents.
    pub channels: usize,
    /// The sampler's latents are the autoencoder's times this.
    pub scaling_factor: f32,
    /// Taken from the autoencoder's latents before the scaling.
    pub shift_factor: f32,
}

impl Latents {
    /// Reads them; where the file does not say them, there are `channels` and the scaling is `scaling`.
    pub(super) fn read(keys: &mut Keys, channels: usize, scaling: f32) -> Result<Self> {
        let latents = Self {
            in_channels: keys.count("in_channels", 3)?,
            out_channels: keys.count("out_channels", 3)?,
            channels: keys.count("latent_channels", channels)?,
            scaling_factor: keys.finite("scaling_factor", scaling)?,
            shift_factor: if keys.is_null("shift_factor") { 0.0 } else { keys.finite("shift_factor", 0.0)? },
        };
        if latents.scaling_factor == 0.0 {
            return Err(keys.error(format!("scaling_factor is {}", latents.scaling_factor)));
        }
        Ok(latents)
    }
}
