//! What Stable Diffusion's UNet is conditioned on.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use web_time::Instant;

use super::versions::{Clock, Versions};
use super::{StableDiffusion, index_flag};
use crate::conditioning::clip::Wanted;
use crate::conditioning::{Chunks, ClipText, Embedding, join_channels};
use crate::error::{Error, Result};
use crate::network::Executor;
use crate::systems::kit::{Caller, Kit};
use crate::systems::part::{Models, Part};
use crate::systems::request::Request;
use crate::systems::settings::Settings;
use crate::systems::system::System;
use crate::systems::text::{self, encode};
use crate::tensor::Tensor;
use crate::weights::Model;

/// One row per text, the negative one first where guidance needs it; so for each version of the texts.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// `[texts, tokens, channels]`: the UNet's `encoder_hidden_states`.
    pub context: Tensor,
    /// `[texts, channels]`: SDXL's `text_embeds`.
    pub pooled: Option<Tensor>,
    /// The version at each evaluation of the UNet.
    pub versions: Vec<usize>,
}

impl Conditioning {
    /// Tokens of a text, and versions.
    pub(super) fn sizes(&self) -> [usize; 2] {
        let [_, tokens, _] = *self.context.shape.dims() else { return [1, 1] };
        [tokens, count(&self.versions)]
    }

    /// How many rows a version has.
    pub(super) fn rows(&self) -> usize {
        self.context.shape.batch() / count(&self.versions)
    }

    /// Of a tensor with some rows for each version those of each evaluation's, the first evaluation's first.
    pub(super) fn at_evaluations(&self, tensor: &Tensor) -> Tensor {
        let versions = tensor.data.chunks_exact(tensor.data.len() / count(&self.versions)).collect::<Vec<_>>();
        let data = self.versions.iter().flat_map(|version| versions[*version]).copied().collect();
        let rows = tensor.shape.batch() / versions.len() * self.versions.len();
        Tensor::new(tensor.shape.with_batch(rows), data)
    }
}

/// How many versions these are of.
fn count(versions: &[usize]) -> usize {
    versions.iter().max().map_or(1, |last| last + 1)
}

/// A request's texts, ready for the encoders.
pub(super) struct Texts {
    pub encoders: Arc<Vec<ClipText>>,
    pub chunks: Chunks,
    /// How many a version has: two with guidance.
    pub count: usize,
    /// The version at each evaluation of the UNet.
    pub versions: Vec<usize>,
    pub parts: Vec<Part>,
}

impl Texts {
    /// Tokens of a text, and versions.
    pub fn sizes(&self) -> [usize; 2] {
        [self.chunks.tokens(), count(&self.versions)]
    }
}

impl StableDiffusion {
    /// Tokenizes the prompt and, where guidance needs it, the negative one: all that they say at the clock's steps.
    ///
    /// # Errors
    /// If a tokenizer or an encoder's configuration is missing, or gives what this UNet does not take.
    pub(super) fn texts(
        &self,
        models: &Models,
        request: &Request,
        settings: &Settings,
        clock: &Clock,
    ) -> Result<Texts> {
        let encoders = self.encoders(&models.model, request)?;
        let both = [request.negative.as_deref().unwrap_or(""), &request.prompt];
        let prompts = if self.guidance(request, settings).rows > 1 { &both[..] } else { &both[1..] };
        let Versions { texts, at } = clock.versions(prompts, request.conditioning.syntax);
        let texts: Vec<_> = texts.iter().flatten().map(String::as_str).collect();
        let chunks = Chunks::of(&encoders, &texts)?;
        let skip = request.conditioning.clip_skip.unwrap_or(self.variant.skip);
        let wanted = Wanted { state: self.variant.state, skip };
        let part = |(encoder, chunks): (&ClipText, &Vec<_>)| text::part(encoder, texts.len(), wanted, chunks.len());
        let parts = encoders.iter().zip(&chunks.of).map(part).collect::<Result<_>>()?;
        let (width, wanted) = (encoders.iter().map(ClipText::width).sum::<usize>(), self.unet.cross_attention_dim);
        if width == wanted {
            return Ok(Texts { encoders, chunks, count: prompts.len(), versions: at, parts });
        }
        let place = models.model.path("unet/config.json");
        Err(Error::config(
            place.display(),
            format!("cross_attention_dim is {wanted}, but the text encoders give {width}"),
        ))
    }

    /// The encoders for these options and the words that come with LoRA files, opened once for calls with the same.
    fn encoders(&self, model: &Model, request: &Request) -> Result<Arc<Vec<ClipText>>> {
        let mut own = request.conditioning.clone();
        for lora in &request.loras {
            for word in Embedding::bundled(&lora.file)? {
                if own.embeddings.iter().all(|known| known.name != word.name) {
                    own.embeddings.push(word);
                }
            }
        }
        let mut last = self.encoders.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((options, encoders)) = &*last
            && *options == own
        {
            return Ok(Arc::clone(encoders));
        }
        let encoders = Arc::new(ClipText::open_all(model, self.variant.encoders, &own)?);
        *last = Some((own, Arc::clone(&encoders)));
        Ok(encoders)
    }

    /// What a request's texts become, without a picture.
    ///
    /// # Errors
    /// If the request makes no sense for this model, or an encoder cannot be loaded or run.
    pub async fn encode(&self, models: &Models, executor: &Executor, request: &Request) -> Result<Conditioning> {
        let settings = self.settings(models, request)?;
        let never = AtomicBool::new(false);
        let caller = Caller { cancel: &never, tell: &mut |_| {}, keep: &mut |_| Ok(()) };
        let mut kit = Kit::new(Instant::now(), models, executor, (request, &settings), None, caller)?;
        let sampler = settings.sampler(&self.schedule)?;
        let texts = self.texts(models, request, &settings, &Clock::of(&sampler, 0, sampler.steps()))?;
        self.condition(&mut kit, texts).await
    }

    /// Prompts to embeddings.
    ///
    /// # Errors
    /// If an encoder cannot be loaded or run.
    pub(super) async fn condition(&self, kit: &mut Kit<'_>, texts: Texts) -> Result<Conditioning> {
        let (model, both) = (&kit.models.model, texts.count > 1);
        // Without a negative prompt the unconditional embeddings are 0, unless the model says no.
        let zero = || Ok::<_, Error>(index_flag(model, "force_zeros_for_empty_prompt")?.unwrap_or(true));
        let zero = self.variant.pooled && both && kit.request.negative.is_none() && zero()?;
        let encoded = encode(kit, &texts.encoders, texts.parts, &texts.chunks).await?;
        let (mut contexts, mut pooled) = (Vec::new(), None);
        for of_one in encoded {
            contexts.push(of_one.context);
            pooled = of_one.pooled.or(pooled);
        }
        let context = contexts.into_iter().reduce(|a, b| join_channels(&a, &b));
        let mut context = context.ok_or_else(|| Error::shape("there is no text encoder"))?;
        // More rows than texts: the first text's with and without a picture.
        let more = self.guidance(kit.request, kit.settings).rows - texts.count;
        context = with_first_rows(&context, texts.count, more);
        let mut pooled = pooled.filter(|_| self.variant.pooled);
        if self.variant.pooled && pooled.is_none() {
            let what = format!("{} needs a text encoder with a projection", self.variant.class);
            return Err(Error::config(kit.models.model.name(), what));
        }
        if zero {
            clear_first_rows(&mut context, texts.count + more);
            pooled.iter_mut().for_each(|pooled| clear_first_rows(pooled, texts.count));
        }
        Ok(Conditioning { context, pooled, versions: texts.versions })
    }
}

/// The first of every `count` rows so many times more.
fn with_first_rows(tensor: &Tensor, count: usize, more: usize) -> Tensor {
    let row = tensor.data.len() / tensor.shape.batch();
    let each = |rows: &[f32]| [rows[..row].repeat(more), rows.to_vec()].concat();
    let data: Vec<f32> = tensor.data.chunks_exact(count * row).flat_map(each).collect();
    Tensor::new(tensor.shape.with_batch(data.len() / row), data)
}

/// Zeros in the first of every `count` rows.
fn clear_first_rows(tensor: &mut Tensor, count: usize) {
    let row = tensor.data.len() / tensor.shape.batch();
    tensor.data.chunks_exact_mut(count * row).for_each(|rows| rows[..row].fill(0.0));
}
