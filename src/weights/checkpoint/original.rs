//! From the names of a UNet's modules to those of the original files: [`keys`](super::keys) the other way round, for
//! files that tell so which modules they change.

use super::keys::{Rules, UNET, UNET_RESNET, number};

/// How a UNet's layers are numbered through.
pub struct Original {
    down: Vec<Block>,
    up: Vec<Block>,
}

/// One level of a UNet, on the way down or up.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    /// The number of its first layer.
    start: usize,
    layers: usize,
    /// Whether a layer of its own follows that halves the picture.
    halves: bool,
    attends: bool,
}

impl Original {
    /// Of the UNet whose tensors have these names.
    pub fn of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        // The first layer down is `conv_in`.
        Self { down: blocks(names.clone(), "down_blocks.", 1), up: blocks(names, "up_blocks.", 0) }
    }

    /// What original files call this module, if they have one such.
    pub fn name(&self, module: &str) -> Option<String> {
        let ways = [("down_blocks.", "input_blocks", &self.down), ("up_blocks.", "output_blocks", &self.up)];
        for (start, way, blocks) in ways {
            if let Some((level, rest)) = module.strip_prefix(start).and_then(number) {
                return layer(way, blocks.get(level)?, rest);
            }
        }
        let name = back(UNET, module)?;
        match name.strip_prefix("middle_block.").and_then(number) {
            Some((place @ (0 | 2), rest)) => Some(format!("middle_block.{place}.{}", back(UNET_RESNET, rest)?)),
            _ => Some(name),
        }
    }
}

fn blocks<'a>(names: impl Iterator<Item = &'a str>, way: &str, first: usize) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (level, rest) in names.filter_map(|name| number(name.strip_prefix(way)?)) {
        // More levels than any network has are a hostile name, not a reason to fill the memory.
        if level >= 1 << 10 {
            continue;
        }
        if level >= blocks.len() {
            blocks.resize(level + 1, Block::default());
        }
        let block = &mut blocks[level];
        if let Some((j, _)) = rest.strip_prefix("resnets.").and_then(number) {
            block.layers = block.layers.max(j + 1);
        }
        block.halves |= rest.starts_with("downsamplers.");
        block.attends |= rest.starts_with("attentions.");
    }
    let mut start = first;
    for block in &mut blocks {
        block.start = start;
        start += block.layers + usize::from(block.halves);
    }
    blocks
}

fn layer(way: &str, block: &Block, rest: &str) -> Option<String> {
    let after = block.start + block.layers;
    match (way, rest) {
        ("input_blocks", "downsamplers.0.conv") => return Some(format!("{way}.{after}.0.op")),
        ("output_blocks", "upsamplers.0.conv") => {
            return Some(format!("{way}.{}.{}.conv", after.checked_sub(1)?, 1 + usize::from(block.attends)));
        }
        _ => {}
    }
    let (kind, rest) = rest.split_once('.')?;
    let (j, rest) = number(rest)?;
    let path = format!("{way}.{}", block.start + j);
    match kind {
        "resnets" => Some(format!("{path}.0.{}", back(UNET_RESNET, rest)?)),
        "attentions" => Some(format!("{path}.1.{rest}")),
        _ => None,
    }
}

/// A module's old name, by rules for the starts of its tensors' names.
fn back(rules: Rules, module: &str) -> Option<String> {
    let tensor = format!("{module}.");
    let found = rules.iter().find_map(|(old, new)| Some(format!("{old}{}", tensor.strip_prefix(new)?)));
    found.map(|name| name.trim_end_matches('.').to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::checkpoint::keys::{Layout, tensors};

    /// The first names of the layers of a UNet with a transformer at its first and second level.
    const NAMES: [&str; 17] = [
        "conv_in.weight",
        "time_embedding.linear_2.weight",
        "add_embedding.linear_1.weight",
        "down_blocks.0.resnets.1.conv1.weight",
        "down_blocks.0.attentions.1.proj_in.weight",
        "down_blocks.0.downsamplers.0.conv.weight",
        "down_blocks.1.resnets.0.time_emb_proj.weight",
        "down_blocks.1.resnets.1.conv_shortcut.weight",
        "mid_block.resnets.0.conv1.weight",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight",
        "mid_block.resnets.1.conv2.weight",
        "up_blocks.0.resnets.2.conv1.weight",
        "up_blocks.0.upsamplers.0.conv.weight",
        "up_blocks.1.resnets.2.conv2.weight",
        "up_blocks.1.attentions.2.transformer_blocks.0.attn1.to_q.weight",
        "up_blocks.1.upsamplers.0.conv.weight",
        "conv_out.weight",
    ];

    fn originals() -> Vec<String> {
        let original = Original::of(NAMES.into_iter());
        NAMES.iter().map(|name| original.name(name.strip_suffix(".weight").unwrap()).unwrap()).collect()
    }

    #[test]
    fn modules_have_the_names_of_original_files() {
        let wanted = [
            "input_blocks.0.0",
            "time_embed.2",
            "label_emb.0.0",
            "input_blocks.2.0.in_layers.2",
            "input_blocks.2.1.proj_in",
            "input_blocks.3.0.op",
            "input_blocks.4.0.emb_layers.1",
            "input_blocks.5.0.skip_connection",
            "middle_block.0.in_layers.2",
            "middle_block.1.transformer_blocks.0.attn1.to_q",
            "middle_block.2.out_layers.3",
            "output_blocks.2.0.in_layers.2",
            "output_blocks.2.1.conv",
            "output_blocks.5.0.out_layers.3",
            "output_blocks.5.1.transformer_blocks.0.attn1.to_q",
            "output_blocks.5.2.conv",
            "out.2",
        ];
        assert_eq!(originals(), wanted);
    }

    #[test]
    fn it_is_the_other_way_round() {
        let stored: Vec<String> = originals().iter().map(|name| format!("{name}.weight")).collect();
        let stored: Vec<&str> = stored.iter().map(String::as_str).collect();
        let back: Vec<String> = tensors(Layout::Unet, &stored).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(back, NAMES);
    }

    #[test]
    fn what_original_files_do_not_have_has_no_name() {
        let original = Original::of(NAMES.into_iter());
        for module in ["down_blocks.7.resnets.0.conv1", "down_blocks.0.gate.0.x", "controlnet", "up_blocks.x", ""] {
            assert_eq!(original.name(module), None, "{module}");
        }
        assert_eq!(Original::of(["down_blocks.99999999.resnets.0.conv1.weight"].into_iter()).down.len(), 0);
    }
}
