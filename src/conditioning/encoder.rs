//! A text encoder with its tokenizer: a text to chunks of tokens, chunks to embeddings.

use super::Options;
use crate::error::{Error, Result};
use crate::models::clip::{self, State};
use crate::models::unet;
use crate::network::{Executor, Network};
use crate::prompt::chunks::{Chunk, Tokens, divide};
use crate::prompt::{Segment, parse};
use crate::tensor::Tensor;
use crate::tokenizer::Tokenizer;
use crate::weights::{Changes, Extended, Model};

const TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// How prompts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Syntax {
    /// As diffusers does: every sign is text, and what does not fit into one chunk is left out.
    #[default]
    Plain,
    /// As AUTOMATIC1111's web UI does: with weights, in as many chunks as it takes.
    Weighted,
}

/// A text encoder with its weights in place, and the tokenizer that goes with it.
pub struct Encoder {
    tokenizer: Tokenizer,
    config: clip::Config,
    network: Network,
    syntax: Syntax,
}

impl Encoder {
    /// Opens the encoders that the UNet's family has (`text_encoder` with `tokenizer`, and SDXL's `text_encoder_2` with
    /// `tokenizer_2`) for so many texts at once, with the changes of LoRA files.
    ///
    /// # Errors
    /// If one is missing, cannot be loaded, or the options do not fit.
    pub async fn load_all(
        model: &Model,
        changes: &Changes,
        unet: &unet::Config,
        executor: &Executor,
        texts: usize,
        options: &Options,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Vec<Self>> {
        let (suffixes, state) = if unet.is_sdxl() { (&["", "_2"][..], State::Raw) } else { (&[""][..], State::Normed) };
        let mut encoders = Vec::new();
        for (place, suffix) in suffixes.iter().enumerate() {
            let Words { tokenizer, config, rows } = Words::open(model, suffix, place, options)?;
            let component = format!("text_encoder{suffix}");
            let skip = options.clip_skip.unwrap_or(if state == State::Raw { 2 } else { 1 });
            let graph = config.conditioning(&component, texts, config.max_tokens, skip, state)?;
            // The file holds the layers that are skipped, too.
            let wanted = config.graph(&component, 1, config.max_tokens)?.wanted();
            let weights = changes.merged(&component, model.weights(&component)?);
            let weights = Extended::new(weights, TABLE, &rows);
            let network = Network::load(executor, graph, &wanted, weights, tell).await?;
            encoders.push(Self { tokenizer, config, network, syntax: options.syntax });
        }
        let widths: Vec<usize> = encoders.iter().map(|encoder| encoder.config.hidden_size).collect();
        for embedding in &options.embeddings {
            if widths.iter().enumerate().all(|(place, width)| embedding.vectors(place, *width).is_none()) {
                let (own, widths) = (embedding.widths(), crate::error::ten(&widths));
                let what =
                    format!("has vectors of width {own}, and the model's text encoders {widths}: it is for another");
                return Err(embedding.error(what));
            }
        }
        Ok(encoders)
    }

    /// As [`Network::checked`].
    pub fn checked(self, checked: bool) -> Self {
        Self { network: self.network.checked(checked), ..self }
    }

    pub fn device_bytes(&self) -> u64 {
        self.network.device_bytes()
    }

    /// A text's chunks, and how many tokens were left out.
    pub(super) fn chunks(&self, text: &str) -> Result<(Vec<Chunk>, usize)> {
        let positions = self.config.max_tokens;
        if self.syntax == Syntax::Plain {
            let (ids, dropped) = self.tokenizer.encode_padded(text, positions)?;
            return Ok((vec![Chunk { weights: vec![1.0; ids.len()], ids }], dropped));
        }
        let tokens = |part| match part {
            Segment::Text(text, weight) => Ok(Tokens::Words(self.tokenizer.words(&text)?, weight as f32)),
            Segment::Break => Ok(Tokens::Break),
        };
        let parts = parse(text).into_iter().map(tokens).collect::<Result<Vec<_>>>()?;
        Ok((divide(&parts, &self.tokenizer.special(), positions), 0))
    }

    pub(super) fn empty_chunk(&self) -> Chunk {
        Chunk::empty(&self.tokenizer.special(), self.config.max_tokens)
    }

    /// One chunk of every text: `[texts, tokens, channels]`, and the pooled embeddings where the encoder has them.
    pub(super) async fn run(
        &mut self,
        chunks: &[&Chunk],
        tell: &mut dyn FnMut(&str),
    ) -> Result<(Tensor, Option<Tensor>)> {
        let ids = chunks.iter().flat_map(|chunk| chunk.ids.iter().map(|id| *id as f32)).collect();
        let ids = Tensor::new([chunks.len(), self.config.max_tokens], ids);
        let pool = self.config.pool_rows(&ids)?;
        let mut outputs = self.network.run(&[("input_ids", &ids), ("pool_rows", &pool)], tell).await?;
        let context = outputs.remove("context");
        let mut context = context.ok_or_else(|| Error::shape("a text encoder gives no context"))?;
        let each = context.data.len() / chunks.len();
        for (row, chunk) in context.data.chunks_exact_mut(each).zip(chunks) {
            if !chunk.is_plain() {
                weigh(row, &chunk.weights);
            }
        }
        Ok((context, outputs.remove("text_embeds")))
    }
}

/// Multiplies every token's embedding by its weight, and all by what restores their mean.
fn weigh(embeddings: &mut [f32], weights: &[f32]) {
    let sum = |row: &[f32]| row.iter().map(|v| f64::from(*v)).sum::<f64>();
    let before = sum(embeddings);
    let width = embeddings.len() / weights.len();
    for (token, weight) in embeddings.chunks_exact_mut(width).zip(weights) {
        token.iter_mut().for_each(|v| *v *= weight);
    }
    let restore = (before / sum(embeddings)) as f32;
    embeddings.iter_mut().for_each(|v| *v *= restore);
}

/// What the encoder of a model knows before its weights are loaded.
struct Words {
    tokenizer: Tokenizer,
    config: clip::Config,
    /// The vectors that textual inversion adds to the table, `[N, width]`.
    rows: Tensor,
}

impl Words {
    fn open(model: &Model, suffix: &str, place: usize, options: &Options) -> Result<Self> {
        let folder = format!("tokenizer{suffix}");
        let mut tokenizer =
            Tokenizer::from_files(model.path(&folder), |name| model.bytes(&format!("{folder}/{name}")))?;
        let path = format!("text_encoder{suffix}/config.json");
        let mut config = clip::Config::from_json(&model.text(&path)?, &model.path(&path).display().to_string())?;
        if config.max_tokens < 3 {
            let what = format!("max_position_embeddings is {}: no prompt fits", config.max_tokens);
            return Err(Error::config(model.path(&path).display(), what));
        }
        let mut rows = Vec::new();
        for embedding in &options.embeddings {
            let Some(vectors) = embedding.vectors(place, config.hidden_size) else { continue };
            let (count, most) = (vectors.shape.batch(), config.max_tokens - 2);
            if count > most {
                return Err(embedding.error(format!("has {count} vectors, but a prompt holds {most}")));
            }
            let first = config.vocab_size + config.added;
            let ids = (first..first + count).map(|id| id as u32).collect();
            // The web UI finds words; diffusers finds its tokens inside of words, too.
            let alone = options.syntax == Syntax::Weighted;
            tokenizer.add_word(&embedding.name, ids, alone).map_err(|error| embedding.error(error))?;
            rows.extend_from_slice(&vectors.data);
            config.added += count;
        }
        let rows = Tensor::new([config.added, config.hidden_size], rows);
        Ok(Self { tokenizer, config, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_scale_tokens_and_keep_the_mean() {
        let mut row = [1.0, 3.0, 2.0, 2.0];
        weigh(&mut row, &[1.0, 2.0]);
        // [1, 3, 4, 4] before its mean of 3 is brought back to 2.
        let wanted = [2.0 / 3.0, 2.0, 8.0 / 3.0, 8.0 / 3.0];
        assert!(row.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{row:?}");
    }
}
