//! The prompt's half of the pipeline: texts -> token ids -> text encoders -> what the UNet is conditioned on.

mod embedding;
mod encoder;

use crate::error::{Error, Message, Result};
use crate::models::unet;
use crate::prompt::chunks::Chunk;
use crate::tensor::Tensor;
use crate::weights::Model;
pub use embedding::Embedding;
pub use encoder::{Encoder, Syntax};

/// How texts are read and encoded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    pub syntax: Syntax,
    /// Which layer's output conditions the UNet, from the last: 1 is the last, 2 the one before. `None` is the family's own,
    /// 2 for SDXL and 1 for the others.
    pub clip_skip: Option<usize>,
    /// Words that textual inversion adds.
    pub embeddings: Vec<Embedding>,
}

/// One row per text, in the order of the texts.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// `[texts, tokens, channels]`: the UNet's `encoder_hidden_states`.
    pub context: Tensor,
    /// `[texts, channels]`: SDXL's `text_embeds`.
    pub pooled: Option<Tensor>,
    /// Tokens of the longest text that did not fit and were left out.
    pub dropped: usize,
    /// The most device memory that an encoder held.
    pub device_bytes: u64,
}

/// Which texts, and whether the first of them (the negative one) was left out by the user.
pub struct Texts<'a> {
    pub texts: &'a [&'a str],
    pub negative_absent: bool,
}

/// Conditions a UNet on texts, with the encoders that its family has.
///
/// # Errors
/// If an encoder fails or gives what this UNet does not take.
pub async fn condition(
    model: &Model,
    unet: &unet::Config,
    encoders: &mut [Encoder],
    texts: &Texts<'_>,
    tell: &mut dyn FnMut(&Message),
) -> Result<Conditioning> {
    let sdxl = unet.is_sdxl();
    let (chunks, dropped) = chunks(encoders, texts.texts)?;
    let (mut contexts, mut pooled) = (Vec::new(), None);
    for (encoder, chunks) in encoders.iter_mut().zip(&chunks) {
        let mut parts = Vec::new();
        for (index, chunks) in chunks.iter().enumerate() {
            let (part, embeds) = encoder.run(&chunks.iter().collect::<Vec<_>>(), tell).await?;
            parts.push(part);
            // The first chunk's speaks for the whole text.
            if index == 0 {
                pooled = embeds.or(pooled);
            }
        }
        contexts.push(join_tokens(&parts));
    }
    let mut context = contexts
        .into_iter()
        .reduce(|a, b| join_channels(&a, &b))
        .ok_or_else(|| Error::config(model.name(), "there is no text_encoder to condition the UNet with"))?;
    let width = context.shape.channels();
    if width != unet.cross_attention_dim {
        return Err(Error::config(
            model.path("unet/config.json").display(),
            format!("cross_attention_dim is {}, but the text encoders give {width}", unet.cross_attention_dim),
        ));
    }
    if sdxl && pooled.is_none() {
        return Err(Error::config(model.name(), "SDXL needs a text_encoder_2 with a projection"));
    }
    let mut pooled = pooled.filter(|_| sdxl);
    if sdxl && texts.negative_absent && zero_when_empty(model)? {
        clear_first_row(&mut context);
        pooled.as_mut().map(clear_first_row);
    }
    let device_bytes = encoders.iter().map(Encoder::device_bytes).max().unwrap_or(0);
    Ok(Conditioning { context, pooled, dropped, device_bytes })
}

/// For every encoder its chunks: the first of all texts, the second of all texts, .. Texts that have fewer are filled up with
/// empty ones, since the UNet takes all at one length. And how many tokens of the longest text were left out.
fn chunks(encoders: &[Encoder], texts: &[&str]) -> Result<(Vec<Vec<Vec<Chunk>>>, usize)> {
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
    let columns = |(encoder, rows): (&Encoder, Vec<Vec<Chunk>>)| {
        let chunk = |row: &Vec<Chunk>, i| row.get(i).cloned().unwrap_or_else(|| encoder.empty_chunk());
        (0..most).map(|i| rows.iter().map(|row| chunk(row, i)).collect()).collect()
    };
    Ok((encoders.iter().zip(all).map(columns).collect(), dropped))
}

/// `force_zeros_for_empty_prompt` of `model_index.json`: without a negative prompt the unconditional embeddings are 0.
fn zero_when_empty(model: &Model) -> Result<bool> {
    let index: serde_json::Value = model.json("model_index.json")?;
    // StableDiffusionXLPipeline's own default.
    Ok(index.get("force_zeros_for_empty_prompt").and_then(serde_json::Value::as_bool).unwrap_or(true))
}

fn clear_first_row(tensor: &mut Tensor) {
    let row = tensor.data.len() / tensor.shape.batch();
    tensor.data[..row].fill(0.0);
}

/// `[B, T, C1]` and `[B, T, C2]` to `[B, T, C1 + C2]`.
fn join_channels(a: &Tensor, b: &Tensor) -> Tensor {
    let (ca, cb) = (a.shape.channels(), b.shape.channels());
    let rows = a.data.chunks_exact(ca).zip(b.data.chunks_exact(cb));
    let data = rows.flat_map(|(x, y)| x.iter().chain(y)).copied().collect();
    Tensor::new(a.shape.with_channels(ca + cb), data)
}

/// Tensors `[B, T, C]` one after the other along the tokens.
fn join_tokens(parts: &[Tensor]) -> Tensor {
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
