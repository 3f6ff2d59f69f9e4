//! Euler with CFG++: Chung et al., "CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models" (2024);
//! ComfyUI's `sample_euler_cfg_pp`.
//!
//! The picture is that of the guided prediction, the noise that goes on to the next sigma that of the prediction
//! without the text: `picture(guided) + next * noise(unguided)`. Both are linear in the prediction, so this is the step
//! of `euler` under a guidance that is `1 / (1 - next / sigma)` times as strong.

use super::{Config, Method, Noise, Sampler, Setup, Training, mix};
use crate::error::Result;

struct EulerCfgPp;

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    Ok(Setup::of_ladder(config, training, steps)?.sampler(EulerCfgPp))
}

impl Method for EulerCfgPp {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let (sigma, kept) = (setup.schedule.sigmas[index], kept(setup, index));
        mix(&[(kept, latents), (1.0 - kept, &setup.prediction.picture_at_sigma(output, latents, sigma))])
    }

    fn guidance_factor(&self, setup: &Setup, index: usize) -> f32 {
        1.0 / (1.0 - kept(setup, index))
    }
}

/// The share of the noise that a step leaves.
fn kept(setup: &Setup, index: usize) -> f32 {
    setup.schedule.sigmas[index + 1] / setup.schedule.sigmas[index]
}
