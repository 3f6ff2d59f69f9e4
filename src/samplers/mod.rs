//! Samplers: the algorithms that turn noise and a network's predictions into a picture's latents, step by step.
//!
//! Each is one file and does what the diffusers class of the table does. A sampler is plain arithmetic on lists of
//! numbers: it knows neither networks nor devices.
//!
//! Floor 3: may import `graph`, `ops` and floor 0.

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

use betas::{Defaults, ZeroSnr};
pub use chain::{Chain, Link};
pub use config::Config;
use config::ZERO_SNR;

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

/// A sampler: what it is called, and what it can do.
struct Entry {
    /// On the command line.
    name: &'static str,
    /// In AUTOMATIC1111's web UI and its pictures' parameters.
    web_ui: &'static str,
    /// In diffusers.
    class: &'static str,
    /// Its class's noise schedule, and what that does with one that ends in pure noise.
    defaults: &'static Defaults,
    /// Whether it takes [`Config::with_eta`].
    takes_eta: bool,
    /// Whether it takes [`Config::with_spacing`], or spaces its timesteps in its own way.
    takes_spacing: bool,
    build: Build,
}

type Build = fn(&Config, usize) -> Result<Box<dyn Sampler>>;

impl Entry {
    const fn new(names: [&'static str; 3], defaults: &'static Defaults, build: Build) -> Self {
        let [name, web_ui, class] = names;
        Self { name, web_ui, class, defaults, takes_eta: false, takes_spacing: true, build }
    }

    const fn with_eta(self) -> Self {
        Self { takes_eta: true, ..self }
    }

    const fn with_own_spacing(self) -> Self {
        Self { takes_spacing: false, ..self }
    }

    /// Whether its class pays no heed to a schedule that ends in pure noise.
    fn ignores_zero_snr(&self) -> bool {
        self.defaults.zero_snr == ZeroSnr::Ignored
    }
}

/// One row a sampler.
const TABLE: [Entry; 16] = [
    Entry::new(["ddpm", "DDPM", "DDPMScheduler"], &ddpm::DEFAULTS, |c, n| boxed(ddpm::Ddpm::new(c, n))),
    Entry::new(["ddim", "DDIM", "DDIMScheduler"], &ddim::DEFAULTS, |c, n| boxed(ddim::Ddim::new(c, n))).with_eta(),
    Entry::new(["pndm", "PLMS", "PNDMScheduler"], &pndm::DEFAULTS, |c, n| boxed(pndm::Pndm::new(c, n))),
    Entry::new(["lms", "LMS", "LMSDiscreteScheduler"], &lms::DEFAULTS, |c, n| boxed(lms::Lms::new(c, n))),
    Entry::new(["euler", "Euler", "EulerDiscreteScheduler"], &euler::DEFAULTS, |c, n| boxed(euler::Euler::new(c, n))),
    Entry::new(["euler-a", "Euler a", "EulerAncestralDiscreteScheduler"], &euler_a::DEFAULTS, |c, n| {
        boxed(euler_a::EulerA::new(c, n))
    }),
    Entry::new(["heun", "Heun", "HeunDiscreteScheduler"], &heun::DEFAULTS, |c, n| boxed(heun::Heun::new(c, n))),
    Entry::new(["dpm2", "DPM2", "KDPM2DiscreteScheduler"], &heun::NARROW, |c, n| boxed(dpm2::Dpm2::new(c, n))),
    Entry::new(["dpm2-a", "DPM2 a", "KDPM2AncestralDiscreteScheduler"], &heun::NARROW, |c, n| {
        boxed(dpm2_a::Dpm2A::new(c, n))
    }),
    Entry::new(["dpm++2m", "DPM++ 2M", "DPMSolverMultistepScheduler"], &dpmpp_2m::DEFAULTS, |c, n| {
        boxed(dpmpp_2m::Dpmpp2M::new(c, n, false))
    }),
    Entry::new(["dpm++2m-sde", "DPM++ 2M SDE", "DPMSolverMultistepScheduler"], &dpmpp_2m::DEFAULTS, |c, n| {
        boxed(dpmpp_2m::Dpmpp2M::new(c, n, true))
    }),
    Entry::new(["dpm++2s", "DPM++ 2S", "DPMSolverSinglestepScheduler"], &dpmpp_2s::DEFAULTS, |c, n| {
        boxed(dpmpp_2s::Dpmpp2S::new(c, n))
    })
    .with_own_spacing(),
    Entry::new(["deis", "DEIS", "DEISMultistepScheduler"], &deis::DEFAULTS, |c, n| boxed(deis::Deis::new(c, n))),
    Entry::new(["unipc", "UniPC", "UniPCMultistepScheduler"], &unipc::DEFAULTS, |c, n| boxed(unipc::UniPc::new(c, n))),
    Entry::new(["lcm", "LCM", "LCMScheduler"], &lcm::DEFAULTS, |c, n| boxed(lcm::Lcm::new(c, n))).with_own_spacing(),
    Entry::new(["tcd", "TCD", "TCDScheduler"], &lcm::DEFAULTS, |c, n| boxed(tcd::Tcd::new(c, n)))
        .with_eta()
        .with_own_spacing(),
];

fn boxed<S: Sampler + 'static>(sampler: Result<S>) -> Result<Box<dyn Sampler>> {
    Ok(Box::new(sampler?))
}

/// The sampler of models whose schedule ends in pure noise, where the class that their file names knows nothing of it:
/// it starts from a large noise level instead of an infinite one, so it can do with whatever the network predicts.
const FOR_ZERO_SNR: &str = "euler";

/// The values of `timestep_spacing`.
pub const SPACINGS: [&str; 3] = ["leading", "trailing", "linspace"];

/// The names that `--sampler` takes.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|entry| entry.name)
}

fn find(name: &str) -> Result<&'static Entry> {
    TABLE.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known = names().collect::<Vec<_>>().join(", ");
        Error::usage(format!("no sampler is called {name:?}; choose one of: {known}"))
    })
}

/// What AUTOMATIC1111's web UI calls the sampler of that name; one that is not in the table keeps its own.
pub fn web_ui_name(name: &str) -> &str {
    find(name).map_or(name, |entry| entry.web_ui)
}

/// The sampler of that name, for so many steps of a model with this `scheduler_config.json`.
///
/// The config may be another sampler's: as with diffusers' `from_config`, each sampler takes the keys that its class
/// accepts, and its class's defaults for the rest.
///
/// # Errors
/// If there is no such sampler, it cannot take that many steps, an `eta` or a spacing, the config asks for what is not
/// built, or the numbers of a step would not be finite.
pub fn sampler(name: &str, config: &Config, steps: usize) -> Result<Box<dyn Sampler>> {
    let entry = find(name)?;
    config.check_noise(is_class)?;
    if config.has_eta() && !entry.takes_eta {
        let takers: Vec<_> = TABLE.iter().filter(|entry| entry.takes_eta).map(|entry| entry.name).collect();
        let takers = takers.join(" and ");
        return Err(Error::usage(format!("--eta is for the samplers {takers}: {name} has no such choice")));
    }
    if config.is_spaced() && !entry.takes_spacing {
        return Err(Error::usage(format!(
            "--spacing is not for the sampler {name}, which spaces timesteps in its own way"
        )));
    }
    match not_finite((entry.build)(config, steps)?) {
        None => (entry.build)(config, steps),
        Some(step) => Err(because_of_a_key(entry, config, steps, step)),
    }
}

/// The first evaluation, counted from 1, whose timestep, noise level or factors are not finite. The factors show in
/// what a step makes of other numbers.
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

/// What is to be said of drawing with the sampler of that name, if anything: that its class ignores a schedule's end in
/// pure noise, as diffusers' does, which leaves very dark and very bright pictures out of its reach.
///
/// # Errors
/// If there is no such sampler, or the config's key for it is neither true nor false.
pub fn warning(name: &str, config: &Config) -> Result<Option<String>> {
    if !config.zero_snr()? || !find(name)?.ignores_zero_snr() {
        return Ok(None);
    }
    let others: Vec<_> = TABLE.iter().filter(|entry| !entry.ignores_zero_snr()).map(|entry| entry.name).collect();
    Ok(Some(format!(
        "the model's noise schedule ends in pure noise ({ZERO_SNR}), which the sampler {name} ignores: dark and bright \
         pictures come out grey; choose one of: {}",
        others.join(", ")
    )))
}

fn is_class(class: &str) -> bool {
    TABLE.iter().any(|entry| entry.class == class)
}

impl Config {
    /// The name of the sampler that the file was written for, by its `_class_name` and `algorithm_type`; of one that
    /// honours the file's `rescale_betas_zero_snr`, where that class does not.
    ///
    /// # Errors
    /// If the file names no class, one that is not built, or is for models that no sampler here draws with.
    pub fn default_sampler(&self) -> Result<&'static str> {
        self.check_noise(is_class)?;
        let class = self.class().unwrap_or("missing");
        let stochastic = self.word("algorithm_type", "")?.is_some_and(|word| word.starts_with("sde-"));
        let of_class = || TABLE.iter().filter(|entry| entry.class == class);
        let entry = of_class().find(|entry| entry.name.ends_with("-sde") == stochastic).or(of_class().next());
        let ends_in_noise = self.zero_snr()?;
        let name = |entry: &Entry| if ends_in_noise && entry.ignores_zero_snr() { FOR_ZERO_SNR } else { entry.name };
        entry.map(name).ok_or_else(|| {
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

    fn config(text: &str) -> Config {
        Config::from_json(text, "x").unwrap()
    }

    #[test]
    fn a_class_that_is_not_built_has_no_default() {
        let config = config(r#"{"_class_name": "SASolverScheduler", "beta_start": 0.00085}"#);
        let error = config.default_sampler().unwrap_err().to_string();
        assert!(error.contains("_class_name: SASolverScheduler") && error.contains("choose a --sampler"), "{error}");
        assert!(sampler("euler", &config, 5).is_ok());
        assert!(Config::default().default_sampler().is_err());
    }

    #[test]
    fn models_of_another_noise_are_refused_under_every_sampler_and_nothing_is_advised() {
        for text in [
            r#"{"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_max": 80.0}"#,
            r#"{"_class_name": "EDMEulerScheduler", "beta_start": 0.1}"#,
            r#"{"_class_name": "EulerDiscreteScheduler", "sigma_data": 0.5, "beta_start": 0.1}"#,
            r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#,
            r#"{"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true}"#,
            r#"{"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"}"#,
            r#"{"_class_name": "ScoreSdeVeScheduler"}"#,
        ] {
            let config = config(text);
            let default = config.default_sampler().map(String::from);
            let each = names().map(|name| sampler(name, &config, 5).map(|_| name.to_string()));
            for made in each.chain([default]) {
                let error = made.expect_err(text).to_string();
                assert!(error.starts_with("x: ") && !error.contains("--sampler"), "{text}: {error}");
            }
        }
    }

    #[test]
    fn a_schedule_that_ends_in_pure_noise_is_drawn_by_a_sampler_that_knows_it() {
        for entry in &TABLE {
            let text = |zero| {
                format!(
                    r#"{{"_class_name": "{}", "rescale_betas_zero_snr": {zero}, "prediction_type": "v_prediction",
                        "timestep_spacing": "trailing", "skip_prk_steps": true}}"#,
                    entry.class
                )
            };
            let [with, without] = [true, false].map(|zero| config(&text(zero)));
            let timesteps_and_step = |config: &Config| {
                let mut made = sampler(entry.name, config, 5).unwrap();
                let latents = made.step(0, &[0.5], &[0.25], &mut |n| vec![0.1; n]);
                (made.init_noise_sigma(), made.sigmas().map(<[f32]>::to_vec), latents)
            };
            let differ = timesteps_and_step(&with) != timesteps_and_step(&without);
            assert_eq!(differ, !entry.ignores_zero_snr(), "{}", entry.name);
            assert_eq!(warning(entry.name, &with).unwrap().is_some(), entry.ignores_zero_snr(), "{}", entry.name);
            assert_eq!(warning(entry.name, &without).unwrap(), None);
            let default = find(with.default_sampler().unwrap()).unwrap();
            assert!(!default.ignores_zero_snr(), "{} is drawn with {}", entry.class, default.name);
        }
    }

    #[test]
    fn noise_alone_predicts_nothing_where_no_picture_is_left() {
        let config = config(r#"{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}"#);
        for name in names() {
            match sampler(name, &config, 5) {
                Ok(mut made) => {
                    let start = made.init_noise_sigma();
                    let next = made.step(0, &[0.5], &[0.25 * start], &mut |n| vec![0.1; n]);
                    assert!(next[0].is_finite(), "{name}: {next:?}");
                }
                Err(error) => assert!(error.to_string().contains("choose --sampler euler"), "{name}: {error}"),
            }
        }
    }

    #[test]
    fn a_prediction_replaces_the_files() {
        let v = config(r#"{"prediction_type": "epsilon"}"#).with_prediction(Some("v"));
        assert_eq!(v.word("prediction_type", "").unwrap(), Some("v_prediction"));
        assert!(sampler("ddim", &v.with_prediction(Some("wavelets")), 5).is_err());
    }
}
