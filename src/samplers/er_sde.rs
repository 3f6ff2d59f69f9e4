//! ER-SDE-Solver-3: Cui et al., "Elucidating the Solution Space of Extended Reverse-Time SDE for Diffusion Models"
//! (2023), with the noise scale of its fifth kind; ComfyUI's `sample_er_sde`.
//!
//! Like Euler with ancestral noise, whose amount a function of sigma says, with the first and second derivative of the
//! predicted picture in sigma. What those are multiplied with are integrals of that function, as sums over 200 points.

use super::{Config, Method, Noise, Sampler, Setup, Training, mix};
use crate::error::Result;

const POINTS: usize = 200;

struct ErSde {
    /// The last predicted picture.
    picture: Option<Vec<f32>>,
    /// Its derivative in sigma.
    derivative: Option<Vec<f32>>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    Ok(Setup::of_ladder(config, training, steps)?.sampler(ErSde { picture: None, derivative: None }))
}

/// The noise scale of a sigma.
fn scale(sigma: f64) -> f64 {
    sigma * (libm::exp(libm::pow(sigma, 0.3)) + 10.0)
}

/// The factors of the first and the second derivative.
fn factors(from: f64, to: f64) -> [f64; 2] {
    let (step, change) = ((from - to) / POINTS as f64, to - from);
    let points = (0..POINTS).map(|point| to + point as f64 * step);
    let [first, second] = points.fold([0.0; 2], |[first, second], sigma| {
        [first + step / scale(sigma), second + step * (sigma - from) / scale(sigma)]
    });
    [change + first * scale(to), change * change / 2.0 + second * scale(to)]
}

impl Method for ErSde {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let sigma = |at: usize| f64::from(setup.schedule.sigmas[at]);
        let (from, to) = (sigma(index), sigma(index + 1));
        let picture = setup.prediction.picture_at_sigma(output, latents, setup.schedule.sigmas[index]);
        if to == 0.0 {
            return picture;
        }
        let kept = scale(to) / scale(from);
        let up = (to * to - from * from * kept * kept).max(0.0).sqrt();
        let derivative = self.picture.take().map(|before| {
            let over = (1.0 / (from - sigma(index - 1))) as f32;
            mix(&[(over, &picture), (-over, &before)])
        });
        let second = derivative.as_ref().zip(self.derivative.take()).map(|(now, before)| {
            let over = (2.0 / (from - sigma(index - 2))) as f32;
            mix(&[(over, now), (-over, &before)])
        });
        let drawn = noise(latents.len());
        let [first_factor, second_factor] = factors(from, to);
        let mut terms = vec![(kept as f32, latents), ((1.0 - kept) as f32, &picture[..])];
        terms.extend(derivative.as_ref().map(|derivative| (first_factor as f32, &derivative[..])));
        terms.extend(second.as_ref().map(|second| (second_factor as f32, &second[..])));
        terms.push((up as f32, &drawn));
        let next = mix(&terms);
        (self.picture, self.derivative) = (Some(picture), derivative);
        next
    }
}
