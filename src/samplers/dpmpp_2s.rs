//! DPM-Solver++ (singlestep): Lu et al., "DPM-Solver++" (2022b), algorithm 1; diffusers'
//! `DPMSolverSinglestepScheduler`.
//!
//! Steps go in groups of the solver's order. Each step of a group starts again from the group's first latents, with
//! one more evaluation to take derivatives from.

use std::collections::VecDeque;

use super::dpmpp::{Algorithm, Derivatives, Jump, Kind, refuse_learned_variance};
use super::solver::{Last, Layout, unclipped_steps};
use super::{Config, Method, Noise, Sampler, Setup, Spacing, Spread, Training, mix};
use crate::error::Result;

struct Dpmpp2S {
    algorithm: Algorithm,
    kind: Kind,
    /// The order of each step: its place in its group.
    orders: Vec<usize>,
    /// The last converted outputs, newest first.
    outputs: VecDeque<Vec<f32>>,
    /// The latents that the group began with.
    begun: Vec<f32>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    refuse_learned_variance(config)?;
    let options = [
        ("dpmsolver++", Algorithm::Picture),
        ("deis", Algorithm::Picture),
        ("dpmsolver", Algorithm::Noise),
        ("sde-dpmsolver++", Algorithm::PictureSde),
    ];
    let algorithm = config.choice("algorithm_type", "dpmsolver++", &options)?;
    let order = config.count("solver_order", 2)?;
    if order > 3 {
        return Err(config.refused("solver_order", order, "is more than 3, the highest of this sampler"));
    }
    let spread = Spread::read(config, false)?;
    let last = algorithm.last_sigma(config)?;
    let layout = Layout {
        // This class has no other spacing.
        spacing: Spacing::Linspace,
        rounded: spread.as_ref().is_some_and(Spread::is_karras),
        spread,
        last,
        top: unclipped_steps(config, training)?,
    };
    // Steps that are not a whole number of groups, and a last sigma of zero, need lower orders at the end.
    let lower_order_final =
        config.flag("lower_order_final", false)? || !steps.is_multiple_of(order) || last == Last::Zero;
    Ok(layout.setup(config, training, steps)?.sampler(Dpmpp2S {
        algorithm,
        kind: Kind::read(config)?,
        orders: orders(steps, order, lower_order_final, last == Last::Zero),
        outputs: VecDeque::new(),
        begun: Vec::new(),
    }))
}

/// Groups of 1, 2, .. up to the order; with `lower_order_final`, the last group is cut so that it ends at order 1, or
/// where a group of order 3 leaves two, 2.
fn orders(steps: usize, order: usize, lower_order_final: bool, first_at_end: bool) -> Vec<usize> {
    let mut orders: Vec<usize> = (0..steps).map(|i| i % order + 1).collect();
    if lower_order_final && order > 1 && steps.is_multiple_of(order) {
        orders[steps - 1] = 1;
    }
    if first_at_end {
        orders[steps - 1] = 1;
    }
    orders
}

impl Method for Dpmpp2S {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        let converted = self.algorithm.convert(setup, index, output, latents);
        self.outputs.push_front(converted);
        self.outputs.truncate(3);
        let noise = self.algorithm.draw(latents.len(), noise);
        let order = self.orders[index].min(self.outputs.len());
        if order == 1 {
            self.begun = latents.to_vec();
        }

        let (from, to) = (setup.level(index + 1 - order), setup.level(index + 1));
        let h = to.lambda - from.lambda;
        let constant = &self.outputs[order - 1];
        // How far into the group's step an output lies, and its distance from the group's first output.
        let share = |n: usize| (setup.level(index - n).lambda - from.lambda) / h;
        let difference = |n: usize| {
            let factor = 1.0 / share(n);
            mix(&[(factor, &self.outputs[n]), (-factor, constant)])
        };
        let (first, second) = match (order, self.kind) {
            (1, _) => (None, None),
            (2, kind) => (Some((kind, difference(0))), None),
            (_, Kind::Midpoint) => (Some((Kind::Heun, difference(0))), None),
            (_, Kind::Heun) => {
                let (near, far, r0, r1) = (difference(0), difference(1), share(0), share(1));
                let first = mix(&[(r0 / (r0 - r1), &far), (-r1 / (r0 - r1), &near)]);
                let second = mix(&[(2.0 / (r0 - r1), &near), (-2.0 / (r0 - r1), &far)]);
                (Some((Kind::Heun, first)), Some(second))
            }
        };
        let derivatives = Derivatives { constant, first, second };
        Jump::new(self.algorithm, from, to).apply(&self.begun, &derivatives, noise.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_group_ends_at_order_one() {
        assert_eq!(orders(6, 3, true, true), [1, 2, 3, 1, 2, 1]);
        assert_eq!(orders(5, 3, true, false), [1, 2, 3, 1, 2]);
        assert_eq!(orders(5, 3, true, true), [1, 2, 3, 1, 1]);
        assert_eq!(orders(4, 3, true, true), [1, 2, 3, 1]);
        assert_eq!(orders(4, 2, true, true), [1, 2, 1, 1]);
        assert_eq!(orders(5, 2, true, true), [1, 2, 1, 2, 1]);
        assert_eq!(orders(4, 2, false, false), [1, 2, 1, 2]);
        assert_eq!(orders(2, 1, true, true), [1, 1]);
    }
}
