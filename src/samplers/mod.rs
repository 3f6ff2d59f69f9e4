//! Samplers: the algorithms that turn noise and a network's predictions into a picture's latents, step by step.
//!
//! Each is one file and does what the diffusers class of the table does, or k-diffusion's or ComfyUI's function. A
//! sampler is plain arithmetic on lists of numbers: it knows neither networks nor devices.
//!
//! Floor 3: may import `graph`, `ops` and floor 0.

mod betas;
mod called;
mod config;
mod ddim;
mod ddpm;
mod deis;
mod dpm2;
mod dpmpp;
mod dpmpp_2m;
mod dpmpp_2s;
mod dpmpp_3m_sde;
mod dpmpp_sde;
mod edm;
mod er_sde;
mod euler;
mod euler_a;
mod euler_cfg_pp;
mod finite;
mod heun;
mod ipndm;
mod lcm;
mod linear;
mod lms;
mod numbers;
mod pndm;
mod portion;
mod prediction;
mod res_multistep;
mod schedule;
mod sigmas;
mod solver;
mod spacing;
mod table;
mod tcd;
mod unipc;

use std::ops::Range;

pub use called::called;
pub use config::Config;
pub use linear::{LinearSampler, LinearStep};
pub use portion::Portion;
pub use sigmas::Sigmas;
pub use table::{names, own_guidance, warning, web_ui_name};

use crate::error::{Error, Field, Remedy, Result};
use betas::Training;
use prediction::{Limit, PREDICTIONS, Prediction, mix, pairwise};
use schedule::{Rungs, Schedule};
use spacing::{Spacing, Spread};
use table::{TABLE, find, is_class};

/// What a sampler does at each evaluation, and what it remembers of earlier ones.
trait Method: Send {
    /// As [`Sampler::step`].
    fn step(&mut self, setup: &Setup, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32>;

    /// As [`Sampler::guidance_factor`].
    fn guidance_factor(&self, _setup: &Setup, _index: usize) -> f32 {
        1.0
    }
}

/// All of a sampler that is known before it begins.
struct Setup {
    schedule: Schedule,
    prediction: Prediction,
    limit: Limit,
}

impl Setup {
    /// Of latents that are `picture + sigma * noise`, down to no noise, as k-diffusion's and ComfyUI's samplers are
    /// given sigmas.
    fn of_ladder(config: &Config, training: &Training, steps: usize) -> Result<Self> {
        let rungs = Rungs { spread: Spread::read(config, false)?, limits: true, rounded: false, last: 0.0 };
        let schedule = Schedule::ladder(config, training, steps, &rungs)?;
        Ok(Self { schedule, prediction: Prediction::read(config, PREDICTIONS)?, limit: Limit::None })
    }

    fn sampler(self, method: impl Method + 'static) -> Sampler {
        let span = 0..self.schedule.timesteps.len();
        Sampler { setup: self, method: Box::new(method), steps: span.len(), span }
    }

    /// The picture that a network's output predicts, within the limit, where `alpha^2 + sigma^2 = 1`.
    fn picture(&self, output: &[f32], latents: &[f32], alpha: f32, sigma: f32) -> Vec<f32> {
        self.limit.apply(self.prediction.picture(output, latents, alpha, sigma))
    }

    /// The slope of the latents in sigma: `(latents - picture) / sigma`, where `alpha = 1`.
    fn slope(&self, output: &[f32], latents: &[f32], sigma: f32) -> Vec<f32> {
        let picture = self.limit.apply(self.prediction.picture_at_sigma(output, latents, sigma));
        pairwise(latents, &picture, |x, p| (x - p) / sigma)
    }
}

/// Denoises one picture. A batch has one sampler for each picture, beside its generator of noise.
///
/// For each `index` in `0..timesteps().len()`, in order: the network sees the latents times `input_scale(index)` at
/// `timesteps()[index]`, and `step(index, ..)` takes its output (after guidance, `guidance_factor(index)` times as
/// strong) and the unscaled latents to the next latents. To start, the latents are unit noise times `init_noise_sigma`.
pub struct Sampler {
    setup: Setup,
    method: Box<dyn Method>,
    /// Which evaluations of the schedule it does; they are counted from its first.
    span: Range<usize>,
    /// How many steps those are.
    steps: usize,
}

impl Sampler {
    /// The timestep of each network evaluation, in order. Second-order samplers have more of them than steps.
    pub fn timesteps(&self) -> &[f32] {
        &self.setup.schedule.timesteps[self.span.clone()]
    }

    /// How many steps its evaluations are.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// How many of its steps are done after so many evaluations, which are spread over them evenly.
    pub fn steps_done(&self, evaluations: usize) -> usize {
        evaluations * self.steps / self.span.len()
    }

    /// The noise levels, as diffusers' `sigmas`, where the class counts in them.
    pub fn sigmas(&self) -> Option<&[f32]> {
        self.setup.schedule.sigmas.get(self.span.start..).filter(|sigmas| !sigmas.is_empty())
    }

    /// The standard deviation of the first latents.
    pub fn init_noise_sigma(&self) -> f32 {
        self.setup.schedule.start
    }

    /// What the latents are multiplied with for the network at evaluation `index`.
    pub fn input_scale(&self, index: usize) -> f32 {
        self.setup.schedule.scales[self.span.start + index]
    }

    /// How much stronger than the request's the guidance of evaluation `index` is, from the prediction without a text
    /// on.
    pub fn guidance_factor(&self, index: usize) -> f32 {
        self.method.guidance_factor(&self.setup, self.span.start + index)
    }

    /// Whether the next latents are a sum of all that `step` is given and was given, with factors that depend on the
    /// schedule alone: whether the predicted picture is left as it is.
    pub fn is_linear(&self) -> bool {
        self.setup.limit == Limit::None
    }

    /// The latents after evaluation `index`. `noise(n)` gives `n` fresh unit normals, and is called as often as
    /// diffusers draws.
    ///
    /// # Panics
    /// If `output`, `latents` and the noise differ in length, or `index` is not an evaluation's.
    pub fn step(&mut self, index: usize, output: &[f32], latents: &[f32], noise: &mut Noise) -> Vec<f32> {
        self.method.step(&self.setup, self.span.start + index, output, latents, noise)
    }

    /// The first latents of a run that begins with a picture's: those with noise of unit variance.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn noised(&self, picture: &[f32], noise: &[f32]) -> Vec<f32> {
        let (signal, sigma) = self.setup.schedule.mixes[self.span.start];
        mix(&[(signal, picture), (sigma, noise)])
    }

    /// What a picture and noise of unit variance are multiplied with to be the latents after evaluation `index`.
    pub fn mix_after(&self, index: usize) -> (f32, f32) {
        let next = self.span.start + index + 1;
        if next == self.span.end { (1.0, 0.0) } else { self.setup.schedule.mixes[next] }
    }
}

/// Gives so many fresh unit normals.
pub type Noise<'a> = dyn FnMut(usize) -> Vec<f32> + 'a;

/// The values of `timestep_spacing`.
pub const SPACINGS: [&str; 3] = ["leading", "trailing", "linspace"];

/// The sampler of that name, for so many steps of a model with this `scheduler_config.json`.
///
/// The config may be another sampler's: as with diffusers' `from_config`, each sampler takes the keys that its class
/// accepts, and its class's defaults for the rest.
///
/// # Errors
/// If there is no such sampler, it cannot take that many steps, an `eta` or a spacing, the config asks for what is not
/// built, or the numbers of a step would not be finite.
pub fn sampler(name: &str, config: &Config, steps: usize) -> Result<Sampler> {
    portion(name, config, steps, Portion::Whole)
}

/// The same for a part of these steps.
///
/// # Errors
/// As [`sampler`], and if the part has no step.
pub fn portion(name: &str, config: &Config, steps: usize, portion: Portion) -> Result<Sampler> {
    let row = find(name)?;
    config.check_noise(is_class)?;
    if config.is_edm() && !row.takes_edm {
        let others = TABLE.iter().filter(|row| row.takes_edm).map(|row| Remedy::set(Field::Sampler, row.name));
        let what = format!("{name} is not built for models of EDM's noise");
        return Err(Error::usage(what).of(Field::Sampler).remedies(others));
    }
    if config.eta.is_some() && !row.takes_eta {
        let takers: Vec<_> = TABLE.iter().filter(|row| row.takes_eta).map(|row| row.name).collect();
        let takers = takers.join(" and ");
        return Err(Error::usage(format!("is for the samplers {takers}: {name} has no such choice")).of(Field::Eta));
    }
    if config.spaced && (!row.takes_spacing || config.is_edm()) {
        let whose = if config.is_edm() { "a model of EDM's noise" } else { &format!("the sampler {name}") };
        let what = format!("is not for {whose}, which spaces timesteps in its own way");
        return Err(Error::usage(what).of(Field::Spacing));
    }
    if let Some(sigmas) = &config.sigmas {
        called::check_spread(row, sigmas).map_err(|why| Error::usage(why).of(Field::Schedule))?;
        if let Sigmas::Listed(listed) = sigmas
            && listed.len() != steps
        {
            let what = format!("{steps} for a schedule of {} sigmas", listed.len());
            return Err(Error::usage(what).of(Field::Steps).remedies([Remedy::set(Field::Steps, listed.len())]));
        }
    }
    finite::check(row, config, steps)?;
    let mut sampler = row.sampler(config, steps)?;
    let train = config.count("num_train_timesteps", 1000)?;
    let all = sampler.span.len();
    sampler.span = portion.span(sampler.timesteps(), [steps, row.order, train])?;
    // Rounded: of an odd number of evaluations, the last or the first step has one.
    sampler.steps = ((2 * sampler.span.len() * steps + all) / (2 * all)).max(1);
    Ok(sampler)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_json(text, "x").unwrap()
    }

    #[test]
    fn a_class_that_is_not_built_has_no_default() {
        let config = config(r#"{"_class_name": "SASolverScheduler", "beta_start": 0.00085}"#);
        let error = config.default_sampler().unwrap_err().to_string();
        assert!(error.contains("_class_name: SASolverScheduler") && error.ends_with("try another sampler"), "{error}");
        assert!(sampler("euler", &config, 5).is_ok());
        assert!(Config::default().default_sampler().is_err());
    }

    #[test]
    fn a_model_of_edms_noise_is_drawn_by_the_samplers_that_know_it() {
        for (class, name) in [("EDMEulerScheduler", "euler"), ("EDMDPMSolverMultistepScheduler", "dpm++2m")] {
            let config = config(&format!(r#"{{"_class_name": "{class}", "sigma_max": 60.0}}"#));
            assert_eq!(config.default_sampler().unwrap(), name);
            for row in TABLE {
                match sampler(row.name, &config, 5) {
                    Ok(made) => assert!(row.takes_edm && made.sigmas().unwrap()[0] == 60.0, "{}", row.name),
                    Err(error) => {
                        let error = error.to_string();
                        assert!(
                            !row.takes_edm && error.starts_with(&format!("sampler {} is not", row.name)),
                            "{error}"
                        );
                        assert!(error.contains("; try sampler euler, dpm++2m, "), "{error}");
                    }
                }
            }
            let spaced = config.clone().with_spacing(Some("trailing"));
            assert!(sampler(name, &spaced, 5).is_err_and(|error| error.to_string().starts_with("spacing ")));
            let spread = |sigmas| sampler(name, &config.clone().with_sigmas(Some(sigmas)), 5);
            assert_eq!(spread(Sigmas::Exponential).unwrap().sigmas().unwrap()[0], 60.0);
            assert!(spread(Sigmas::Simple).is_err_and(|error| error.to_string().starts_with("schedule Simple")));
        }
        let stochastic = r#"{"_class_name": "EDMDPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}"#;
        assert_eq!(config(stochastic).default_sampler().unwrap(), "dpm++2m-sde");
    }

    #[test]
    fn models_of_another_noise_are_refused_under_every_sampler_and_nothing_is_advised() {
        for text in [
            r#"{"_class_name": "EDMHeunScheduler", "sigma_max": 80.0}"#,
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
                assert!(error.starts_with("x: ") && !error.contains("try "), "{text}: {error}");
            }
        }
    }

    #[test]
    fn a_schedule_that_ends_in_pure_noise_is_drawn_by_a_sampler_that_knows_it() {
        for entry in TABLE {
            let text = |zero| {
                format!(
                    r#"{{"_class_name": "{}", "rescale_betas_zero_snr": {zero}, "prediction_type": "v_prediction",
                        "timestep_spacing": "trailing", "skip_prk_steps": true}}"#,
                    entry.class.unwrap_or("EulerDiscreteScheduler")
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
            assert!(!default.ignores_zero_snr(), "{:?} is drawn with {}", entry.class, default.name);
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
                Err(error) => assert!(error.to_string().ends_with("try sampler euler"), "{name}: {error}"),
            }
        }
    }

    #[test]
    fn evaluations_are_counted_as_the_steps_that_they_are() {
        let config = config(r#"{"skip_prk_steps": true}"#);
        let counted = |name, part| {
            let sampler = portion(name, &config, 6, part).unwrap();
            let evaluations = 1..=sampler.timesteps().len();
            (sampler.steps(), evaluations.map(|count| sampler.steps_done(count)).collect::<Vec<_>>())
        };
        assert_eq!(counted("euler", Portion::Whole), (6, vec![1, 2, 3, 4, 5, 6]));
        // Its first step is done twice.
        assert_eq!(counted("pndm", Portion::Whole), (6, vec![0, 1, 2, 3, 4, 5, 6]));
        assert_eq!(counted("heun", Portion::Whole), (6, vec![0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6]));
        assert_eq!(counted("heun", Portion::Last(0.5)), (3, vec![0, 1, 1, 2, 3]));
        for name in names() {
            for part in [Portion::Whole, Portion::Last(0.5), Portion::Before(0.5), Portion::From(0.5)] {
                let (steps, done) = counted(name, part);
                assert!(done.last() == Some(&steps) && (part != Portion::Whole || steps == 6), "{name} {part:?}");
            }
        }
    }

    #[test]
    fn a_picture_that_is_held_gets_less_noise_from_evaluation_to_evaluation_and_none_in_the_end() {
        let config = config(r#"{"skip_prk_steps": true}"#);
        for name in names() {
            for part in [Portion::Whole, Portion::Last(0.6), Portion::Before(0.5)] {
                let sampler = portion(name, &config, 6, part).unwrap();
                let count = sampler.timesteps().len();
                let shares: Vec<f32> = (0..count).map(|index| sampler.mix_after(index)).map(|(a, s)| s / a).collect();
                assert_eq!(shares[count - 1], 0.0, "{name} {part:?}");
                // A second evaluation may be between two steps, but not before them.
                assert!(shares.windows(2).all(|pair| pair[1] <= pair[0]), "{name} {part:?}: {shares:?}");
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
