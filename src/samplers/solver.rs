//! What the exponential-integrator solvers share (`dpm++2m`, `dpm++2s`, `deis`, `unipc`): their timesteps and sigmas,
//! and the noise level in the terms they compute with.

use super::edm::Edm;
use super::numbers::{interpolate, log, numpy_log, sigma_to_timestep};
use super::prediction::noise_of;
use super::spacing::{check_steps, limits};
use super::{Config, Limit, PREDICTIONS, Prediction, Schedule, Setup, Spacing, Spread, Training};
use crate::error::{Error, Field, Remedy, Result};

/// The sigma after the last step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Last {
    Zero,
    /// The first training step's.
    Smallest,
    /// The last step's own once more.
    Repeated,
}

/// What differs from class to class.
pub(super) struct Layout {
    pub spacing: Spacing,
    pub spread: Option<Spread>,
    /// Whether the timesteps of re-spaced sigmas are rounded to the nearest; otherwise they are cut off.
    pub rounded: bool,
    pub last: Last,
    /// How many training steps are used, from the first on.
    pub top: usize,
}

/// A noise level: `alpha^2 + sigma^2 = 1`, or of EDM's `alpha = 1`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub alpha: f32,
    pub sigma: f32,
    /// Half the logarithm of the signal-to-noise ratio.
    pub lambda: f32,
}

impl Level {
    pub fn new(sigma: f32) -> Self {
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        let sigma = sigma * alpha;
        Self { alpha, sigma, lambda: log(alpha) - log(sigma) }
    }

    /// Of latents that are `picture + sigma * noise`.
    pub fn beside_the_picture(sigma: f32) -> Self {
        Self { alpha: 1.0, sigma, lambda: -log(sigma) }
    }
}

impl Layout {
    /// Descending timesteps with the sigma at each and one more at the end. Latents are
    /// `alpha * picture + sigma * noise` of unit variance, though the listed sigmas are noise over signal.
    pub fn setup(&self, config: &Config, training: &Training, steps: usize) -> Result<Setup> {
        check_steps(config, training, steps)?;
        let (prediction, limit) = (Prediction::read(config, PREDICTIONS)?, Limit::read(config, None)?);
        if let Some(edm) = Edm::read(config)? {
            return Ok(Setup { schedule: Schedule::of_edm(&edm, config, steps)?, prediction, limit });
        }
        let table = training.sigmas();
        let smallest = table[0];
        let (timesteps, sigmas) = if let Some(spread) = &self.spread {
            let ends = (f64::from(table[table.len() - 1]), f64::from(smallest));
            let (max, min) = if *spread == Spread::Lu { ends } else { limits(config, ends.0, ends.1)? };
            let sigmas = spread.sigmas(steps, [max, min], &table);
            let logs: Vec<f32> = table.into_iter().map(numpy_log).collect();
            let rounded = self.rounded || spread.is_own();
            let back = sigmas.iter().map(|sigma| sigma_to_timestep(*sigma, &logs));
            let whole = back.map(|t| if rounded { t.round_ties_even() } else { t.trunc() });
            (whole.collect::<Vec<f64>>(), sigmas)
        } else {
            let offset = config.whole("steps_offset", 0)?;
            let spaced = self.spacing.timesteps(steps, 1, self.top, training.steps, offset);
            let timesteps: Vec<f64> = spaced.into_iter().map(f64::round_ties_even).collect();
            let sigmas: Vec<f64> = timesteps.iter().map(|t| interpolate(&table, *t)).collect();
            (timesteps, sigmas)
        };
        let mut sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        if sigmas.windows(2).any(|pair| pair[0] == pair[1]) {
            let what = format!("{steps}: two steps fall on one timestep, which this sampler cannot take");
            return Err(Error::usage(what).of(Field::Steps).remedies([Remedy::Less(Field::Steps)]));
        }
        sigmas.push(match self.last {
            Last::Zero => 0.0,
            Last::Smallest => smallest,
            Last::Repeated => sigmas.last().copied().unwrap_or(0.0),
        });
        let mixes = sigmas.iter().map(|sigma| Level::new(*sigma)).map(|level| (level.alpha, level.sigma)).collect();
        Ok(Setup {
            schedule: Schedule::of_unit_variance(timesteps.into_iter().map(|t| t as f32).collect(), sigmas, mixes),
            prediction,
            limit,
        })
    }
}

impl Setup {
    pub(super) fn level(&self, index: usize) -> Level {
        match self.prediction {
            Prediction::Edm { .. } => Level::beside_the_picture(self.schedule.sigmas[index]),
            _ => Level::new(self.schedule.sigmas[index]),
        }
    }

    /// The picture that the network's output at evaluation `index` predicts, within the limit.
    pub(super) fn picture_at(&self, index: usize, output: &[f32], latents: &[f32]) -> Vec<f32> {
        let Level { alpha, sigma, .. } = self.level(index);
        self.picture(output, latents, alpha, sigma)
    }

    /// The noise that it predicts; within a limit, that of the limited picture.
    pub(super) fn noise_at(&self, index: usize, output: &[f32], latents: &[f32]) -> Vec<f32> {
        let Level { alpha, sigma, .. } = self.level(index);
        match self.limit {
            Limit::None => self.prediction.noise(output, latents, alpha, sigma),
            _ => noise_of(&self.picture_at(index, output, latents), latents, alpha, sigma),
        }
    }

    /// The highest order that evaluation `index` may have: 1 for the last and 2 for the one before it, where `lowers`
    /// says so of as many as follow it (0 or 1), and otherwise 3.
    pub(super) fn highest_order(&self, index: usize, lowers: impl Fn(usize) -> bool) -> usize {
        let left = self.schedule.timesteps.len() - 1 - index;
        if left < 2 && lowers(left) { left + 1 } else { 3 }
    }

    /// With few steps, the last ones are more stable at a lower order.
    pub(super) fn is_short(&self) -> bool {
        self.schedule.timesteps.len() < 15
    }
}

/// How many training steps stay above `lambda_min_clipped`, which keeps schedules that end in pure noise finite.
pub(super) fn unclipped_steps(config: &Config, training: &Training) -> Result<usize> {
    let bound = config.number("lambda_min_clipped", f64::NEG_INFINITY)? as f32;
    let lambda = |alpha: &f32| log(alpha.sqrt()) - log((1.0 - alpha).sqrt());
    let clipped = training.alphas.iter().filter(|alpha| lambda(alpha) < bound).count();
    match training.steps.checked_sub(clipped) {
        None | Some(0) => Err(config.refused("lambda_min_clipped", bound, "leaves no training step")),
        Some(top) => Ok(top),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_has_unit_variance() {
        let level = Level::new(2.0);
        assert!((level.alpha * level.alpha + level.sigma * level.sigma - 1.0).abs() < 1e-6);
        assert!((level.lambda + 2f32.ln()).abs() < 1e-6);
        assert_eq!(Level::new(0.0).lambda, f32::INFINITY);
    }
}
