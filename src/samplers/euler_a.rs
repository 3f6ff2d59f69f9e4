//! Euler with ancestral noise: a step goes below the next sigma and comes up to it by fresh noise; diffusers'
//! `EulerAncestralDiscreteScheduler`, after k-diffusion.

use super::euler::follow;
use super::{Config, Limit, Method, Noise, PREDICTIONS, Prediction, Rungs, Sampler, Schedule, Setup, Spread, Training};
use crate::error::Result;

struct EulerA;

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    // The class reads no key for them, so only a request spreads them.
    let spread = config.sigmas.clone().map(Spread::Named);
    let rungs = Rungs { spread, limits: false, rounded: false, last: 0.0 };
    let schedule = Schedule::ladder(config, training, steps, &rungs)?;
    let prediction = Prediction::read(config, &PREDICTIONS[..2])?;
    Ok(Setup { schedule, prediction, limit: Limit::None }.sampler(EulerA))
}

/// How far down a step from one sigma to the next goes, and how much noise takes it up again.
pub(super) fn down_and_up(from: f32, to: f32) -> (f32, f32) {
    let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
    // Rounding can leave less than nothing when almost all of it is noise.
    ((to * to - up * up).max(0.0).sqrt(), up)
}

impl Method for EulerA {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let sigma = setup.schedule.sigmas[index];
        let (down, up) = down_and_up(sigma, setup.schedule.sigmas[index + 1]);
        let lower = follow(latents, &setup.slope(output, latents, sigma), down - sigma);
        follow(&lower, &noise(latents.len()), up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn down_and_up_add_to_the_next_sigmas_variance() {
        let (down, up) = down_and_up(3.0, 2.0);
        assert!(down < 2.0 && (down * down + up * up - 4.0).abs() < 1e-6);
        assert_eq!(down_and_up(3.0, 0.0), (0.0, 0.0));
    }
}
