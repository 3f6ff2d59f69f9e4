//! Euler with ancestral noise: a step goes below the next sigma and comes up to it by fresh noise; diffusers'
//! `EulerAncestralDiscreteScheduler`, after k-diffusion.

use super::betas::{Defaults, Training, ZeroSnr};
use super::config::Config;
use super::euler::{follow, slope};
use super::prediction::{PREDICTIONS, Prediction};
use super::schedule::Rungs;
use super::{Noise, Sampler, Schedule};
use crate::error::Result;

/// The class's own noise schedule.
pub(super) const DEFAULTS: Defaults = Defaults::new(ZeroSnr::Floored);

pub(super) struct EulerA {
    schedule: Schedule,
    prediction: Prediction,
}

impl EulerA {
    pub fn new(config: &Config, steps: usize) -> Result<Self> {
        let training = Training::new(config, &DEFAULTS)?;
        let rungs = Rungs { spread: None, limits: false, rounded: false, last: 0.0 };
        let schedule = Schedule::ladder(config, &training, steps, &rungs)?;
        Ok(Self { schedule, prediction: Prediction::read(config, &PREDICTIONS[..2])? })
    }
}

/// How far down a step from one sigma to the next goes, and how much noise takes it up again.
pub(super) fn down_and_up(from: f32, to: f32) -> (f32, f32) {
    let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
    // Rounding can leave less than nothing when almost all of it is noise.
    ((to * to - up * up).max(0.0).sqrt(), up)
}

impl Sampler for EulerA {
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn step(&mut self, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let sigma = self.schedule.sigmas[index];
        let (down, up) = down_and_up(sigma, self.schedule.sigmas[index + 1]);
        let picture = self.prediction.picture_at_sigma(output, latents, sigma);
        let lower = follow(latents, &slope(latents, &picture, sigma), down - sigma);
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
