//! Stable Diffusion's x4 upscaler: Stable Diffusion 2's text encoder, an autoencoder of a quarter of the size, and a
//! UNet that also sees a smaller picture under noise of a level that it is given.

use serde_json::json;

use super::sd2::SD2;
use super::{Family, Untold, VELOCITY, files};

pub static X4: Family = Family {
    name: "x4",
    title: "Stable Diffusion x4 upscaler",
    recognises: |network| network.has("class_embedding.weight") && (SD2.recognises)(network),
    untold: Untold { heads: Some(8), scaling: 0.08333, ..SD2.untold },
    // The buffers of the small picture's noise, which follow from its schedule.
    leftovers: &["low_scale_model."],
    prediction: |_, _| (VELOCITY, "models of this family do".into()),
    side: |_| 128,
    files: |prediction| {
        let (start, end) = (0.0001, 0.02);
        let own = json!({"beta_start": start, "beta_end": end, "prediction_type": prediction.kind});
        let mut files = files("StableDiffusionUpscalePipeline", "DDIMScheduler", own, prediction);
        let noise = json!({
            "_class_name": "DDPMScheduler",
            "beta_start": start,
            "beta_end": end,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "clip_sample": true,
            "prediction_type": "epsilon",
            "variance_type": "fixed_small",
        });
        files.push(("low_res_scheduler/scheduler_config.json", noise));
        files
    },
    ..SD2
};
