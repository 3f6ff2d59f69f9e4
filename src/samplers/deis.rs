//! DEIS: Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator" (2022), its log-rho multistep
//! form; diffusers' `DEISMultistepScheduler`.
//!
//! A polynomial in log(rho), rho being noise over signal, through the last predictions of the noise is integrated in
//! rho.

use std::collections::VecDeque;

use super::numbers::{exp, numpy_log as log};
use super::prediction::noise_of;
use super::solver::{Last, Layout};
use super::{Config, Method, Noise, Sampler, Setup, Spacing, Spread, Training, mix};
use crate::error::Result;

struct Deis {
    order: usize,
    lower_order_final: bool,
    /// The last predictions of the noise, newest first.
    outputs: VecDeque<Vec<f32>>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    // Other solvers' names stand for this class's only one, as there.
    config.choice("algorithm_type", "deis", &["deis", "dpmsolver", "dpmsolver++"].map(|name| (name, ())))?;
    let kinds = ["logrho", "midpoint", "heun", "bh1", "bh2"].map(|name| (name, ()));
    config.choice("solver_type", "logrho", &kinds)?;
    let spread = Spread::read(config, false)?;
    let layout = Layout {
        spacing: Spacing::read(config, "linspace")?,
        rounded: spread.as_ref().is_some_and(Spread::is_karras),
        last: if spread.is_none() { Last::Smallest } else { Last::Repeated },
        spread,
        top: training.steps,
    };
    Ok(layout.setup(config, training, steps)?.sampler(Deis {
        order: config.count("solver_order", 2)?.min(3),
        lower_order_final: config.flag("lower_order_final", true)?,
        outputs: VecDeque::new(),
    }))
}

impl Deis {
    fn order_at(&self, setup: &Setup, index: usize) -> usize {
        let lower = self.lower_order_final && setup.is_short();
        setup.highest_order(index, |_| lower).min(self.outputs.len())
    }
}

/// The antiderivative in rho, at `t`, of the line in log(rho) that is 1 at `b` and 0 at `c`. In f32, as the rounding
/// of these differences shows in the result.
fn line(t: f32, b: f32, c: f32) -> f32 {
    let (b, c) = (log(b), log(c));
    t * (-c + log(t) - 1.0) / (b - c)
}

/// The antiderivative in rho, at `t`, of the parabola in log(rho) that is 1 at `b` and 0 at `c` and `d`.
fn parabola(t: f32, b: f32, c: f32, d: f32) -> f32 {
    let (log_t, b, c, d) = (log(t), log(b), log(c), log(d));
    let numerator = t * (c * (d - log_t + 1.0) - d * log_t + d + log_t * log_t - 2.0 * log_t + 2.0);
    numerator / ((b - c) * (b - d))
}

impl Method for Deis {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let picture = setup.picture_at(index, output, latents);
        let (from, to) = (setup.level(index), setup.level(index + 1));
        self.outputs.push_front(noise_of(&picture, latents, from.alpha, from.sigma));
        self.outputs.truncate(self.order);
        let rho = |at: usize| setup.level(at).sigma / setup.level(at).alpha;
        let order = self.order_at(setup, index);
        if order == 1 {
            let grown = exp(to.lambda - from.lambda) - 1.0;
            return mix(&[(to.alpha / from.alpha, latents), (-to.sigma * grown, &self.outputs[0])]);
        }
        let (t, s0, s1) = (rho(index + 1), rho(index), rho(index - 1));
        let weights = if order == 2 {
            vec![line(t, s0, s1) - line(s0, s0, s1), line(t, s1, s0) - line(s0, s1, s0)]
        } else {
            let s2 = rho(index - 2);
            let between = |b, c, d| parabola(t, b, c, d) - parabola(s0, b, c, d);
            vec![between(s0, s1, s2), between(s1, s2, s0), between(s2, s0, s1)]
        };
        let terms = weights.iter().zip(&self.outputs).map(|(weight, output)| (to.alpha * weight, &output[..]));
        mix(&[(to.alpha / from.alpha, latents)].into_iter().chain(terms).collect::<Vec<_>>())
    }
}
