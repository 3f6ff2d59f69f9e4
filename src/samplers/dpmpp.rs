//! DPM-Solver and DPM-Solver++: Lu et al. (2022a, 2022b). The jump from one noise level to another that `dpm++2m` and
//! `dpm++2s` have in common: the exact solution for the linear part, with derivatives of the network's prediction in
//! lambda for the rest.

use super::numbers::exp;
use super::solver::{Last, Level};
use super::{Config, Noise, Setup, mix};
use crate::error::Result;

/// `algorithm_type`: which prediction is followed, and whether noise is added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Algorithm {
    /// `dpmsolver++`: the picture.
    Picture,
    /// `dpmsolver`: the noise.
    Noise,
    /// `sde-dpmsolver++`: the picture, with fresh noise at every step.
    PictureSde,
    /// `sde-dpmsolver`: the noise, with fresh noise at every step.
    NoiseSde,
}

impl Algorithm {
    pub fn follows_picture(self) -> bool {
        matches!(self, Self::Picture | Self::PictureSde)
    }

    /// What the solver keeps of a network's output.
    pub fn convert(self, setup: &Setup, index: usize, output: &[f32], latents: &[f32]) -> Vec<f32> {
        if self.follows_picture() {
            setup.picture_at(index, output, latents)
        } else {
            setup.noise_at(index, output, latents)
        }
    }

    /// `final_sigmas_type`. Without noise left there is none to predict.
    pub fn last_sigma(self, config: &Config) -> Result<Last> {
        let last =
            config.choice("final_sigmas_type", "zero", &[("zero", Last::Zero), ("sigma_min", Last::Smallest)])?;
        if last == Last::Zero && !self.follows_picture() {
            return Err(config.refused("final_sigmas_type", "zero", "does not go with an algorithm_type without ++"));
        }
        Ok(last)
    }

    pub fn draw(self, n: usize, noise: &mut Noise) -> Option<Vec<f32>> {
        matches!(self, Self::PictureSde | Self::NoiseSde).then(|| noise(n))
    }
}

/// `solver_type`: how the second derivative is weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Midpoint,
    Heun,
}

impl Kind {
    /// The names of other classes' kinds mean the default, as there.
    pub fn read(config: &Config) -> Result<Self> {
        let of_others = ["logrho", "bh1", "bh2"].map(|name| (name, Self::Midpoint));
        let options = [&[("midpoint", Self::Midpoint), ("heun", Self::Heun)], &of_others[..]].concat();
        config.choice("solver_type", "midpoint", &options)
    }
}

/// Refuses a network that predicts variances as well.
pub(super) fn refuse_learned_variance(config: &Config) -> Result<()> {
    match config.word("variance_type", "")? {
        Some(word) if word.starts_with("learned") => {
            Err(config.refused("variance_type", word, "is not built for this sampler"))
        }
        _ => Ok(()),
    }
}

/// The factors of a jump. Those of orders that a jump does not take may not be finite.
#[derive(Debug)]
pub(super) struct Jump {
    latents: f32,
    /// Of the prediction.
    constant: f32,
    /// Of its first derivative in lambda, by the midpoint rule and in full.
    midpoint: f32,
    full: f32,
    /// Of its second derivative.
    second: f32,
    noise: f32,
}

impl Jump {
    pub fn new(algorithm: Algorithm, from: Level, to: Level) -> Self {
        let h = to.lambda - from.lambda;
        match algorithm {
            Algorithm::Picture => {
                let (e, a) = (exp(-h), to.alpha);
                let constant = -(a * (e - 1.0));
                let (full, second) = (a * ((e - 1.0) / h + 1.0), -(a * ((e - 1.0 + h) / (h * h) - 0.5)));
                Self { latents: to.sigma / from.sigma, constant, midpoint: 0.5 * constant, full, second, noise: 0.0 }
            }
            Algorithm::Noise => {
                let (e, s) = (exp(h), to.sigma);
                let constant = -(s * (e - 1.0));
                let (full, second) = (-(s * ((e - 1.0) / h - 1.0)), -(s * ((e - 1.0 - h) / (h * h) - 0.5)));
                Self { latents: to.alpha / from.alpha, constant, midpoint: 0.5 * constant, full, second, noise: 0.0 }
            }
            Algorithm::PictureSde => {
                let (e, a) = (exp(-2.0 * h), to.alpha);
                let constant = a * (1.0 - e);
                Self {
                    latents: to.sigma / from.sigma * exp(-h),
                    constant,
                    midpoint: 0.5 * constant,
                    full: a * ((1.0 - e) / (-2.0 * h) + 1.0),
                    second: a * ((1.0 - e - 2.0 * h) / (4.0 * h * h) - 0.5),
                    noise: to.sigma * (1.0 - e).sqrt(),
                }
            }
            Algorithm::NoiseSde => {
                let (e, s) = (exp(h), to.sigma);
                let constant = -2.0 * (s * (e - 1.0));
                Self {
                    latents: to.alpha / from.alpha,
                    constant,
                    midpoint: 0.5 * constant,
                    full: -2.0 * (s * ((e - 1.0) / h - 1.0)),
                    second: f32::NAN,
                    noise: s * (exp(2.0 * h) - 1.0).sqrt(),
                }
            }
        }
    }

    /// From `latents`, with the prediction and its derivatives as far as they are known.
    pub fn apply(&self, latents: &[f32], derivatives: &Derivatives, noise: Option<&[f32]>) -> Vec<f32> {
        let Derivatives { constant, first, second } = derivatives;
        let mut terms = vec![(self.latents, latents), (self.constant, *constant)];
        if let Some((kind, first)) = first {
            terms.push((if *kind == Kind::Heun { self.full } else { self.midpoint }, first));
        }
        terms.extend(second.as_ref().map(|second| (self.second, &second[..])));
        terms.extend(noise.map(|noise| (self.noise, noise)));
        mix(&terms)
    }
}

/// A prediction and its derivatives in lambda, times powers of the jump's length.
pub(super) struct Derivatives<'a> {
    pub constant: &'a [f32],
    pub first: Option<(Kind, Vec<f32>)>,
    pub second: Option<Vec<f32>>,
}
