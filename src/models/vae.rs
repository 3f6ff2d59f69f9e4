//! The autoencoder between pictures and latents: variational (Kingma and Welling 2013; diffusers' `AutoencoderKL`), or
//! with a codebook (van den Oord et al. 2017; diffusers' `VQModel`), whose decoder replaces each latent by an entry.
//!
//! Latents are `factor` times smaller than the picture in height and width. Pictures are in [-1, 1].

use serde_json::json;

use super::blocks::{downsample, pixel_attention, resnet, upsample};
use super::keys::Keys;
use super::latents::Latents;
use super::nn::{Conv, Groups, Module};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::Kind;
use crate::ops::vector_quantize::VectorQuantize;
use crate::pack::Pack;
use crate::tensor::Tensor;

/// Epsilon of all its group norms, which the configuration does not tell.
const EPS: f32 = 1e-6;

/// Sides of tiles in latents, of an autoencoder that names no size: those of the first published one.
pub(super) const TILE: usize = 64;

/// The encoder's output.
pub(super) const MOMENTS: &str = "moments";

/// The classes of diffusers.
const KL: &str = "AutoencoderKL";
pub(super) const VQ: &str = "VQModel";

/// A VAE's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What it says as every autoencoder does.
    pub latents: Latents,
    /// The file's note that f16 overflows in this VAE.
    pub force_upcast: bool,
    /// Pixels of a side that it was trained on.
    sample_size: Option<usize>,
    channels: Vec<usize>,
    layers: usize,
    groups: usize,
    quant_conv: bool,
    post_quant_conv: bool,
    mid_attention: bool,
    /// Entries of its codebook, which are as wide as its latents have channels; without one it is variational.
    pub codes: Option<usize>,
    /// Channels between the convolutions around the latents and the rest.
    inner_channels: usize,
}

impl Config {
    /// Reads a `config.json`; `place` is what error messages call it. Absent keys have the defaults of diffusers'
    /// `AutoencoderKL` or, where it says so, `VQModel`.
    ///
    /// # Errors
    /// If a value is not supported or a key is not known; the message names both.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let mut keys = Keys::parse(text, place)?;
        let quantized = keys.one_of("_class_name", KL, &[KL, VQ])? == VQ;
        keys.one_of("act_fn", "silu", &["silu", "swish"])?;
        let down = keys.names("down_block_types", &["DownEncoderBlock2D"], &["DownEncoderBlock2D"])?;
        let up = keys.names("up_block_types", &["UpDecoderBlock2D"], &["UpDecoderBlock2D"])?;
        let mut latents = Latents::read(&mut keys, if quantized { 3 } else { 4 }, 0.18215)?;
        let inner_channels = latents.channels;
        let codes = if quantized { Some(codebook(&mut keys, &mut latents)?) } else { None };
        let config = Self {
            latents,
            force_upcast: keys.get("force_upcast", !quantized)?,
            sample_size: keys.size("sample_size")?.map(|[side, _]| side),
            channels: keys.counts("block_out_channels", &[64])?,
            layers: keys.count("layers_per_block", 1)?,
            groups: keys.count("norm_num_groups", 32)?,
            quant_conv: quantized || keys.get("use_quant_conv", true)?,
            post_quant_conv: quantized || keys.get("use_post_quant_conv", true)?,
            mid_attention: keys.get("mid_block_add_attention", true)?,
            codes,
            inner_channels,
        };
        let blocks = config.channels.len();
        if [down.len(), up.len()] != [blocks; 2] {
            return Err(keys.error(format!(
                "block_out_channels has {blocks} entries, down_block_types {}, up_block_types {}: they must agree",
                down.len(),
                up.len()
            )));
        }
        keys.finish()?;
        Ok(config)
    }

    /// Pixels to one latent in height and in width.
    pub fn factor(&self) -> usize {
        1 << (self.channels.len() - 1)
    }

    /// Sides of tiles that are as large as the pictures that it was trained on, in latents.
    pub fn tile(&self) -> usize {
        self.sample_size.map_or(TILE, |side| side / self.factor())
    }

    fn norm(&self) -> Groups {
        Groups { groups: self.groups, eps: EPS }
    }

    fn widest(&self) -> usize {
        self.channels.last().copied().unwrap_or_default()
    }

    /// Latents to pictures, by the weights of the folder `network`: input `z` `[B, h, w, latent channels]`, already
    /// divided by the scaling factor; output `sample` `[B, H, W, 3]`.
    ///
    /// # Errors
    /// If the configuration contradicts itself: groups that do not divide the channels.
    pub fn decoder(&self, network: &str, batch: usize, height: usize, width: usize) -> Result<Graph> {
        let mut graph = Graph::new(network);
        let mut root = Module::root(&mut graph);
        let z = [batch, height, width, self.latents.channels];
        let mut x = match self.codes {
            // In f32 on every device: rounding would choose other entries.
            Some(codes) => {
                let z = root.input("z", Kind::F32, z)?;
                let (key, shape) = ("quantize.embedding.weight".to_string(), [codes, self.latents.channels].into());
                let table = root.graph().parameter(&[key], Kind::F32, shape, Pack::Plain);
                root.node("quantize", VectorQuantize, &[z, table])?
            }
            None => root.input("z", Kind::Act, z)?,
        };
        if self.post_quant_conv {
            x = root.conv("post_quant_conv", x, Conv::same(self.inner_channels, 1))?;
        }
        let mut m = root.child("decoder");
        x = m.conv("conv_in", x, Conv::same(self.widest(), 3))?;
        x = self.middle(&mut m.child("mid_block"), x)?;
        for (i, &channels) in self.channels.iter().rev().enumerate() {
            let mut block = m.child(format!("up_blocks.{i}"));
            for j in 0..=self.layers {
                x = resnet(&mut block.child(format!("resnets.{j}")), x, None, channels, self.norm())?;
            }
            if i + 1 < self.channels.len() {
                let twice = block.size(x)?.map(|n| 2 * n);
                x = upsample(&mut block, x, twice)?;
            }
        }
        x = m.group_norm_silu("conv_norm_out", x, None, self.norm())?;
        x = m.conv("conv_out", x, Conv::same(self.latents.out_channels, 3))?;
        graph.output("sample", x);
        Ok(graph)
    }

    /// Pictures to the latents' distribution: input `sample` `[B, H, W, 3]`; output `moments` `[B, h, w, 2 * latent
    /// channels]`, for [`split_moments`] or, with a codebook, `latents` `[B, h, w, latent channels]`, before any entry
    /// is chosen.
    ///
    /// # Errors
    /// As [`Config::decoder`], or if the picture is smaller than one latent.
    pub fn encoder(&self, network: &str, batch: usize, height: usize, width: usize) -> Result<Graph> {
        let mut graph = Graph::new(network);
        let mut root = Module::root(&mut graph);
        let mut x = root.input("sample", Kind::Act, [batch, height, width, self.latents.in_channels])?;
        let mut m = root.child("encoder");
        x = m.conv("conv_in", x, Conv::same(self.channels[0], 3))?;
        for (i, &channels) in self.channels.iter().enumerate() {
            let mut block = m.child(format!("down_blocks.{i}"));
            for j in 0..self.layers {
                x = resnet(&mut block.child(format!("resnets.{j}")), x, None, channels, self.norm())?;
            }
            if i + 1 < self.channels.len() {
                x = downsample(&mut block, x, 0)?;
            }
        }
        x = self.middle(&mut m.child("mid_block"), x)?;
        x = m.group_norm_silu("conv_norm_out", x, None, self.norm())?;
        let (name, each) = if self.codes.is_some() { ("latents", 1) } else { (MOMENTS, 2) };
        x = m.conv("conv_out", x, Conv::same(each * self.inner_channels, 3))?;
        if self.quant_conv {
            x = root.conv("quant_conv", x, Conv::same(each * self.latents.channels, 1))?;
        }
        graph.output(name, x);
        Ok(graph)
    }

    /// `UNetMidBlock2D`.
    fn middle(&self, m: &mut Module, x: ValueId) -> Result<ValueId> {
        let x = resnet(&mut m.child("resnets.0"), x, None, self.widest(), self.norm())?;
        let x = if self.mid_attention { pixel_attention(&mut m.child("attentions.0"), x, self.norm(), 1)? } else { x };
        resnet(&mut m.child("resnets.1"), x, None, self.widest(), self.norm())
    }
}

/// Reads the size of a codebook, whose width is the latents' number of channels from there on.
fn codebook(keys: &mut Keys, latents: &mut Latents) -> Result<usize> {
    keys.only(&[("norm_type", json!("group"))])?;
    // Of latents that are entries already, which no pipeline here has.
    keys.ignore(&["lookup_from_codebook"]);
    latents.channels = keys.optional_count("vq_embed_dim")?.unwrap_or(latents.channels);
    keys.count("num_vq_embeddings", 256)
}

/// The encoder's `moments` `[B, h, w, 2 * C]` as `mean` and `logvar` `[B, h, w, C]`, the latter kept in [-30, 20]
/// (diffusers' `DiagonalGaussianDistribution`).
///
/// # Errors
/// If the channels are not an even number.
pub fn split_moments(moments: &Tensor) -> Result<(Tensor, Tensor)> {
    let both = moments.shape.channels();
    if both == 0 || !both.is_multiple_of(2) {
        return Err(Error::shape(format!("moments should be [.., mean and logvar], found {}", moments.shape)));
    }
    let half = |from: usize| moments.data.chunks(both).flat_map(move |row| row[from..][..both / 2].iter().copied());
    let shape = moments.shape.with_channels(both / 2);
    let mean = Tensor::new(shape.clone(), half(0).collect());
    let logvar = Tensor::new(shape, half(both / 2).map(|v| v.clamp(-30.0, 20.0)).collect());
    Ok((mean, logvar))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        Config::from_json(text, "vae/config.json").unwrap_err().to_string()
    }

    #[test]
    fn moments_split_into_mean_and_clamped_logvar() {
        let (mean, logvar) = split_moments(&Tensor::new([2, 4], vec![1., 2., -40., 0., 3., 4., 50., 1.])).unwrap();
        assert_eq!(mean, Tensor::new([2, 2], vec![1., 2., 3., 4.]));
        assert_eq!(logvar, Tensor::new([2, 2], vec![-30., 0., 20., 1.]));
        assert!(split_moments(&Tensor::zeros([2, 3])).is_err());
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert!(message(r#"{"_class_name": "AutoencoderTiny"}"#).contains("AutoencoderTiny"));
        assert!(message(r#"{"act_fn": "mish"}"#).contains(r#"act_fn has "mish""#));
        let spread = r#"{"latents_mean": [0, 0, 0, 0], "latents_std": [1, 1, 1, 0]}"#;
        assert!(message(spread).contains("no latents_std 0"));
        assert!(
            message(r#"{"latents_mean": [0.0], "latents_std": [1.0]}"#).contains("latents_mean has 1 values for 4")
        );
        assert!(message(r#"{"down_block_types": ["AttnDownEncoderBlock2D"]}"#).contains("AttnDownEncoderBlock2D"));
        assert!(message(r#"{"block_out_channels": [32, 64]}"#).contains("must agree"));
        assert!(message(r#"{"scaling_factor": 0}"#).contains("scaling_factor is 0"));
        assert!(message(r#"{"patch_size": 2}"#).contains("patch_size = 2"));
        assert!(message(r#"{"_class_name": "VQModel", "norm_type": "spatial"}"#).contains("norm_type is \"spatial\""));
        assert!(message(r#"{"num_vq_embeddings": 16}"#).contains("num_vq_embeddings = 16"));
    }
}
