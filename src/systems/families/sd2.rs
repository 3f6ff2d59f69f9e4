//! Stable Diffusion 2: one text encoder, OpenCLIP's ViT-H, and two kinds of UNets, of which one predicts velocities.

use serde_json::json;

use super::sd1::SD1;
use super::{EPSILON, Family, Kind, Seen, Trainer, Untold, VELOCITY, files};

pub static SD2: Family = Family {
    name: "sd2",
    title: "Stable Diffusion 2",
    recognises: |network| network.dims_of_any("proj_in.weight").is_some_and(|dims| dims.len() == 2),
    refuses: |_| None,
    untold: Untold { heads: None, linear_projection: true, trainer: Trainer::OpenClip, ..SD1.untold },
    components: SD1.components,
    leftovers: &[],
    architectures: &[("stable-diffusion-v2-768-v", VELOCITY), ("stable-diffusion-v2-512", EPSILON)],
    prediction,
    side: |prediction| if prediction.kind == VELOCITY { 96 } else { 64 },
    files: |prediction| {
        let own = json!({"prediction_type": prediction.kind});
        files("StableDiffusionPipeline", "DDIMScheduler", own, prediction)
    },
};

/// Training steps of the first checkpoint, the one that predicts noise.
const BASE_STEPS: f32 = 875_000.0;

/// Deviation of one norm's biases above which a UNet predicts velocities: those were trained on from noise prediction,
/// which left this norm far wider. ComfyUI tells them apart by the same number.
const VELOCITY_DEVIATION: f64 = 0.09;
const VELOCITY_NORM: &str = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias";

/// By what training left in a UNet.
fn prediction(unet: &Seen, steps: Option<f32>) -> (Kind, String) {
    if unet.dim("conv_in.weight", 1) != Some(4) {
        return (EPSILON, "models of this family for other inputs than latents do".into());
    }
    if steps == Some(BASE_STEPS) {
        return (EPSILON, format!("it was trained for {BASE_STEPS} steps"));
    }
    let deviation = unet.values(VELOCITY_NORM).map_or(0.0, |values| deviation(&values));
    let (kind, side) = if deviation > VELOCITY_DEVIATION { (VELOCITY, "more") } else { (EPSILON, "not more") };
    (kind, format!("the deviation of {VELOCITY_NORM} is {deviation:.3}, {side} than {VELOCITY_DEVIATION}"))
}

fn deviation(values: &[f32]) -> f64 {
    let mean = |values: &mut dyn Iterator<Item = f64>, n: usize| values.sum::<f64>() / n.max(1) as f64;
    let centre = mean(&mut values.iter().map(|v| f64::from(*v)), values.len());
    mean(&mut values.iter().map(|v| (f64::from(*v) - centre).powi(2)), values.len()).sqrt()
}
