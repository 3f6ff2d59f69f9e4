//! CLIP as a text encoder, with its tokenizer: a text to chunks of tokens, and what is done to their embeddings.

use super::Options;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::clip::{self, State};
use crate::prompt::chunks::{Chunk, Tokens, divide};
use crate::prompt::{Segment, parse};
use crate::tensor::{Shape, Tensor};
use crate::tokenizer::Tokenizer;
use crate::weights::Model;

/// The table that textual inversion adds rows to.
pub const TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// How prompts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Syntax {
    /// As diffusers does: every sign is text, and what does not fit into one chunk is left out.
    #[default]
    Plain,
    /// As AUTOMATIC1111's web UI does: with weights, in as many chunks as it takes.
    Weighted,
}

/// What of an encoder conditions a UNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Under the final norm or as it is.
    pub state: State,
    /// Which layer's output, from the last: 1 is the last.
    pub skip: usize,
}

/// A model's text encoder before its weights are loaded: its configuration, and the tokenizer that goes with it.
pub struct ClipText {
    /// The folder of its weights.
    pub component: String,
    tokenizer: Tokenizer,
    config: clip::Config,
    /// The vectors that textual inversion adds to the table, `[N, width]`.
    rows: Tensor,
    syntax: Syntax,
}

impl ClipText {
    /// Opens the encoders with these suffixes to their folders' names: `text_encoder` with `tokenizer`, and so on.
    ///
    /// # Errors
    /// If one is missing or cannot be understood, or the options do not fit.
    pub fn open_all(model: &Model, suffixes: &[&str], options: &Options) -> Result<Vec<Self>> {
        let open = |(place, suffix): (usize, &&str)| Self::open(model, suffix, place, options);
        let encoders = suffixes.iter().enumerate().map(open).collect::<Result<Vec<_>>>()?;
        let widths: Vec<usize> = encoders.iter().map(Self::width).collect();
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

    fn open(model: &Model, suffix: &str, place: usize, options: &Options) -> Result<Self> {
        let folder = format!("tokenizer{suffix}");
        let mut tokenizer =
            Tokenizer::from_files(model.path(&folder), |name| model.bytes(&format!("{folder}/{name}")))?;
        let component = format!("text_encoder{suffix}");
        let path = format!("{component}/config.json");
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
        Ok(Self { component, tokenizer, config, rows, syntax: options.syntax })
    }

    /// Channels of a token's embedding.
    pub fn width(&self) -> usize {
        self.config.hidden_size
    }

    /// Rows that are added to [`TABLE`], if there are any.
    pub fn added(&self) -> Option<(&'static str, Tensor)> {
        (self.config.added > 0).then(|| (TABLE, self.rows.clone()))
    }

    /// The graph for one chunk of each text, and every tensor that the encoder's file should hold, skipped layers
    /// included.
    ///
    /// # Errors
    /// If it has fewer layers than are to be skipped.
    pub fn graph(&self, texts: usize, wanted: Wanted) -> Result<(Graph, Vec<(String, Shape)>)> {
        let tokens = self.config.max_tokens;
        let graph = self.config.conditioning(&self.component, texts, tokens, wanted.skip, wanted.state)?;
        Ok((graph, self.config.graph(&self.component, 1, tokens)?.wanted()))
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

    /// What the network is given for one chunk of every text: the ids `[texts, tokens]` and the rows of the pooled
    /// tokens.
    ///
    /// # Errors
    /// If an id is not in the encoder's table.
    pub fn inputs(&self, chunks: &[Chunk]) -> Result<[(&'static str, Tensor); 2]> {
        let ids = chunks.iter().flat_map(|chunk| chunk.ids.iter().map(|id| *id as f32)).collect();
        let ids = Tensor::new([chunks.len(), self.config.max_tokens], ids);
        let pool = self.config.pool_rows(&ids)?;
        Ok([("input_ids", ids), ("pool_rows", pool)])
    }
}

/// Weighs the embeddings `[texts, tokens, channels]` of one chunk of every text.
pub fn weigh_all(context: &mut Tensor, chunks: &[Chunk]) {
    let each = context.data.len() / chunks.len();
    for (row, chunk) in context.data.chunks_exact_mut(each).zip(chunks) {
        if !chunk.is_plain() {
            weigh(row, &chunk.weights);
        }
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
