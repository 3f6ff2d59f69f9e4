//! Euler: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), algorithm 2 without
//! churn; diffusers' `EulerDiscreteScheduler`.
//!
//! Along the path of the latents, the slope in sigma is the predicted noise; a step follows it to the next sigma.

use super::betas::{Defaults, Training, ZeroSnr};
use super::config::Config;
use super::numbers::log;
use super::prediction::{PREDICTIONS, Prediction, mix, pairwise};
use super::schedule::Rungs;
use super::spacing::Spread;
use super::{Noise, Sampler, Schedule};
use crate::error::Result;

/// The class's own noise schedule.
pub(super) const DEFAULTS: Defaults = Defaults::new(ZeroSnr::Floored);

pub(super) struct Euler {
    schedule: Schedule,
    prediction: Prediction,
}

impl Euler {
    pub fn new(config: &Config, steps: usize) -> Result<Self> {
        let training = Training::new(config, &DEFAULTS)?;
        config.choice("interpolation_type", "linear", &[("linear", ())])?;
        let options = &[PREDICTIONS[0], PREDICTIONS[1], PREDICTIONS[2], ("original_sample", Prediction::Sample)];
        let prediction = Prediction::read(config, options)?;
        let spread = Spread::read(config, false)?;
        let smallest = training.sigmas()[0];
        let last = config.choice("final_sigmas_type", "zero", &[("zero", 0.0), ("sigma_min", smallest)])?;
        let mut schedule =
            Schedule::ladder(config, &training, steps, &Rungs { spread, limits: true, rounded: false, last })?;
        let continuous = config.choice("timestep_type", "discrete", &[("discrete", false), ("continuous", true)])?;
        if continuous && prediction == Prediction::Velocity {
            schedule.timesteps = schedule.sigmas[..steps].iter().map(|sigma| 0.25 * log(*sigma)).collect();
        }
        Ok(Self { schedule, prediction })
    }
}

impl Sampler for Euler {
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn step(&mut self, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let (sigma, next) = (self.schedule.sigmas[index], self.schedule.sigmas[index + 1]);
        let picture = self.prediction.picture_at_sigma(output, latents, sigma);
        follow(latents, &slope(latents, &picture, sigma), next - sigma)
    }
}

/// The slope of the latents in sigma: `(latents - picture) / sigma`.
pub(super) fn slope(latents: &[f32], picture: &[f32], sigma: f32) -> Vec<f32> {
    pairwise(latents, picture, |x, p| (x - p) / sigma)
}

/// `latents + change * slope`.
pub(super) fn follow(latents: &[f32], slope: &[f32], change: f32) -> Vec<f32> {
    mix(&[(1.0, latents), (change, slope)])
}
