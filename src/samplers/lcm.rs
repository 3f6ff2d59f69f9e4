//! LCM: Luo et al., "Latent Consistency Models" (2023); diffusers' `LCMScheduler`.
//!
//! The network is trained to see the finished picture from any timestep, so each step predicts it and adds noise again
//! for the next timestep. The timesteps are a choice of those that the model was distilled with.

use super::betas::{Defaults, EXACT};
use super::spacing::check_steps;
use super::{Config, Limit, Method, Noise, Prediction, Sampler, Schedule, Setup, Training, mix};
use crate::error::{Field, Remedy, Result};

/// The standard deviation of the data, which the boundary condition at timestep 0 is scaled by.
const SIGMA_DATA: f32 = 0.5;

/// What the classes of distilled networks begin with.
pub(super) const DEFAULTS: Defaults = Defaults { start: 0.00085, end: 0.012, schedule: "scaled_linear", ..EXACT };

struct Lcm {
    /// The picture's share of the variance at each timestep.
    alphas: Vec<f32>,
    timestep_scaling: f32,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    let timesteps = distilled_timesteps(config, training, steps)?;
    let alphas: Vec<f32> = timesteps.iter().map(|t| training.alphas[*t]).collect();
    let prediction = Prediction::read_with(config, alphas.iter().copied())?;
    let timestep_scaling = config.number("timestep_scaling", 10.0)? as f32;
    let limit = Limit::read(config, Some(false))?;
    Ok(Setup { schedule: Schedule::discrete(&timesteps, training), prediction, limit }
        .sampler(Lcm { alphas, timestep_scaling }))
}

/// Evenly spaced ones of the timesteps that the network was distilled with, in descending order.
pub(super) fn distilled_timesteps(config: &Config, training: &Training, steps: usize) -> Result<Vec<usize>> {
    check_steps(config, training, steps)?;
    let original = config.count("original_inference_steps", 50)?;
    if original > training.steps {
        let why = format!("is more than num_train_timesteps: {}", training.steps);
        return Err(config.refused("original_inference_steps", original, &why));
    }
    if original < steps {
        let why = format!("is fewer than {steps} steps, which are picked from these; 4 to 8 are enough");
        return Err(config.refused("original_inference_steps", original, &why).remedies([Remedy::Less(Field::Steps)]));
    }
    let ratio = training.steps / original;
    // Evenly spaced places in the descending list of the distilled timesteps.
    let place = |i: usize| (i as f64 * (original as f64 / steps as f64)) as usize;
    let timesteps: Vec<_> = (0..steps).map(|i| (original - place(i)) * ratio - 1).collect();
    match timesteps.iter().find(|t| **t >= training.alphas.len()) {
        Some(t) => Err(config.refused("trained_betas", "list", &format!("is too short for timestep {t}"))),
        None => Ok(timesteps),
    }
}

impl Method for Lcm {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let alpha = self.alphas[index];
        let picture = setup.picture(output, latents, alpha.sqrt(), (1.0 - alpha).sqrt());
        let scaled = setup.schedule.timesteps[index] * self.timestep_scaling;
        let variance = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let (skip, out) = (SIGMA_DATA * SIGMA_DATA / variance, scaled / variance.sqrt());
        let Some(next) = self.alphas.get(index + 1) else {
            return mix(&[(out, &picture), (skip, latents)]);
        };
        let signal = next.sqrt();
        mix(&[(signal * out, &picture), (signal * skip, latents), ((1.0 - next).sqrt(), &noise(latents.len()))])
    }
}
