//! What UNet and VAE are made of, each named after diffusers' class of the same mathematics.

use super::nn::{Conv, Groups, Module};
use crate::error::Result;
use crate::graph::ValueId;
use crate::ops::attention::Attention;
use crate::ops::embedding::Embedding;
use crate::ops::geglu::Geglu;
use crate::ops::upsample::Upsample;

/// Epsilon of `Transformer2DModel`'s group norm, whatever the configuration's `norm_eps`.
const TRANSFORMER_GROUP_NORM_EPS: f32 = 1e-6;

/// Epsilon of `BasicTransformerBlock`'s layer norms.
const LAYER_NORM_EPS: f32 = 1e-5;

/// `ResnetBlock2D`: two convolutions beside a shortcut, `[B, H, W, C]` to `[B, H, W, out]`. `emb` is the time
/// embedding `[B, E]` with SiLU already applied, which all blocks share.
pub fn resnet(m: &mut Module, x: ValueId, emb: Option<ValueId>, out: usize, norm: Groups) -> Result<ValueId> {
    let same = m.channels(x) == out;
    let shortcut = if same { x } else { m.conv("conv_shortcut", x, Conv::same(out, 1))? };
    let h = m.group_norm_silu("norm1", x, None, norm)?;
    let h = m.conv("conv1", h, Conv::same(out, 3))?;
    // diffusers adds the time embedding to conv1's output; the norm that follows does it without storing the sum.
    let row = emb.map(|emb| m.linear("time_emb_proj", emb, out)).transpose()?;
    let h = m.group_norm_silu("norm2", h, row, norm)?;
    let h = m.conv("conv2", h, Conv::same(out, 3))?;
    m.add("add", shortcut, h)
}

/// `Downsample2D` with a convolution: half the height and width, rounded up. Padding 0 means one row and column at the
/// bottom and right only, as the VAE's encoder has it, and rounds down.
pub fn downsample(m: &mut Module, x: ValueId, padding: usize) -> Result<ValueId> {
    let padding = if padding == 0 { [0, 0, 1, 1] } else { [padding; 4] };
    let out = m.channels(x);
    m.child("downsamplers.0").conv("conv", x, Conv::halving(out, padding))
}

/// `Upsample2D`: nearest neighbours to a given size, then a convolution.
pub fn upsample(m: &mut Module, x: ValueId, [height, width]: [usize; 2]) -> Result<ValueId> {
    let mut m = m.child("upsamplers.0");
    let x = m.node("upsample", Upsample { height, width }, &[x])?;
    let out = m.channels(x);
    m.conv("conv", x, Conv::same(out, 3))
}

/// The attributes of a [`transformer`].
#[derive(Debug, Clone, Copy)]
pub struct Transformer {
    pub heads: usize,
    /// Number of transformer blocks.
    pub depth: usize,
    pub groups: usize,
    /// The projections are stored as linear layers, otherwise as 1x1 convolutions: the same product.
    pub linear_projection: bool,
    /// The first attention of each block is to the context too, instead of to the other pixels.
    pub only_cross: bool,
}

/// `Transformer2DModel`: every pixel of `x` a token, which attends to the others and to `context` `[B, T, D]`.
pub fn transformer(m: &mut Module, x: ValueId, context: ValueId, spec: Transformer) -> Result<ValueId> {
    let channels = m.channels(x);
    let project = |m: &mut Module, name: &str, x| match spec.linear_projection {
        true => m.linear(name, x, channels),
        false => m.conv(name, x, Conv::same(channels, 1)),
    };
    let h = m.group_norm("norm", x, Groups { groups: spec.groups, eps: TRANSFORMER_GROUP_NORM_EPS })?;
    let mut h = project(m, "proj_in", h)?;
    for i in 0..spec.depth {
        h = transformer_block(&mut m.child(format!("transformer_blocks.{i}")), h, context, spec)?;
    }
    let h = project(m, "proj_out", h)?;
    m.add("add", x, h)
}

/// `BasicTransformerBlock`: self-attention, cross-attention, and a feed-forward layer with GEGLU of four times the
/// width.
fn transformer_block(m: &mut Module, x: ValueId, context: ValueId, spec: Transformer) -> Result<ValueId> {
    let heads = spec.heads;
    let h = m.layer_norm("norm1", x, LAYER_NORM_EPS)?;
    let x = attention(&mut m.child("attn1"), x, h, if spec.only_cross { context } else { h }, heads, false)?;
    let h = m.layer_norm("norm2", x, LAYER_NORM_EPS)?;
    let x = attention(&mut m.child("attn2"), x, h, context, heads, false)?;
    let h = m.layer_norm("norm3", x, LAYER_NORM_EPS)?;
    let channels = m.channels(x);
    let mut ff = m.child("ff");
    let h = ff.linear_to_pairs("net.0.proj", h, 4 * channels)?;
    let h = ff.node("net.0.geglu", Geglu, &[h])?;
    let h = ff.linear("net.2", h, channels)?;
    ff.add("add", x, h)
}

/// `Attention` with the residual `x` added: queries from `h`, keys and values from `context`, projected with a bias or
/// without one.
fn attention(
    m: &mut Module,
    x: ValueId,
    h: ValueId,
    context: ValueId,
    heads: usize,
    qkv_bias: bool,
) -> Result<ValueId> {
    let channels = m.channels(x);
    let project = |m: &mut Module, name: &str, from| m.linears(name, &[name], from, channels, qkv_bias);
    let inputs = match context == h {
        true => vec![m.linears("to_qkv", &["to_q", "to_k", "to_v"], h, channels, qkv_bias)?],
        false => vec![project(m, "to_q", h)?, project(m, "to_k", context)?, project(m, "to_v", context)?],
    };
    let h = m.attention(Attention { heads, causal: false }, &inputs)?;
    let h = m.linear("to_out.0", h, channels)?;
    m.add("add", x, h)
}

/// The embedding `emb` `[B, E]` with a row of the table `class_embedding` added for each of the labels `[B]`.
pub fn class_embedding(m: &mut Module, emb: ValueId, labels: ValueId, classes: usize) -> Result<ValueId> {
    let table = m.table("class_embedding", classes, m.channels(emb));
    let class = m.node("class_embedding", Embedding { positions: false }, &[labels, table])?;
    m.add("class_embedding.add", emb, class)
}

/// `Attention` over all pixels, with a group norm before it, as VAEs and unconditional UNets have it.
pub fn pixel_attention(m: &mut Module, x: ValueId, norm: Groups, heads: usize) -> Result<ValueId> {
    let h = m.group_norm("group_norm", x, norm)?;
    attention(m, x, h, h, heads, true)
}
