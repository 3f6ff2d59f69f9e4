//! The UNet's levels: which blocks the configuration puts at each resolution, and how deep they are.

use serde_json::json;

use crate::error::Result;
use crate::models::keys::{Keys, OneOrMany};

/// One resolution: the block on the way down and its counterpart on the way up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    pub channels: usize,
    pub heads: usize,
    /// Whether its transformers attend to the text alone.
    pub only_cross: bool,
    /// For each layer on the way down the depth of its transformer, if it has one.
    pub down: Vec<Option<usize>>,
    /// The same on the way up; empty in a network without one.
    pub up: Vec<Option<usize>>,
}

/// The middle block: two residual blocks with a transformer of this depth between them, or without one a single
/// residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Middle {
    pub heads: usize,
    pub depth: Option<usize>,
    /// Whether its transformer attends to the text alone.
    pub only_cross: bool,
}

/// How far a network goes: a UNet down and up again, a ControlNet down and through the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    DownAndUp,
    Down,
}

/// Numbers of transformer blocks: for each level one for all its layers or one for each.
type Depths = Vec<OneOrMany<usize>>;

/// More layers of a block, or transformer blocks of a layer, are a mistake.
const MOST_LAYERS: usize = 1000;

/// The levels from the highest resolution to the lowest, and the middle block, if there is one.
pub fn levels(keys: &mut Keys, channels: &[usize], extent: Extent) -> Result<(Vec<Level>, Option<Middle>)> {
    const CROSS_DOWN: &str = "CrossAttnDownBlock2D";
    const CROSS_UP: &str = "CrossAttnUpBlock2D";
    const MID: &str = "UNetMidBlock2DCrossAttn";
    const PLAIN_MID: &str = "UNetMidBlock2D";
    let n = channels.len();
    let defaults = [CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"];
    let down_types = keys.names("down_block_types", &defaults, &[CROSS_DOWN, "DownBlock2D"])?;
    let defaults = ["UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP];
    let up_types = match extent {
        Extent::DownAndUp => Some(keys.names("up_block_types", &defaults, &[CROSS_UP, "UpBlock2D"])?),
        Extent::Down => None,
    };
    let up_count = up_types.as_ref().map_or(n, Vec::len);
    if [down_types.len(), up_count] != [n; 2] {
        return Err(keys.error(format!(
            "block_out_channels has {n} entries, down_block_types {}, up_block_types {up_count}: they must agree",
            down_types.len(),
        )));
    }
    // One value for all blocks is the middle's too.
    let all = keys.is("only_cross_attention", &json!(true));
    let only_cross = keys.per_block("only_cross_attention", false, n)?;
    let mid_only: Option<bool> = keys.get("mid_block_only_cross_attention", None)?;
    let heads = heads(keys, n)?;
    let layers = keys.count_per_block("layers_per_block", 2, n)?;
    if layers.iter().any(|layers| *layers > MOST_LAYERS) {
        return Err(keys.error(format!("layers_per_block has {layers:?}, each should be at most {MOST_LAYERS}")));
    }
    let (down_depths, up_depths) = depths(keys, n, extent)?;
    let mid: Option<String> = keys.get("mid_block_type", Some(MID.to_string()))?;
    let middle = |depth| Some(Middle { heads: heads[n - 1], depth, only_cross: mid_only.unwrap_or(all) });
    let mid = match mid.as_deref() {
        Some(MID) => middle(Some(depth_of(keys, &down_depths[n - 1], 1)?[0])),
        Some(PLAIN_MID) => middle(None),
        Some(other) => {
            return Err(keys.error(format!("mid_block_type is {other:?}, supported: {MID}, {PLAIN_MID}, null")));
        }
        None => None,
    };
    let levels = (0..n).map(|i| {
        let transformers = |cross: bool, depths: &OneOrMany<usize>, layers: usize| match cross {
            true => Ok(depth_of(keys, depths, layers)?.into_iter().map(Some).collect()),
            false => Ok(vec![None; layers]),
        };
        let down = transformers(down_types[i] == CROSS_DOWN, &down_depths[i], layers[i])?;
        // The way up is listed from the deepest level.
        let up = match &up_types {
            Some(types) => transformers(types[n - 1 - i] == CROSS_UP, &up_depths[n - 1 - i], layers[i] + 1)?,
            None => Vec::new(),
        };
        // Of a level without transformers it says nothing.
        let only_cross = only_cross[i] && down.iter().chain(&up).any(Option::is_some);
        Ok(Level { channels: channels[i], heads: heads[i], only_cross, down, up })
    });
    Ok((levels.collect::<Result<_>>()?, mid))
}

/// `attention_head_dim` is, in this network's files, the number of heads; the width of a head follows from it.
/// `num_attention_heads`, where it is set, is what it says.
fn heads(keys: &mut Keys, blocks: usize) -> Result<Vec<usize>> {
    let key = "num_attention_heads";
    if keys.is_null(key) {
        keys.ignore(&[key]);
        return keys.count_per_block("attention_head_dim", 8, blocks);
    }
    keys.ignore(&["attention_head_dim"]);
    keys.count_per_block(key, 8, blocks)
}

/// `transformer_layers_per_block`, and the same for the way up, from the deepest level.
fn depths(keys: &mut Keys, blocks: usize, extent: Extent) -> Result<(Depths, Depths)> {
    let (key, reverse) = ("transformer_layers_per_block", "reverse_transformer_layers_per_block");
    let down: Depths = keys.per_block(key, OneOrMany::One(1), blocks)?;
    if extent == Extent::Down {
        return Ok((down, Vec::new()));
    }
    if !keys.is_null(reverse) {
        return Ok((down, keys.per_block(reverse, OneOrMany::One(1), blocks)?));
    }
    keys.ignore(&[reverse]);
    if down.iter().any(|depths| matches!(depths, OneOrMany::Many(_))) {
        return Err(keys.error(format!("{key} has a list for each layer, so {reverse} must be given too")));
    }
    let up = down.iter().rev().cloned().collect();
    Ok((down, up))
}

/// The depths of one level's layers. 0 is allowed: a transformer of its two projections only.
fn depth_of(keys: &Keys, depths: &OneOrMany<usize>, layers: usize) -> Result<Vec<usize>> {
    let list = match depths {
        OneOrMany::One(depth) => vec![*depth; layers],
        OneOrMany::Many(list) => list.iter().copied().take(layers).collect(),
    };
    if list.len() == layers && list.iter().all(|depth| *depth <= MOST_LAYERS) {
        return Ok(list);
    }
    Err(keys.error(format!("transformer_layers_per_block has {list:?} for {layers} layers, each up to {MOST_LAYERS}")))
}
