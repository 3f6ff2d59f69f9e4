//! Prompts to embeddings, with the text encoders of a model.

use super::kit::{Kit, Phase};
use super::part::Part;
use crate::conditioning::clip::{Wanted, weigh_all};
use crate::conditioning::{Chunks, ClipText, join_tokens};
use crate::error::{Error, Result, are};
use crate::tensor::Tensor;

/// What one encoder made of all texts.
pub struct Encoded {
    /// `[texts, tokens, channels]`
    pub context: Tensor,
    /// `[texts, channels]`, of an encoder with a projection: the first chunk's speaks for the whole text.
    pub pooled: Option<Tensor>,
}

/// The part that encodes one chunk of each text; `chunks` is how many there are.
///
/// # Errors
/// As [`ClipText::graph`].
pub fn part(encoder: &ClipText, texts: usize, wanted: Wanted, chunks: usize) -> Result<Part> {
    let (graph, all) = encoder.graph(texts, wanted)?;
    let what = encoder.component.replace('_', " ");
    Ok(Part { what, component: encoder.component.clone(), graph, wanted: all, added: encoder.added(), times: chunks })
}

/// Encodes texts with one encoder after the other, of which `parts` are the networks.
///
/// # Errors
/// If an encoder cannot be loaded or run.
pub async fn encode(
    kit: &mut Kit<'_>,
    encoders: &[ClipText],
    parts: Vec<Part>,
    chunks: &Chunks,
) -> Result<Vec<Encoded>> {
    let mut encoded = Vec::new();
    for ((encoder, part), chunks) in encoders.iter().zip(parts).zip(&chunks.of) {
        let mut network = kit.load(kit.executor, part).await?;
        let (mut contexts, mut pooled) = (Vec::new(), None);
        for texts in chunks {
            let [ids, rows] = encoder.inputs(texts)?;
            let inputs = [(ids.0, &ids.1), (rows.0, &rows.1)];
            let mut outputs = kit.pass(&mut network, &inputs, "the prompt").await?;
            let context = outputs.remove("context");
            let mut context = context.ok_or_else(|| Error::shape("a text encoder gives no context"))?;
            weigh_all(&mut context, texts);
            contexts.push(context);
            pooled = pooled.or(outputs.remove("text_embeds"));
        }
        kit.release(network);
        kit.mark(Phase::Text, "encoding the prompt");
        encoded.push(Encoded { context: join_tokens(&contexts), pooled });
    }
    if chunks.dropped > 0 {
        kit.warn(format!("the prompt is too long: {} left out at its end", are(chunks.dropped, "token")));
    }
    kit.stop_if_cancelled()?;
    Ok(encoded)
}
