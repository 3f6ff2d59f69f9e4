//! The unconditional denoising network (Ho et al. 2020; diffusers' `UNet2DModel`): residual blocks with self-attention
//! over pixels, told of the time and, where it was trained so, of a class.

use serde_json::{Value, json};

use super::blocks::{class_embedding, downsample, pixel_attention, resnet, upsample};
use super::config::NetworkConfig;
use super::keys::Keys;
use super::nn::{Conv, Groups, Module};
use super::ports::{Changes, Dim, Fill, Port, Sizes};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::Kind;
use crate::ops::concat::Concat;
use crate::ops::timestep_embedding::{TimestepEmbedding, frequencies};

/// A network's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Channels of the input: the state and anything concatenated to it.
    pub in_channels: usize,
    /// Channels of its prediction.
    pub out_channels: usize,
    /// Height and width that it was trained on.
    pub sample_size: Option<[usize; 2]>,
    /// Number of classes, for a class-conditional network.
    pub classes: Option<usize>,
    levels: Vec<Level>,
    /// Whether there is a middle, and whether it has attention.
    middle: Option<bool>,
    layers: usize,
    /// Channels of a head; all for none.
    head: Option<usize>,
    groups: usize,
    norm_eps: f32,
    downsample_padding: usize,
    flip_sin_to_cos: bool,
    freq_shift: f32,
}

/// One resolution.
#[derive(Debug, Clone, PartialEq)]
struct Level {
    channels: usize,
    /// Whether its layers on the way down and on the way up have attention.
    down: bool,
    up: bool,
}

impl Config {
    /// Reads a `config.json`; `place` is what error messages call it. Absent keys have the defaults of diffusers'
    /// `UNet2DModel`.
    ///
    /// # Errors
    /// If a value is not supported or a key is not known; the message names both.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let mut keys = Keys::parse(text, place)?;
        refuse_what_is_not_built(&mut keys)?;
        let levels = levels(&mut keys)?;
        let middle: Option<String> = keys.get("mid_block_type", Some("UNetMidBlock2D".to_string()))?;
        if let Some(other) = middle.as_deref().filter(|middle| *middle != "UNetMidBlock2D") {
            return Err(keys.error(format!("mid_block_type is {other:?}, supported: UNetMidBlock2D, null")));
        }
        let attention = keys.get("add_attention", true)?;
        let head = if keys.is_null("attention_head_dim") {
            keys.ignore(&["attention_head_dim"]);
            None
        } else {
            Some(keys.count("attention_head_dim", 8)?)
        };
        let config = Self {
            in_channels: keys.count("in_channels", 3)?,
            out_channels: keys.count("out_channels", 3)?,
            sample_size: keys.size("sample_size")?,
            classes: keys.optional_count("num_class_embeds")?,
            levels,
            middle: middle.map(|_| attention),
            layers: keys.count("layers_per_block", 2)?,
            head,
            groups: keys.count("norm_num_groups", 32)?,
            norm_eps: keys.eps("norm_eps", 1e-5)?,
            downsample_padding: keys.get("downsample_padding", 1)?,
            flip_sin_to_cos: keys.get("flip_sin_to_cos", true)?,
            freq_shift: keys.finite("freq_shift", 0.0)?,
        };
        if config.downsample_padding > 1 {
            return Err(keys.error(format!("downsample_padding is {}, supported: 0, 1", config.downsample_padding)));
        }
        for level in &config.levels {
            let head = config.head.unwrap_or(level.channels);
            if (level.down || level.up) && !level.channels.is_multiple_of(head) {
                return Err(
                    keys.error(format!("attention_head_dim {head} does not divide {} channels", level.channels))
                );
            }
        }
        keys.finish()?;
        Ok(config)
    }

    fn norm(&self) -> Groups {
        Groups { groups: self.groups, eps: self.norm_eps }
    }

    /// The embedding of the time and the class, `[B, E]`, with the SiLU that every block applies to it.
    fn embedding(&self, m: &mut Module, time: ValueId, class: Option<ValueId>) -> Result<ValueId> {
        let width = self.levels[0].channels;
        let table = frequencies(width, self.freq_shift).map_err(|error| error.at(&m.name_of("time_proj")))?;
        let table = m.graph().constant(Kind::F32, table);
        let sines = m.node("time_proj", TimestepEmbedding { flip_sin_to_cos: self.flip_sin_to_cos }, &[time, table])?;
        let mut embedding = m.child("time_embedding");
        let x = embedding.linear("linear_1", sines, 4 * width)?;
        let x = embedding.silu("act", x)?;
        let mut x = embedding.linear("linear_2", x, 4 * width)?;
        if let (Some(class), Some(classes)) = (class, self.classes) {
            x = class_embedding(m, x, class, classes)?;
        }
        m.silu("time_embedding.silu", x)
    }

    fn layer(
        &self,
        block: &mut Module,
        j: usize,
        x: ValueId,
        emb: ValueId,
        level: &Level,
        attends: bool,
    ) -> Result<ValueId> {
        let x = resnet(&mut block.child(format!("resnets.{j}")), x, Some(emb), level.channels, self.norm())?;
        if attends { self.attention(block, j, x) } else { Ok(x) }
    }

    fn attention(&self, block: &mut Module, j: usize, x: ValueId) -> Result<ValueId> {
        let channels = block.channels(x);
        let heads = channels / self.head.unwrap_or(channels);
        pixel_attention(&mut block.child(format!("attentions.{j}")), x, self.norm(), heads)
    }

    /// The forward pass on states of any size.
    ///
    /// Inputs: `sample` `[B, H, W, C]`, `timestep` `[B]` in training steps, and with [`Config::classes`]
    /// `class_labels` `[B]`. Output: `sample` `[B, H, W, C]`.
    ///
    /// # Errors
    /// If the configuration contradicts itself, naming the node.
    pub fn graph(&self, batch: usize, height: usize, width: usize) -> Result<Graph> {
        let mut graph = Graph::new("unet");
        let mut root = Module::root(&mut graph);
        let sample = root.input("sample", Kind::Act, [batch, height, width, self.in_channels])?;
        let time = root.input("timestep", Kind::F32, [batch])?;
        let class = self.classes.map(|_| root.input("class_labels", Kind::U32, [batch])).transpose()?;
        let emb = self.embedding(&mut root, time, class)?;
        let mut x = root.conv("conv_in", sample, Conv::same(self.levels[0].channels, 3))?;
        let mut skips = vec![x];
        for (i, level) in self.levels.iter().enumerate() {
            let mut block = root.child(format!("down_blocks.{i}"));
            for j in 0..self.layers {
                x = self.layer(&mut block, j, x, emb, level, level.down)?;
                skips.push(x);
            }
            if i + 1 < self.levels.len() {
                x = downsample(&mut block, x, self.downsample_padding)?;
                skips.push(x);
            }
        }
        if let Some(attends) = self.middle {
            let (mut block, channels) = (root.child("mid_block"), x);
            let channels = block.channels(channels);
            x = resnet(&mut block.child("resnets.0"), x, Some(emb), channels, self.norm())?;
            x = if attends { self.attention(&mut block, 0, x)? } else { x };
            x = resnet(&mut block.child("resnets.1"), x, Some(emb), channels, self.norm())?;
        }
        for (i, level) in self.levels.iter().rev().enumerate() {
            let mut block = root.child(format!("up_blocks.{i}"));
            for j in 0..=self.layers {
                let Some(skip) = skips.pop() else { break };
                x = block.node(&format!("resnets.{j}.concat"), Concat, &[x, skip])?;
                x = self.layer(&mut block, j, x, emb, level, level.up)?;
            }
            if let Some(&next) = skips.last() {
                let size = block.size(next)?;
                x = upsample(&mut block, x, size)?;
            }
        }
        x = root.group_norm_silu("conv_norm_out", x, None, self.norm())?;
        x = root.conv("conv_out", x, Conv::same(self.out_channels, 3))?;
        graph.output("sample", x);
        Ok(graph)
    }
}

/// Keys that ask for other mathematics.
fn refuse_what_is_not_built(keys: &mut Keys) -> Result<()> {
    keys.only(&[
        ("_class_name", json!("UNet2DModel")),
        ("center_input_sample", json!(false)),
        ("time_embedding_type", json!("positional")),
        ("time_embedding_dim", Value::Null),
        ("mid_block_scale_factor", json!(1)),
        ("downsample_type", json!("conv")),
        ("upsample_type", json!("conv")),
        ("act_fn", json!("silu")),
        ("attn_norm_num_groups", Value::Null),
        ("resnet_time_scale_shift", json!("default")),
        ("class_embed_type", Value::Null),
    ])?;
    keys.ignore(&["dropout", "num_train_timesteps"]);
    Ok(())
}

fn levels(keys: &mut Keys) -> Result<Vec<Level>> {
    const DOWN: [&str; 2] = ["DownBlock2D", "AttnDownBlock2D"];
    const UP: [&str; 2] = ["UpBlock2D", "AttnUpBlock2D"];
    let channels = keys.counts("block_out_channels", &[224, 448, 672, 896])?;
    let down = keys.names("down_block_types", &[DOWN[0], DOWN[1], DOWN[1], DOWN[1]], &DOWN)?;
    let up = keys.names("up_block_types", &[UP[1], UP[1], UP[1], UP[0]], &UP)?;
    if [down.len(), up.len()] != [channels.len(); 2] {
        let (n, down, up) = (channels.len(), down.len(), up.len());
        let what = format!(
            "block_out_channels has {n} entries, down_block_types {down}, up_block_types {up}: they must agree"
        );
        return Err(keys.error(what));
    }
    let level = |((channels, down), up): ((usize, &String), &String)| Level {
        channels,
        down: down == DOWN[1],
        up: up == UP[1],
    };
    // The way up is listed from the deepest level.
    Ok(channels.into_iter().zip(&down).zip(up.iter().rev()).map(level).collect())
}

impl NetworkConfig for Config {
    fn about(&self) -> String {
        let channels: Vec<_> = self.levels.iter().map(|level| level.channels.to_string()).collect();
        let classes = self.classes.map(|classes| format!(", {classes} classes")).unwrap_or_default();
        format!("{} channels, {} inputs{classes}", channels.join("-"), self.in_channels)
    }

    fn ports(&self, _: &str) -> Vec<Port> {
        let mut ports = vec![
            Port::image("sample", self.in_channels, 1, Changes::Step, Fill::Normal),
            Port::new("timestep", [Dim::Batch], Changes::Time, Fill::Repeat(vec![801.0, 41.0])).spread(),
        ];
        if let Some(classes) = self.classes {
            ports.push(Port::new("class_labels", [Dim::Batch], Changes::Time, Fill::Ids(classes, None)));
        }
        ports
    }

    fn own_sizes(&self, sizes: &mut Sizes) {
        if let Some([height, width]) = self.sample_size {
            (sizes.height, sizes.width) = (height, width);
        }
    }

    fn graph(&self, _: &str, _: &str, sizes: &Sizes) -> Result<Graph> {
        self.graph(sizes.batch, sizes.height, sizes.width)
    }
}
