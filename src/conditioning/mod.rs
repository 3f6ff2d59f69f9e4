//! The prompt's half of a picture: texts -> token ids -> chunks for text encoders, and how their embeddings are
//! joined.

pub mod clip;
mod embedding;
pub mod ldm_bert;

use crate::error::Result;
use crate::ops::Op;
use crate::ops::concat::Concat;
use crate::prompt::chunks::Chunk;
use crate::tensor::Tensor;
pub use clip::{ClipText, Syntax};
pub use embedding::Embedding;

/// How texts are read and encoded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// How weights and breaks are written.
    pub syntax: Syntax,
    /// Which layer's output conditions the UNet, from the last: 1 is the last, 2 the one before. `None` is the
    /// family's own, 2 for SDXL and 1 for the others.
    pub clip_skip: Option<usize>,
    /// Words that textual inversion adds.
    pub embeddings: Vec<Embedding>,
}

/// Texts as their encoders take them.
pub struct Chunks {
    /// For every encoder its chunks: the first of all texts, the second of all texts, .. Texts that have fewer are
    /// filled up with empty ones, since a UNet takes all at one length.
    pub of: Vec<Vec<Vec<Chunk>>>,
    /// Tokens of the longest text that did not fit and were left out.
    pub dropped: usize,
}

impl Chunks {
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn of(encoders: &[ClipText], texts: &[&str]) -> Result<Self> {
        let mut dropped = 0;
        let mut all = Vec::new();
        for encoder in encoders {
            let mut rows = Vec::new();
            for text in texts {
                let (chunks, over) = encoder.chunks(text)?;
                dropped = dropped.max(over);
                rows.push(chunks);
            }
            all.push(rows);
        }
        let most = all.iter().flatten().map(Vec::len).max().unwrap_or_default();
        let columns = |(encoder, rows): (&ClipText, Vec<Vec<Chunk>>)| {
            let chunk = |row: &Vec<Chunk>, i| row.get(i).cloned().unwrap_or_else(|| encoder.empty_chunk());
            (0..most).map(|i| rows.iter().map(|row| chunk(row, i)).collect()).collect()
        };
        Ok(Self { of: encoders.iter().zip(all).map(columns).collect(), dropped })
    }

    /// Tokens of all chunks of a text together.
    pub fn tokens(&self) -> usize {
        self.of.first().map_or(0, |chunks| chunks.iter().filter_map(|texts| texts.first()).map(|c| c.ids.len()).sum())
    }
}

/// `[B, T, C1]` and `[B, T, C2]` to `[B, T, C1 + C2]`.
pub fn join_channels(a: &Tensor, b: &Tensor) -> Tensor {
    Concat.reference(&[a, b], &a.shape.with_channels(a.shape.channels() + b.shape.channels()))
}

/// Tensors `[B, T, C]` one after the other along the tokens.
pub fn join_tokens(parts: &[Tensor]) -> Tensor {
    let dims = parts[0].shape.dims();
    let (batch, tokens, each) = (dims[0], dims[1], dims[1] * dims[2]);
    let rows = (0..batch).flat_map(|b| parts.iter().flat_map(move |part| &part.data[b * each..][..each]));
    Tensor::new([batch, tokens * parts.len(), dims[2]], rows.copied().collect())
}

/// Rows repeated `times` each, in order: one text for several pictures.
pub fn repeat_rows(tensor: &Tensor, times: usize) -> Tensor {
    let batch = tensor.shape.batch();
    let rows = tensor.data.chunks_exact(tensor.data.len() / batch);
    let data = rows.flat_map(|row| std::iter::repeat_n(row, times)).flatten().copied().collect();
    Tensor::new(tensor.shape.with_batch(batch * times), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_of_two_encoders_stand_side_by_side() {
        let a = Tensor::new([1, 2, 1], vec![1.0, 2.0]);
        let b = Tensor::new([1, 2, 2], vec![3.0, 4.0, 5.0, 6.0]);
        assert_eq!(join_channels(&a, &b), Tensor::new([1, 2, 3], vec![1.0, 3.0, 4.0, 2.0, 5.0, 6.0]));
    }

    #[test]
    fn chunks_of_a_text_stand_one_after_the_other() {
        let a = Tensor::new([2, 1, 2], vec![1.0, 2.0, 5.0, 6.0]);
        let b = Tensor::new([2, 1, 2], vec![3.0, 4.0, 7.0, 8.0]);
        let wanted = Tensor::new([2, 2, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(join_tokens(&[a, b]), wanted);
    }

    #[test]
    fn each_text_is_repeated_for_every_picture() {
        let rows = Tensor::new([2, 1], vec![1.0, 2.0]);
        assert_eq!(repeat_rows(&rows, 2), Tensor::new([4, 1], vec![1.0, 1.0, 2.0, 2.0]));
    }
}
