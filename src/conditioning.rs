//! The prompt's half of the pipeline: texts -> token ids -> text encoders -> what the UNet is conditioned on.

use crate::error::{Error, Result};
use crate::models::{clip, unet};
use crate::network::{Executor, Network};
use crate::tensor::Tensor;
use crate::tokenizer::Tokenizer;
use crate::weights::Model;

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

/// A text encoder with its weights in place, and the tokenizer that goes with it.
pub struct Encoder {
    tokenizer: Tokenizer,
    config: clip::Config,
    network: Network,
    tokens: usize,
}

impl Encoder {
    /// Opens `text_encoder` with `tokenizer`, or `text_encoder_2` with `tokenizer_2`, for so many texts at once; `checked`
    /// as [`Network::checked`].
    pub async fn load(
        model: &Model,
        executor: &Executor,
        suffix: &str,
        texts: usize,
        checked: bool,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let component = format!("text_encoder{suffix}");
        let folder = format!("tokenizer{suffix}");
        let tokenizer = Tokenizer::from_files(model.path(&folder), |name| model.bytes(&format!("{folder}/{name}")))?;
        let path = format!("{component}/config.json");
        let config = clip::Config::from_json(&model.text(&path)?, &model.path(&path).display().to_string())?;
        let tokens = config.max_tokens;
        let graph = config.graph(&component, texts, tokens)?;
        let wanted = graph.wanted();
        let weights = model.weights(&component)?;
        let network = Network::load(executor, graph, &wanted, weights, tell).await?.checked(checked);
        Ok(Self { tokenizer, config, network, tokens })
    }

    pub fn device_bytes(&self) -> u64 {
        self.network.device_bytes()
    }

    /// Runs the encoder on the texts: its outputs by name, and how many tokens of the longest text were left out.
    async fn run(
        &mut self,
        texts: &[&str],
        tell: &mut dyn FnMut(&str),
    ) -> Result<(std::collections::HashMap<String, Tensor>, usize)> {
        let mut rows = Vec::with_capacity(texts.len());
        let mut dropped = 0;
        for text in texts {
            let (ids, over) = self.tokenizer.encode_padded(text, self.tokens)?;
            dropped = dropped.max(over);
            rows.push(ids);
        }
        let ids = Tensor::new([texts.len(), self.tokens], rows.iter().flatten().map(|id| *id as f32).collect());
        let pool = self.config.pool_rows(&ids)?;
        let outputs = self.network.run(&[("input_ids", &ids), ("pool_rows", &pool)], tell).await?;
        Ok((outputs, dropped))
    }
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
    tell: &mut dyn FnMut(&str),
) -> Result<Conditioning> {
    let sdxl = unet.is_sdxl();
    let (mut contexts, mut pooled, mut dropped) = (Vec::new(), None, 0);
    for encoder in &mut *encoders {
        let (mut outputs, over) = encoder.run(texts.texts, tell).await?;
        dropped = dropped.max(over);
        let hidden = if sdxl { "penultimate_hidden_state" } else { "last_hidden_state" };
        let hidden = outputs.remove(hidden).ok_or_else(|| Error::shape(format!("a text encoder gives no {hidden}")))?;
        contexts.push(hidden);
        pooled = outputs.remove("text_embeds").or(pooled);
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
    fn each_text_is_repeated_for_every_picture() {
        let rows = Tensor::new([2, 1], vec![1.0, 2.0]);
        assert_eq!(repeat_rows(&rows, 2), Tensor::new([4, 1], vec![1.0, 1.0, 2.0, 2.0]));
    }
}
