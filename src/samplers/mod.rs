//! Samplers: the algorithms that turn noise and a network's predictions into a picture's latents, step by step.
//!
//! Each is one file and does what the diffusers class of the table does. A sampler is plain arithmetic on lists of
//! numbers: it knows neither networks nor devices.

mod betas;
mod chain;
mod config;
mod ddim;
mod ddpm;
mod deis;
mod dpm2;
mod dpm2_a;
mod dpmpp;
mod dpmpp_2m;
mod dpmpp_2s;
mod euler;
mod euler_a;
mod heun;
mod lcm;
mod lms;
mod pndm;
mod prediction;
mod schedule;
mod solver;
mod tcd;
mod unipc;

pub use chain::{Chain, Link};
pub use config::Config;

use crate::error::{Error, Result};
use config::SPACING;

/// Denoises one picture. A batch has one sampler for each picture, beside its generator of noise.
///
/// For each `index` in `0..timesteps().len()`, in order: the network sees the latents times `input_scale(index)` at
/// `timesteps()[index]`, and `step(index, ..)` takes its output (after guidance) and the unscaled latents to the next
/// latents. To start, the latents are unit noise times `init_noise_sigma`.
pub trait Sampler: Send {
    /// The timestep of each network evaluation, in order. Second-order samplers have more of them than steps.
    fn timesteps(&self) -> &[f32];

    /// The noise levels, as diffusers' `sigmas`, where the class counts in them.
    fn sigmas(&self) -> Option<&[f32]> {
        None
    }

    /// The standard deviation of the first latents.
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    /// What the latents are multiplied with for the network at evaluation `index`.
    fn input_scale(&self, _index: usize) -> f32 {
        1.0
    }

    /// Whether the next latents are a sum of all that `step` is given and was given, with factors that depend on the
    /// schedule alone: whether the predicted picture is left as it is.
    fn is_linear(&self) -> bool {
        true
    }

    /// The latents after evaluation `index`. `noise(n)` gives `n` fresh unit normals, and is called as often as diffusers
    /// draws.
    ///
    /// # Panics
    /// If `output`, `latents` and the noise differ in length, or `index` is no evaluation's.
    fn step(&mut self, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32>;
}

/// Gives so many fresh unit normals.
pub type Noise<'a> = dyn FnMut(usize) -> Vec<f32> + 'a;

/// A name of the command line, the diffusers class that it stands for, and how to make one.
struct Entry {
    name: &'static str,
    class: &'static str,
    build: fn(&Config, usize) -> Result<Box<dyn Sampler>>,
}

const TABLE: [Entry; 16] = [
    Entry { name: "ddpm", class: "DDPMScheduler", build: |c, n| Ok(Box::new(ddpm::Ddpm::new(c, n)?)) },
    Entry { name: "ddim", class: "DDIMScheduler", build: |c, n| Ok(Box::new(ddim::Ddim::new(c, n)?)) },
    Entry { name: "pndm", class: "PNDMScheduler", build: |c, n| Ok(Box::new(pndm::Pndm::new(c, n)?)) },
    Entry { name: "lms", class: "LMSDiscreteScheduler", build: |c, n| Ok(Box::new(lms::Lms::new(c, n)?)) },
    Entry { name: "euler", class: "EulerDiscreteScheduler", build: |c, n| Ok(Box::new(euler::Euler::new(c, n)?)) },
    Entry {
        name: "euler-a",
        class: "EulerAncestralDiscreteScheduler",
        build: |c, n| Ok(Box::new(euler_a::EulerA::new(c, n)?)),
    },
    Entry { name: "heun", class: "HeunDiscreteScheduler", build: |c, n| Ok(Box::new(heun::Heun::new(c, n)?)) },
    Entry { name: "dpm2", class: "KDPM2DiscreteScheduler", build: |c, n| Ok(Box::new(dpm2::Dpm2::new(c, n)?)) },
    Entry {
        name: "dpm2-a",
        class: "KDPM2AncestralDiscreteScheduler",
        build: |c, n| Ok(Box::new(dpm2_a::Dpm2A::new(c, n)?)),
    },
    Entry {
        name: "dpm++2m",
        class: "DPMSolverMultistepScheduler",
        build: |c, n| Ok(Box::new(dpmpp_2m::Dpmpp2M::new(c, n, false)?)),
    },
    Entry {
        name: "dpm++2m-sde",
        class: "DPMSolverMultistepScheduler",
        build: |c, n| Ok(Box::new(dpmpp_2m::Dpmpp2M::new(c, n, true)?)),
    },
    Entry {
        name: "dpm++2s",
        class: "DPMSolverSinglestepScheduler",
        build: |c, n| Ok(Box::new(dpmpp_2s::Dpmpp2S::new(c, n)?)),
    },
    Entry { name: "deis", class: "DEISMultistepScheduler", build: |c, n| Ok(Box::new(deis::Deis::new(c, n)?)) },
    Entry { name: "unipc", class: "UniPCMultistepScheduler", build: |c, n| Ok(Box::new(unipc::UniPc::new(c, n)?)) },
    Entry { name: "lcm", class: "LCMScheduler", build: |c, n| Ok(Box::new(lcm::Lcm::new(c, n)?)) },
    Entry { name: "tcd", class: "TCDScheduler", build: |c, n| Ok(Box::new(tcd::Tcd::new(c, n)?)) },
];

/// The samplers that take [`Config::with_eta`].
const WITH_ETA: [&str; 2] = ["ddim", "tcd"];

/// The samplers that space their timesteps in their own way.
const WITHOUT_SPACING: [&str; 3] = ["dpm++2s", "lcm", "tcd"];

/// The values of `timestep_spacing`.
pub const SPACINGS: [&str; 3] = ["leading", "trailing", "linspace"];

/// The names that `--sampler` takes.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|entry| entry.name)
}

/// The sampler of that name, for so many steps of a model with this `scheduler_config.json`.
///
/// The config may be another sampler's: as with diffusers' `from_config`, each sampler takes the keys that its class
/// accepts, and its class's defaults for the rest.
///
/// # Errors
/// If there is no such sampler, it cannot take that many steps, an `eta` or a spacing, the config asks for what is not built,
/// or the numbers of a step would not be finite.
pub fn sampler(name: &str, config: &Config, steps: usize) -> Result<Box<dyn Sampler>> {
    let Some(entry) = TABLE.iter().find(|entry| entry.name == name) else {
        let known = names().collect::<Vec<_>>().join(", ");
        return Err(Error::usage(format!("no sampler is called {name:?}; choose one of: {known}")));
    };
    if config.has_eta() && !WITH_ETA.contains(&name) {
        let takers = WITH_ETA.join(" and ");
        return Err(Error::usage(format!("--eta is for the samplers {takers}: {name} has no such choice")));
    }
    if config.is_spaced() && WITHOUT_SPACING.contains(&name) {
        return Err(Error::usage(format!(
            "--spacing is not for the sampler {name}, which spaces timesteps in its own way"
        )));
    }
    match not_finite((entry.build)(config, steps)?) {
        None => (entry.build)(config, steps),
        Some(step) => Err(because_of_a_key(entry, config, steps, step)),
    }
}

/// The first evaluation, counted from 1, whose timestep, noise level or factors are not finite. The factors show in what a
/// step makes of other numbers.
fn not_finite(mut sampler: Box<dyn Sampler>) -> Option<usize> {
    let finite = |sampler: &dyn Sampler, index: usize| {
        let sigmas = sampler.sigmas().unwrap_or_default().iter().skip(index).take(2);
        let levels = sigmas.chain([&sampler.timesteps()[index]]);
        levels.copied().chain([sampler.input_scale(index), sampler.init_noise_sigma()]).all(f32::is_finite)
    };
    let wrong = (0..sampler.timesteps().len()).find(|&index| {
        let next = sampler.step(index, &[0.5], &[1.0], &mut |n| vec![1.0; n]);
        !finite(&*sampler, index) || !next[0].is_finite()
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
fn because_of_a_key(entry: &Entry, config: &Config, steps: usize, step: usize) -> Error {
    let cause = CAUSES.into_iter().filter_map(|key| Some((key, config.value(key)?))).find(|(key, _)| {
        let sampler = (entry.build)(&config.without(key), steps);
        sampler.is_ok_and(|sampler| not_finite(sampler).is_none())
    });
    let what =
        format!("the schedule of {} is not finite at step {step}; choose another --sampler or --steps", entry.name);
    match cause {
        Some((key, value)) => config.refused(key, value, &format!("is why {what}")),
        None => config.error(what),
    }
}

impl Config {
    /// The name of the sampler that the file was written for, by its `_class_name` and `algorithm_type`.
    ///
    /// # Errors
    /// If the file names no class, or one that is not built.
    pub fn default_sampler(&self) -> Result<&'static str> {
        let class = self.class().unwrap_or("missing");
        let stochastic = self.word("algorithm_type", "")?.is_some_and(|word| word.starts_with("sde-"));
        let of_class = || TABLE.iter().filter(|entry| entry.class == class);
        let entry = of_class().find(|entry| entry.name.ends_with("-sde") == stochastic).or(of_class().next());
        entry.map(|entry| entry.name).ok_or_else(|| {
            let known = names().collect::<Vec<_>>().join(", ");
            self.refused("_class_name", class, &format!("is not built; choose a --sampler: {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_that_is_not_finite_names_the_key() {
        let message = |name: &str, text: &str| {
            sampler(name, &Config::from_json(text, "x").unwrap(), 4).err().map(|error| error.to_string())
        };
        for (name, text, key) in [
            ("euler", r#"{"trained_betas": [0, 1]}"#, "x: trained_betas: [0,1] is why the schedule of euler"),
            (
                "ddim",
                r#"{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "clip_sample": false}"#,
                "at step 1",
            ),
            ("heun", r#"{"beta_end": 1}"#, "beta_end: 1 is why"),
        ] {
            let error = message(name, text).unwrap_or_default();
            assert!(error.contains(key) && error.contains("is not finite at step 1"), "{name} {text}: {error}");
        }
        for entry in &TABLE {
            assert_eq!(message(entry.name, "{}"), None);
        }
    }

    #[test]
    fn names_differ() {
        let mut all: Vec<_> = names().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), TABLE.len());
    }

    #[test]
    fn every_sampler_is_its_own_classes_default() {
        for entry in &TABLE {
            let algorithm = if entry.name.ends_with("-sde") { "sde-dpmsolver++" } else { "dpmsolver++" };
            let text = format!(r#"{{"_class_name": "{}", "algorithm_type": "{algorithm}"}}"#, entry.class);
            assert_eq!(Config::from_json(&text, "x").unwrap().default_sampler().unwrap(), entry.name);
        }
    }

    #[test]
    fn a_class_that_is_not_built_has_no_default() {
        let config = Config::from_json(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#, "x").unwrap();
        let error = config.default_sampler().unwrap_err().to_string();
        assert!(error.contains("_class_name: FlowMatchEulerDiscreteScheduler"), "{error}");
        assert!(Config::default().default_sampler().is_err());
    }
}
