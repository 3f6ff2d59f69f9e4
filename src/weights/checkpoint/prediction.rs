//! What the UNet of a checkpoint predicts, and whether its noise schedule ends in pure noise: no tensor's shape tells,
//! so what the file's makers wrote into it decides, and otherwise the family.

use super::seen::Seen;
use crate::weights::family::{EPSILON, Families, Family, Kind, Prediction, SAMPLE, VELOCITY};
use crate::weights::file::TensorFile;

/// Metadata whose value names the prediction: the ModelSpec standard's key, ComfyUI's, and diffusers'.
const NAMED: [&str; 3] = ["modelspec.prediction_type", "modelspec.predict_key", "prediction_type"];

/// Metadata that says whether velocities are predicted: kohya's scripts' key, and others' in its manner.
const WHETHER: [&str; 4] = ["ss_v_parameterization", "v_parameterization", "v_prediction", "v_pred"];

/// Tensors and metadata that say whether the schedule ends in pure noise.
const ZERO_SNR_TENSOR: &str = "ztsnr";
const ZERO_SNR: [&str; 3] = ["ss_zero_terminal_snr", "zero_terminal_snr", "ztsnr"];

/// The ModelSpec standard's name of a model.
const ARCHITECTURE: &str = "modelspec.architecture";

/// Of the UNet of one of the families in a file.
pub fn of(file: &TensorFile, (families, family): (&Families, &Family), unet: &Seen) -> Prediction {
    let steps = || match file.get("global_step")?.to_f32()[..] {
        [steps] => Some(steps),
        _ => None,
    };
    let (kind, because) = stated(file, families).unwrap_or_else(|| (family.prediction)(unet, steps()));
    let says_so = |key: &&str| file.metadata(key).and_then(truth) == Some(true);
    Prediction { kind, zero_snr: file.has(ZERO_SNR_TENSOR) || ZERO_SNR.iter().any(says_so), because }
}

/// What the file says, in the first place that says something known.
fn stated(file: &TensorFile, families: &Families) -> Option<(Kind, String)> {
    if file.has("v_pred") {
        return Some((VELOCITY, "the file has the tensor v_pred".into()));
    }
    let named = NAMED.iter().map(|key| (*key, file.metadata(key).and_then(kind)));
    let velocity = |velocity| if velocity { VELOCITY } else { EPSILON };
    let whether = WHETHER.iter().map(|key| (*key, file.metadata(key).and_then(truth).map(velocity)));
    let mut known = families.known.iter().flat_map(|family| family.architectures);
    let architecture = file.metadata(ARCHITECTURE).and_then(|said| known.find(|(start, _)| said.starts_with(start)));
    let architecture = architecture.map(|(_, kind)| *kind);
    let found = named.chain(whether).chain([(ARCHITECTURE, architecture)]).find_map(|(key, kind)| Some((key, kind?)));
    found.map(|(key, kind)| (kind, format!("its metadata has {key} {}", file.metadata(key).unwrap_or_default())))
}

fn plain(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_lowercase().replace(['-', ' '], "_")
}

/// A prediction as trainers spell it.
fn kind(text: &str) -> Option<Kind> {
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
