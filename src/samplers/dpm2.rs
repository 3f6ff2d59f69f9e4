//! DPM2: the second-order midpoint rule in the logarithm of sigma; diffusers' `KDPM2DiscreteScheduler`, after
//! k-diffusion's reading of Lu et al., "DPM-Solver" (2022), algorithm 1, with the time steps of Karras et al. (2022).
//!
//! Every step but the last takes two evaluations: an Euler step to the geometric mean of the two sigmas, then the
//! whole step with the slope found there. With ancestral noise (`KDPM2AncestralDiscreteScheduler`), steps go below the
//! next sigma, and up to it by fresh noise.

use super::euler::follow;
use super::euler_a::down_and_up;
use super::heun::first_then_twice;
use super::numbers::{around, exp, log, numpy_log};
use super::schedule::unit_scale;
use super::{Config, Limit, Method, Noise, PREDICTIONS, Prediction, Rungs, Sampler, Schedule, Setup, Spread, Training};
use crate::error::Result;

/// One step: the sigmas of its beginning, of its second evaluation and of its end, and how much noise comes after it.
struct Stretch {
    from: f32,
    middle: f32,
    down: f32,
    up: Option<f32>,
}

struct Dpm2 {
    stretches: Vec<Stretch>,
    /// Where a step began, between its two evaluations.
    begun: Option<Vec<f32>>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    let stretch = |from, to| Stretch { from, middle: geometric_mean(to, from), down: to, up: None };
    build(config, training, steps, stretch)
}

pub(super) fn ancestral(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    build(config, training, steps, |from, to| {
        let (down, up) = down_and_up(from, to);
        Stretch { from, middle: geometric_mean(from, down), down, up: Some(up) }
    })
}

fn build(config: &Config, training: &Training, steps: usize, stretch: impl Fn(f32, f32) -> Stretch) -> Result<Sampler> {
    let spread = Spread::read(config, false)?;
    // These classes round the timesteps of Karras sigmas.
    let rungs = Rungs { spread, limits: true, rounded: true, last: 0.0 };
    let ladder = Schedule::ladder(config, training, steps, &rungs)?;
    let stretches: Vec<_> = ladder.sigmas.windows(2).map(|pair| stretch(pair[0], pair[1])).collect();
    let schedule = with_middles(&ladder, &stretches, training);
    let prediction = Prediction::read(config, &PREDICTIONS[..2])?;
    Ok(Setup { schedule, prediction, limit: Limit::None }.sampler(Dpm2 { stretches, begun: None }))
}

/// The mean in the logarithm; 0 if one of them is. (`torch.lerp` halfway counts from its second end.)
fn geometric_mean(a: f32, b: f32) -> f32 {
    if a == 0.0 || b == 0.0 {
        return 0.0;
    }
    let (a, b) = (log(a), log(b));
    exp(b - (b - a) * 0.5)
}

/// The schedule with a step's middle sigma between each and the next. Timesteps are f32, as these are tensors there;
/// the sigmas are as diffusers lists them: one for each evaluation, and more zeros at the end.
fn with_middles(ladder: &Schedule, stretches: &[Stretch], training: &Training) -> Schedule {
    let logs: Vec<f32> = training.sigmas().into_iter().map(numpy_log).collect();
    let timestep = |sigma: f32| {
        let log = numpy_log(sigma.max(1e-10));
        let Some((low, from, to)) = around(f64::from(log), &logs) else { return 0.0 };
        let w = ((from - log) / (from - to)).clamp(0.0, 1.0);
        (1.0 - w) * low as f32 + w * (low + 1) as f32
    };
    let Schedule { timesteps, sigmas, start, .. } = ladder;
    let pairs = timesteps.iter().skip(1).zip(stretches).flat_map(|(next, step)| [timestep(step.middle), *next]);
    let timesteps: Vec<f32> = timesteps.iter().take(1).copied().chain(pairs).collect();
    let seen = stretches.iter().flat_map(|step| [step.from, step.middle]);
    let scales = seen.take(timesteps.len()).map(unit_scale).collect();
    let sigmas = first_then_twice(sigmas).into_iter().chain([0.0]).collect();
    Schedule { scales, ..Schedule::of_sigmas(timesteps, sigmas, *start) }
}

impl Method for Dpm2 {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let Stretch { from, middle, down, up } = self.stretches[index / 2];
        let Some(begin) = self.begun.take() else {
            self.begun = Some(latents.to_vec());
            return follow(latents, &setup.slope(output, latents, from), middle - from);
        };
        let lower = follow(&begin, &setup.slope(output, latents, middle), down - from);
        match up {
            None => lower,
            Some(up) => follow(&lower, &noise(latents.len()), up),
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
