//! Euler: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), algorithm 2
//! without churn; diffusers' `EulerDiscreteScheduler`.
//!
//! Along the path of the latents, the slope in sigma is the predicted noise; a step follows it to the next sigma.

use super::numbers::log;
use super::{
    Config, Limit, Method, Noise, PREDICTIONS, Prediction, Rungs, Sampler, Schedule, Setup, Spread, Training, mix,
};
use crate::error::Result;

struct Euler;

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    config.choice("interpolation_type", "linear", &[("linear", ())])?;
    let options = &[PREDICTIONS[0], PREDICTIONS[1], PREDICTIONS[2], ("original_sample", Prediction::Sample)];
    let prediction = Prediction::read(config, options)?;
    let spread = Spread::read(config, false)?;
    let smallest = training.sigmas()[0];
    let last = config.choice("final_sigmas_type", "zero", &[("zero", 0.0), ("sigma_min", smallest)])?;
    let rungs = Rungs { spread, limits: true, rounded: false, last };
    let mut schedule = Schedule::ladder(config, training, steps, &rungs)?;
    let continuous = config.choice("timestep_type", "discrete", &[("discrete", false), ("continuous", true)])?;
    if continuous && prediction == Prediction::Velocity {
        schedule.timesteps =
            schedule.sigmas[..schedule.timesteps.len()].iter().map(|sigma| 0.25 * log(*sigma)).collect();
    }
    Ok(Setup { schedule, prediction, limit: Limit::None }.sampler(Euler))
}

impl Method for Euler {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let (sigma, next) = (setup.schedule.sigmas[index], setup.schedule.sigmas[index + 1]);
        follow(latents, &setup.slope(output, latents, sigma), next - sigma)
    }
}

/// `latents + change * slope`.
pub(super) fn follow(latents: &[f32], slope: &[f32], change: f32) -> Vec<f32> {
    mix(&[(1.0, latents), (change, slope)])
}
