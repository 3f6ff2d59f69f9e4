//! CLIP's text encoder: token ids to embeddings (Radford et al. 2021; transformers' `CLIPTextModel` and
//! `CLIPTextModelWithProjection`). Stable Diffusion 1 reads OpenAI's ViT-L/14, Stable Diffusion 2 OpenCLIP's ViT-H,
//! and SDXL ViT-L and OpenCLIP's bigG.

use serde_json::json;

use super::config::NetworkConfig;
use super::keys::Keys;
use super::nn::Module;
use super::ports::{Changes, Dim, Fill, Port, Sizes, Tensors};
use crate::error::{Error, Field, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::Kind;
use crate::ops::attention::Attention;
use crate::ops::embedding::Embedding;
use crate::ops::product::epilogue::Act;
use crate::tensor::Tensor;

/// What old files have for `eos_token_id` though it is not the end token's id: pooling then looks for the largest id.
const LEGACY_EOS: u32 = 2;

/// The port of the prompts' tokens.
const IDS: &str = "input_ids";

/// A text encoder's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the embedding table that the checkpoint has.
    pub vocab_size: usize,
    /// Rows of the embedding table after the vocabulary's, which textual inversion adds.
    pub added: usize,
    /// Width of the embeddings.
    pub hidden_size: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// The most tokens that a prompt can have.
    pub max_tokens: usize,
    /// The token that ends a prompt, where the pooled embedding is taken.
    pub eos_token_id: u32,
    /// Width of `text_embeds`, if the pooled embedding is projected.
    pub projection: Option<usize>,
    layer: Layer,
}

/// One of its transformer blocks, `CLIPEncoderLayer`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layer {
    /// Heads of attention, which share the hidden width.
    pub heads: usize,
    /// Added to the variance in every layer norm.
    pub eps: f32,
    /// Width of the MLP's hidden layer.
    inner: usize,
    act: Act,
    causal: bool,
}

impl Layer {
    /// Reads what a `config.json` says of them; `default` is the MLP's width and the number of heads.
    ///
    /// # Errors
    /// If a value is not supported.
    pub fn read(keys: &mut Keys, hidden_size: usize, default: [usize; 2], causal: bool) -> Result<Self> {
        let act = keys.one_of("hidden_act", "quick_gelu", &["quick_gelu", "gelu"])?;
        let layer = Self {
            inner: keys.count("intermediate_size", default[0])?,
            heads: keys.count("num_attention_heads", default[1])?,
            eps: keys.eps("layer_norm_eps", 1e-5)?,
            act: if act == "gelu" { Act::Gelu } else { Act::QuickGelu },
            causal,
        };
        if hidden_size.is_multiple_of(layer.heads) {
            return Ok(layer);
        }
        Err(keys.error(format!("num_attention_heads {} does not divide hidden_size {hidden_size}", layer.heads)))
    }

    /// Self-attention and a feed-forward layer, each with a norm before and a residual around.
    ///
    /// # Errors
    /// If the network has too many layers.
    pub fn build(&self, m: &mut Module, x: ValueId) -> Result<ValueId> {
        let Self { heads, eps, inner, act, causal } = *self;
        let width = m.channels(x);
        let h = m.layer_norm("layer_norm1", x, eps)?;
        let mut attn = m.child("self_attn");
        let q = attn.linear("q_proj", h, width)?;
        let k = attn.linear("k_proj", h, width)?;
        let v = attn.linear("v_proj", h, width)?;
        let h = attn.attention(Attention { heads, causal }, &[q, k, v])?;
        let h = attn.linear("out_proj", h, width)?;
        let x = attn.add("add", x, h)?;
        let h = m.layer_norm("layer_norm2", x, eps)?;
        let mut mlp = m.child("mlp");
        let h = mlp.linear("fc1", h, inner)?;
        let h = mlp.activation("activation_fn", h, act)?;
        let h = mlp.linear("fc2", h, width)?;
        mlp.add("add", x, h)
    }
}

/// How a family of UNets takes a hidden state of the text encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Under the final norm: Stable Diffusion 1 and 2.
    Normed,
    /// As it is, with the pooled embedding beside it: SDXL.
    Raw,
}

impl Config {
    /// Reads a `config.json`; `place` is what error messages call it. Absent keys have the defaults of transformers'
    /// `CLIPTextConfig`, which ignores keys that it does not know, and so does this.
    ///
    /// # Errors
    /// If it is not a CLIP text encoder's, or a value is not supported; the message names the key and the value.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let mut keys = Keys::parse(text, place)?;
        keys.only(&[("model_type", json!("clip_text_model")), ("quantization_config", json!(null))])?;
        let classes = ["CLIPTextModel", "CLIPTextModelWithProjection"];
        let architectures = keys.names("architectures", &classes[..1], &classes)?;
        let projection_dim = keys.count("projection_dim", 512)?;
        let hidden_size = keys.count("hidden_size", 512)?;
        Ok(Self {
            vocab_size: keys.count("vocab_size", 49_408)?,
            added: 0,
            hidden_size,
            layers: keys.count("num_hidden_layers", 12)?,
            max_tokens: keys.count("max_position_embeddings", 77)?,
            eos_token_id: keys.get("eos_token_id", 49_407)?,
            projection: architectures.iter().any(|a| a == classes[1]).then_some(projection_dim),
            layer: Layer::read(&mut keys, hidden_size, [2048, 8], true)?,
        })
    }

    /// For each prompt the row of its pooled token among all `B * T` rows, which is the graph's input `pool_rows`
    /// `[B]`: the first end token's or, with the legacy `eos_token_id` 2, the largest id's, as transformers takes
    /// them. Without an end token it is the prompt's first.
    ///
    /// # Errors
    /// If `input_ids` is not `[B, T]`, is longer than the encoder's positions, or holds what is not a token's id.
    pub fn pool_rows(&self, input_ids: &Tensor) -> Result<Tensor> {
        let &[batch, tokens] = input_ids.shape.dims() else {
            return Err(Error::shape(format!("input_ids should be [batch, tokens], found {}", input_ids.shape)));
        };
        if input_ids.shape.is_empty() {
            return Err(Error::shape(format!("input_ids should not be empty, is {}", input_ids.shape)));
        }
        self.check_tokens(tokens)?;
        check_ids(input_ids, self.rows())?;
        let rows = input_ids.data.chunks(tokens).enumerate();
        Ok(Tensor::new([batch], rows.map(|(b, ids)| (b * tokens + self.pooled(ids)) as f32).collect()))
    }

    /// Rows of the embedding table.
    fn rows(&self) -> usize {
        self.vocab_size + self.added
    }

    fn pooled(&self, ids: &[f32]) -> usize {
        let in_vocabulary = |id: &f32| *id < self.vocab_size as f32;
        let wanted = match self.eos_token_id {
            LEGACY_EOS => ids.iter().copied().filter(in_vocabulary).fold(0.0, f32::max),
            id => id as f32,
        };
        ids.iter().position(|id| *id == wanted).unwrap_or(0)
    }

    fn check_tokens(&self, tokens: usize) -> Result<()> {
        if tokens <= self.max_tokens {
            return Ok(());
        }
        Err(Error::shape(format!("{tokens} tokens, but the text encoder has {} positions", self.max_tokens)))
    }

    /// The forward pass of `network` (`text_encoder`, `text_encoder_2`) on `batch` prompts of `tokens` tokens.
    ///
    /// Inputs: `input_ids` `[B, T]` and `pool_rows` `[B]` ([`Config::pool_rows`]). Outputs: `last_hidden_state`
    /// `[B, T, D]` after the final norm, `penultimate_hidden_state` `[B, T, D]` (the last layer's input, without that
    /// norm), and `pooler_output` `[B, D]` or, with a projection, `text_embeds` `[B, P]`.
    ///
    /// # Errors
    /// If there are more tokens than positions.
    pub fn graph(&self, network: &str, batch: usize, tokens: usize) -> Result<Graph> {
        let mut graph = Graph::new(network);
        let mut root = Module::root(&mut graph);
        let states = self.states(&mut root, batch, tokens, self.layers)?;
        let (last, penultimate) = (states[self.layers], states[self.layers - 1]);
        let last = root.child("text_model").layer_norm("final_layer_norm", last, self.layer.eps)?;
        let (name, pooled) = self.pool(&mut root, last, batch)?;
        graph.output("last_hidden_state", last);
        graph.output("penultimate_hidden_state", penultimate);
        graph.output(name, pooled);
        Ok(graph)
    }

    /// What of that conditions a UNet. Inputs as [`Config::graph`]'s. Outputs: `context` `[B, T, D]`, the state `skip`
    /// from the end (1 is the last layer's output, 2 the one before it), and where [`State::Raw`] is asked of an
    /// encoder with a projection, `text_embeds` `[B, P]`. Layers that neither needs are left out, and so is
    /// `pool_rows`.
    ///
    /// # Errors
    /// If there are more tokens than positions, or not so many layers.
    pub fn conditioning(&self, network: &str, batch: usize, tokens: usize, skip: usize, state: State) -> Result<Graph> {
        if !(1..=self.layers).contains(&skip) {
            let what = format!("{skip}, but {network} has {0} layers: give 1 to {0}", self.layers);
            return Err(Error::usage(what).of(Field::ClipSkip));
        }
        let pools = state == State::Raw && self.projection.is_some();
        let chosen = self.layers + 1 - skip;
        let mut graph = Graph::new(network);
        let mut root = Module::root(&mut graph);
        let states = self.states(&mut root, batch, tokens, if pools { self.layers } else { chosen })?;
        let norm = |root: &mut Module, x| root.child("text_model").layer_norm("final_layer_norm", x, self.layer.eps);
        let context = match state {
            State::Normed => norm(&mut root, states[chosen])?,
            State::Raw => states[chosen],
        };
        if pools {
            let last = norm(&mut root, states[self.layers])?;
            let (name, pooled) = self.pool(&mut root, last, batch)?;
            root.graph().output(name, pooled);
        }
        graph.output("context", context);
        Ok(graph)
    }

    /// The first `depth + 1` hidden states: the embeddings, then each layer's output.
    fn states(&self, root: &mut Module, batch: usize, tokens: usize, depth: usize) -> Result<Vec<ValueId>> {
        self.check_tokens(tokens).map_err(|e| e.at(&root.graph().network))?;
        let input_ids = root.input("input_ids", Kind::U32, [batch, tokens])?;
        let mut model = root.child("text_model");
        let mut x = self.embeddings(&mut model.child("embeddings"), input_ids)?;
        let mut states = vec![x];
        for i in 0..depth {
            x = self.layer.build(&mut model.child(format!("encoder.layers.{i}")), x)?;
            states.push(x);
        }
        Ok(states)
    }

    /// The pooled row of each prompt's last state, projected if there is a projection, and what it is called.
    fn pool(&self, root: &mut Module, last: ValueId, batch: usize) -> Result<(&'static str, ValueId)> {
        let pool_rows = root.input("pool_rows", Kind::U32, [batch])?;
        let pooled = root.child("text_model").node("pool", Embedding { positions: false }, &[pool_rows, last])?;
        match self.projection {
            Some(width) => Ok(("text_embeds", root.linear_without_bias("text_projection", pooled, width)?)),
            None => Ok(("pooler_output", pooled)),
        }
    }

    fn embeddings(&self, m: &mut Module, input_ids: ValueId) -> Result<ValueId> {
        let table = m.table("token_embedding", self.rows(), self.hidden_size);
        let positions = m.table("position_embedding", self.max_tokens, self.hidden_size);
        m.node("token_embedding", Embedding { positions: true }, &[input_ids, table, positions])
    }
}

/// Whether all are ids of a table with this number of rows.
///
/// # Errors
/// If one is not, naming it.
pub(super) fn check_ids(ids: &Tensor, rows: usize) -> Result<()> {
    let is_id = |id: f32| id >= 0.0 && id.fract() == 0.0 && id < rows as f32;
    match ids.data.iter().find(|id| !is_id(**id)) {
        None => Ok(()),
        Some(id) => Err(Error::shape(format!(
            "input_ids holds {id}, but the text encoder knows ids from 0 to {}; does the tokenizer belong to it?",
            rows - 1
        ))),
    }
}

impl NetworkConfig for Config {
    fn about(&self) -> String {
        format!("{} layers, {} wide, {} heads", self.layers, self.hidden_size, self.layer.heads)
    }

    fn ports(&self, _: &str) -> Vec<Port> {
        let end = Some(self.eos_token_id as usize).filter(|id| *id < self.vocab_size);
        vec![Port::new(IDS, [Dim::Batch, Dim::Tokens], Changes::Text, Fill::Ids(self.vocab_size, end))]
    }

    fn own_sizes(&self, sizes: &mut Sizes) {
        sizes.tokens = self.max_tokens;
    }

    fn graph(&self, network: &str, _: &str, sizes: &Sizes) -> Result<Graph> {
        self.graph(network, sizes.batch, sizes.tokens)
    }

    fn prepare(&self, _: &str, inputs: &mut Tensors) -> Result<()> {
        let rows = inputs.get(IDS).map(|ids| self.pool_rows(ids)).transpose()?;
        inputs.extend(rows.map(|rows| ("pool_rows".to_string(), rows)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config> {
        Config::from_json(text, "text_encoder/config.json")
    }

    fn message(text: &str) -> String {
        config(text).unwrap_err().to_string()
    }

    fn ids(ids: &[f32]) -> Tensor {
        Tensor::new([ids.len() / 4, 4], ids.to_vec())
    }

    #[test]
    fn pooling_takes_the_first_end_token_of_each_prompt() {
        let c = config(r#"{"eos_token_id": 9}"#).unwrap();
        assert_eq!(c.pool_rows(&ids(&[8., 1., 9., 9., 8., 9., 11., 9.])).unwrap().data, [2.0, 5.0]);
    }

    #[test]
    fn pooling_with_the_legacy_end_token_takes_the_largest_id() {
        let c = config(r#"{"eos_token_id": 2}"#).unwrap();
        assert_eq!(c.pool_rows(&ids(&[8., 2., 9., 9., 8., 2., 2., 11.])).unwrap().data, [2.0, 7.0]);
    }

    #[test]
    fn pooling_passes_over_added_embeddings() {
        let c = Config { vocab_size: 10, added: 3, ..config(r#"{"eos_token_id": 2}"#).unwrap() };
        assert_eq!(c.pool_rows(&ids(&[8., 11., 9., 9.])).unwrap().data, [2.0]);
        assert!(c.pool_rows(&ids(&[8., 13., 9., 9.])).is_err());
    }

    #[test]
    fn skipped_layers_are_left_out_unless_pooling_needs_them() {
        let c = config(r#"{"num_hidden_layers": 4}"#).unwrap();
        let layers = |c: &Config, skip, state| {
            let graph = c.conditioning("text_encoder", 1, 7, skip, state).unwrap();
            let wanted = graph.wanted();
            (0..4).filter(|i| wanted.iter().any(|(key, _)| key.contains(&format!("layers.{i}.")))).count()
        };
        assert_eq!(layers(&c, 1, State::Normed), 4);
        assert_eq!(layers(&c, 3, State::Normed), 2);
        assert_eq!(layers(&c, 2, State::Raw), 3);
        assert_eq!(layers(&Config { projection: Some(8), ..c.clone() }, 2, State::Raw), 4);
        for skip in [0, 5] {
            let error = c.conditioning("text_encoder", 1, 7, skip, State::Normed).unwrap_err().to_string();
            assert!(error.contains("has 4 layers: give 1 to 4"), "{error}");
        }
    }

    #[test]
    fn pooling_without_an_end_token_takes_the_first_token() {
        let c = config("{}").unwrap();
        assert_eq!(c.pool_rows(&ids(&[8., 1., 2., 3.])).unwrap().data, [0.0]);
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_refused() {
        let c = config(r#"{"vocab_size": 10}"#).unwrap();
        for id in [10.0, -1.0, 0.5, f32::NAN] {
            let error = c.pool_rows(&ids(&[0., id, 1., 1.])).unwrap_err().to_string();
            assert!(error.contains("ids from 0 to 9"), "{error}");
        }
    }

    #[test]
    fn ids_without_a_token_are_refused() {
        let c = config("{}").unwrap();
        assert!(c.pool_rows(&Tensor::zeros([2, 0])).is_err());
        assert!(c.graph("text_encoder", 2, 0).is_err());
    }

    #[test]
    fn more_tokens_than_positions_are_refused() {
        let c = config("{}").unwrap();
        assert!(c.pool_rows(&Tensor::zeros([1, 78])).is_err());
        let error = c.graph("text_encoder", 1, 78).unwrap_err().to_string();
        assert_eq!(error, "text_encoder: 78 tokens, but the text encoder has 77 positions");
    }

    #[test]
    fn more_layers_than_a_network_may_have_are_refused() {
        let c = config(r#"{"num_hidden_layers": 1048576}"#).unwrap();
        let error = c.graph("text_encoder", 1, 7).unwrap_err().to_string();
        assert!(error.starts_with("text_encoder.text_model.encoder.layers.") && error.contains("too many"), "{error}");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert!(message(r#"{"hidden_act": "relu"}"#).contains(r#"hidden_act has "relu", supported: quick_gelu, gelu"#));
        assert!(message(r#"{"architectures": ["T5EncoderModel"]}"#).contains("T5EncoderModel"));
        assert!(message(r#"{"model_type": "clip"}"#).contains(r#"model_type is "clip""#));
        assert!(message(r#"{"hidden_size": 64, "num_attention_heads": 5}"#).contains("does not divide"));
        assert!(message(r#"{"eos_token_id": [1, 2]}"#).contains("eos_token_id is [1,2]"));
        assert!(message("[]").contains("not a JSON object"));
    }
}
