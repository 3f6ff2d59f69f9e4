//! The denoising network of Stable Diffusion 1, 2 and SDXL (Ronneberger et al. 2015 and Rombach et al. 2022;
//! diffusers' `UNet2DConditionModel`).

mod config;
pub mod controlnet;
mod levels;

pub use config::Config;

use levels::{Level, Middle};

use super::blocks::{Transformer, class_embedding, downsample, resnet, transformer, upsample};
use super::config::NetworkConfig;
use super::nn::{Conv, Groups, Module};
use super::ports::{Changes, Dim, Fill, Port, Sizes};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::Kind;
use crate::ops::concat::Concat;
use crate::ops::timestep_embedding::{TimestepEmbedding, frequencies};

/// What is given at every run, to a UNet and to the ControlNets that guide it.
#[derive(Clone, Copy)]
struct Inputs {
    /// Latents `[B, H, W, C]`.
    sample: ValueId,
    /// `[B]`
    timestep: ValueId,
    /// `[B, T, D]`
    context: ValueId,
    /// A vector in a class's place, `[B, V]`.
    vector: Option<ValueId>,
    /// SDXL's pooled text `[B, P]` and time ids `[B, N]`.
    added: Option<[ValueId; 2]>,
    /// What a network is given that was distilled with guidance, `[B, G]`.
    guidance: Option<ValueId>,
    /// `[B]`
    class: Option<ValueId>,
}

/// What every block is given beside the picture.
#[derive(Clone, Copy)]
struct Condition {
    /// The time embedding `[B, E]`, with SiLU applied.
    emb: ValueId,
    /// The text encoder's tokens `[B, T, D]`.
    context: ValueId,
}

/// What is done with a value that a layer of the way down has made.
type Keep<'a> = &'a mut dyn FnMut(&mut Module, ValueId) -> Result<()>;

impl Config {
    /// The forward pass on latents of any size, `height` x `width`, and `tokens` tokens of text.
    ///
    /// Inputs: `sample` `[B, H, W, C]`, `timestep` `[B]` in training steps, `encoder_hidden_states` `[B, T, D]`; SDXL
    /// also `text_embeds` `[B, P]` and `time_ids` `[B, N]`, unCLIP `class_labels` `[B, V]`, a network with
    /// [`Config::classes`] `class_labels` `[B]`, and one with [`Config::guidance_width`] `timestep_cond` `[B, G]`, rows
    /// of [`Config::guidance_embedding`]. Output: `sample` `[B, H, W, C]`.
    ///
    /// # Errors
    /// If the configuration contradicts itself (heads or groups that do not divide the channels), naming the node.
    pub fn graph(&self, batch: usize, height: usize, width: usize, tokens: usize) -> Result<Graph> {
        self.controlled_graph(&[], batch, height, width, tokens)
    }

    /// The same with ControlNets, whose residuals are added to what the way down keeps for the way up, and to the
    /// middle's output. The parameters of ControlNet `i` have the names of its file after [`controlnet::path`].
    ///
    /// Inputs beside those: for each ControlNet [`controlnet::image_input`] and [`controlnet::scale_input`].
    ///
    /// # Errors
    /// As [`Config::graph`], and if a ControlNet does not fit ([`controlnet::Config::misfit`]).
    pub fn controlled_graph(
        &self,
        controls: &[controlnet::Config],
        batch: usize,
        height: usize,
        width: usize,
        tokens: usize,
    ) -> Result<Graph> {
        let mut graph = Graph::new("unet");
        let mut root = Module::root(&mut graph);
        let inputs = self.inputs(&mut root, [batch, height, width], tokens)?;
        let condition = self.condition(&mut root, &inputs)?;
        let x = self.conv_in(&mut root, &inputs)?;
        let mut skips = vec![x];
        let mut keep = |_: &mut Module, x| {
            skips.push(x);
            Ok(())
        };
        let x = self.down(&mut root, x, condition, &mut keep)?;
        let mut x = self.middle(&mut root, x, condition)?;
        for (index, control) in controls.iter().enumerate() {
            x = control.guide(&mut root, index, &inputs, &mut skips, x)?;
        }
        let x = self.up(&mut root, x, condition, skips)?;
        let x = root.group_norm_silu("conv_norm_out", x, None, self.norm())?;
        let x = root.conv("conv_out", x, Conv::same(self.out_channels, self.conv_out_kernel))?;
        graph.output("sample", x);
        Ok(graph)
    }

    fn inputs(&self, root: &mut Module, [batch, height, width]: [usize; 3], tokens: usize) -> Result<Inputs> {
        let sample = root.input("sample", Kind::Act, [batch, height, width, self.in_channels])?;
        let timestep = root.input("timestep", Kind::F32, [batch])?;
        let context = root.input("encoder_hidden_states", Kind::Act, [batch, tokens, self.cross_attention_dim])?;
        let vector = self.class_width.map(|width| root.input("class_labels", Kind::Act, [batch, width])).transpose()?;
        let added = match &self.text_time {
            Some(added) => {
                let text = root.input("text_embeds", Kind::Act, [batch, added.text_width])?;
                Some([text, root.input("time_ids", Kind::F32, [batch, added.ids])?])
            }
            None => None,
        };
        let mut guidance = |width| root.input("timestep_cond", Kind::Act, [batch, width]);
        let guidance = self.guidance_width.map(&mut guidance).transpose()?;
        let class = self.classes.map(|_| root.input("class_labels", Kind::U32, [batch])).transpose()?;
        Ok(Inputs { sample, timestep, context, vector, added, guidance, class })
    }

    /// The sines and cosines that tell a network the guidance it was distilled with; none if it takes none. In f32 as
    /// diffusers' `get_guidance_scale_embedding` has them.
    pub fn guidance_embedding(&self, guidance: f32) -> Option<Vec<f32>> {
        let half = self.guidance_width? / 2;
        let step = -(10_000f64.ln() as f32 / (half - 1) as f32);
        // The angles reach thousands, so a frequency is rounded but once.
        let frequency = |i| f64::from(i as f32 * step).exp() as f32;
        let angle = |i| (guidance - 1.0) * 1000.0 * frequency(i);
        let angles: Vec<f32> = (0..half).map(angle).collect();
        Some(angles.iter().map(|angle| angle.sin()).chain(angles.iter().map(|angle| angle.cos())).collect())
    }

    fn conv_in(&self, m: &mut Module, inputs: &Inputs) -> Result<ValueId> {
        m.conv("conv_in", inputs.sample, Conv::same(self.levels[0].channels, self.conv_in_kernel))
    }

    fn norm(&self) -> Groups {
        Groups { groups: self.groups, eps: self.norm_eps }
    }

    /// The embedding of the timestep and of a class where one is given, in SDXL of the pooled text and the picture's
    /// sizes, and in unCLIP of another picture, `[B, E]`, and the text.
    /// Every block applies SiLU to the embedding first, so it is done here, once.
    fn condition(&self, m: &mut Module, inputs: &Inputs) -> Result<Condition> {
        let mut t = self.sinusoids(m, "time_proj", inputs.timestep, self.levels[0].channels)?;
        if let (Some(_), Some(guidance)) = (self.guidance_width, inputs.guidance) {
            let mut m = m.child("time_embedding");
            let told = m.linear_without_bias("cond_proj", guidance, self.levels[0].channels)?;
            t = m.add("add", t, told)?;
        }
        let mut emb = self.two_layers(&mut m.child("time_embedding"), t)?;
        if let (Some(classes), Some(class)) = (self.classes, inputs.class) {
            emb = class_embedding(m, emb, class, classes)?;
        }
        if let (Some(added), Some([text, ids])) = (self.text_time, inputs.added) {
            let ids = self.sinusoids(m, "add_time_proj", ids, added.id_width)?;
            let mut m = m.child("add_embedding");
            let both = m.node("concat", Concat, &[text, ids])?;
            let added = self.two_layers(&mut m, both)?;
            emb = m.add("add", emb, added)?;
        }
        if let (Some(_), Some(vector)) = (self.class_width, inputs.vector) {
            let mut m = m.child("class_embedding");
            let class = self.two_layers(&mut m, vector)?;
            emb = m.add("add", emb, class)?;
        }
        let emb = m.silu("time_embedding.silu", emb)?;
        Ok(Condition { emb, context: inputs.context })
    }

    /// `Timesteps`: each number of `t` as `width` sines and cosines.
    fn sinusoids(&self, m: &mut Module, name: &str, t: ValueId, width: usize) -> Result<ValueId> {
        let table = frequencies(width, self.freq_shift).map_err(|e| e.at(&m.name_of(name)))?;
        let table = m.graph().constant(Kind::F32, table);
        m.node(name, TimestepEmbedding { flip_sin_to_cos: self.flip_sin_to_cos }, &[t, table])
    }

    /// diffusers' `TimestepEmbedding`: linear, SiLU, linear.
    fn two_layers(&self, m: &mut Module, x: ValueId) -> Result<ValueId> {
        let x = m.linear("linear_1", x, self.time_embed_dim)?;
        let x = m.silu("act", x)?;
        m.linear("linear_2", x, self.time_embed_dim)
    }

    /// A block's layer `j`: a resnet and, if `depth` says so, a transformer.
    fn layer(
        &self,
        block: &mut Module,
        j: usize,
        x: ValueId,
        condition: Condition,
        level: &Level,
        depth: Option<usize>,
    ) -> Result<ValueId> {
        let x = resnet(&mut block.child(format!("resnets.{j}")), x, Some(condition.emb), level.channels, self.norm())?;
        let Some(depth) = depth else { return Ok(x) };
        transformer(
            &mut block.child(format!("attentions.{j}")),
            x,
            condition.context,
            self.spec(level.heads, depth, level.only_cross),
        )
    }

    fn spec(&self, heads: usize, depth: usize, only_cross: bool) -> Transformer {
        Transformer { heads, depth, groups: self.groups, linear_projection: self.linear_projection, only_cross }
    }

    /// `DownBlock2D`s and `CrossAttnDownBlock2D`s; what each layer returns is handed to `keep`.
    fn down(&self, root: &mut Module, x: ValueId, at: Condition, keep: Keep) -> Result<ValueId> {
        let mut x = x;
        for (i, level) in self.levels.iter().enumerate() {
            let block = format!("down_blocks.{i}");
            for (j, depth) in level.down.iter().enumerate() {
                x = self.layer(&mut root.child(&block), j, x, at, level, *depth)?;
                keep(root, x)?;
            }
            if i + 1 < self.levels.len() {
                x = downsample(&mut root.child(&block), x, self.downsample_padding)?;
                keep(root, x)?;
            }
        }
        Ok(x)
    }

    /// `UNetMidBlock2DCrossAttn`, or without a transformer `UNetMidBlock2D`.
    fn middle(&self, root: &mut Module, x: ValueId, at: Condition) -> Result<ValueId> {
        let Some(Middle { heads, depth, only_cross }) = self.mid else { return Ok(x) };
        let channels = root.channels(x);
        let mut block = root.child("mid_block");
        let x = resnet(&mut block.child("resnets.0"), x, Some(at.emb), channels, self.norm())?;
        let Some(depth) = depth else { return Ok(x) };
        let x = transformer(&mut block.child("attentions.0"), x, at.context, self.spec(heads, depth, only_cross))?;
        resnet(&mut block.child("resnets.1"), x, Some(at.emb), channels, self.norm())
    }

    /// `UpBlock2D`s and `CrossAttnUpBlock2D`s: each layer takes the last value kept on the way down. Up-sampling goes
    /// to the size of the next one, so sizes that are not multiples of anything come out as they went in.
    fn up(&self, root: &mut Module, x: ValueId, at: Condition, mut skips: Vec<ValueId>) -> Result<ValueId> {
        let mut x = x;
        for (i, level) in self.levels.iter().rev().enumerate() {
            let mut block = root.child(format!("up_blocks.{i}"));
            let taken = skips.split_off(skips.len() - level.up.len());
            for (j, (skip, depth)) in taken.into_iter().rev().zip(&level.up).enumerate() {
                x = block.node(&format!("resnets.{j}.concat"), Concat, &[x, skip])?;
                x = self.layer(&mut block, j, x, at, level, *depth)?;
            }
            if let Some(&next) = skips.last() {
                let size = block.size(next)?;
                x = upsample(&mut block, x, size)?;
            }
        }
        Ok(x)
    }
}

impl NetworkConfig for Config {
    fn about(&self) -> String {
        self.to_string()
    }

    fn ports(&self, _: &str) -> Vec<Port> {
        let mut ports = vec![
            Port::image("sample", self.in_channels, 1, Changes::Step, Fill::Normal),
            Port::new("timestep", [Dim::Batch], Changes::Time, Fill::Repeat(vec![801.0, 41.0])).spread(),
            Port::new(
                "encoder_hidden_states",
                [Dim::Batch, Dim::Tokens, Dim::Is(self.cross_attention_dim)],
                Changes::Text,
                Fill::Normal,
            ),
        ];
        if let Some(width) = self.class_width {
            ports.push(Port::new("class_labels", [Dim::Batch, Dim::Is(width)], Changes::Time, Fill::Normal));
        }
        if let Some(added) = &self.text_time {
            let of = |name, width, fill| Port::new(name, [Dim::Batch, Dim::Is(width)], Changes::Time, fill);
            let score = if added.takes_score() { vec![6.0] } else { vec![1024.0; 2] };
            let ids = [vec![1024.0, 1024.0, 0.0, 0.0], score].concat();
            ports.push(of("text_embeds", added.text_width, Fill::Normal));
            ports.push(of("time_ids", added.ids, Fill::Repeat(ids)));
        }
        if let Some(row) = self.guidance_embedding(8.5) {
            let dims = [Dim::Batch, Dim::Is(row.len())];
            ports.push(Port::new("timestep_cond", dims, Changes::Time, Fill::Repeat(row)));
        }
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
        self.graph(sizes.batch, sizes.height, sizes.width, sizes.tokens)
    }
}
