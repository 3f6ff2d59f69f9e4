//! ControlNet (Zhang et al. 2023; diffusers' `ControlNetModel`): a copy of a UNet's way down and middle that also sees
//! a picture, edges or a pose for instance, and tells the UNet by residuals what to draw where.
//!
//! The picture is made as small as the latents by a few convolutions and added to the first convolution's output.
//! Every value that the UNet keeps for its way up, and the middle's output, gets one residual: the copy's value of the
//! same place through a 1x1 convolution, which training began with zeros.

use serde_json::json;

use super::levels::Extent;
use super::{Conv, Inputs, Module};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::models::config::NetworkConfig;
use crate::models::keys::Keys;
use crate::models::ports::{Changes, Dim, Fill, Port, Sizes, Tensors};
use crate::models::unet;
use crate::ops::Kind;
use crate::ops::add_scaled::AddScaled;
use crate::tensor::Shape;

/// The port of the picture, and that of what the residuals are multiplied by.
const IMAGE: &str = "controlnet_cond";
const SCALE: &str = "conditioning_scale";

/// Red, green and blue.
pub const IMAGE_CHANNELS: usize = 3;

/// A ControlNet's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The copy; it has no way up.
    pub unet: unet::Config,
    /// Channels of the stages between the picture and the latents' size.
    stages: Vec<usize>,
}

/// What the parameters' names in a UNet's graph begin with, of the ControlNet of this place.
pub fn path(index: usize) -> String {
    format!("control.{index}")
}

/// The input of a UNet's graph that holds this ControlNet's picture, `[B, H, W, 3]` in pixels, from 0 to 1.
pub fn image_input(index: usize) -> String {
    format!("{}.image", path(index))
}

/// The input of a UNet's graph that this ControlNet's residuals are multiplied by, `[B, 1]`.
pub fn scale_input(index: usize) -> String {
    format!("{}.scale", path(index))
}

impl Config {
    /// Reads a `config.json`; `place` is what error messages call it. Absent keys have the defaults of diffusers'
    /// `ControlNetModel`.
    ///
    /// # Errors
    /// If a value is not supported or a key is not known; the message names both.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let mut keys = Keys::parse(text, place)?;
        keys.only(&[
            ("_class_name", json!("ControlNetModel")),
            ("conditioning_channels", json!(IMAGE_CHANNELS)),
            ("controlnet_conditioning_channel_order", json!("rgb")),
            ("global_pool_conditions", json!(false)),
            ("time_cond_proj_dim", json!(null)),
            ("num_class_embeds", json!(null)),
        ])?;
        let stages = keys.counts("conditioning_embedding_out_channels", &[16, 32, 96, 256])?;
        let unet = unet::Config::read(&mut keys, Extent::Down)?;
        if unet.levels.iter().any(|level| level.only_cross) || unet.mid.is_some_and(|mid| mid.only_cross) {
            return Err(keys.error("only_cross_attention is true, supported: false"));
        }
        keys.finish()?;
        Ok(Self { unet, stages })
    }

    /// Pixels of its picture to one latent, in height and in width.
    pub fn factor(&self) -> usize {
        1 << (self.stages.len() - 1)
    }

    /// In what it differs from the UNet that it should guide, whose VAE makes one latent of `factor` x `factor`
    /// pixels.
    pub fn misfit(&self, unet: &unet::Config, factor: usize) -> Option<String> {
        let own = &self.unet;
        let reads_text = own.mid.is_some_and(|mid| mid.depth.is_some())
            || own.levels.iter().any(|level| level.down.iter().any(Option::is_some));
        let levels = |config: &unet::Config| {
            let level = |level: &unet::levels::Level| format!("{} x {}", level.down.len(), level.channels);
            config.levels.iter().map(level).collect::<Vec<_>>().join(", ")
        };
        let number = |n: usize| n.to_string();
        let pooled = |config: &unet::Config| config.text_time.map_or("none".into(), |added| number(added.text_width));
        let vector = |config: &unet::Config| if config.class_width.is_some() { "projection" } else { "null" }.into();
        let mut compared = vec![
            ("in_channels", number(own.in_channels), number(unet.in_channels)),
            ("layers x channels", levels(own), levels(unet)),
            ("width of pooled text", pooled(own), pooled(unet)),
            ("class_embed_type", vector(own), vector(unet)),
            ("pixels to a latent", number(self.factor()), number(factor)),
        ];
        if reads_text {
            compared
                .insert(1, ("cross_attention_dim", number(own.cross_attention_dim), number(unet.cross_attention_dim)));
        }
        let (what, own, wanted) = compared.into_iter().find(|(_, own, wanted)| own != wanted)?;
        Some(format!("its {what} is {own}, the model's {wanted}"))
    }

    /// The forward pass by itself, as [`unet::Config::graph`] is that of a UNet.
    ///
    /// Inputs: the UNet's, and `controlnet_cond` `[B, factor H, factor W, 3]`, from 0 to 1. Outputs: for each place
    /// the residual, `down_block_res_samples_0` and on in the order of the way down, and `mid_block_res_sample`.
    ///
    /// # Errors
    /// As [`unet::Config::graph`].
    pub fn graph(&self, batch: usize, height: usize, width: usize, tokens: usize) -> Result<Graph> {
        let mut graph = Graph::new("controlnet");
        let mut root = Module::root(&mut graph);
        let inputs = self.unet.inputs(&mut root, [batch, height, width], tokens)?;
        let image = root.input(IMAGE, Kind::Act, self.image_shape([batch, height, width]))?;
        self.residuals(&mut root, &inputs, image, &mut |root, place, residual| {
            let name = place.map_or("mid_block_res_sample".into(), |place| format!("down_block_res_samples_{place}"));
            root.graph().output(&name, residual);
            Ok(())
        })?;
        Ok(graph)
    }

    fn image_shape(&self, [batch, height, width]: [usize; 3]) -> Shape {
        let [height, width] = [height, width].map(|side| side * self.factor());
        [batch, height, width, IMAGE_CHANNELS].into()
    }

    /// Adds its residuals to those of a UNet's values that they are for: `skips`, and the middle's output `mid`, which
    /// is given back with its own.
    pub(super) fn guide(
        &self,
        root: &mut Module,
        index: usize,
        inputs: &Inputs,
        skips: &mut [ValueId],
        mid: ValueId,
    ) -> Result<ValueId> {
        let [batch, height, width, _] = root.shape(inputs.sample).image()?;
        let image = root.input(&image_input(index), Kind::Act, self.image_shape([batch, height, width]))?;
        let scale = root.input(&scale_input(index), Kind::F32, [batch, 1])?;
        let mut mid = mid;
        self.residuals(&mut root.child(path(index)), inputs, image, &mut |m, place, residual| {
            let (name, to) = match place {
                Some(place) => (format!("controlnet_down_blocks.{place}.add"), &mut skips[place]),
                None => ("controlnet_mid_block.add".into(), &mut mid),
            };
            *to = m.node(&name, AddScaled, &[*to, residual, scale])?;
            Ok(())
        })?;
        Ok(mid)
    }

    /// Hands every residual to `take` as soon as there is one, so that the copy's values need not be kept: with its
    /// place among the UNet's values, `None` for the middle's.
    fn residuals(&self, m: &mut Module, inputs: &Inputs, image: ValueId, take: Take) -> Result<()> {
        let at = self.unet.condition(m, inputs)?;
        let hint = self.shrink(&mut m.child("controlnet_cond_embedding"), image)?;
        let x = self.unet.conv_in(m, inputs)?;
        let x = m.add("conv_in.add", x, hint)?;
        let mut place = 0;
        let mut keep = |m: &mut Module, x| {
            let name = format!("controlnet_down_blocks.{place}");
            let residual = m.conv(&name, x, Conv::same(m.channels(x), 1))?;
            place += 1;
            take(m, Some(place - 1), residual)
        };
        keep(m, x)?;
        let x = self.unet.down(m, x, at, &mut keep)?;
        let x = self.unet.middle(m, x, at)?;
        let residual = m.conv("controlnet_mid_block", x, Conv::same(m.channels(x), 1))?;
        take(m, None, residual)
    }

    /// `ControlNetConditioningEmbedding`: the picture at the latents' size, with as many channels as the first level.
    fn shrink(&self, m: &mut Module, image: ValueId) -> Result<ValueId> {
        let mut layers = vec![("conv_in".to_string(), Conv::same(self.stages[0], 3))];
        for (i, stage) in self.stages.windows(2).enumerate() {
            layers.push((format!("blocks.{}", 2 * i), Conv::same(stage[0], 3)));
            layers.push((format!("blocks.{}", 2 * i + 1), Conv::halving(stage[1], [1; 4])));
        }
        let mut x = image;
        for (name, conv) in layers {
            x = m.conv(&name, x, conv)?;
            x = m.silu(&format!("{name}.silu"), x)?;
        }
        m.conv("conv_out", x, Conv::same(self.unet.levels[0].channels, 3))
    }
}

/// What is done with a residual.
type Take<'a> = &'a mut dyn FnMut(&mut Module, Option<usize>, ValueId) -> Result<()>;

impl NetworkConfig for Config {
    fn about(&self) -> String {
        self.unet.to_string()
    }

    fn ports(&self, way: &str) -> Vec<Port> {
        let image = Port::image(IMAGE, IMAGE_CHANNELS, self.factor(), Changes::Picture, Fill::Unit);
        let scale = Port::new(SCALE, [Dim::Batch], Changes::Picture, Fill::Repeat(vec![1.0])).spread().optional();
        self.unet.ports(way).into_iter().chain([image, scale]).collect()
    }

    fn graph(&self, _: &str, _: &str, sizes: &Sizes) -> Result<Graph> {
        self.graph(sizes.batch, sizes.height, sizes.width, sizes.tokens)
    }

    fn prepare(&self, _: &str, inputs: &mut Tensors) -> Result<()> {
        inputs.remove(SCALE);
        Ok(())
    }

    /// The residuals times the scale.
    fn finish(&self, _: &str, given: &Tensors, mut outputs: Tensors) -> Result<Tensors> {
        if let Some(scales) = given.get(SCALE) {
            for tensor in outputs.values_mut() {
                let each = tensor.data.len() / tensor.shape.batch();
                let rows = tensor.data.chunks_exact_mut(each).zip(&scales.data);
                rows.for_each(|(row, scale)| row.iter_mut().for_each(|v| *v *= scale));
            }
        }
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SD1: &str = r#"{"cross_attention_dim": 768}"#;

    fn config(text: &str) -> Config {
        Config::from_json(text, "controlnet/config.json").unwrap()
    }

    fn unet(text: &str) -> unet::Config {
        unet::Config::from_json(text, "unet/config.json").unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_stable_diffusion_1() {
        let graph = config(SD1).graph(1, 8, 8, 77).unwrap();
        let names: Vec<_> = graph.outputs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), 13);
        assert_eq!(
            [names[0], names[11], names[12]],
            ["down_block_res_samples_0", "down_block_res_samples_11", "mid_block_res_sample"]
        );
        let last = graph.outputs[11].1;
        assert_eq!(graph.shape(last).dims(), [1, 1, 1, 1280]);
        assert_eq!(graph.shape(graph.input_named(IMAGE).unwrap()).dims(), [1, 64, 64, 3]);
    }

    #[test]
    fn a_controlnet_without_transformers_reads_no_text() {
        let small = config(
            r#"{"down_block_types": ["DownBlock2D", "DownBlock2D"], "block_out_channels": [32, 64],
                "mid_block_type": "UNetMidBlock2D"}"#,
        );
        let graph = small.graph(1, 8, 8, 77).unwrap();
        let wanted = graph.wanted();
        assert!(!wanted.iter().any(|(name, _)| name.contains("attentions") || name.starts_with("mid_block.resnets.1")));
        let model = r#"{"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "block_out_channels": [32, 64],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "cross_attention_dim": 40}"#;
        assert_eq!(small.misfit(&unet(model), 8), None);
    }

    #[test]
    fn one_for_another_family_says_in_what_it_differs() {
        let sd2 = r#"{"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20]}"#;
        assert_eq!(config(SD1).misfit(&unet(SD1), 8), None);
        let differs = |model: &str, factor| config(SD1).misfit(&unet(model), factor).unwrap();
        assert_eq!(differs(sd2, 8), "its cross_attention_dim is 768, the model's 1024");
        assert_eq!(differs(SD1, 4), "its pixels to a latent is 8, the model's 4");
        let inpainting = r#"{"cross_attention_dim": 768, "in_channels": 9}"#;
        assert_eq!(differs(inpainting, 8), "its in_channels is 4, the model's 9");
        let narrow = r#"{"cross_attention_dim": 768, "block_out_channels": [320, 640, 640, 640]}"#;
        assert!(differs(narrow, 8).starts_with("its layers x channels is 2 x 320, 2 x 640, 2 x 1280"));
    }

    #[test]
    fn what_is_not_built_is_named() {
        let message = |text| Config::from_json(text, "config.json").unwrap_err().to_string();
        assert!(message(r#"{"global_pool_conditions": true}"#).contains("global_pool_conditions is true"));
        assert!(message(r#"{"controlnet_conditioning_channel_order": "bgr"}"#).contains("supported: \"rgb\""));
        assert!(message(r#"{"_class_name": "UNet2DConditionModel"}"#).contains("supported: \"ControlNetModel\""));
        assert!(message(r#"{"conditioning_embedding_out_channels": []}"#).contains("is empty"));
    }

    #[test]
    fn a_guided_unet_has_the_nodes_of_one_that_is_not_and_those_of_the_guide() {
        let model = unet(SD1);
        let [alone, guided] = [&[][..], &[config(SD1)]].map(|c| model.controlled_graph(c, 2, 8, 8, 77).unwrap());
        let names = |graph: &Graph| graph.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        let mut rest = names(&guided);
        rest.retain(|name| !name.starts_with("unet.control."));
        assert_eq!(rest, names(&alone));
        let added = guided.nodes.iter().filter(|node| node.op.name() == "add_scaled").count();
        assert_eq!(added, 13);
        let inputs: Vec<_> = guided.inputs().skip(3).map(|(name, _)| name).collect();
        assert_eq!(inputs, ["control.0.image", "control.0.scale"]);
    }
}
