//! RES, multistep and of second order: Zhang et al., "Improved Order Analysis and Design of Exponential Integrator for
//! Diffusion Models Sampling" (2023); ComfyUI's `sample_res_multistep`.
//!
//! The line through the last two predicted pictures in the logarithm of sigma is integrated exactly.

use super::{Config, Method, Noise, Sampler, Setup, Training, mix};
use crate::error::Result;

struct ResMultistep {
    /// The last step's predicted picture.
    before: Option<Vec<f32>>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    Ok(Setup::of_ladder(config, training, steps)?.sampler(ResMultistep { before: None }))
}

impl Method for ResMultistep {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let sigma = |at: usize| f64::from(setup.schedule.sigmas[at]);
        let picture = setup.prediction.picture_at_sigma(output, latents, setup.schedule.sigmas[index]);
        let kept = sigma(index + 1) / sigma(index);
        let next = match self.before.take() {
            Some(before) if kept > 0.0 => {
                let length = |at: usize| libm::log(sigma(at) / sigma(at + 1));
                let (h, back) = (length(index), length(index - 1));
                // h^2 phi_2(-h), over how far back the other picture lies.
                let older = -(h + libm::expm1(-h)) / back;
                mix(&[(kept as f32, latents), ((1.0 - kept - older) as f32, &picture), (older as f32, &before)])
            }
            _ => mix(&[(kept as f32, latents), ((1.0 - kept) as f32, &picture)]),
        };
        self.before = Some(picture);
        next
    }
}
