//! CLIP's picture encoder (Radford et al. 2021; transformers' `CLIPVisionModelWithProjection`): a vision transformer
//! (Dosovitskiy et al. 2020) whose class token becomes the picture's embedding. And what unCLIP normalises that with
//! (diffusers' `StableUnCLIPImageNormalizer`).

use serde_json::json;

use super::clip::Layer;
use super::config::{FORWARD, NetworkConfig};
use super::keys::Keys;
use super::nn::{Conv, Module};
use super::ports::{Changes, Dim, Fill, Layout, Port, Sizes};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::Kind;
use crate::ops::embedding::Embedding;
use crate::ops::product::matmul::MatMul;
use crate::pack::Pack;
use crate::tensor::{Shape, Tensor};

/// A picture encoder's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Width of a picture's embedding.
    pub projection: usize,
    /// Height and width of the pictures that it sees.
    pub image_size: usize,
    channels: usize,
    patch_size: usize,
    hidden_size: usize,
    layers: usize,
    layer: Layer,
}

impl Config {
    /// Reads a `config.json`; `place` is what error messages call it. Absent keys have the defaults of transformers'
    /// `CLIPVisionConfig`, which ignores keys that it does not know, and so does this.
    ///
    /// # Errors
    /// If it is not a CLIP picture encoder's, or a value is not supported; the message names the key and the value.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let mut keys = Keys::parse(text, place)?;
        keys.only(&[("model_type", json!("clip_vision_model")), ("quantization_config", json!(null))])?;
        let class = "CLIPVisionModelWithProjection";
        keys.names("architectures", &[class], &[class])?;
        let hidden_size = keys.count("hidden_size", 768)?;
        let config = Self {
            projection: keys.count("projection_dim", 512)?,
            image_size: keys.count("image_size", 224)?,
            channels: keys.count("num_channels", 3)?,
            patch_size: keys.count("patch_size", 32)?,
            hidden_size,
            layers: keys.count("num_hidden_layers", 12)?,
            layer: Layer::read(&mut keys, hidden_size, [3072, 12], false)?,
        };
        if config.patch_size > config.image_size {
            let Self { patch_size, image_size, .. } = config;
            return Err(keys.error(format!("patch_size {patch_size} is more than image_size {image_size}")));
        }
        Ok(config)
    }

    /// The forward pass on `batch` pictures. Input: `pixel_values` `[B, S, S, 3]`, of unit variance. Outputs:
    /// `last_hidden_state` `[B, T, D]`, of which the first token is the class's, and `image_embeds` `[B, P]`.
    ///
    /// # Errors
    /// If there is no picture.
    pub fn graph(&self, network: &str, batch: usize) -> Result<Graph> {
        let mut graph = Graph::new(network);
        let mut root = Module::root(&mut graph);
        let pixels = root.input("pixel_values", Kind::Act, [batch, self.image_size, self.image_size, self.channels])?;
        let mut model = root.child("vision_model");
        let mut x = self.embeddings(&mut model.child("embeddings"), pixels, batch)?;
        x = model.layer_norm("pre_layrnorm", x, self.layer.eps)?;
        for i in 0..self.layers {
            x = self.layer.build(&mut model.child(format!("encoder.layers.{i}")), x)?;
        }
        let tokens = self.tokens();
        let first = ids([batch], |b| b * tokens);
        let first = model.graph().constant(Kind::U32, first);
        let pooled = model.node("pool", Embedding { positions: false }, &[first, x])?;
        let pooled = model.layer_norm("post_layernorm", pooled, self.layer.eps)?;
        let embeds = root.linear_without_bias("visual_projection", pooled, self.projection)?;
        graph.output("last_hidden_state", x);
        graph.output("image_embeds", embeds);
        Ok(graph)
    }

    /// Patches in a row.
    fn side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// The class's and every patch's.
    fn tokens(&self) -> usize {
        self.side() * self.side() + 1
    }

    /// `CLIPVisionEmbeddings`: the class's token and those of the patches, `[B, T, D]`, each with its position.
    fn embeddings(&self, m: &mut Module, pixels: ValueId, batch: usize) -> Result<ValueId> {
        let (side, tokens, width, patch) = (self.side(), self.tokens(), self.hidden_size, self.patch_size);
        // A row of patches above the picture sees nothing and is 0: what the class's token begins with.
        let conv = Conv { out: width, kernel: patch, stride: patch, padding: [patch, 0, 0, 0] };
        let patches = m.conv_without_bias("patch_embedding", pixels, conv)?;
        let row = |i: usize| {
            i / tokens * side * (side + 1) + if i.is_multiple_of(tokens) { 0 } else { side - 1 + i % tokens }
        };
        let rows = m.graph().constant(Kind::U32, ids([batch, tokens], row));
        let positions = m.table("position_embedding", tokens, width);
        let x = m.node("tokens", Embedding { positions: true }, &[rows, patches, positions])?;
        // The class's own vector, for its token alone.
        let is_class = (0..batch * tokens).map(|i| f32::from(u8::from(i.is_multiple_of(tokens)))).collect();
        let is_class = m.graph().constant(Kind::Act, Tensor::new([batch, tokens, 1], is_class));
        let class = m.matrix("class_embedding", [width, 1], Pack::Linear);
        let class = m.node("class_embedding", MatMul::new(false), &[is_class, class])?;
        m.add("add", x, class)
    }
}

/// Indices, by their places.
fn ids(shape: impl Into<Shape>, id: impl Fn(usize) -> usize) -> Tensor {
    let shape = shape.into();
    let data = (0..shape.len()).map(|i| id(i) as f32).collect();
    Tensor { shape, data }
}

impl NetworkConfig for Config {
    fn about(&self) -> String {
        let Self { layers, hidden_size, image_size, patch_size, layer, .. } = self;
        let heads = layer.heads;
        format!("{layers} layers, {hidden_size} wide, {heads} heads, {image_size} pixels in patches of {patch_size}")
    }

    fn ports(&self, _: &str) -> Vec<Port> {
        let dims = [Dim::Batch, Dim::Is(self.channels), Dim::Is(self.image_size), Dim::Is(self.image_size)];
        let pixels = Port::new("pixel_values", dims, Changes::Picture, Fill::Normal);
        vec![Port { layout: Layout::Image, ..pixels }]
    }

    fn graph(&self, network: &str, _: &str, sizes: &Sizes) -> Result<Graph> {
        self.graph(network, sizes.batch)
    }
}

/// A normaliser's `config.json`: the mean and the deviation of pictures' embeddings, `[1, D]` each, are its tensors.
/// It has no pass: what is done with them is a system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalizer {
    /// Width of the embeddings.
    pub width: usize,
}

impl Normalizer {
    /// Its tensors' names.
    pub const TENSORS: [&str; 2] = ["mean", "std"];

    /// Reads a `config.json`; `place` is what error messages call it. Absent keys have the defaults of diffusers'
    /// `StableUnCLIPImageNormalizer`.
    ///
    /// # Errors
    /// If a value is not supported or a key is not known; the message names both.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let mut keys = Keys::parse(text, place)?;
        keys.only(&[("_class_name", json!("StableUnCLIPImageNormalizer"))])?;
        let width = keys.count("embedding_dim", 768)?;
        keys.finish()?;
        Ok(Self { width })
    }
}

impl NetworkConfig for Normalizer {
    fn about(&self) -> String {
        format!("mean and deviation of embeddings {} wide", self.width)
    }

    fn ways(&self) -> &'static [&'static str] {
        &[]
    }

    fn ports(&self, _: &str) -> Vec<Port> {
        Vec::new()
    }

    fn graph(&self, network: &str, _: &str, _: &Sizes) -> Result<Graph> {
        Err(Error::shape(format!("{network} has no pass {FORWARD}")))
    }

    fn wanted(&self, _: &str) -> Result<Vec<(String, Shape)>> {
        Ok(Self::TENSORS.map(|name| (name.to_string(), [1, self.width].into())).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config> {
        Config::from_json(text, "image_encoder/config.json")
    }

    /// OpenAI's ViT-L/14 has 303.97 million parameters.
    #[test]
    fn the_parameters_are_those_of_the_published_encoder() {
        let text = r#"{"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "patch_size": 14, "projection_dim": 768}"#;
        let wanted = config(text).unwrap().wanted("image_encoder").unwrap();
        let count: usize = wanted.iter().map(|(_, shape)| shape.len()).sum();
        assert_eq!(count, 303_966_208);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let message = |text| config(text).unwrap_err().to_string();
        assert!(message(r#"{"hidden_act": "relu"}"#).contains(r#"hidden_act has "relu", supported: quick_gelu, gelu"#));
        assert!(message(r#"{"architectures": ["CLIPModel"]}"#).contains("CLIPModel"));
        assert!(message(r#"{"patch_size": 225}"#).contains("patch_size 225 is more than image_size 224"));
        assert!(message(r#"{"num_attention_heads": 5}"#).contains("does not divide"));
    }
}
