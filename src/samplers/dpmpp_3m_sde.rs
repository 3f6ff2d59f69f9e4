//! DPM-Solver++ for the stochastic equation, multistep and of third order: k-diffusion's `sample_dpmpp_3m_sde`.
//!
//! Derivatives in the logarithm of sigma come from the pictures that earlier steps predicted. (k-diffusion takes noise
//! from a Brownian tree; here it is drawn from the generator of the latents.)

use std::collections::VecDeque;

use super::{Config, Method, Noise, Sampler, Setup, Training, mix};
use crate::error::Result;

struct Dpmpp3MSde {
    /// The last predicted pictures, newest first.
    pictures: VecDeque<Vec<f32>>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    Ok(Setup::of_ladder(config, training, steps)?.sampler(Dpmpp3MSde { pictures: VecDeque::new() }))
}

impl Method for Dpmpp3MSde {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let sigma = |at: usize| f64::from(setup.schedule.sigmas[at]);
        let picture = setup.prediction.picture_at_sigma(output, latents, setup.schedule.sigmas[index]);
        if sigma(index + 1) == 0.0 {
            return picture;
        }
        self.pictures.push_front(picture);
        self.pictures.truncate(3);
        let length = |at: usize| libm::log(sigma(at) / sigma(at + 1));
        let (h, doubled) = (length(index), 2.0 * length(index));
        let gone = -libm::expm1(-doubled);
        // Factors of the pictures, newest first: the prediction, its first derivative and its second.
        let mut factors = vec![gone];
        let phi_2 = 1.0 - gone / doubled;
        match self.pictures.len() {
            1 => {}
            2 => {
                let first = phi_2 * h / length(index - 1);
                factors = vec![gone + first, -first];
            }
            _ => {
                let (near, far) = (length(index - 1) / h, length(index - 2) / h);
                let phi_3 = phi_2 / doubled - 0.5;
                // Of the differences of neighbours, each over its length.
                let newer = phi_2 * (1.0 + near / (near + far)) - phi_3 / (near + far);
                let older = -phi_2 * near / (near + far) + phi_3 / (near + far);
                factors = vec![gone + newer / near, older / far - newer / near, -older / far];
            }
        }
        let up = sigma(index + 1) * gone.sqrt();
        let drawn = noise(latents.len());
        let mut terms = vec![((1.0 - gone) as f32, latents)];
        terms.extend(factors.iter().zip(&self.pictures).map(|(factor, picture)| (*factor as f32, &picture[..])));
        terms.push((up as f32, &drawn));
        mix(&terms)
    }
}
