//! DDPM: Ho et al., "Denoising Diffusion Probabilistic Models" (2020), equation 7; diffusers' `DDPMScheduler`.
//!
//! The next latents are the mean of their distribution given the predicted picture, plus noise of its variance.

use super::betas::{CURVES, Curve, Defaults, EXACT};
use super::spacing::discrete_timesteps;
use super::{Config, Limit, Method, Noise, Prediction, Sampler, Schedule, Setup, Training, mix};
use crate::error::{Error, Field, Result};

const ALL_CURVES: &[(&str, Curve)] =
    &[CURVES[0], CURVES[1], CURVES[2], ("laplace", Curve::Laplace), ("sigmoid", Curve::Sigmoid)];

/// Which variance the added noise has (`variance_type`).
#[derive(Debug, Clone, Copy)]
enum Variance {
    /// That of the posterior.
    Small,
    /// Beta itself.
    Large,
}

/// The class's own noise schedule.
pub(super) const DEFAULTS: Defaults = Defaults { curves: ALL_CURVES, ..EXACT };

struct Ddpm {
    /// Each timestep's share of the picture's variance, then that of the finished picture.
    alphas: Vec<f32>,
    variance: Variance,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    let timesteps = discrete_timesteps(config, training, steps)?;
    let alphas: Vec<f32> = timesteps.iter().map(|t| training.alphas[*t]).chain([1.0]).collect();
    let variance = match config.word("variance_type", "fixed_small")? {
        None => Variance::Small,
        // The logarithms are another way to the same numbers. (diffusers takes the root of the large one's logarithm,
        // which is not a number.)
        Some(_) => {
            let small = ["fixed_small", "fixed_small_log"].map(|name| (name, Variance::Small));
            let large = ["fixed_large", "fixed_large_log"].map(|name| (name, Variance::Large));
            config.choice("variance_type", "fixed_small", &[small, large].concat())?
        }
    };
    let prediction = Prediction::read_with(config, alphas.iter().copied())?;
    let limit = Limit::read(config, Some(true))?;
    Ok(Setup { schedule: Schedule::discrete(&timesteps, training), prediction, limit }
        .sampler(Ddpm { alphas, variance }))
}

impl Config {
    /// What a picture and noise of unit variance are multiplied with to be the picture with the noise of a training
    /// step, as `DDPMScheduler.add_noise` has them.
    ///
    /// # Errors
    /// If the model was not trained on that step, or the config asks for what is not built.
    pub fn noise_level(&self, level: usize) -> Result<(f32, f32)> {
        let training = Training::new(self, &DEFAULTS)?;
        let known = training.alphas.len();
        if level < known {
            return Ok(training.mix(level));
        }
        Err(Error::usage(format!("{level}, but the model knows 0 to {}", known - 1)).of(Field::NoiseLevel))
    }
}

impl Method for Ddpm {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let (alpha, before) = (self.alphas[index], self.alphas[index + 1]);
        let picture = setup.picture(output, latents, alpha.sqrt(), (1.0 - alpha).sqrt());
        let ratio = alpha / before;
        let beta = 1.0 - ratio;
        let to_picture = before.sqrt() * beta / (1.0 - alpha);
        let to_latents = ratio.sqrt() * (1.0 - before) / (1.0 - alpha);
        if setup.schedule.timesteps[index] <= 0.0 {
            return mix(&[(to_picture, &picture), (to_latents, latents)]);
        }
        let variance = match self.variance {
            Variance::Small => ((1.0 - before) / (1.0 - alpha) * beta).max(1e-20),
            Variance::Large => beta,
        };
        mix(&[(to_picture, &picture), (to_latents, latents), (variance.sqrt(), &noise(latents.len()))])
    }
}
