//! DPM2 with ancestral noise: the midpoint rule down to below the next sigma, and up to it by fresh noise; diffusers'
//! `KDPM2AncestralDiscreteScheduler`, after k-diffusion.

use super::betas::Training;
use super::config::Config;
use super::dpm2::{geometric_mean, rounded_ladder, with_middles};
use super::euler::{follow, slope};
use super::euler_a::down_and_up;
use super::heun::NARROW;
use super::prediction::{PREDICTIONS, Prediction};
use super::{Noise, Sampler, Schedule};
use crate::error::Result;

/// One step: the sigmas of its beginning, of its second evaluation and of its end, and the noise after it.
struct Stretch {
    from: f32,
    middle: f32,
    down: f32,
    up: f32,
}

pub(super) struct Dpm2A {
    schedule: Schedule,
    stretches: Vec<Stretch>,
    prediction: Prediction,
    /// Where a step began, between its two evaluations.
    begun: Option<Vec<f32>>,
}

impl Dpm2A {
    pub fn new(config: &Config, steps: usize) -> Result<Self> {
        let training = Training::new(config, &NARROW)?;
        let ladder = rounded_ladder(config, &training, steps)?;
        let stretch = |pair: &[f32]| {
            let (down, up) = down_and_up(pair[0], pair[1]);
            Stretch { from: pair[0], middle: geometric_mean(pair[0], down), down, up }
        };
        let stretches: Vec<_> = ladder.sigmas.windows(2).map(stretch).collect();
        let middles: Vec<f32> = stretches.iter().map(|stretch| stretch.middle).collect();
        Ok(Self {
            schedule: with_middles(&ladder, &middles, &training),
            stretches,
            prediction: Prediction::read(config, &PREDICTIONS[..2])?,
            begun: None,
        })
    }
}

impl Sampler for Dpm2A {
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn step(&mut self, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let Stretch { from, middle, down, up } = self.stretches[index / 2];
        match self.begun.take() {
            None => {
                let picture = self.prediction.picture_at_sigma(output, latents, from);
                self.begun = Some(latents.to_vec());
                follow(latents, &slope(latents, &picture, from), middle - from)
            }
            Some(begin) => {
                let picture = self.prediction.picture_at_sigma(output, latents, middle);
                let lower = follow(&begin, &slope(latents, &picture, middle), down - from);
                follow(&lower, &noise(latents.len()), up)
            }
        }
    }
}
