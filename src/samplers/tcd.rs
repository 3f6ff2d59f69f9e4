//! TCD: Zheng et al., "Trajectory Consistency Distillation" (2024), with strategic stochastic sampling (algorithm 4);
//! diffusers' `TCDScheduler`.
//!
//! The network is trained to follow the trajectory from any timestep to any earlier one. A step goes by it below the
//! next timestep, to `1 - eta` of it, and comes up to that by fresh noise; `eta` is the paper's gamma.

use super::lcm::distilled_timesteps;
use super::{Config, Limit, Method, Noise, Prediction, Sampler, Schedule, Setup, Training, mix};
use crate::error::Result;

struct Tcd {
    /// The picture's share of the variance: at each timestep, where the network's step from there ends, and where
    /// noise takes it up to.
    alphas: Vec<[f32; 3]>,
    eta: f64,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    let timesteps = distilled_timesteps(config, training, steps)?;
    let eta = config.eta.unwrap_or(0.0);
    // In f32, as PyTorch multiplies a timestep.
    let below = |t: usize| ((1.0 - eta) as f32 * t as f32).floor() as usize;
    let next = timesteps.iter().skip(1).copied().chain([0]);
    let levels = |(from, to): (&usize, usize)| [*from, below(to), to].map(|t| training.alphas[t]);
    let alphas: Vec<[f32; 3]> = timesteps.iter().zip(next).map(levels).collect();
    let prediction = Prediction::read_with(config, alphas.iter().map(|[from, ..]| *from))?;
    Ok(Setup { schedule: Schedule::discrete(&timesteps, training), prediction, limit: Limit::None }
        .sampler(Tcd { alphas, eta }))
}

impl Method for Tcd {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let [from, below, to] = self.alphas[index];
        let (signal, sigma) = (from.sqrt(), (1.0 - from).sqrt());
        let picture = setup.prediction.picture(output, latents, signal, sigma);
        let predicted = setup.prediction.noise(output, latents, signal, sigma);
        let reached = mix(&[(below.sqrt(), &picture), ((1.0 - below).sqrt(), &predicted)]);
        if self.eta == 0.0 || index + 1 == setup.schedule.timesteps.len() {
            return reached;
        }
        let kept = to / below;
        mix(&[(kept.sqrt(), &reached), ((1.0 - kept).sqrt(), &noise(latents.len()))])
    }
}
