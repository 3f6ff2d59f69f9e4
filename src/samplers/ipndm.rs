//! iPNDM in sigma: Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator" (2022), as
//! Zhou et al.'s diff-sampler and ComfyUI's `sample_ipndm` have it. (diffusers' `IPNDMScheduler` is for models of
//! another noise.)
//!
//! The linear multistep method of order 4 with the weights of even steps, however uneven the sigmas are.

use std::collections::VecDeque;

use super::pndm::{ORDER, adams_bashforth};
use super::{Config, Method, Noise, Sampler, Setup, Training, mix, pairwise};
use crate::error::Result;

struct Ipndm {
    /// The last slopes, newest first.
    slopes: VecDeque<Vec<f32>>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    Ok(Setup::of_ladder(config, training, steps)?.sampler(Ipndm { slopes: VecDeque::new() }))
}

impl Method for Ipndm {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let (sigma, next) = (setup.schedule.sigmas[index], setup.schedule.sigmas[index + 1]);
        let picture = setup.prediction.picture_at_sigma(output, latents, sigma);
        if next == 0.0 {
            return picture;
        }
        self.slopes.push_front(pairwise(latents, &picture, |x, p| (x - p) / sigma));
        self.slopes.truncate(ORDER);
        let weights = adams_bashforth(self.slopes.len());
        // The newest slope by what it is made of: from pure noise down, nearly all of the latents cancels.
        let share = f64::from(weights[0]) * (1.0 - f64::from(next) / f64::from(sigma));
        let mut terms = vec![((1.0 - share) as f32, latents), (share as f32, &picture[..])];
        let older = weights.iter().zip(&self.slopes).skip(1);
        terms.extend(older.map(|(weight, slope)| (weight * (next - sigma), &slope[..])));
        mix(&terms)
    }
}
