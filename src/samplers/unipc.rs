//! UniPC: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models" (2023);
//! diffusers' `UniPCMultistepScheduler`.
//!
//! A multistep predictor, and a corrector that does the last step again once the network has seen where it led: higher
//! order at no further evaluation.

use std::collections::VecDeque;

use super::solver::{Last, Layout};
use super::{Config, Method, Noise, Sampler, Setup, Spacing, Spread, Training, mix};
use crate::error::Result;

struct UniPc {
    /// Whether predictions of the picture are followed, or those of the noise.
    predict_x0: bool,
    /// `solver_type`: whether B(h) is exp(h) - 1, or h itself.
    exponential: bool,
    order: usize,
    lower_order_final: bool,
    /// The steps after which there is no correction.
    disable_corrector: Vec<f64>,
    /// The last converted outputs, newest first.
    outputs: VecDeque<Vec<f32>>,
    /// The latents that the last step began with, and its order.
    last: Option<(Vec<f32>, usize)>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    config.refuse(&["solver_p", "shift_terminal"])?;
    let spread = Spread::read(config, false)?;
    let smallest = if spread.is_none() { Last::Smallest } else { Last::Repeated };
    let kinds = ["bh2", "midpoint", "heun", "logrho"].map(|name| (name, true));
    let layout = Layout {
        spacing: Spacing::read(config, "linspace")?,
        rounded: spread.as_ref().is_some_and(Spread::is_karras),
        spread,
        last: config.choice("final_sigmas_type", "zero", &[("zero", Last::Zero), ("sigma_min", smallest)])?,
        top: training.steps,
    };
    Ok(layout.setup(config, training, steps)?.sampler(UniPc {
        predict_x0: config.flag("predict_x0", true)?,
        exponential: config.choice("solver_type", "bh2", &[&[("bh1", false)], &kinds[..]].concat())?,
        order: config.count("solver_order", 2)?,
        lower_order_final: config.flag("lower_order_final", true)?,
        disable_corrector: config.numbers("disable_corrector")?.unwrap_or_default(),
        outputs: VecDeque::new(),
        last: None,
    }))
}

impl UniPc {
    /// A step of that order from level `index` to the next, by the last outputs; as a correction if the output at its
    /// end is known.
    fn unified(&self, setup: &Setup, index: usize, order: usize, latents: &[f32], end: Option<&[f32]>) -> Vec<f32> {
        let (from, to) = (setup.level(index), setup.level(index + 1));
        let h = to.lambda - from.lambda;
        let hh = if self.predict_x0 { -h } else { h };
        let grown = expm1(hh);
        let scale = if self.exponential { grown } else { hh };
        let (kept, factor) =
            if self.predict_x0 { (to.sigma / from.sigma, to.alpha) } else { (to.alpha / from.alpha, to.sigma) };

        // Where the outputs before this step lie, as multiples of the step, and how much each differs per multiple.
        let mut places: Vec<f32> = (1..order).map(|n| (setup.level(index - n).lambda - from.lambda) / h).collect();
        places.push(1.0);
        let moments = moments(order, hh, grown, scale);
        let weights = match (end.is_some(), order) {
            (false, 2) | (true, 1) => vec![0.5],
            (false, _) => solve(&places[..order - 1], &moments[..order - 1]),
            (true, _) => solve(&places, &moments),
        };
        let newest = &self.outputs[0];
        let mut terms = vec![(kept, latents), (-factor * grown, newest.as_slice())];
        let ends = self.outputs.iter().skip(1).take(order - 1).map(Vec::as_slice).chain(end);
        for ((weight, place), output) in weights.iter().zip(&places).zip(ends) {
            let weight = -factor * scale * weight / place;
            terms.extend([(weight, output), (-weight, newest.as_slice())]);
        }
        mix(&terms)
    }
}

fn expm1(x: f32) -> f32 {
    libm::expm1(f64::from(x)) as f32
}

/// The right-hand side of the paper's equation for the weights: `phi_k(h) k! / B(h)` for k from 1. In f32, as the
/// rounding of these differences shows in the result.
fn moments(order: usize, hh: f32, grown: f32, scale: f32) -> Vec<f32> {
    let mut phi = grown / hh - 1.0;
    let mut factorial = 1.0;
    (1..=order)
        .map(|k| {
            let moment = phi * factorial / scale;
            factorial *= (k + 1) as f32;
            phi = phi / hh - 1.0 / factorial;
            moment
        })
        .collect()
}

/// Solves `sum over i of places[i]^k * x[i] = moments[k]` for k from 0, by elimination with pivoting.
fn solve(places: &[f32], moments: &[f32]) -> Vec<f32> {
    let n = places.len();
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|k| places.iter().map(|p| f64::from(p.powi(k as i32))).chain([f64::from(moments[k])]).collect())
        .collect();
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let (done, below) = rows.split_at_mut(column + 1);
        for row in below {
            let factor = row[column] / done[column][column];
            row.iter_mut().zip(&done[column]).for_each(|(value, above)| *value -= factor * above);
        }
    }
    let mut x = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| rows[row][k] * x[k]).sum();
        x[row] = (rows[row][n] - known) / rows[row][row];
    }
    x.into_iter().map(|x| x as f32).collect()
}

impl Method for UniPc {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let converted = if self.predict_x0 {
            setup.picture_at(index, output, latents)
        } else {
            let level = setup.level(index);
            setup.prediction.noise(output, latents, level.alpha, level.sigma)
        };
        let corrected = match &self.last {
            Some((begun, order)) if !self.disable_corrector.contains(&(index as f64 - 1.0)) => {
                self.unified(setup, index - 1, *order, begun, Some(&converted))
            }
            _ => latents.to_vec(),
        };
        self.outputs.push_front(converted);
        self.outputs.truncate(self.order);
        let left = setup.schedule.timesteps.len() - index;
        let highest = if self.lower_order_final { self.order.min(left) } else { self.order };
        let order = highest.min(self.outputs.len());
        let next = self.unified(setup, index, order, &corrected, None);
        self.last = Some((corrected, order));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solving_finds_the_weights() {
        let places = [-1.5f32, -0.5, 1.0];
        let weights = [0.25f32, -2.0, 3.0];
        let moments: Vec<f32> = (0..3).map(|k| places.iter().zip(weights).map(|(p, w)| p.powi(k) * w).sum()).collect();
        let found = solve(&places, &moments);
        assert!(found.iter().zip(weights).all(|(found, wanted)| (found - wanted).abs() < 1e-5), "{found:?}");
        assert!(solve(&[], &[]).is_empty());
    }
}
