//! What a picture is drawn under: a text's embeddings, or a picture.

use super::{LatentDiffusion, Under};
use crate::conditioning::ldm_bert::COMPONENT;
use crate::conditioning::{Syntax, repeat_rows};
use crate::error::{Error, Field, Remedy, Result, are};
use crate::models::ldm_bert::{IDS, STATE};
use crate::samplers::Sampler;
use crate::systems::cut::Given;
use crate::systems::kit::{Kit, Phase};
use crate::systems::part::Part;
use crate::systems::request::Request;
use crate::systems::settings::Settings;
use crate::tensor::Tensor;

/// The sides of a picture that is enlarged are cut to multiples of this.
const MULTIPLE: usize = 32;

/// What all pictures of a request are drawn under.
#[derive(Default)]
pub(super) struct Condition {
    /// `[texts, tokens, channels]`, the empty text first where guidance needs it.
    text: Option<Tensor>,
    /// `[1, height, width, 3]` from -1 to 1.
    picture: Option<Tensor>,
}

impl Condition {
    /// What this number of pictures is given of it. A sampler that scales the state scales the picture as well, as
    /// diffusers' `LDMSuperResolutionPipeline` has it.
    pub fn given(&self, pictures: usize, sampler: &Sampler) -> Given {
        let scales: Vec<_> = (0..sampler.timesteps().len()).map(|index| sampler.input_scale(index)).collect();
        let scaled = self.picture.is_some() && scales.iter().any(|scale| *scale != 1.0);
        Given {
            text: self.text.iter().map(|text| ("encoder_hidden_states", text.clone())).collect(),
            beside: self.picture.as_ref().map(|picture| repeat_rows(picture, pictures)),
            beside_scales: if scaled { scales } else { Vec::new() },
            ..Given::default()
        }
    }
}

/// Height and width that the picture to be enlarged has for the network.
///
/// # Errors
/// If there is none, or it is too small.
pub(super) fn picture_size(request: &Request) -> Result<[usize; 2]> {
    let Some(picture) = &request.init_image else {
        return Err(Error::usage("this model enlarges a picture").remedies([Remedy::Give(Field::InitImage)]));
    };
    let [height, width] = [picture.height, picture.width].map(|side| side / MULTIPLE * MULTIPLE);
    if height == 0 || width == 0 {
        let what = format!("is {}x{} pixels; each side needs at least {MULTIPLE}", picture.width, picture.height);
        return Err(Error::usage(what).of(Field::InitImage).remedies([Remedy::Other(Field::InitImage)]));
    }
    Ok([height, width])
}

impl LatentDiffusion {
    /// The text encoder for a request's texts, with what it is given; `None` for a model without one.
    ///
    /// # Errors
    /// If a text cannot be tokenized, or is written or spoken in a way that this encoder has not.
    pub(super) fn text_part(&self, request: &Request, settings: &Settings) -> Result<Option<(Part, (Tensor, usize))>> {
        let Some(encoder) = &self.text else { return Ok(None) };
        let options = &request.conditioning;
        if options.syntax != Syntax::Plain || !options.embeddings.is_empty() {
            return Err(Error::usage("this model's prompts are plain text, without weights and added words"));
        }
        let both = ["", &request.prompt];
        let texts = &both[2 - self.guidance(settings).rows..];
        let graph = encoder.graph(texts.len())?;
        let (what, wanted) = ("text encoder".into(), graph.wanted());
        let part = Part { what, component: COMPONENT.into(), graph, wanted, added: None, times: 1 };
        Ok(Some((part, encoder.ids(texts)?)))
    }

    /// Encodes the request's texts, or reads its picture.
    ///
    /// # Errors
    /// If the encoder cannot be loaded or run.
    pub(super) async fn condition(&self, kit: &mut Kit<'_>) -> Result<Condition> {
        if let Some((part, (ids, dropped))) = self.text_part(kit.request, kit.settings)? {
            let mut outputs = kit.once(part, &[(IDS, &ids)], "the prompt").await?;
            kit.mark(Phase::Text, "encoding the prompt");
            if dropped > 0 {
                kit.warn(format!("the prompt is too long: {} left out at its end", are(dropped, "token")));
            }
            kit.stop_if_cancelled()?;
            let text = outputs.remove(STATE);
            return Ok(Condition { text, ..Condition::default() });
        }
        let picture = kit.request.init_image.as_ref().filter(|_| self.kind.under == Under::Picture);
        let [height, width] = self.size(kit.settings);
        let picture = picture.map(|picture| {
            let mut picture = picture.to_tensor(width, height);
            picture.data.iter_mut().for_each(|v| *v = 2.0 * *v - 1.0);
            picture
        });
        Ok(Condition { picture, ..Condition::default() })
    }
}
