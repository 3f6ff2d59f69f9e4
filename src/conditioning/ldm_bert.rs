//! LDMBert as a text encoder, with its tokenizer: a text to exactly [`TOKENS`] tokens.

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::ldm_bert::Config;
use crate::tensor::Tensor;
use crate::tokenizer::Tokenizer;
use crate::weights::Model;

/// The folder of its configuration and weights.
pub const COMPONENT: &str = "bert";
/// Tokens of every text: shorter ones are padded, longer ones cut (diffusers' `LDMTextToImagePipeline`).
const TOKENS: usize = 77;

/// A model's text encoder before its weights are loaded.
pub struct LdmBertText {
    config: Config,
    tokenizer: Tokenizer,
}

impl LdmBertText {
    /// Opens `bert` and `tokenizer`.
    ///
    /// # Errors
    /// If one is missing or cannot be understood, or the encoder has too few positions.
    pub fn open(model: &Model) -> Result<Self> {
        let path = format!("{COMPONENT}/config.json");
        let place = model.path(&path).display().to_string();
        let config = Config::from_json(&model.text(&path)?, &place)?;
        if config.max_tokens < TOKENS {
            let what = format!("max_position_embeddings is {}, but texts have {TOKENS} tokens", config.max_tokens);
            return Err(Error::config(place, what));
        }
        let file = |name: &str| model.bytes(&format!("tokenizer/{name}"));
        Ok(Self { config, tokenizer: Tokenizer::of_word_pieces(model.path("tokenizer"), file)? })
    }

    /// Channels of a token's embedding.
    pub fn width(&self) -> usize {
        self.config.width
    }

    /// Tokens of every text.
    pub fn tokens(&self) -> usize {
        TOKENS
    }

    /// The graph for this number of texts.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn graph(&self, texts: usize) -> Result<Graph> {
        self.config.graph(COMPONENT, texts, TOKENS)
    }

    /// The ids of texts `[texts, tokens]`, and how many of the longest were left out.
    ///
    /// # Errors
    /// If a text cannot be tokenized, or the encoder does not know a token.
    pub fn ids(&self, texts: &[&str]) -> Result<(Tensor, usize)> {
        let encoded =
            texts.iter().map(|text| self.tokenizer.encode_padded(text, TOKENS)).collect::<Result<Vec<_>>>()?;
        let dropped = encoded.iter().map(|(_, dropped)| *dropped).max().unwrap_or_default();
        let ids = encoded.into_iter().flat_map(|(ids, _)| ids).map(|id| id as f32).collect();
        let ids = Tensor::new([texts.len(), TOKENS], ids);
        self.config.check_ids(&ids).map_err(|error| error.at(COMPONENT))?;
        Ok((ids, dropped))
    }
}
