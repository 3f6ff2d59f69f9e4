//! Which timesteps a sampler visits, and how its sigmas are spread: spacing, and re-spacing after Karras and others.
//! Arithmetic is f64 or f32 where NumPy's is, since some timesteps are rounded.

use super::betas::Training;
use super::config::{Config, SPACING};
use super::numbers::numpy_log;
use super::sigmas::{Sigmas, even};
use crate::error::{Error, Field, Remedy, Result, counted};

/// `timestep_spacing`: table 2 of Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2023).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Spacing {
    /// From the last training step to the first, both included.
    Linspace,
    /// Multiples of the whole ratio, plus `steps_offset`.
    Leading,
    /// Down from the last training step by the exact ratio.
    Trailing,
}

impl Spacing {
    pub fn read(config: &Config, default: &str) -> Result<Self> {
        let options = [("linspace", Self::Linspace), ("leading", Self::Leading), ("trailing", Self::Trailing)];
        config.choice(SPACING, default, &options)
    }

    /// `steps` timesteps in descending order; those of `Linspace` may lie between training steps.
    ///
    /// `extra` is 1 for the solvers that place `steps + 1` points and leave out the lowest, `top` the number of
    /// training steps that they may use, and 0 and all of them for the rest.
    pub fn timesteps(self, steps: usize, extra: usize, top: usize, train: usize, offset: i64) -> Vec<f64> {
        let points = steps + extra;
        match self {
            Self::Linspace => {
                let step = (top as f64 - 1.0) / (points.max(2) - 1) as f64;
                let last = |i| i + 1 == points && points > 1;
                let at = |i| if last(i) { top as f64 - 1.0 } else { i as f64 * step };
                (extra..points).rev().map(at).collect()
            }
            Self::Leading => (extra..points).rev().map(|i| (i * (top / points)) as f64 + offset as f64).collect(),
            Self::Trailing => {
                let ratio = train as f64 / steps as f64;
                // NumPy's arange adds the difference of its first two values, whatever rounding left of the step.
                let delta = (top as f64 - ratio) - top as f64;
                let at = |i| (top as f64 + i as f64 * delta).round_ties_even() - 1.0;
                // Rounding lets arange go on to a timestep of -1 for a few numbers of steps (61, 103), which diffusers
                // keeps. No model was trained on it, so here it is left out.
                (0..steps).map(at).take_while(|t| *t >= 0.0).collect()
            }
        }
    }
}

/// How many training steps there are, checked against the wish for `steps`.
///
/// # Errors
/// If `steps` is 0, or more than the model was trained with: timesteps would coincide.
pub(super) fn check_steps(config: &Config, training: &Training, steps: usize) -> Result<()> {
    match steps {
        0 => Err(Error::usage("0: a picture needs at least 1 step").of(Field::Steps)),
        n if n > training.steps => {
            let error = config.refused("num_train_timesteps", training.steps, &format!("is fewer than {n} steps"));
            Err(error.remedies([Remedy::Less(Field::Steps)]))
        }
        _ => Ok(()),
    }
}

/// Whole timesteps for the samplers that look up training steps (`ddpm`, `ddim`, `pndm`), whose spacing is `leading`
/// by default.
///
/// # Errors
/// As [`check_steps`], and if a timestep is not a training step's.
pub(super) fn discrete_timesteps(config: &Config, training: &Training, steps: usize) -> Result<Vec<usize>> {
    check_steps(config, training, steps)?;
    let offset = config.whole("steps_offset", 0)?;
    let spaced = Spacing::read(config, "leading")?.timesteps(steps, 0, training.steps, training.steps, offset);
    let known = training.alphas.len() as f64;
    let look_up = |t: f64| {
        let why = format!("leads {} to timestep {t}, which the model was not trained on", counted(steps, "step"));
        if (0.0..known).contains(&t) { Ok(t as usize) } else { Err(config.refused("steps_offset", offset, &why)) }
    };
    spaced.into_iter().map(|t| look_up(t.round_ties_even())).collect()
}

/// How sigmas are spread between the largest and the smallest, where they are not those of the timesteps.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Spread {
    /// By name, as the config's keys or a request have it.
    Named(Sigmas),
    /// Even in half the log signal-to-noise ratio: Lu et al., "DPM-Solver" (2022).
    Lu,
}

impl Spread {
    /// As a request has it, or else from `use_karras_sigmas` and its siblings; `lu` says whether the class has
    /// `use_lu_lambdas`.
    pub fn read(config: &Config, lu: bool) -> Result<Option<Self>> {
        if let Some(sigmas) = &config.sigmas {
            return Ok(Some(Self::Named(sigmas.clone())));
        }
        let mut found = None;
        for sigmas in [Sigmas::Karras, Sigmas::Exponential, Sigmas::Beta] {
            let key = sigmas.key().unwrap_or_default();
            match (config.flag(key, false)?, &found) {
                (true, Some(Self::Named(first))) => {
                    let why = format!("contradicts {}: true", first.key().unwrap_or_default());
                    return Err(config.refused(key, true, &why));
                }
                (true, _) => found = Some(Self::Named(sigmas)),
                (false, _) => {}
            }
        }
        let lu = lu && found != Some(Self::Named(Sigmas::Karras)) && config.flag("use_lu_lambdas", false)?;
        Ok(if lu { Some(Self::Lu) } else { found })
    }

    /// Whether it is Karras', which some classes treat by themselves.
    pub fn is_karras(&self) -> bool {
        *self == Self::Named(Sigmas::Karras)
    }

    /// Whether diffusers does not have it, so that its timesteps are where they fall.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Named(sigmas) if sigmas.key().is_none())
    }

    /// For `n` steps, from `max` down to `min`; `table` has those of the training steps.
    pub fn sigmas(&self, n: usize, [max, min]: [f64; 2], table: &[f32]) -> Vec<f64> {
        match self {
            Self::Named(sigmas) => sigmas.spread(n, [max, min], table),
            Self::Lu => {
                let log = |sigma: f64| f64::from(numpy_log(sigma as f32));
                even(log(max), log(min), n).map(libm::exp).collect()
            }
        }
    }
}

/// The largest and the smallest sigma: `sigma_max` and `sigma_min` where the config has them, else what is given.
pub(super) fn limits(config: &Config, max: f64, min: f64) -> Result<(f64, f64)> {
    let max = config.optional_number("sigma_max")?.unwrap_or(max);
    let min = config.optional_number("sigma_min")?.unwrap_or(min);
    let positive = |value: f64| value > 0.0 && value.is_finite();
    match (positive(max), positive(min)) {
        (false, _) => Err(config.refused("sigma_max", max, "is not a positive number")),
        (_, false) => Err(config.refused("sigma_min", min, "is not a positive number")),
        _ => Ok((max, min)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spacing_is_the_papers() {
        // Table 2: 10 of 1000 steps, counted from 0.
        let of = |spacing: Spacing| spacing.timesteps(10, 0, 1000, 1000, 0);
        assert_eq!(of(Spacing::Linspace), [999.0, 888.0, 777.0, 666.0, 555.0, 444.0, 333.0, 222.0, 111.0, 0.0]);
        assert_eq!(of(Spacing::Leading), [900.0, 800.0, 700.0, 600.0, 500.0, 400.0, 300.0, 200.0, 100.0, 0.0]);
        assert_eq!(of(Spacing::Trailing), [999.0, 899.0, 799.0, 699.0, 599.0, 499.0, 399.0, 299.0, 199.0, 99.0]);
    }

    #[test]
    fn trailing_never_leaves_the_training_steps() {
        for steps in 1..=1000 {
            let timesteps = Spacing::Trailing.timesteps(steps, 0, 1000, 1000, 0);
            assert_eq!(timesteps.len(), steps);
            assert!(timesteps.iter().all(|t| (0.0..1000.0).contains(t)), "{steps}");
        }
    }

    #[test]
    fn karras_sigmas_go_from_the_largest_to_the_smallest() {
        let sigmas = Spread::Named(Sigmas::Karras).sigmas(5, [14.0, 0.03], &[]);
        assert!((sigmas[0] - 14.0).abs() < 1e-12 && (sigmas[4] - 0.03).abs() < 1e-12);
        assert!(sigmas.windows(2).all(|pair| pair[0] > pair[1]));
    }
}
