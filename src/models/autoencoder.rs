//! What takes pictures to latents and back, whichever network does it.

use serde_json::Value;

use super::config::{DECODER, ENCODER, NetworkConfig};
use super::latents::Latents;
use super::ports::{Changes, Fill, Port, Sizes, Tensors};
use super::{taesd, vae};
use crate::error::Result;
use crate::graph::Graph;

/// The configuration of a model's `vae`.
#[derive(Debug, Clone, PartialEq)]
pub enum Autoencoder {
    /// diffusers' `AutoencoderKL` and `VQModel`.
    Full(vae::Config),
    /// diffusers' `AutoencoderTiny`.
    Tiny(taesd::Config),
}

impl Autoencoder {
    /// Reads a `config.json` by its `_class_name`, without one as the full autoencoder's; `place` is what error
    /// messages call it.
    ///
    /// # Errors
    /// As [`vae::Config::from_json`] and [`taesd::Config::from_json`].
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let class = serde_json::from_str::<Value>(text).ok().map(|value| value["_class_name"] == "AutoencoderTiny");
        match class {
            Some(true) => taesd::Config::from_json(text, place).map(Self::Tiny),
            _ => vae::Config::from_json(text, place).map(Self::Full),
        }
    }

    fn latents(&self) -> &Latents {
        match self {
            Self::Full(config) => &config.latents,
            Self::Tiny(config) => &config.latents,
        }
    }

    /// Channels of its latents.
    pub fn latent_channels(&self) -> usize {
        self.latents().channels
    }

    /// Pixels to one latent in height and in width.
    pub fn factor(&self) -> usize {
        match self {
            Self::Full(config) => config.factor(),
            Self::Tiny(config) => config.factor(),
        }
    }

    /// The same full autoencoder with another `scaling_factor` than its file's.
    pub fn with_scaling(mut self, scaling_factor: f32) -> Self {
        if let Self::Full(config) = &mut self {
            config.latents.scaling_factor = scaling_factor;
        }
        self
    }

    /// Sides of the tiles that a picture may be decoded in, in latents.
    pub fn tile(&self) -> usize {
        match self {
            Self::Full(config) => config.tile(),
            Self::Tiny(_) => vae::TILE,
        }
    }

    /// The file's note that f16 overflows.
    pub fn force_upcast(&self) -> bool {
        matches!(self, Self::Full(config) if config.force_upcast)
    }

    /// The same for latents that are the autoencoder's as they are.
    pub fn unscaled(mut self) -> Self {
        let (Self::Full(vae::Config { latents, .. }) | Self::Tiny(taesd::Config { latents, .. })) = &mut self;
        (latents.scaling_factor, latents.shift_factor, latents.spread) = (1.0, 0.0, None);
        self
    }

    /// A picture's latents, channels last, as the decoder takes them: `latents / scaling_factor + shift_factor`, with
    /// each channel's deviation and mean where the file has them.
    pub fn unscale(&self, latents: &[f32]) -> Vec<f32> {
        let Latents { scaling_factor, shift_factor, .. } = self.latents();
        let channels = self.spread().into_iter().cycle();
        let each = latents.iter().zip(channels);
        each.map(|(v, (mean, deviation))| v * deviation / scaling_factor + mean + shift_factor).collect()
    }

    /// Mean and deviation of each channel.
    fn spread(&self) -> Vec<(f32, f32)> {
        let channels = self.latent_channels();
        let spread = self.latents().spread.as_ref();
        spread.map_or(vec![(0.0, 1.0); channels], |(mean, deviation)| {
            mean.iter().copied().zip(deviation.iter().copied()).collect()
        })
    }

    /// The autoencoder's latents as samplers take them: [`Autoencoder::unscale`] undone.
    pub fn scale(&self, latents: &[f32]) -> Vec<f32> {
        let Latents { scaling_factor, shift_factor, .. } = self.latents();
        let each = latents.iter().zip(self.spread().into_iter().cycle());
        each.map(|(v, (mean, deviation))| (v - mean - shift_factor) * scaling_factor / deviation).collect()
    }

    /// Latents to pictures, by the weights of the folder `network`: input `z`, output `sample`.
    ///
    /// # Errors
    /// As [`vae::Config::decoder`] and [`taesd::Config::decoder`].
    pub fn decoder(&self, network: &str, batch: usize, height: usize, width: usize) -> Result<Graph> {
        match self {
            Self::Full(config) => config.decoder(network, batch, height, width),
            Self::Tiny(config) => config.decoder(network, batch, height, width),
        }
    }

    /// Pictures to latents: input `sample`, output `moments` or, of a tiny one and one with a codebook, `latents`.
    ///
    /// # Errors
    /// As [`vae::Config::encoder`] and [`taesd::Config::encoder`].
    pub fn encoder(&self, network: &str, batch: usize, height: usize, width: usize) -> Result<Graph> {
        match self {
            Self::Full(config) => config.encoder(network, batch, height, width),
            Self::Tiny(config) => config.encoder(network, batch, height, width),
        }
    }
}

impl NetworkConfig for Autoencoder {
    fn about(&self) -> String {
        let codes = match self {
            Self::Full(vae::Config { codes: Some(codes), .. }) => format!(", {codes} codes"),
            _ => String::new(),
        };
        format!("{} latent channels, 1/{} of the size{codes}", self.latent_channels(), self.factor())
    }

    fn ways(&self) -> &'static [&'static str] {
        &[DECODER, ENCODER]
    }

    /// Pictures may have any size: what is not a whole latent is left out.
    fn ports(&self, way: &str) -> Vec<Port> {
        match way {
            ENCODER => vec![Port::image("sample", self.latents().in_channels, 1, Changes::Step, Fill::Signed)],
            _ => vec![Port::image("z", self.latent_channels(), 1, Changes::Step, Fill::Normal)],
        }
    }

    fn pass_sizes(&self, way: &str, latents: Sizes) -> Sizes {
        let factor = if way == ENCODER { self.factor() } else { 1 };
        Sizes { height: factor * latents.height, width: factor * latents.width, ..latents }
    }

    fn graph(&self, network: &str, way: &str, sizes: &Sizes) -> Result<Graph> {
        let Sizes { batch, height, width, .. } = *sizes;
        match way {
            ENCODER => self.encoder(network, batch, height, width),
            _ => self.decoder(network, batch, height, width),
        }
    }

    fn finish(&self, _: &str, _: &Tensors, mut outputs: Tensors) -> Result<Tensors> {
        if let Some(moments) = outputs.remove(vae::MOMENTS) {
            let (mean, logvar) = vae::split_moments(&moments)?;
            outputs.extend([("mean".to_string(), mean), ("logvar".to_string(), logvar)]);
        }
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_with_a_mean_and_a_deviation_are_the_samplers_without() {
        let text = r#"{"latent_channels": 2, "scaling_factor": 0.5, "latents_mean": [1, -2], "latents_std": [4, 8]}"#;
        let vae = Autoencoder::from_json(text, "vae").unwrap();
        let decoded = vae.unscale(&[1.0, 1.0, 0.0, -1.0]);
        assert_eq!(decoded, [9.0, 14.0, 1.0, -18.0]);
        assert_eq!(vae.scale(&decoded), [1.0, 1.0, 0.0, -1.0]);
        // Both or none, as in diffusers.
        let alone = r#"{"latent_channels": 2, "scaling_factor": 0.5, "latents_mean": [1, -2]}"#;
        let vae = Autoencoder::from_json(alone, "vae").unwrap();
        assert_eq!(vae.unscale(&[1.0, 1.0]), [2.0, 2.0]);
    }
}
