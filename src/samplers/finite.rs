//! Schedules that are not finite, found before anything is drawn, and the key of the config that is to blame.

use super::Sampler;
use super::config::{Config, SPACING};
use super::table::Row;
use crate::error::{Error, Field, Remedy, Result};

/// Tries every step of a sampler on numbers.
///
/// # Errors
/// If it cannot be made, or something of it is not finite: that names the key of the config that is to blame.
pub(super) fn check(row: &Row, config: &Config, steps: usize) -> Result<()> {
    match not_finite(row.sampler(config, steps)?) {
        None => Ok(()),
        Some(step) => Err(because_of_a_key(row, config, steps, step)),
    }
}

/// The first evaluation, counted from 1, whose timestep, noise level or factors are not finite. The factors show in
/// what a step makes of other numbers.
fn not_finite(mut sampler: Sampler) -> Option<usize> {
    let finite = |sampler: &Sampler, index: usize| {
        let sigmas = sampler.sigmas().unwrap_or_default().iter().skip(index).take(2);
        let levels = sigmas.chain([&sampler.timesteps()[index]]);
        levels
            .copied()
            .chain([sampler.input_scale(index), sampler.init_noise_sigma(), sampler.guidance_factor(index)])
            .all(f32::is_finite)
    };
    let wrong = (0..sampler.timesteps().len()).find(|&index| {
        let next = sampler.step(index, &[0.5], &[1.0], &mut |n| vec![1.0; n]);
        !finite(&sampler, index) || !next[0].is_finite()
    });
    wrong.map(|index| index + 1)
}

/// The keys that may be to blame for a schedule that is not finite, the likeliest first.
const CAUSES: [&str; 12] = [
    "trained_betas",
    "rescale_betas_zero_snr",
    "beta_end",
    "beta_start",
    "beta_schedule",
    "num_train_timesteps",
    "sigma_max",
    "sigma_min",
    "steps_offset",
    SPACING,
    "sample_max_value",
    "solver_order",
];

/// The error of a schedule that is not finite: it names the key without which it would be.
fn because_of_a_key(row: &Row, config: &Config, steps: usize, step: usize) -> Error {
    let cause = CAUSES.into_iter().filter_map(|key| Some((key, config.value(key)?))).find(|(key, _)| {
        let sampler = row.sampler(&config.without(key), steps);
        sampler.is_ok_and(|sampler| not_finite(sampler).is_none())
    });
    let what = format!("the schedule of {} is not finite at step {step}", row.name);
    let error = match cause {
        Some((key, value)) => config.refused(key, value, &format!("is why {what}")),
        None => config.error(what),
    };
    error.remedies([Field::Sampler, Field::Steps].map(Remedy::Other))
}

#[cfg(test)]
mod tests {
    use super::super::sampler;
    use super::super::table::TABLE;
    use super::*;

    #[test]
    fn a_schedule_that_is_not_finite_names_the_key() {
        let message = |name: &str, text: &str| {
            sampler(name, &Config::from_json(text, "x").unwrap(), 4).err().map(|error| error.to_string())
        };
        for (name, text, key) in [
            ("euler", r#"{"trained_betas": [0, 1]}"#, "x: trained_betas: [0,1] is why the schedule of euler"),
            ("heun", r#"{"beta_end": 1}"#, "beta_end: 1 is why"),
        ] {
            let error = message(name, text).unwrap_or_default();
            assert!(error.contains(key) && error.contains("is not finite at step 1"), "{name} {text}: {error}");
        }
        for row in TABLE {
            assert_eq!(message(row.name, "{}"), None);
        }
    }
}
