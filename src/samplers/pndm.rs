//! PNDM: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds" (2022); diffusers' `PNDMScheduler`.
//!
//! The linear multistep method of order 4 in DDIM's transfer step. It starts with three Runge-Kutta steps of four
//! evaluations each or, with `skip_prk_steps` as Stable Diffusion has it, with lower orders and one step done twice.

use std::collections::VecDeque;

use super::spacing::discrete_timesteps;
use super::{Config, Limit, Method, Noise, PREDICTIONS, Prediction, Sampler, Schedule, Setup, Training, mix};
use crate::error::{Field, Remedy, Result};

pub(super) const ORDER: usize = 4;

struct Pndm {
    /// The schedule's timesteps as whole numbers, to look up.
    steps: Vec<usize>,
    /// How many evaluations at the start are Runge-Kutta's.
    runge_kutta: usize,
    /// Training steps from one step to the next.
    ratio: usize,
    /// The picture's share of the variance at every training step.
    alphas: Vec<f32>,
    last_alpha: f32,
    /// Evaluations until now, whichever of the schedule was the first.
    count: usize,
    /// The last outputs, newest first.
    outputs: VecDeque<Vec<f32>>,
    /// Where the step began that takes several evaluations.
    begun: Vec<f32>,
    /// The weighted sum of outputs within a Runge-Kutta step.
    sum: Vec<f32>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    let descending = discrete_timesteps(config, training, steps)?;
    let ratio = training.steps / steps;
    let skip = config.flag("skip_prk_steps", false)?;
    let evaluations = if skip { multistep(&descending) } else { with_runge_kutta(config, &descending, ratio)? };
    let last_alpha = if config.flag("set_alpha_to_one", false)? { 1.0 } else { training.alphas[0] };
    let (schedule, prediction) =
        (Schedule::discrete(&evaluations, training), Prediction::read(config, &PREDICTIONS[..2])?);
    Ok(Setup { schedule, prediction, limit: Limit::None }.sampler(Pndm {
        steps: evaluations,
        runge_kutta: if skip { 0 } else { 12 },
        ratio,
        last_alpha,
        alphas: training.alphas.clone(),
        count: 0,
        outputs: VecDeque::new(),
        begun: Vec::new(),
        sum: Vec::new(),
    }))
}

impl Pndm {
    /// Equation 11 of the paper: from the latents at timestep `t` to those at `to`, by the noise in between.
    fn transfer(&self, setup: &Setup, latents: &[f32], t: usize, to: Option<usize>, output: &[f32]) -> Vec<f32> {
        let alpha = self.alphas[t];
        let next = to.map_or(self.last_alpha, |to| self.alphas[to]);
        let (beta, next_beta) = (1.0 - alpha, 1.0 - next);
        let noise = setup.prediction.noise(output, latents, alpha.sqrt(), beta.sqrt());
        let scale = alpha * next_beta.sqrt() + (alpha * beta * next).sqrt();
        mix(&[((next / alpha).sqrt(), latents), (-(next - alpha) / scale, &noise)])
    }

    fn runge_kutta_step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32]) -> Vec<f32> {
        let count = self.count;
        let down = if count.is_multiple_of(2) { self.ratio / 2 } else { 0 };
        let to = self.steps[index].checked_sub(down);
        let from = self.steps[count / 4 * 4];
        let share = if matches!(count % 4, 0 | 3) { 1.0 / 6.0 } else { 1.0 / 3.0 };
        if count.is_multiple_of(4) {
            self.outputs.push_front(output.to_vec());
            self.begun = latents.to_vec();
            self.sum = mix(&[(share, output)]);
        } else {
            self.sum = mix(&[(1.0, &self.sum), (share, output)]);
        }
        let slope = if count % 4 == 3 { &self.sum } else { output };
        self.transfer(setup, &self.begun, from, to, slope)
    }

    fn multistep_step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32]) -> Vec<f32> {
        let t = self.steps[index];
        if self.count == 1 {
            // The first step again, with the mean of the outputs at its two ends.
            let mean = mix(&[(0.5, output), (0.5, &self.outputs[0])]);
            return self.transfer(setup, &self.begun, t + self.ratio, Some(t), &mean);
        }
        if self.count == 0 {
            self.begun = latents.to_vec();
        }
        self.outputs.push_front(output.to_vec());
        self.outputs.truncate(ORDER);
        let weights = adams_bashforth(self.outputs.len()).iter().copied();
        let terms: Vec<_> = weights.zip(self.outputs.iter().map(Vec::as_slice)).collect();
        self.transfer(setup, latents, t, t.checked_sub(self.ratio), &mix(&terms))
    }
}

/// The weights of that number of last slopes, the newest first, for steps of one length; of [`ORDER`] at most.
pub(super) fn adams_bashforth(slopes: usize) -> &'static [f32] {
    match slopes {
        1 => &[1.0],
        2 => &[3.0 / 2.0, -1.0 / 2.0],
        3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
        _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    }
}

/// The second timestep twice.
fn multistep(descending: &[usize]) -> Vec<usize> {
    let (start, rest) = descending.split_at(descending.len().min(2));
    start.iter().chain(start.get(1)).chain(rest).copied().collect()
}

/// Three steps between the highest four timesteps, with their midpoints, each visited twice; then from the fourth on.
fn with_runge_kutta(config: &Config, descending: &[usize], ratio: usize) -> Result<Vec<usize>> {
    if descending.len() < ORDER {
        return Err(config
            .refused("skip_prk_steps", false, "needs at least 4 steps")
            .remedies([Remedy::More(Field::Steps)]));
    }
    let points = descending[..ORDER].iter().flat_map(|t| [*t + ratio / 2, *t]).skip(1);
    let visited: Vec<usize> = points.flat_map(|t| [t, t]).collect();
    Ok(visited[1..visited.len() - 1].iter().chain(&descending[ORDER - 1..]).copied().collect())
}

impl Method for Pndm {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let next = if self.count < self.runge_kutta {
            self.runge_kutta_step(setup, index, output, latents)
        } else {
            self.multistep_step(setup, index, output, latents)
        };
        self.count += 1;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_timestep_comes_twice() {
        assert_eq!(multistep(&[751, 501, 251, 1]), [751, 501, 501, 251, 1]);
        assert_eq!(multistep(&[1]), [1]);
    }

    #[test]
    fn three_runge_kutta_steps_take_twelve_evaluations() {
        let config = Config::default();
        let evaluations = with_runge_kutta(&config, &[800, 600, 400, 200, 0], 200).unwrap();
        assert_eq!(evaluations, [800, 700, 700, 600, 600, 500, 500, 400, 400, 300, 300, 200, 200, 0]);
        assert!(with_runge_kutta(&config, &[600, 300, 0], 300).is_err());
    }
}
