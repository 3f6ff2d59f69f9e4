//! What a picture's text chunk says made it.

use super::part::Models;
use super::request::{Control, Request, Settings};
use crate::conditioning::Syntax;
use crate::image::{ControlParameters, Parameters};
use crate::samplers;
use crate::weights::Model;

/// What made the picture of this place in the batch, in the form that AUTOMATIC1111 writes.
pub(super) fn parameters(models: &Models, request: &Request, settings: &Settings, index: usize) -> String {
    let control = |(model, Control { scale, start, end, .. }): (&Model, &Control)| ControlParameters {
        model: model.name(),
        scale: *scale,
        start: *start,
        end: *end,
    };
    let parameters = Parameters {
        prompt: request.shown_prompt.as_ref().unwrap_or(&request.prompt),
        negative: request.negative.as_deref().unwrap_or_default(),
        steps: settings.steps,
        sampler: samplers::web_ui_name(&settings.sampler),
        guidance: settings.guidance,
        spacing: settings.spacing.as_deref(),
        prediction: settings.prediction.as_deref(),
        eta: settings.eta,
        seed: request.seed.wrapping_add(index as u64),
        width: settings.width,
        height: settings.height,
        model: &models.model.name(),
        clip_skip: request.conditioning.clip_skip,
        emphasis: request.conditioning.syntax == Syntax::Weighted,
        rng: request.rng.automatic1111_name(),
        controls: models.controls.iter().zip(&request.controls).map(control).collect(),
    };
    parameters.to_string()
}
