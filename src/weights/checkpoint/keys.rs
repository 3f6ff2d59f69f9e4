//! From the names of the original files to those of the networks, by rules.
//!
//! The original code numbers a UNet's layers through (`input_blocks.4.1`) and calls everything else by other words
//! than diffusers does. What no rule knows keeps its name, and is found to be too much.
//!
//! Sources: CompVis' `ldm`, OpenCLIP, and diffusers' `single_file_utils.py`, which goes the same way.

use std::collections::BTreeSet;

use crate::weights::view::View;

/// How a part of a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A UNet in `ldm`'s names, or in diffusers'.
    Unet,
    /// A ControlNet in the names of its authors, or in diffusers'.
    ControlNet,
    /// An autoencoder in `ldm`'s names, or in diffusers'.
    Vae,
    /// A text encoder in transformers' names, or in those that stable-diffusion.cpp makes of OpenCLIP's.
    Clip,
    /// OpenCLIP's own names, with queries, keys and values in one matrix.
    OpenClip,
}

/// Starts of names and what stands there instead.
pub(super) type Rules = &'static [(&'static str, &'static str)];

pub(super) const UNET: Rules = &[
    ("time_embed.0.", "time_embedding.linear_1."),
    ("time_embed.2.", "time_embedding.linear_2."),
    ("label_emb.0.0.", "add_embedding.linear_1."),
    ("label_emb.0.2.", "add_embedding.linear_2."),
    ("label_emb.", "class_embedding."),
    ("input_blocks.0.0.", "conv_in."),
    ("middle_block.0.", "mid_block.resnets.0."),
    ("middle_block.1.", "mid_block.attentions.0."),
    ("middle_block.2.", "mid_block.resnets.1."),
    ("out.0.", "conv_norm_out."),
    ("out.2.", "conv_out."),
];

/// Beside a UNet's.
const CONTROLNET: Rules = &[("middle_block_out.0.", "controlnet_mid_block.")];

pub(super) const UNET_RESNET: Rules = &[
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
];

const VAE: Rules = &[
    ("mid.block_1.", "mid_block.resnets.0."),
    ("mid.block_2.", "mid_block.resnets.1."),
    ("mid.attn_1.norm.", "mid_block.attentions.0.group_norm."),
    ("mid.attn_1.q.", "mid_block.attentions.0.to_q."),
    ("mid.attn_1.k.", "mid_block.attentions.0.to_k."),
    ("mid.attn_1.v.", "mid_block.attentions.0.to_v."),
    ("mid.attn_1.proj_out.", "mid_block.attentions.0.to_out.0."),
    ("norm_out.", "conv_norm_out."),
];

const VAE_RESNET: Rules = &[("nin_shortcut.", "conv_shortcut.")];

const OPEN_CLIP: Rules = &[
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("ln_final.", "text_model.final_layer_norm."),
];

const OPEN_CLIP_LAYER: Rules = &[
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.out_proj.", "self_attn.out_proj."),
];

fn renamed(rules: Rules, name: &str) -> String {
    let found = rules.iter().find_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)));
    found.unwrap_or_else(|| name.to_string())
}

/// What networks call the tensors that a part of this layout stores as `stored`: each with its stored name and how it
/// lies in it. Names that are already the networks' stay.
pub fn tensors<'a>(layout: Layout, stored: &[&'a str]) -> Vec<(String, &'a str, View)> {
    let whole = |name: &dyn Fn(&str) -> String| stored.iter().map(|s| (name(s), *s, View::Whole)).collect();
    match layout {
        Layout::Unet => {
            let (down, up) = (Levels::down(stored), Levels::up(stored));
            whole(&|name| unet(name, &down, &up))
        }
        Layout::ControlNet => {
            let (down, up) = (Levels::down(stored), Levels::up(stored));
            let last = layers(stored, "input_hint_block.", |_| true).last().copied();
            whole(&|name| controlnet(name, last).unwrap_or_else(|| unet(name, &down, &up)))
        }
        Layout::Vae => {
            let up = |name: &&str| Some(number(name.strip_prefix("decoder.up.")?)?.0 + 1);
            let levels = stored.iter().filter_map(up).max().unwrap_or(0);
            whole(&|name| vae(name, levels))
        }
        Layout::Clip => stored.iter().flat_map(|name| clip(name)).collect(),
        Layout::OpenClip => stored.iter().flat_map(|name| open_clip(name)).collect(),
    }
}

/// `12.rest` as 12 and `rest`.
pub(super) fn number(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    // Nine digits are more layers than any network has, and fit every machine's numbers.
    Some((number.parse().ok().filter(|_| number.len() < 10)?, rest))
}

/// Where levels end in a list of layers that is numbered through.
struct Levels {
    first: usize,
    ends: BTreeSet<usize>,
}

impl Levels {
    /// On the way down a level ends with a layer that halves the picture.
    fn down(stored: &[&str]) -> Self {
        Self { first: 1, ends: layers(stored, "input_blocks.", |rest| rest.starts_with("0.op.")) }
    }

    /// On the way up its last layer doubles the picture at its end.
    fn up(stored: &[&str]) -> Self {
        Self { first: 0, ends: layers(stored, "output_blocks.", |rest| upsampler(rest).is_some()) }
    }

    /// The level of a layer, and its number in it.
    fn place(&self, layer: usize) -> (usize, usize) {
        let before = self.ends.range(..layer);
        let start = before.clone().next_back().map_or(self.first, |end| end + 1);
        (before.count(), layer.saturating_sub(start))
    }
}

/// The numbers of the layers of which a name goes on in this way.
fn layers(stored: &[&str], start: &str, is_end: impl Fn(&str) -> bool) -> BTreeSet<usize> {
    let layer =
        |name: &&str| number(name.strip_prefix(start)?).filter(|(_, rest)| is_end(rest)).map(|(layer, _)| layer);
    stored.iter().filter_map(layer).collect()
}

fn upsampler(rest: &str) -> Option<&str> {
    rest.strip_prefix("1.conv.").or_else(|| rest.strip_prefix("2.conv."))
}

fn unet(name: &str, down: &Levels, up: &Levels) -> String {
    let block = |way: &str, levels: &Levels, layer: usize, rest: &str| {
        let (level, j) = levels.place(layer);
        let path = format!("{way}_blocks.{level}");
        if let Some(rest) = rest.strip_prefix("0.op.") {
            format!("{path}.downsamplers.0.conv.{rest}")
        } else if let Some(rest) = upsampler(rest) {
            format!("{path}.upsamplers.0.conv.{rest}")
        } else if let Some(rest) = rest.strip_prefix("0.") {
            format!("{path}.resnets.{j}.{}", renamed(UNET_RESNET, rest))
        } else {
            format!("{path}.attentions.{j}.{}", rest.strip_prefix("1.").unwrap_or(rest))
        }
    };
    match name.split_once('.') {
        Some(("input_blocks", rest)) if !rest.starts_with("0.0.") => {
            number(rest).map_or_else(|| name.into(), |(layer, rest)| block("down", down, layer, rest))
        }
        Some(("output_blocks", rest)) => {
            number(rest).map_or_else(|| name.into(), |(layer, rest)| block("up", up, layer, rest))
        }
        _ => {
            let name = renamed(UNET, name);
            match name.strip_prefix("mid_block.resnets.").and_then(number) {
                Some((j, rest)) => format!("mid_block.resnets.{j}.{}", renamed(UNET_RESNET, rest)),
                None => name,
            }
        }
    }
}

/// What a ControlNet has beside a UNet's layers. Every second layer of its picture's is a convolution, up to `last`.
fn controlnet(name: &str, last: Option<usize>) -> Option<String> {
    if let Some((place, rest)) = name.strip_prefix("zero_convs.").and_then(number) {
        return Some(format!("controlnet_down_blocks.{place}.{}", rest.strip_prefix("0.")?));
    }
    if let Some((layer, rest)) = name.strip_prefix("input_hint_block.").and_then(number) {
        let block = match layer {
            0 => "conv_in".into(),
            _ if Some(layer) == last => "conv_out".into(),
            _ if layer.is_multiple_of(2) => format!("blocks.{}", layer / 2 - 1),
            _ => return None,
        };
        return Some(format!("controlnet_cond_embedding.{block}.{rest}"));
    }
    let renamed = renamed(CONTROLNET, name);
    (renamed != name).then_some(renamed)
}

fn vae(name: &str, levels: usize) -> String {
    let Some((side @ ("encoder" | "decoder"), rest)) = name.split_once('.') else { return name.into() };
    let block = |(level, rest): (usize, &str), way: &str, level_of: &dyn Fn(usize) -> usize| {
        let path = format!("{side}.{way}_blocks.{}", level_of(level));
        if let Some((j, rest)) = rest.strip_prefix("block.").and_then(number) {
            return Some(format!("{path}.resnets.{j}.{}", renamed(VAE_RESNET, rest)));
        }
        let (sampler, rest) = rest.split_once(".conv.")?;
        let known = ["downsample", "upsample"].contains(&sampler);
        known.then(|| format!("{path}.{sampler}rs.0.conv.{rest}"))
    };
    let down = rest.strip_prefix("down.").and_then(number).and_then(|found| block(found, "down", &|level| level));
    // The original code counts the decoder's levels from the picture on, diffusers in the order of computation.
    let reverse = |level: usize| levels - 1 - level;
    let up = || rest.strip_prefix("up.").and_then(number).filter(|(level, _)| *level < levels);
    let found = down.or_else(|| up().and_then(|found| block(found, "up", &reverse)));
    found.unwrap_or_else(|| format!("{side}.{}", renamed(VAE, rest)))
}

/// Queries, keys and values that are stored as one, of the attention at this path.
fn thirds<'a>(path: &str, kind: &str, stored: &'a str) -> Vec<(String, &'a str, View)> {
    let thirds = (0..).zip(["q_proj", "k_proj", "v_proj"]);
    thirds.map(|(third, name)| (format!("{path}.{name}.{kind}"), stored, View::Third(third))).collect()
}

fn clip(stored: &str) -> Vec<(String, &str, View)> {
    match stored.split_once(".in_proj.") {
        Some((path, kind)) => thirds(path, kind, stored),
        None if stored == "text_model.text_projection" => projection(stored),
        None => vec![(stored.into(), stored, View::Whole)],
    }
}

/// OpenCLIP's, which is not a linear layer's.
fn projection(stored: &str) -> Vec<(String, &str, View)> {
    vec![("text_projection.weight".into(), stored, View::Transposed)]
}

fn open_clip(stored: &str) -> Vec<(String, &str, View)> {
    if stored == "text_projection" {
        return projection(stored);
    }
    let Some((layer, rest)) = stored.strip_prefix("transformer.resblocks.").and_then(number) else {
        return vec![(renamed(OPEN_CLIP, stored), stored, View::Whole)];
    };
    let path = format!("text_model.encoder.layers.{layer}");
    match rest.strip_prefix("attn.in_proj_") {
        Some(kind) => thirds(&format!("{path}.self_attn"), kind, stored),
        None => vec![(format!("{path}.{}", renamed(OPEN_CLIP_LAYER, rest)), stored, View::Whole)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(layout: Layout, stored: &[&str]) -> Vec<String> {
        tensors(layout, stored).into_iter().map(|(name, ..)| name).collect()
    }

    #[test]
    fn layers_that_are_numbered_through_find_their_level() {
        let stored = [
            "input_blocks.0.0.weight",
            "input_blocks.3.0.op.weight",
            "input_blocks.2.1.proj_in.weight",
            "input_blocks.4.0.in_layers.2.bias",
            "input_blocks.5.0.skip_connection.weight",
            "output_blocks.2.2.conv.weight",
            "output_blocks.2.1.norm.bias",
            "output_blocks.3.0.out_layers.3.weight",
            "middle_block.2.emb_layers.1.weight",
        ];
        let names = names(Layout::Unet, &stored);
        assert_eq!(
            names,
            [
                "conv_in.weight",
                "down_blocks.0.downsamplers.0.conv.weight",
                "down_blocks.0.attentions.1.proj_in.weight",
                "down_blocks.1.resnets.0.conv1.bias",
                "down_blocks.1.resnets.1.conv_shortcut.weight",
                "up_blocks.0.upsamplers.0.conv.weight",
                "up_blocks.0.attentions.2.norm.bias",
                "up_blocks.1.resnets.0.conv2.weight",
                "mid_block.resnets.1.time_emb_proj.weight",
            ]
        );
    }

    #[test]
    fn the_decoders_levels_are_counted_from_the_other_end() {
        let stored =
            ["decoder.up.3.upsample.conv.bias", "decoder.up.0.block.2.nin_shortcut.weight", "encoder.norm_out.bias"];
        let names = names(Layout::Vae, &stored);
        assert_eq!(names[0], "decoder.up_blocks.0.upsamplers.0.conv.bias");
        assert_eq!(names[1], "decoder.up_blocks.3.resnets.2.conv_shortcut.weight");
        assert_eq!(names[2], "encoder.conv_norm_out.bias");
    }

    #[test]
    fn a_controlnet_has_a_unets_layers_and_its_own() {
        let stored = [
            "input_hint_block.0.weight",
            "input_hint_block.2.bias",
            "input_hint_block.12.weight",
            "input_hint_block.14.weight",
            "zero_convs.11.0.bias",
            "middle_block_out.0.weight",
            "middle_block.0.in_layers.0.weight",
            "input_blocks.1.1.proj_in.weight",
            "time_embed.2.bias",
        ];
        assert_eq!(
            names(Layout::ControlNet, &stored),
            [
                "controlnet_cond_embedding.conv_in.weight",
                "controlnet_cond_embedding.blocks.0.bias",
                "controlnet_cond_embedding.blocks.5.weight",
                "controlnet_cond_embedding.conv_out.weight",
                "controlnet_down_blocks.11.bias",
                "controlnet_mid_block.weight",
                "mid_block.resnets.0.norm1.weight",
                "down_blocks.0.attentions.0.proj_in.weight",
                "time_embedding.linear_2.bias",
            ]
        );
    }

    #[test]
    fn a_fused_projection_becomes_three() {
        let found = tensors(Layout::OpenClip, &["transformer.resblocks.7.attn.in_proj_bias"]);
        let name = |part: &str| format!("text_model.encoder.layers.7.self_attn.{part}_proj.bias");
        assert_eq!(found.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>(), [name("q"), name("k"), name("v")]);
        assert_eq!(found.iter().map(|(.., view)| *view).collect::<Vec<_>>(), [0, 1, 2].map(View::Third));
    }

    #[test]
    fn the_networks_own_names_stay() {
        for (layout, name) in [
            (Layout::Unet, "down_blocks.0.resnets.0.conv1.weight"),
            (Layout::Unet, "mid_block.resnets.1.conv1.weight"),
            (Layout::ControlNet, "controlnet_cond_embedding.blocks.1.weight"),
            (Layout::ControlNet, "controlnet_down_blocks.1.weight"),
            (Layout::Vae, "decoder.up_blocks.0.resnets.0.conv1.weight"),
            (Layout::Clip, "text_model.final_layer_norm.weight"),
        ] {
            assert_eq!(names(layout, &[name]), [name]);
        }
    }

    #[test]
    fn hostile_numbers_are_only_names() {
        for name in [
            "input_blocks.99999999999999999999.0.op.weight",
            "decoder.up.18446744073709551615.block.0.x",
            "input_blocks",
            "input_hint_block.1.weight",
            "zero_convs.99999999999999999999.0.bias",
            "zero_convs.1",
            "",
        ] {
            names(Layout::Unet, &[name]);
            names(Layout::ControlNet, &[name]);
            names(Layout::Vae, &[name]);
            names(Layout::OpenClip, &[name]);
        }
        assert_eq!(names(Layout::Unet, &["input_blocks.x.0.op"]), ["input_blocks.x.0.op"]);
    }
}
