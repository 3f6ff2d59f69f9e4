//! DDIM: Song et al., "Denoising Diffusion Implicit Models" (2021), equations 12 and 16; diffusers' `DDIMScheduler`.
//!
//! The predicted picture and noise are mixed anew, for the noise level of the next timestep. With an `eta`, some of
//! that noise is fresh: with 1 as much as in DDPM.

use super::spacing::discrete_timesteps;
use super::{Config, Limit, Method, Noise, Prediction, Sampler, Schedule, Setup, Training, mix};
use crate::error::Result;

struct Ddim {
    /// For each evaluation, the picture's share of the variance at its timestep and at the one it goes to.
    alphas: Vec<(f32, f32)>,
    eta: f64,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    let timesteps = discrete_timesteps(config, training, steps)?;
    let last = if config.flag("set_alpha_to_one", true)? { 1.0 } else { training.alphas[0] };
    // A step goes down by the whole ratio, whatever the spacing.
    let ratio = training.steps / steps;
    let target = |t: usize| t.checked_sub(ratio).map_or(last, |t| training.alphas[t]);
    let alphas: Vec<_> = timesteps.iter().map(|t| (training.alphas[*t], target(*t))).collect();
    let prediction = Prediction::read_with(config, alphas.iter().map(|(alpha, _)| *alpha))?;
    let limit = Limit::read(config, Some(true))?;
    let eta = config.eta.unwrap_or(0.0);
    Ok(Setup { schedule: Schedule::discrete(&timesteps, training), prediction, limit }.sampler(Ddim { alphas, eta }))
}

impl Method for Ddim {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let (alpha, next) = self.alphas[index];
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let picture = setup.picture(output, latents, signal, sigma);
        let predicted = setup.prediction.noise(output, latents, signal, sigma);
        if self.eta == 0.0 {
            return mix(&[(next.sqrt(), &picture), ((1.0 - next).sqrt(), &predicted)]);
        }
        let variance = (1.0 - next) / (1.0 - alpha) * (1.0 - alpha / next);
        let fresh = self.eta as f32 * variance.sqrt();
        let rest = (1.0 - next - fresh * fresh).sqrt();
        mix(&[(next.sqrt(), &picture), (rest, &predicted), (fresh, &noise(latents.len()))])
    }
}
