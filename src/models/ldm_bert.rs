//! The text encoder of latent diffusion (Rombach et al. 2021; diffusers' `LDMBertModel`): a transformer with its norms
//! before its layers, in which every token sees all others, padding included.

use super::clip::check_ids;
use super::config::NetworkConfig;
use super::keys::Keys;
use super::nn::Module;
use super::ports::{Changes, Dim, Fill, Port, Sizes, Tensors};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::Kind;
use crate::ops::attention::Attention;
use crate::ops::embedding::Embedding;
use crate::ops::product::epilogue::Act;
use crate::tensor::Tensor;

/// Its input: `[B, T]` ids.
pub const IDS: &str = "input_ids";
/// Its output: `[B, T, D]` after the final norm.
pub const STATE: &str = "last_hidden_state";
/// Epsilon of all its norms, which the configuration does not tell.
const EPS: f32 = 1e-5;

/// A text encoder's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Channels of a token's embedding.
    pub width: usize,
    /// Longest text.
    pub max_tokens: usize,
    vocab_size: usize,
    layers: usize,
    heads: usize,
    /// Channels of a head: all heads together may be wider or narrower than the embedding.
    head: usize,
    inner: usize,
    act: Act,
}

impl Config {
    /// Reads a `config.json`; `place` is what error messages call it. Absent keys have the defaults of diffusers'
    /// `LDMBertConfig`, which ignores keys that it does not know, and so does this.
    ///
    /// # Errors
    /// If it is not such a text encoder's, or a value is not supported; the message names the key and the value.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let mut keys = Keys::parse(text, place)?;
        keys.names("architectures", &["LDMBertModel"], &["LDMBertModel"])?;
        keys.only(&[("quantization_config", serde_json::Value::Null)])?;
        let act = keys.one_of("activation_function", "gelu", &["gelu", "quick_gelu", "relu", "silu"])?;
        Ok(Self {
            width: keys.count("d_model", 1280)?,
            max_tokens: keys.count("max_position_embeddings", 77)?,
            vocab_size: keys.count("vocab_size", 30_522)?,
            layers: keys.count("encoder_layers", 32)?,
            heads: keys.count("encoder_attention_heads", 8)?,
            head: keys.count("head_dim", 64)?,
            inner: keys.count("encoder_ffn_dim", 5120)?,
            act: match act.as_str() {
                "quick_gelu" => Act::QuickGelu,
                "relu" => Act::Relu,
                "silu" => Act::Silu,
                _ => Act::Gelu,
            },
        })
    }

    /// The forward pass of `network` on `batch` texts of `tokens` tokens: input [`IDS`], output [`STATE`].
    ///
    /// # Errors
    /// If there are more tokens than positions.
    pub fn graph(&self, network: &str, batch: usize, tokens: usize) -> Result<Graph> {
        if tokens > self.max_tokens {
            let what = format!("{tokens} tokens, but the text encoder has {} positions", self.max_tokens);
            return Err(Error::shape(what).at(network));
        }
        let mut graph = Graph::new(network);
        let mut root = Module::root(&mut graph);
        let ids = root.input(IDS, Kind::U32, [batch, tokens])?;
        let mut model = root.child("model");
        let table = model.table("embed_tokens", self.vocab_size, self.width);
        let positions = model.table("embed_positions", self.max_tokens, self.width);
        let mut x = model.node("embed_tokens", Embedding { positions: true }, &[ids, table, positions])?;
        for i in 0..self.layers {
            x = self.layer(&mut model.child(format!("layers.{i}")), x)?;
        }
        x = model.layer_norm("layer_norm", x, EPS)?;
        graph.output(STATE, x);
        Ok(graph)
    }

    /// Whether all are ids of its tokens.
    ///
    /// # Errors
    /// If one is not, naming it.
    pub fn check_ids(&self, ids: &Tensor) -> Result<()> {
        check_ids(ids, self.vocab_size)
    }

    /// `LDMBertEncoderLayer`: self-attention and a feed-forward layer, each with a norm before and a residual around.
    fn layer(&self, m: &mut Module, x: ValueId) -> Result<ValueId> {
        let h = m.layer_norm("self_attn_layer_norm", x, EPS)?;
        let mut attn = m.child("self_attn");
        let qkv = attn.linears("qkv", &["q_proj", "k_proj", "v_proj"], h, self.heads * self.head, false)?;
        let h = attn.attention(Attention { heads: self.heads, causal: false }, &[qkv])?;
        let h = attn.linear("out_proj", h, self.width)?;
        let x = attn.add("add", x, h)?;
        let h = m.layer_norm("final_layer_norm", x, EPS)?;
        let h = m.linear("fc1", h, self.inner)?;
        let h = m.activation("activation_fn", h, self.act)?;
        let h = m.linear("fc2", h, self.width)?;
        m.add("add", x, h)
    }
}

impl NetworkConfig for Config {
    fn about(&self) -> String {
        let Self { layers, width, heads, head, .. } = self;
        format!("{layers} layers, {width} wide, {heads} heads of {head}")
    }

    fn ports(&self, _: &str) -> Vec<Port> {
        vec![Port::new(IDS, [Dim::Batch, Dim::Tokens], Changes::Text, Fill::Ids(self.vocab_size, None))]
    }

    fn own_sizes(&self, sizes: &mut Sizes) {
        sizes.tokens = self.max_tokens;
    }

    fn graph(&self, network: &str, _: &str, sizes: &Sizes) -> Result<Graph> {
        self.graph(network, sizes.batch, sizes.tokens)
    }

    fn prepare(&self, _: &str, inputs: &mut Tensors) -> Result<()> {
        inputs.get(IDS).map_or(Ok(()), |ids| self.check_ids(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_published_model() {
        let config = Config::from_json("{}", "bert/config.json").unwrap();
        assert_eq!(config.about(), "32 layers, 1280 wide, 8 heads of 64");
        let parameters: usize = config.graph("bert", 1, 77).unwrap().wanted().iter().map(|(_, s)| s.len()).sum();
        // 30522 and 77 rows; 32 layers of 4 projections, 3 of which have no bias, 2 linear layers, 2 norms; a norm.
        let layer = 4 * 1280 * 512 + 1280 + 2 * 1280 * 5120 + 5120 + 1280 + 4 * 1280;
        assert_eq!(parameters, (30_522 + 77) * 1280 + 32 * layer + 2 * 1280);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let message = |text| Config::from_json(text, "bert/config.json").unwrap_err().to_string();
        assert!(message(r#"{"activation_function": "tanh"}"#).contains(r#"activation_function has "tanh""#));
        assert!(message(r#"{"architectures": ["CLIPTextModel"]}"#).contains("supported: LDMBertModel"));
        assert!(message(r#"{"d_model": 0}"#).contains("d_model has 0"));
    }
}
