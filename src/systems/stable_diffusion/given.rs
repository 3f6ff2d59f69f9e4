//! What Stable Diffusion's UNet is given beside the state.

use super::picture::Shown;
use super::text::Conditioning;
use super::{StableDiffusion, control};
use crate::conditioning::repeat_rows;
use crate::error::Result;
use crate::systems::cut::Given;
use crate::systems::request::Request;
use crate::systems::settings::Settings;
use crate::tensor::Tensor;

/// What diffusers tells a refiner: how good the picture should look, and how good what it should not be like.
const SCORES: [f32; 2] = [6.0, 2.5];

impl StableDiffusion {
    /// What the UNet's parts are given.
    ///
    /// # Errors
    /// As [`control::images`].
    pub(super) fn given(
        &self,
        request: &Request,
        settings: &Settings,
        text: &Conditioning,
        timesteps: &[f32],
        shown: &Shown,
    ) -> Result<Given> {
        let (texts, steps) = (text.rows(), timesteps.len());
        let rows = shown.classes.as_ref().map_or(texts, |classes| classes.shape.batch());
        let pictures = rows / texts;
        // Of the rows of one step those of all.
        let of_steps =
            |rows: Tensor| Tensor::new(rows.shape.with_batch(rows.shape.batch() * steps), rows.data.repeat(steps));
        let times = timesteps.iter().flat_map(|time| std::iter::repeat_n(*time, rows)).collect();
        let mut time = vec![("timestep", Tensor::new([rows * steps], times))];
        if let Some(pooled) = &text.pooled {
            let ids = repeat_rows(&self.time_ids(settings, texts), pictures);
            let pooled = text.at_evaluations(&repeat_rows(pooled, pictures));
            time.extend([("text_embeds", pooled), ("time_ids", of_steps(ids))]);
        }
        if let Some(embedding) = self.unet.guidance_embedding(settings.guidance) {
            time.push(("timestep_cond", of_steps(Tensor::new([rows, embedding.len()], embedding.repeat(rows)))));
        }
        if let Some(classes) = &shown.classes {
            time.push(("class_labels", of_steps(classes.clone())));
        }
        let controls = &request.controls[..self.controls.len()];
        Ok(Given {
            picture: control::images(request, controls.len(), settings)?,
            text: vec![("encoder_hidden_states", text.context.clone())],
            versions: text.versions.clone(),
            time,
            step: control::scales(controls, steps),
            beside: shown.beside.clone(),
            ..Given::default()
        })
    }

    /// `[texts, ids]`: the original size, the crop's corner, and the size that is wanted or a score.
    fn time_ids(&self, settings: &Settings, texts: usize) -> Tensor {
        let (height, width) = (settings.height as f32, settings.width as f32);
        let scored = self.unet.text_time.is_some_and(|added| added.takes_score());
        // The negative text's row comes first.
        let row = |score: f32| {
            let last = if scored { vec![score] } else { vec![height, width] };
            [vec![height, width, 0.0, 0.0], last].concat()
        };
        let rows: Vec<_> = SCORES[..texts].iter().rev().map(|score| row(*score)).collect();
        Tensor::new([texts, rows[0].len()], rows.concat())
    }
}
