//! DPM-Solver++ (multistep): Lu et al., "DPM-Solver++" (2022b), algorithm 2; diffusers' `DPMSolverMultistepScheduler`.
//!
//! Derivatives come from the predictions of earlier steps, so each step takes one evaluation. `dpm++2m-sde` is the
//! same method for the stochastic equation: other factors, and fresh noise at every step.

use std::collections::VecDeque;

use super::betas::{CURVES, Curve};
use super::dpmpp::{Algorithm, Derivatives, Jump, Kind, refuse_learned_variance};
use super::solver::{Last, Layout, unclipped_steps};
use super::{Config, Method, Noise, Sampler, Setup, Spacing, Spread, Training, mix};
use crate::error::Result;

struct Dpmpp2M {
    algorithm: Algorithm,
    kind: Kind,
    order: usize,
    lower_order_final: bool,
    /// Whether the last step is of first order however many there are.
    euler_at_final: bool,
    /// The last converted outputs, newest first.
    outputs: VecDeque<Vec<f32>>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize, stochastic: bool) -> Result<Sampler> {
    refuse_learned_variance(config)?;
    let algorithm = read_algorithm(config, stochastic)?;
    let order = config.count("solver_order", 2)?.min(3);
    if algorithm == Algorithm::NoiseSde && order == 3 {
        return Err(config.refused("solver_order", order, "does not go with algorithm_type: sde-dpmsolver"));
    }
    let spread = Spread::read(config, true)?;
    let cosine = matches!(config.choice("beta_schedule", "linear", CURVES)?, Curve::Cosine);
    let last = algorithm.last_sigma(config)?;
    let rounded = spread.as_ref().is_some_and(|spread| spread.is_karras() || *spread == Spread::Lu) && !cosine;
    let layout = Layout {
        spacing: Spacing::read(config, "linspace")?,
        spread,
        rounded,
        last,
        top: unclipped_steps(config, training)?,
    };
    Ok(layout.setup(config, training, steps)?.sampler(Dpmpp2M {
        algorithm,
        kind: Kind::read(config)?,
        order,
        lower_order_final: config.flag("lower_order_final", true)?,
        euler_at_final: config.flag("euler_at_final", false)? || last == Last::Zero,
        outputs: VecDeque::new(),
    }))
}

impl Dpmpp2M {
    fn order_at(&self, setup: &Setup, index: usize) -> usize {
        let lower = self.lower_order_final && setup.is_short();
        setup.highest_order(index, |left| lower || left == 0 && self.euler_at_final).min(self.outputs.len())
    }
}

/// The sampler's name says whether it is stochastic; the rest is the config's.
fn read_algorithm(config: &Config, stochastic: bool) -> Result<Algorithm> {
    let options = [
        ("dpmsolver++", Algorithm::Picture, Algorithm::PictureSde),
        ("deis", Algorithm::Picture, Algorithm::PictureSde),
        ("sde-dpmsolver++", Algorithm::Picture, Algorithm::PictureSde),
        ("dpmsolver", Algorithm::Noise, Algorithm::PictureSde),
        ("sde-dpmsolver", Algorithm::Noise, Algorithm::NoiseSde),
    ];
    let options = options.map(|(name, plain, sde)| (name, if stochastic { sde } else { plain }));
    config.choice("algorithm_type", "dpmsolver++", &options)
}

impl Method for Dpmpp2M {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let converted = self.algorithm.convert(setup, index, output, latents);
        self.outputs.push_front(converted);
        self.outputs.truncate(self.order);
        let noise = self.algorithm.draw(latents.len(), noise);

        let (from, to) = (setup.level(index), setup.level(index + 1));
        let h = to.lambda - from.lambda;
        // How far back the outputs lie, as multiples of the step.
        let back = |n: usize| (setup.level(index - n).lambda - setup.level(index - n - 1).lambda) / h;
        let difference = |n: usize| {
            let factor = 1.0 / back(n);
            mix(&[(factor, &self.outputs[n]), (-factor, &self.outputs[n + 1])])
        };
        let (first, second) = match self.order_at(setup, index) {
            1 => (None, None),
            2 => (Some((self.kind, difference(0))), None),
            _ => {
                let (near, far) = (difference(0), difference(1));
                let (r0, r1) = (back(0), back(1));
                let share = r0 / (r0 + r1);
                let first = mix(&[(1.0 + share, &near), (-share, &far)]);
                let second = mix(&[(1.0 / (r0 + r1), &near), (-1.0 / (r0 + r1), &far)]);
                (Some((Kind::Heun, first)), Some(second))
            }
        };
        let derivatives = Derivatives { constant: &self.outputs[0], first, second };
        Jump::new(self.algorithm, from, to).apply(latents, &derivatives, noise.as_deref())
    }
}
