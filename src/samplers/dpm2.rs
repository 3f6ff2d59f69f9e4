//! DPM2: the second-order midpoint rule in the logarithm of sigma; diffusers' `KDPM2DiscreteScheduler`, after k-diffusion's
//! reading of Lu et al., "DPM-Solver" (2022), algorithm 1, with the time steps of Karras et al. (2022).
//!
//! Every step but the last takes two evaluations: an Euler step to the geometric mean of the two sigmas, then the whole
//! step with the slope found there.

use super::betas::Training;
use super::config::Config;
use super::euler::{follow, slope};
use super::heun::{NARROW, first_then_twice};
use super::numbers::{around, exp, log, numpy_log};
use super::prediction::{PREDICTIONS, Prediction};
use super::schedule::Rungs;
use super::schedule::unit_scale;
use super::spacing::Spread;
use super::{Noise, Sampler, Schedule};
use crate::error::Result;

pub(super) struct Dpm2 {
    schedule: Schedule,
    /// For each step, the sigma between its two ends.
    middles: Vec<f32>,
    prediction: Prediction,
    /// Where a step began, between its two evaluations.
    begun: Option<Vec<f32>>,
}

impl Dpm2 {
    pub fn new(config: &Config, steps: usize) -> Result<Self> {
        let training = Training::new(config, &NARROW)?;
        let ladder = rounded_ladder(config, &training, steps)?;
        let middles: Vec<f32> = ladder.sigmas.windows(2).map(|pair| geometric_mean(pair[1], pair[0])).collect();
        Ok(Self {
            schedule: with_middles(&ladder, &middles, &training),
            middles,
            prediction: Prediction::read(config, &PREDICTIONS[..2])?,
            begun: None,
        })
    }
}

/// The ladder of the two DPM2 classes, which round the timesteps of Karras sigmas.
pub(super) fn rounded_ladder(config: &Config, training: &Training, steps: usize) -> Result<Schedule> {
    let spread = Spread::read(config, false)?;
    Schedule::ladder(config, training, steps, &Rungs { spread, limits: true, rounded: true, last: 0.0 })
}

/// The mean in the logarithm; 0 if one of them is. (`torch.lerp` halfway counts from its second end.)
pub(super) fn geometric_mean(a: f32, b: f32) -> f32 {
    if a == 0.0 || b == 0.0 {
        return 0.0;
    }
    let (a, b) = (log(a), log(b));
    exp(b - (b - a) * 0.5)
}

/// The schedule with a step's middle sigma between each and the next. Timesteps are f32, as these are tensors there; the
/// sigmas are as diffusers lists them: one for each evaluation, and more zeros at the end.
pub(super) fn with_middles(ladder: &Schedule, middles: &[f32], training: &Training) -> Schedule {
    let logs: Vec<f32> = training.sigmas().into_iter().map(numpy_log).collect();
    let timestep = |sigma: &f32| {
        let log = numpy_log(sigma.max(1e-10));
        let Some((low, from, to)) = around(f64::from(log), &logs) else { return 0.0 };
        let w = ((from - log) / (from - to)).clamp(0.0, 1.0);
        (1.0 - w) * low as f32 + w * (low + 1) as f32
    };
    let Schedule { timesteps, sigmas, start, .. } = ladder;
    let pairs = timesteps.iter().skip(1).zip(middles).flat_map(|(next, middle)| [timestep(middle), *next]);
    let timesteps: Vec<f32> = timesteps.iter().take(1).copied().chain(pairs).collect();
    let seen = sigmas.iter().zip(middles).flat_map(|(sigma, middle)| [*sigma, *middle]);
    let scales = seen.take(timesteps.len()).map(unit_scale).collect();
    let sigmas = first_then_twice(sigmas).into_iter().chain([0.0]).collect();
    Schedule { timesteps, sigmas, start: *start, scales }
}

impl Sampler for Dpm2 {
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn step(&mut self, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let middle = self.middles[index / 2];
        match self.begun.take() {
            None => {
                let sigma = self.schedule.sigmas[index];
                let picture = self.prediction.picture_at_sigma(output, latents, sigma);
                self.begun = Some(latents.to_vec());
                follow(latents, &slope(latents, &picture, sigma), middle - sigma)
            }
            Some(begin) => {
                let picture = self.prediction.picture_at_sigma(output, latents, middle);
                let change = self.schedule.sigmas[index] - self.schedule.sigmas[index - 1];
                follow(&begin, &slope(latents, &picture, middle), change)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_geometric_and_zero_wins() {
        assert!((geometric_mean(8.0, 2.0) - 4.0).abs() < 1e-6);
        assert_eq!(geometric_mean(8.0, 0.0), 0.0);
    }
}
