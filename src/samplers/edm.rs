//! The noise of models that are trained as Karras et al., "Elucidating the Design Space of Diffusion-Based Generative
//! Models" (2022), have it: diffusers' `EDMEulerScheduler` and `EDMDPMSolverMultistepScheduler` (Playground 2.5).
//!
//! Latents are `picture + sigma * noise`. The network sees them over `sqrt(sigma^2 + data^2)`, at the timestep
//! `ln(sigma) / 4`; with the latents, its output makes the picture, by the spread of pictures' own values, `data`.

use super::config::Config;
use super::sigmas::{Sigmas, even};
use crate::error::{Error, Field, Result};

/// What a `scheduler_config.json` says of such a model.
pub(super) struct Edm {
    /// The most noise and the least.
    sigmas: [f64; 2],
    /// The spread of pictures' values.
    pub data: f32,
    rho: f64,
    /// Whether sigmas are even in the logarithm instead of Karras'.
    exponential: bool,
}

impl Config {
    /// Whether the model is trained so.
    pub(super) fn is_edm(&self) -> bool {
        self.class().is_some_and(|class| class.starts_with("EDM"))
    }
}

impl Edm {
    /// `None` for another model.
    pub fn read(config: &Config) -> Result<Option<Self>> {
        if !config.is_edm() {
            return Ok(None);
        }
        let positive = |key, default| match config.number(key, default)? {
            number if number.is_finite() && number > 0.0 => Ok(number),
            number => Err(config.refused(key, number, "is not above 0")),
        };
        let sigmas = [positive("sigma_max", 80.0)?, positive("sigma_min", 0.002)?];
        if sigmas[0] < sigmas[1] {
            return Err(config.refused("sigma_max", sigmas[0], "is below sigma_min"));
        }
        Ok(Some(Self {
            sigmas,
            data: positive("sigma_data", 0.5)? as f32,
            rho: positive("rho", 7.0)?,
            exponential: config.choice("sigma_schedule", "karras", &[("karras", false), ("exponential", true)])?,
        }))
    }

    /// The noise before each of these steps, and after the last: none or, as `final_sigmas_type` has it, once more the
    /// least.
    pub fn sigmas(&self, config: &Config, steps: usize) -> Result<Vec<f32>> {
        let [max, min] = self.sigmas;
        let sigmas = match &config.sigmas {
            Some(sigmas) if sigmas.is_of_training_steps() => {
                let what = format!("{} is of training steps, which this model does not have", sigmas.name());
                return Err(Error::usage(what).of(Field::Schedule));
            }
            Some(sigmas) => sigmas.spread(steps, self.sigmas, &[]),
            None if self.exponential => Sigmas::Exponential.spread(steps, self.sigmas, &[]),
            None => {
                let root = |sigma| libm::pow(sigma, 1.0 / self.rho);
                even(root(max), root(min), steps).map(|root| libm::pow(root, self.rho)).collect()
            }
        };
        let mut sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        let least = sigmas.last().copied().unwrap_or(0.0);
        sigmas.push(config.choice("final_sigmas_type", "zero", &[("zero", 0.0), ("sigma_min", least)])?);
        Ok(sigmas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_schedule_is_refused_by_its_key() {
        let error = |key: &str, value: &str| {
            let text = format!(r#"{{"_class_name": "EDMEulerScheduler", "{key}": {value}}}"#);
            Edm::read(&Config::from_json(&text, "x").unwrap()).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for (key, value) in [
            ("sigma_data", "0"),
            ("sigma_min", "-1"),
            ("sigma_max", "0.001"),
            ("rho", "Infinity"),
            ("sigma_schedule", "\"even\""),
        ] {
            assert!(error(key, value).starts_with(&format!("x: {key}: ")), "{key}: {}", error(key, value));
        }
    }
}
