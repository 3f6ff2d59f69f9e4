//! Heun: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), algorithm 1;
//! diffusers' `HeunDiscreteScheduler`.
//!
//! Every step but the last takes two evaluations: an Euler step to the next sigma, then the same step again with the
//! mean of the slopes at its two ends.

use super::betas::{CURVES, Curve, Defaults, IGNORED};
use super::euler::follow;
use super::prediction::pairwise;
use super::{Config, Limit, Method, Noise, PREDICTIONS, Prediction, Rungs, Sampler, Schedule, Setup, Spread, Training};
use crate::error::Result;

/// The beta defaults of the second-order classes.
pub(super) const NARROW: Defaults = Defaults { start: 0.00085, end: 0.012, ..IGNORED };

const ALL_CURVES: &[(&str, Curve)] = &[CURVES[0], CURVES[1], CURVES[2], ("exp", Curve::Exponential)];

/// The class's own noise schedule.
pub(super) const DEFAULTS: Defaults = Defaults { curves: ALL_CURVES, ..NARROW };

struct Heun {
    /// Where a step began and its slope there, between its two evaluations.
    begun: Option<(Vec<f32>, Vec<f32>)>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    let spread = Spread::read(config, false)?;
    let rungs = Rungs { spread, limits: true, rounded: false, last: 0.0 };
    let ladder = Schedule::ladder(config, training, steps, &rungs)?;
    let timesteps = first_then_twice(&ladder.timesteps);
    let sigmas = first_then_twice(&ladder.sigmas[..steps]).into_iter().chain([0.0]).collect();
    let schedule = Schedule::of_sigmas(timesteps, sigmas, ladder.start);
    let (prediction, limit) = (Prediction::read(config, PREDICTIONS)?, Limit::clip(config, false)?);
    Ok(Setup { schedule, prediction, limit }.sampler(Heun { begun: None }))
}

/// The first value, then each other one twice.
pub(super) fn first_then_twice(values: &[f32]) -> Vec<f32> {
    values.iter().flat_map(|value| [*value; 2]).skip(1).collect()
}

impl Method for Heun {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let sigma = setup.schedule.sigmas[index];
        let here = setup.slope(output, latents, sigma);
        match self.begun.take() {
            None => {
                let end = follow(latents, &here, setup.schedule.sigmas[index + 1] - sigma);
                self.begun = Some((latents.to_vec(), here));
                end
            }
            Some((begin, first)) => {
                let mean = pairwise(&first, &here, |a, b| (a + b) / 2.0);
                follow(&begin, &mean, sigma - setup.schedule.sigmas[index - 1])
            }
        }
    }
}
