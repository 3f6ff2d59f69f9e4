//! What the UNet of a checkpoint predicts, and whether its noise schedule ends in pure noise: no tensor's shape tells,
//! so what the file's makers wrote into it decides, and otherwise the family.

use crate::tensor::Weights;
use crate::weights::component::ComponentWeights;
use crate::weights::file::TensorFile;
use crate::weights::manifest::Family;

/// What a UNet's output is.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// As `scheduler_config.json` calls it.
    pub kind: &'static str,
    /// Whether the noise schedule ends in pure noise.
    pub zero_snr: bool,
    /// How this is known, for a user who doubts it.
    pub because: String,
}

pub const EPSILON: &str = "epsilon";
pub const VELOCITY: &str = "v_prediction";
pub const SAMPLE: &str = "sample";

/// Metadata whose value names the prediction: the ModelSpec standard's key, ComfyUI's, and diffusers'.
const NAMED: [&str; 3] = ["modelspec.prediction_type", "modelspec.predict_key", "prediction_type"];

/// Metadata that says whether velocities are predicted: kohya's scripts' key, and others' in its manner.
const WHETHER: [&str; 4] = ["ss_v_parameterization", "v_parameterization", "v_prediction", "v_pred"];

/// Tensors and metadata that say whether the schedule ends in pure noise.
const ZERO_SNR_TENSOR: &str = "ztsnr";
const ZERO_SNR: [&str; 3] = ["ss_zero_terminal_snr", "zero_terminal_snr", "ztsnr"];

/// Names of the ModelSpec standard for the two models of Stable Diffusion 2.
const ARCHITECTURE: &str = "modelspec.architecture";
const ARCHITECTURES: [(&str, &str); 2] =
    [("stable-diffusion-v2-768-v", VELOCITY), ("stable-diffusion-v2-512", EPSILON)];

/// Training steps of Stable Diffusion 2's first checkpoint, the one that predicts noise.
const SD2_BASE_STEPS: f32 = 875_000.0;

/// Deviation of one norm's biases above which a UNet of Stable Diffusion 2 predicts velocities: those were trained on
/// from noise prediction, which left this norm far wider. ComfyUI tells them apart by the same number.
const VELOCITY_DEVIATION: f64 = 0.09;
const VELOCITY_NORM: &str = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias";

impl Prediction {
    /// Of the UNet of this family in a file.
    pub fn of(file: &TensorFile, family: Family, unet: &ComponentWeights) -> Self {
        let (kind, because) = stated(file).unwrap_or_else(|| unstated(file, family, unet));
        let says_so = |key: &&str| file.metadata(key).and_then(truth) == Some(true);
        Self { kind, zero_snr: file.has(ZERO_SNR_TENSOR) || ZERO_SNR.iter().any(says_so), because }
    }
}

/// What the file says, in the first place that says something known.
fn stated(file: &TensorFile) -> Option<(&'static str, String)> {
    if file.has("v_pred") {
        return Some((VELOCITY, "the file has the tensor v_pred".into()));
    }
    let named = NAMED.iter().map(|key| (*key, file.metadata(key).and_then(kind)));
    let velocity = |velocity| if velocity { VELOCITY } else { EPSILON };
    let whether = WHETHER.iter().map(|key| (*key, file.metadata(key).and_then(truth).map(velocity)));
    let architecture = file
        .metadata(ARCHITECTURE)
        .and_then(|said| ARCHITECTURES.iter().find(|(start, _)| said.starts_with(start)).map(|(_, kind)| *kind));
    let found = named.chain(whether).chain([(ARCHITECTURE, architecture)]).find_map(|(key, kind)| Some((key, kind?)));
    found.map(|(key, kind)| (kind, format!("its metadata has {key} {}", file.metadata(key).unwrap_or_default())))
}

/// What the family's published models do, and Stable Diffusion 2's two kinds by what training left in them.
fn unstated(file: &TensorFile, family: Family, unet: &ComponentWeights) -> (&'static str, String) {
    if family != Family::Sd2 {
        return (EPSILON, "models of this family do".into());
    }
    if unet.shape("conv_in.weight").is_none_or(|shape| shape.dims().get(1) != Some(&4)) {
        return (EPSILON, "models of this family for other inputs than latents do".into());
    }
    let steps = file.get("global_step").map(|tensor| tensor.to_f32());
    if steps.as_deref() == Some(&[SD2_BASE_STEPS]) {
        return (EPSILON, format!("it was trained for {SD2_BASE_STEPS} steps"));
    }
    let deviation = unet.get(VELOCITY_NORM).map_or(0.0, |tensor| deviation(&tensor.to_f32()));
    let (kind, side) = if deviation > VELOCITY_DEVIATION { (VELOCITY, "more") } else { (EPSILON, "not more") };
    (kind, format!("the deviation of {VELOCITY_NORM} is {deviation:.3}, {side} than {VELOCITY_DEVIATION}"))
}

fn plain(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_lowercase().replace(['-', ' '], "_")
}

/// A prediction as trainers spell it.
fn kind(text: &str) -> Option<&'static str> {
    match plain(text).as_str() {
        "v" | "v_prediction" | "v_pred" | "vpred" | "v_parameterization" | "velocity" => Some(VELOCITY),
        "epsilon" | "eps" | "noise" => Some(EPSILON),
        "sample" | "x0" => Some(SAMPLE),
        _ => None,
    }
}

/// A yes or no as Python and JSON write it into a text.
fn truth(text: &str) -> Option<bool> {
    match plain(text).as_str() {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

fn deviation(values: &[f32]) -> f64 {
    let mean = |values: &mut dyn Iterator<Item = f64>, n: usize| values.sum::<f64>() / n.max(1) as f64;
    let centre = mean(&mut values.iter().map(|v| f64::from(*v)), values.len());
    mean(&mut values.iter().map(|v| (f64::from(*v) - centre).powi(2)), values.len()).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trainers_spellings_are_read() {
        for text in ["v", "V-Prediction", "\"v_prediction\"", "vpred", "velocity"] {
            assert_eq!(kind(text), Some(VELOCITY), "{text}");
        }
        for text in ["eps", "Epsilon", "noise"] {
            assert_eq!(kind(text), Some(EPSILON), "{text}");
        }
        assert_eq!((kind("x0"), kind("flow"), kind("")), (Some(SAMPLE), None, None));
        assert_eq!((truth("True"), truth("0"), truth("None")), (Some(true), Some(false), None));
    }
}
