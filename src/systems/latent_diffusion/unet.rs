//! The three kinds of denoising networks.

use super::Under;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::config::{FORWARD, NetworkConfig};
use crate::models::ports::Changes;
use crate::models::{unet, unet2d};
use crate::systems::cut::joined;

/// A denoising network, of the class that its pictures are drawn by.
pub(super) enum Unet {
    /// On latents alone.
    Alone(unet2d::Config),
    /// On latents and a picture, half of the channels each.
    Beside(unet2d::Config),
    /// On latents under a text.
    Text(Box<unet::Config>),
}

impl Unet {
    /// # Errors
    /// If it is of another class than pictures drawn `under` this need, or takes what they do not have.
    pub fn from_json(text: &str, place: &str, under: Under) -> Result<Self> {
        let fail = |what: &str| Err(Error::config(place, format!("{what}, which latent diffusion does not give")));
        if under == Under::Text {
            let config = unet::Config::from_json(text, place)?;
            if config.text_time.is_some() || config.guidance_width.is_some() {
                return fail("it takes the picture's sizes or the guidance");
            }
            return Ok(Self::Text(Box::new(config)));
        }
        let config = unet2d::Config::from_json(text, place)?;
        if config.classes.is_some() {
            return fail("num_class_embeds asks for a class");
        }
        Ok(if under == Under::Picture { Self::Beside(config) } else { Self::Alone(config) })
    }

    /// Whether it denoises latents of this number of channels.
    ///
    /// # Errors
    /// If it does not.
    pub fn check_latents(&self, channels: usize, place: &str) -> Result<()> {
        let (found, inputs) = match self {
            Self::Alone(config) => ([config.in_channels, config.out_channels], channels),
            Self::Beside(config) => ([config.in_channels, config.out_channels], channels + PICTURE_CHANNELS),
            Self::Text(config) => ([config.in_channels, config.out_channels], channels),
        };
        if found == [inputs, channels] {
            return Ok(());
        }
        let what = format!(
            "in_channels and out_channels are {found:?}, but the autoencoder's {channels} latent channels need \
             {inputs} and {channels}"
        );
        Err(Error::config(place, what))
    }

    /// Height and width that it was trained on.
    pub fn sample_size(&self) -> Option<[usize; 2]> {
        match self {
            Self::Alone(config) | Self::Beside(config) => config.sample_size,
            Self::Text(config) => config.sample_size,
        }
    }

    /// Its inputs, and what they change with.
    pub fn inputs(&self) -> Vec<(String, Changes)> {
        let ports = match self {
            Self::Alone(config) | Self::Beside(config) => config.ports(FORWARD),
            Self::Text(config) => config.ports(FORWARD),
        };
        ports.into_iter().map(|port| (port.name.to_string(), port.changes)).collect()
    }

    /// The forward pass on this number of rows.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn graph(&self, rows: usize, [height, width]: [usize; 2], tokens: usize) -> Result<Graph> {
        match self {
            Self::Alone(config) => config.graph(rows, height, width),
            Self::Beside(config) => joined(config.graph(rows, height, width)?, PICTURE_CHANNELS),
            Self::Text(config) => config.graph(rows, height, width, tokens),
        }
    }
}

/// Red, green and blue.
const PICTURE_CHANNELS: usize = 3;
