//! DPM-Solver++ for the stochastic equation, singlestep and of second order: k-diffusion's `sample_dpmpp_sde`;
//! diffusers' `DPMSolverSDEScheduler`.
//!
//! Every step but the last takes two evaluations: to the geometric mean of the two sigmas, then the whole step with
//! the picture that is predicted there. Both go below the sigma that they lead to, and up to it by fresh noise. (Those
//! two take noise from a Brownian tree, in which that of a step's half is a part of the whole step's. Here each is
//! drawn by itself, from the generator of the latents.)

use super::betas::{Defaults, ZeroSnr};
use super::heun::{NARROW, first_then_twice};
use super::numbers::{numpy_log, sigma_to_timestep};
use super::schedule::unit_scale;
use super::{
    Config, Limit, Method, Noise, PREDICTIONS, Prediction, Rungs, Sampler, Schedule, Setup, Spread, Training, mix,
};
use crate::error::Result;

/// The class's own noise schedule. It knows nothing of one that ends in pure noise, but k-diffusion's function does.
pub(super) const DEFAULTS: Defaults = Defaults { zero_snr: ZeroSnr::Floored, ..NARROW };

struct DpmppSde {
    /// The sigma before each step, and the last.
    sigmas: Vec<f32>,
    /// Where a step began, between its two evaluations.
    begun: Option<Vec<f32>>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    let spread = Spread::read(config, false)?;
    let limits = !spread.as_ref().is_some_and(Spread::is_karras);
    let ladder = Schedule::ladder(config, training, steps, &Rungs { spread, limits, rounded: false, last: 0.0 })?;
    let sigmas = ladder.sigmas.clone();
    let setup = Setup {
        schedule: with_middles(ladder, training),
        prediction: Prediction::read(config, &PREDICTIONS[..2])?,
        limit: Limit::None,
    };
    Ok(setup.sampler(DpmppSde { sigmas, begun: None }))
}

fn middle(from: f32, to: f32) -> f64 {
    (f64::from(from) * f64::from(to)).sqrt()
}

/// The schedule with an evaluation between each step's beginning and its end, but for the last step.
fn with_middles(ladder: Schedule, training: &Training) -> Schedule {
    let logs: Vec<f32> = training.sigmas().into_iter().map(numpy_log).collect();
    let steps = ladder.timesteps.len();
    let middles: Vec<f64> = ladder.sigmas[..steps].windows(2).map(|pair| middle(pair[0], pair[1])).collect();
    let pairs = middles.iter().zip(&ladder.timesteps[1..]);
    let pairs = pairs.flat_map(|(middle, next)| [sigma_to_timestep(*middle, &logs) as f32, *next]);
    let timesteps = ladder.timesteps[..1].iter().copied().chain(pairs).collect();
    let seen = middles.iter().zip(&ladder.sigmas[1..]).flat_map(|(middle, next)| [*middle as f32, *next]);
    let scales = ladder.sigmas[..1].iter().copied().chain(seen).map(unit_scale).collect();
    let sigmas = first_then_twice(&ladder.sigmas[..steps]).into_iter().chain([0.0]).collect();
    Schedule { scales, ..Schedule::of_sigmas(timesteps, sigmas, ladder.start) }
}

/// From a sigma to a lower one by a predicted picture: below it, and up by fresh noise. (The sum of both variances is
/// the lower sigma's, as in `down_and_up` of `euler-a`.)
fn jump([from, to]: [f64; 2], latents: &[f32], picture: &[f32], noise: &[f32]) -> Vec<f32> {
    let kept = (to / from) * (to / from);
    let up = to * (1.0 - kept).max(0.0).sqrt();
    mix(&[(kept as f32, latents), ((1.0 - kept) as f32, picture), (up as f32, noise)])
}

impl Method for DpmppSde {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let (from, to) = (self.sigmas[index / 2], self.sigmas[index / 2 + 1]);
        let picture = |sigma| setup.prediction.picture_at_sigma(output, latents, sigma);
        if to == 0.0 {
            return picture(from);
        }
        let (middle, ends) = (middle(from, to), [from, to].map(f64::from));
        match self.begun.take() {
            None => {
                let half = jump([ends[0], middle], latents, &picture(from), &noise(latents.len()));
                self.begun = Some(latents.to_vec());
                half
            }
            Some(begun) => jump(ends, &begun, &picture(middle as f32), &noise(latents.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_with_the_true_picture_keeps_the_variance_of_its_end() {
        let parts = |latents: f32, noise: f32| jump([8.0, 2.0], &[latents], &[0.0], &[noise])[0];
        let variance = (8.0 * parts(1.0, 0.0)).powi(2) + parts(0.0, 1.0).powi(2);
        assert!((variance - 4.0).abs() < 1e-5, "{variance}");
    }
}
