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
    /// The mean of each channel of the autoencoder's latents, and their deviation, which samplers' have none and 1 of;
    /// none where the file does not say both.
    pub spread: Option<(Vec<f32>, Vec<f32>)>,
}

impl Latents {
    /// Reads them; where the file does not say them, there are `channels` and the scaling is `scaling`.
    pub(super) fn read(keys: &mut Keys, channels: usize, scaling: f32) -> Result<Self> {
        let [mean, deviation] = ["latents_mean", "latents_std"].map(|key| keys.get::<Option<Vec<f32>>>(key, None));
        let latents = Self {
            in_channels: keys.count("in_channels", 3)?,
            out_channels: keys.count("out_channels", 3)?,
            channels: keys.count("latent_channels", channels)?,
            scaling_factor: keys.finite("scaling_factor", scaling)?,
            shift_factor: if keys.is_null("shift_factor") { 0.0 } else { keys.finite("shift_factor", 0.0)? },
            spread: mean?.zip(deviation?),
        };
        if let Some((mean, deviation)) = &latents.spread {
            let all = [("latents_mean", mean), ("latents_std", deviation)];
            if let Some((key, found)) = all.into_iter().find(|(_, found)| found.len() != latents.channels) {
                return Err(keys.error(format!("{key} has {} values for {} channels", found.len(), latents.channels)));
            }
            if !mean.iter().chain(deviation).all(|v| v.is_finite()) || deviation.contains(&0.0) {
                return Err(keys.error("latents_mean and latents_std are to be finite, and no latents_std 0"));
            }
        }
        if latents.scaling_factor == 0.0 {
            return Err(keys.error(format!("scaling_factor is {}", latents.scaling_factor)));
        }
        Ok(latents)
    }
}
