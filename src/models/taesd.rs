//! Tiny autoencoders between pictures and latents: plain 3x3 convolutions without norms or attention, distilled from
//! the full autoencoder (Bohan 2023, "TAESD"; diffusers' `AutoencoderTiny`).
//!
//! Pictures are in [-1, 1] at the door, and in [0, 1] inside. Latents need no scaling: they are the sampler's own.

use serde_json::json;

use super::keys::Keys;
use super::latents::Latents;
use super::nn::{Conv, Module};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::Kind;
use crate::ops::add_row::AddRow;
use crate::ops::product::epilogue::Act;
use crate::ops::scale::Scale;
use crate::ops::upsample::Upsample;
use crate::tensor::Tensor;

/// A tiny autoencoder's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What it says as every autoencoder does.
    pub latents: Latents,
    encoder: Stages,
    decoder: Stages,
}

/// One half's stages, each of another resolution.
#[derive(Debug, Clone, PartialEq)]
struct Stages {
    channels: usize,
    /// Residual blocks of each stage.
    blocks: Vec<usize>,
}

impl Config {
    /// Reads a `config.json`; `place` is what error messages call it. Absent keys have the defaults of diffusers'
    /// `AutoencoderTiny`.
    ///
    /// # Errors
    /// If a value is not supported or a key is not known; the message names both.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let mut keys = Keys::parse(text, place)?;
        keys.only(&[
            ("_class_name", json!("AutoencoderTiny")),
            ("act_fn", json!("relu")),
            ("upsample_fn", json!("nearest")),
            ("upsampling_scaling_factor", json!(2)),
        ])?;
        // Of the form in which diffusers stores latents as bytes, and of its memory.
        keys.ignore(&["latent_magnitude", "latent_shift", "force_upcast", "block_out_channels"]);
        let mut stages = |half: &str, blocks: [usize; 4]| {
            let channels = keys.counts(&format!("{half}_block_out_channels"), &[64; 4])?;
            let blocks = keys.counts(&format!("num_{half}_blocks"), &blocks)?;
            if channels.len() != blocks.len() || channels.iter().any(|n| *n != channels[0]) {
                return Err(keys.error(format!(
                    "{half}_block_out_channels is {channels:?}, expected one number for each of {} stages, \
                     all the same",
                    blocks.len()
                )));
            }
            Ok(Stages { channels: channels[0], blocks })
        };
        let (encoder, decoder) = (stages("encoder", [1, 3, 3, 3])?, stages("decoder", [3, 3, 3, 1])?);
        let config = Self { latents: Latents::read(&mut keys, 4, 1.0)?, encoder, decoder };
        if config.encoder.blocks.len() != config.decoder.blocks.len() {
            return Err(keys.error("num_encoder_blocks and num_decoder_blocks differ in length: they must agree"));
        }
        keys.finish()?;
        Ok(config)
    }

    /// Pixels to one latent in height and in width.
    pub fn factor(&self) -> usize {
        1 << (self.decoder.blocks.len() - 1)
    }

    /// Latents to pictures: input `z` `[B, h, w, latent channels]`, softly kept within 3 of 0; output `sample`
    /// `[B, H, W, 3]`.
    ///
    /// # Errors
    /// If the input would be empty.
    pub fn decoder(&self, network: &str, batch: usize, height: usize, width: usize) -> Result<Graph> {
        let mut graph = Graph::new(network);
        let mut root = Module::root(&mut graph);
        let z = root.input("z", Kind::Act, [batch, height, width, self.latents.channels])?;
        let mut m = root.child("decoder");
        let Stages { channels, blocks } = &self.decoder;
        let mut x = m.activation("clamp", z, Act::SoftClamp)?;
        x = m.conv("layers.0", x, Conv::same(*channels, 3))?;
        x = m.activation("layers.1", x, Act::Relu)?;
        let mut place = 2;
        for (stage, &count) in blocks.iter().enumerate() {
            x = residuals(&mut m, x, &mut place, count)?;
            if stage + 1 < blocks.len() {
                let [height, width] = m.size(x)?.map(|n| 2 * n);
                x = m.node(&format!("layers.{place}"), Upsample { height, width }, &[x])?;
                x = m.conv_without_bias(&format!("layers.{}", place + 1), x, Conv::same(*channels, 3))?;
                place += 2;
            }
        }
        x = m.conv(&format!("layers.{place}"), x, Conv::same(self.latents.out_channels, 3))?;
        // From [0, 1] to [-1, 1].
        x = shift(&mut m, "centre", x, -0.5)?;
        x = m.node("scale", Scale { factor: 2.0 }, &[x])?;
        graph.output("sample", x);
        Ok(graph)
    }

    /// Pictures to latents: input `sample` `[B, H, W, 3]`; output `latents` `[B, h, w, latent channels]`, which are no
    /// distribution.
    ///
    /// # Errors
    /// If the input would be empty.
    pub fn encoder(&self, network: &str, batch: usize, height: usize, width: usize) -> Result<Graph> {
        let mut graph = Graph::new(network);
        let mut root = Module::root(&mut graph);
        let sample = root.input("sample", Kind::Act, [batch, height, width, self.latents.in_channels])?;
        let mut m = root.child("encoder");
        let Stages { channels, blocks } = &self.encoder;
        // From [-1, 1] to [0, 1].
        let mut x = shift(&mut m, "shift", sample, 1.0)?;
        x = m.node("scale", Scale { factor: 0.5 }, &[x])?;
        let mut place = 0;
        for (stage, &count) in blocks.iter().enumerate() {
            let name = format!("layers.{place}");
            x = match stage {
                0 => m.conv(&name, x, Conv::same(*channels, 3))?,
                _ => m.conv_without_bias(&name, x, Conv::halving(*channels, [1; 4]))?,
            };
            place += 1;
            x = residuals(&mut m, x, &mut place, count)?;
        }
        x = m.conv(&format!("layers.{place}"), x, Conv::same(self.latents.channels, 3))?;
        graph.output("latents", x);
        Ok(graph)
    }
}

/// `x + by`, as a row to each pixel, which a convolution before it takes into its epilogue.
fn shift(m: &mut Module, name: &str, x: ValueId, by: f32) -> Result<ValueId> {
    let row = [m.shape(x).batch(), m.channels(x)];
    let row = m.graph().constant(Kind::Act, Tensor::new(row, vec![by; row.iter().product()]));
    m.node(name, AddRow, &[x, row])
}

/// So many `AutoencoderTinyBlock`s, the first at `place` in the list of layers: three convolutions beside a shortcut.
fn residuals(m: &mut Module, mut x: ValueId, place: &mut usize, count: usize) -> Result<ValueId> {
    let conv = Conv::same(m.channels(x), 3);
    for _ in 0..count {
        let mut block = m.child(format!("layers.{place}"));
        let mut h = x;
        for layer in [0, 2] {
            h = block.conv(&format!("conv.{layer}"), h, conv)?;
            h = block.activation(&format!("conv.{}", layer + 1), h, Act::Relu)?;
        }
        h = block.conv("conv.4", h, conv)?;
        h = block.add("add", x, h)?;
        x = block.activation("fuse", h, Act::Relu)?;
        *place += 1;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        Config::from_json(text, "vae/config.json").unwrap_err().to_string()
    }

    /// The tensors of the published TAESD: 1,222,532 parameters in the encoder, 1,222,531 in the decoder.
    #[test]
    fn the_defaults_are_the_published_network() {
        let config = Config::from_json("{}", "").unwrap();
        let count = |graph: Graph| graph.wanted().iter().map(|(_, shape)| shape.len()).sum::<usize>();
        assert_eq!(count(config.encoder("vae", 1, 8, 8).unwrap()), 1_222_532);
        assert_eq!(count(config.decoder("vae", 1, 1, 1).unwrap()), 1_222_531);
        assert_eq!(config.factor(), 8);
        let tensors = |graph: Result<Graph>| graph.unwrap().wanted().len();
        assert_eq!([tensors(config.encoder("vae", 1, 8, 8)), tensors(config.decoder("vae", 1, 1, 1))], [67; 2]);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert!(message(r#"{"act_fn": "mish"}"#).contains(r#"act_fn is "mish""#));
        assert!(message(r#"{"upsampling_scaling_factor": 4}"#).contains("upsampling_scaling_factor is 4"));
        assert!(message(r#"{"num_decoder_blocks": [3, 1]}"#).contains("each of 2 stages"));
        assert!(message(r#"{"encoder_block_out_channels": [64, 64, 32, 64]}"#).contains("all the same"));
        assert!(message(r#"{"scaling_factor": 0}"#).contains("scaling_factor is 0"));
        assert!(message(r#"{"patch_size": 2}"#).contains("patch_size"));
        let fewer = r#"{"num_decoder_blocks": [3, 1], "decoder_block_out_channels": [64, 64]}"#;
        assert!(message(fewer).contains("they must agree"));
    }
}
