//! LMS: the linear multistep (Adams-Bashforth) method of order 4 in sigma; diffusers' `LMSDiscreteScheduler`, after
//! k-diffusion.
//!
//! A polynomial through the last slopes is integrated exactly over the step.

use std::collections::VecDeque;

use super::euler::follow;
use super::{
    Config, Limit, Method, Noise, PREDICTIONS, Prediction, Rungs, Sampler, Schedule, Setup, Spread, Training, mix,
};
use crate::error::Result;

const ORDER: usize = 4;

struct Lms {
    /// The last slopes, newest first.
    slopes: VecDeque<Vec<f32>>,
}

pub(super) fn new(config: &Config, training: &Training, steps: usize) -> Result<Sampler> {
    let spread = Spread::read(config, false)?;
    // This class and that of dpm++sde have Karras sigmas without sigma_min and sigma_max.
    let limits = !spread.as_ref().is_some_and(Spread::is_karras);
    let rungs = Rungs { spread, limits, rounded: false, last: 0.0 };
    let schedule = Schedule::ladder(config, training, steps, &rungs)?;
    let prediction = Prediction::read(config, PREDICTIONS)?;
    Ok(Setup { schedule, prediction, limit: Limit::None }.sampler(Lms { slopes: VecDeque::new() }))
}

/// The integral from `from` to `to` of the polynomial that is 1 at `points[which]` and 0 at the other points.
///
/// Gauss-Legendre with three nodes is exact up to degree 5; this has at most degree 3. The distances of the points are
/// rounded to f32, as those of tensors are: from a large sigma to a small one, that rounding outweighs the latents'
/// own.
fn weight(points: &[f32], which: usize, from: f32, to: f32) -> f64 {
    let basis = |x: f64| -> f64 {
        let others = points.iter().enumerate().filter(|(k, _)| *k != which);
        others.map(|(_, point)| (x - f64::from(*point)) / f64::from(points[which] - point)).product()
    };
    let (from, to) = (f64::from(from), f64::from(to));
    let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
    let node = half * 0.6f64.sqrt();
    half * (5.0 * basis(middle - node) + 8.0 * basis(middle) + 5.0 * basis(middle + node)) / 9.0
}

impl Method for Lms {
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], _: &mut Noise) -> Vec<f32> {
        let sigma = setup.schedule.sigmas[index];
        self.slopes.push_front(setup.slope(output, latents, sigma));
        self.slopes.truncate(ORDER);
        // diffusers' polynomial goes through the points of the whole schedule, also where a run begins further on.
        let points: Vec<f32> = (0..ORDER.min(index + 1)).map(|back| setup.schedule.sigmas[index - back]).collect();
        let to = setup.schedule.sigmas[index + 1];
        let terms = self.slopes.iter().enumerate().map(|(k, slope)| (weight(&points, k, sigma, to) as f32, &slope[..]));
        follow(latents, &mix(&terms.collect::<Vec<_>>()), 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_integrate_a_cubic_exactly() {
        let points = [2.0, 3.0, 4.5, 7.0];
        let cubic = |x: f64| x * x * x - 2.0 * x + 1.0;
        let integral = |x: f64| x.powi(4) / 4.0 - x * x + x;
        let sum: f64 = (0..4).map(|k| weight(&points, k, 2.0, 0.5) * cubic(f64::from(points[k]))).sum();
        assert!((sum - (integral(0.5) - integral(2.0))).abs() < 1e-12);
    }

    #[test]
    fn the_first_weight_is_the_whole_step() {
        assert_eq!(weight(&[2.0], 0, 2.0, 0.5), -1.5);
    }
}
