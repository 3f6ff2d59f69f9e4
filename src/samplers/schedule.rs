//! All of a sampler that is known before it begins: its timesteps, its noise levels (sigmas), and the factors that
//! belong to them.

use super::betas::Training;
use super::config::Config;
use super::edm::Edm;
use super::numbers::{interpolate, log, numpy_log, sigma_to_timestep};
use super::spacing::{Spacing, Spread, check_steps, limits};
use crate::error::Result;

/// When the network is evaluated, and at which scale.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    /// The timestep of each evaluation, in order. Second-order samplers have more of them than steps.
    pub timesteps: Vec<f32>,
    /// The noise levels, as diffusers' `sigmas`, where the class counts in them; else none.
    pub sigmas: Vec<f32>,
    /// The standard deviation of the first latents.
    pub start: f32,
    /// What the latents are multiplied with for the network, at each evaluation.
    pub scales: Vec<f32>,
    /// What a picture and noise of unit variance are multiplied with to be the latents of each evaluation.
    pub mixes: Vec<(f32, f32)>,
}

/// What differs from class to class in a descending list of sigmas.
pub(super) struct Rungs {
    pub spread: Option<Spread>,
    /// Whether `sigma_min` and `sigma_max` count.
    pub limits: bool,
    /// Whether the timesteps of Karras sigmas are rounded to whole training steps.
    pub rounded: bool,
    /// The sigma after the last step.
    pub last: f32,
}

impl Schedule {
    /// Of latents that have unit variance at every timestep.
    pub fn of_unit_variance(timesteps: Vec<f32>, sigmas: Vec<f32>, mixes: Vec<(f32, f32)>) -> Self {
        Self { scales: vec![1.0; timesteps.len()], timesteps, sigmas, start: 1.0, mixes }
    }

    /// Of latents that have unit variance at every timestep, whose class does not count in sigmas.
    pub fn discrete(timesteps: &[usize], training: &Training) -> Self {
        let mixes = timesteps.iter().map(|t| training.mix(*t)).collect();
        Self::of_unit_variance(timesteps.iter().map(|t| *t as f32).collect(), Vec::new(), mixes)
    }

    /// Of latents that are `picture + sigma * noise`.
    pub fn of_sigmas(timesteps: Vec<f32>, sigmas: Vec<f32>, start: f32) -> Self {
        let scales = sigmas.iter().take(timesteps.len()).map(|sigma| unit_scale(*sigma)).collect();
        let mixes = sigmas.iter().map(|sigma| (1.0, *sigma)).collect();
        Self { timesteps, sigmas, start, scales, mixes }
    }

    /// Of a model of EDM's noise.
    pub fn of_edm(edm: &Edm, config: &Config, steps: usize) -> Result<Self> {
        let sigmas = edm.sigmas(config, steps)?;
        let seen = &sigmas[..sigmas.len() - 1];
        let timesteps = seen.iter().map(|sigma| 0.25 * log(*sigma)).collect();
        let scales = seen.iter().map(|sigma| 1.0 / (sigma * sigma + edm.data * edm.data).sqrt()).collect();
        let start = (sigmas[0] * sigmas[0] + 1.0).sqrt();
        Ok(Self { scales, ..Self::of_sigmas(timesteps, sigmas, start) })
    }

    /// A descending list of timesteps with the sigma at each and one more sigma at the end, for latents that are
    /// `picture + sigma * noise`.
    ///
    /// # Errors
    /// As [`check_steps`], or if the config's spacing or limits make no sense.
    pub fn ladder(config: &Config, training: &Training, steps: usize, rungs: &Rungs) -> Result<Self> {
        check_steps(config, training, steps)?;
        if let Some(edm) = Edm::read(config)? {
            return Self::of_edm(&edm, config, steps);
        }
        let spacing = Spacing::read(config, "linspace")?;
        let table = training.sigmas();
        let offset = config.whole("steps_offset", 0)?;
        // NumPy makes these in f32.
        let mut timesteps: Vec<f32> =
            spacing.timesteps(steps, 0, training.steps, training.steps, offset).iter().map(|t| *t as f32).collect();
        let mut sigmas: Vec<f64> = timesteps.iter().map(|t| interpolate(&table, f64::from(*t))).collect();
        if let Some(spread) = &rungs.spread {
            let (mut max, mut min) = (sigmas[0], sigmas[sigmas.len() - 1]);
            if rungs.limits {
                (max, min) = limits(config, max, min)?;
            }
            sigmas = spread.sigmas(steps, [max, min], &table);
            let logs: Vec<f32> = table.iter().map(|sigma| numpy_log(*sigma)).collect();
            let back = sigmas.iter().map(|sigma| sigma_to_timestep(*sigma, &logs));
            let round = rungs.rounded && spread.is_karras();
            timesteps = back.map(|t| if round { t.round_ties_even() } else { t } as f32).collect();
        }
        let sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).chain([rungs.last]).collect();
        let max = sigmas.iter().copied().fold(0.0, f32::max);
        let start = if spacing == Spacing::Leading { (max * max + 1.0).sqrt() } else { max };
        Ok(Self::of_sigmas(timesteps, sigmas, start))
    }
}

/// What the latents at a sigma are multiplied with for the network, which was trained on unit variance.
pub(super) fn unit_scale(sigma: f32) -> f32 {
    1.0 / (sigma * sigma + 1.0).sqrt()
}
