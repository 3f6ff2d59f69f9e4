//! What a network predicts, turned into the picture or the noise; and the arithmetic on latents that samplers share.
//!
//! Latents are `alpha * picture + sigma * noise`. Samplers that count in sigmas alone have `alpha = 1`.

use super::config::{Config, PREDICTION};
use super::edm::Edm;
use crate::error::{Field, Remedy, Result};

/// `prediction_type`: what the network's output is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Prediction {
    /// The noise.
    Epsilon,
    /// `alpha * noise - sigma * picture`, of unit variance: Salimans and Ho (2022).
    Velocity,
    /// The picture.
    Sample,
    /// What EDM's preconditioning makes the picture of, with the latents.
    Edm {
        /// The spread of pictures' values.
        data: f32,
        /// Of the output's part in the picture.
        sign: f32,
    },
}

/// The sampler of models whose schedule ends in pure noise, where the class that their file names knows nothing of it:
/// it starts from a large noise level instead of an infinite one, so it can do with whatever the network predicts.
pub(super) const FOR_ZERO_SNR: &str = "euler";

/// The predictions that most classes accept.
pub(super) const PREDICTIONS: &[(&str, Prediction)] =
    &[("epsilon", Prediction::Epsilon), ("v_prediction", Prediction::Velocity), ("sample", Prediction::Sample)];

impl Prediction {
    pub fn read(config: &Config, options: &[(&str, Self)]) -> Result<Self> {
        match Edm::read(config)? {
            Some(Edm { data, .. }) => {
                let sign = config.choice(PREDICTION, "epsilon", &[("epsilon", 1.0), ("v_prediction", -1.0)])?;
                Ok(Self::Edm { data, sign })
            }
            None => config.choice(PREDICTION, "epsilon", options),
        }
    }

    /// The same for a sampler that divides by the root of the picture's share of the variance at its timesteps.
    pub fn read_with(config: &Config, mut alphas: impl Iterator<Item = f32>) -> Result<Self> {
        let prediction = Self::read(config, PREDICTIONS)?;
        if prediction == Self::Epsilon && alphas.any(|alpha| alpha <= 0.0) {
            let why = "cannot start from a noise schedule that ends in pure noise (rescale_betas_zero_snr) with this \
                       sampler";
            let euler = Remedy::set(Field::Sampler, FOR_ZERO_SNR);
            return Err(config.refused(PREDICTION, "epsilon", why).remedies([euler]));
        }
        Ok(prediction)
    }

    /// The picture, where `alpha^2 + sigma^2 = 1`.
    pub fn picture(self, output: &[f32], latents: &[f32], alpha: f32, sigma: f32) -> Vec<f32> {
        match self {
            Self::Epsilon => pairwise(latents, output, |x, o| (x - sigma * o) / alpha),
            Self::Velocity => mix(&[(alpha, latents), (-sigma, output)]),
            Self::Sample => output.to_vec(),
            Self::Edm { .. } => self.picture_at_sigma(output, latents, sigma / alpha),
        }
    }

    /// The noise, where `alpha^2 + sigma^2 = 1`.
    pub fn noise(self, output: &[f32], latents: &[f32], alpha: f32, sigma: f32) -> Vec<f32> {
        match self {
            Self::Epsilon => output.to_vec(),
            Self::Velocity => mix(&[(alpha, output), (sigma, latents)]),
            Self::Sample => noise_of(output, latents, alpha, sigma),
            Self::Edm { .. } => noise_of(&self.picture(output, latents, alpha, sigma), latents, alpha, sigma),
        }
    }

    /// The picture, where `alpha = 1` and the network saw the latents scaled to unit variance.
    pub fn picture_at_sigma(self, output: &[f32], latents: &[f32], sigma: f32) -> Vec<f32> {
        let variance = sigma * sigma + 1.0;
        let factor = -sigma / variance.sqrt();
        match self {
            Self::Epsilon => mix(&[(1.0, latents), (-sigma, output)]),
            Self::Velocity => pairwise(output, latents, |o, x| o * factor + x / variance),
            Self::Sample => output.to_vec(),
            Self::Edm { data, sign } => {
                let variance = sigma * sigma + data * data;
                mix(&[(data * data / variance, latents), (sign * sigma * data / variance.sqrt(), output)])
            }
        }
    }
}

/// What a sampler does with a predicted picture that leaves the range of pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Limit {
    None,
    /// `clip_sample`: to plus or minus this.
    Clip(f32),
    /// `thresholding`: to a share of its own values, scaled back to 1: Saharia et al., "Imagen" (2022).
    Dynamic {
        /// Which quantile of the absolute values is the bound.
        ratio: f32,
        /// The largest bound; the smallest is 1.
        max: f32,
    },
}

impl Limit {
    /// For a class that has `thresholding`. `clip` is its default for `clip_sample`, or `None` if it has no such key.
    pub fn read(config: &Config, clip: Option<bool>) -> Result<Self> {
        if config.flag("thresholding", false)? {
            let ratio = config.number("dynamic_thresholding_ratio", 0.995)?;
            if !(0.0..=1.0).contains(&ratio) {
                return Err(config.refused("dynamic_thresholding_ratio", ratio, "does not lie from 0 to 1"));
            }
            return Ok(Self::Dynamic { ratio: ratio as f32, max: config.number("sample_max_value", 1.0)? as f32 });
        }
        clip.map_or(Ok(Self::None), |default| Self::clip(config, default))
    }

    /// For a class that has `clip_sample` alone.
    pub fn clip(config: &Config, default: bool) -> Result<Self> {
        if !config.flag("clip_sample", default)? {
            return Ok(Self::None);
        }
        let range = config.number("clip_sample_range", 1.0)?;
        if range.is_nan() || range < 0.0 {
            return Err(config.refused("clip_sample_range", range, "is not a range"));
        }
        Ok(Self::Clip(range as f32))
    }

    pub fn apply(self, mut picture: Vec<f32>) -> Vec<f32> {
        match self {
            Self::None => {}
            Self::Clip(range) => picture.iter_mut().for_each(|x| *x = x.clamp(-range, range)),
            Self::Dynamic { ratio, max } => {
                let bound = quantile(&picture, ratio).max(1.0).min(max);
                picture.iter_mut().for_each(|x| *x = x.max(-bound).min(bound) / bound);
            }
        }
        picture
    }
}

/// `torch.quantile` of the absolute values, between neighbours where need be.
fn quantile(values: &[f32], ratio: f32) -> f32 {
    let mut sorted: Vec<f32> = values.iter().map(|x| x.abs()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let rank = ratio * sorted.len().saturating_sub(1) as f32;
    let at = |i: usize| sorted.get(i).or(sorted.last()).copied().unwrap_or(0.0);
    let (low, high) = (at(rank as usize), at(rank.ceil() as usize));
    low + (rank - rank.floor()) * (high - low)
}

/// The noise in latents whose picture is known.
pub(super) fn noise_of(picture: &[f32], latents: &[f32], alpha: f32, sigma: f32) -> Vec<f32> {
    pairwise(latents, picture, |x, p| (x - alpha * p) / sigma)
}

/// The sum of lists of latents, each times a factor: in f32 and in order, as PyTorch's tensors are added. Where a
/// large part of the latents cancels (the first steps of a schedule that starts in pure noise), other roundings would
/// show.
///
/// # Panics
/// If the lists differ in length: a mistake of the caller, never of a file.
pub(super) fn mix(terms: &[(f32, &[f32])]) -> Vec<f32> {
    let Some(((factor, first), rest)) = terms.split_first() else { return Vec::new() };
    let mut sums: Vec<f32> = first.iter().map(|value| factor * value).collect();
    for (factor, values) in rest {
        assert_eq!(values.len(), sums.len(), "{LENGTHS}");
        sums.iter_mut().zip(*values).for_each(|(sum, value)| *sum += factor * value);
    }
    sums
}

/// A function of the elements of two lists.
///
/// # Panics
/// As [`mix`].
pub(super) fn pairwise(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "{LENGTHS}");
    a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()
}

const LENGTHS: &str = "latents, network output and noise are lists of one length";

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: [f32; 3] = [0.5, -1.0, 0.25];
    const NOISE: [f32; 3] = [1.0, 0.5, -2.0];

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn every_prediction_leads_to_the_same_picture_and_noise() {
        let (alpha, sigma) = (0.6, 0.8);
        let latents = mix(&[(alpha, &PICTURE), (sigma, &NOISE)]);
        let velocity = mix(&[(alpha, &NOISE), (-sigma, &PICTURE)]);
        for (prediction, output) in [
            (Prediction::Epsilon, NOISE.to_vec()),
            (Prediction::Velocity, velocity),
            (Prediction::Sample, PICTURE.to_vec()),
        ] {
            assert!(close(&prediction.picture(&output, &latents, alpha, sigma), &PICTURE));
            assert!(close(&prediction.noise(&output, &latents, alpha, sigma), &NOISE));
            let at_sigma: Vec<f32> = latents.iter().map(|x| x / alpha).collect();
            assert!(close(&prediction.picture_at_sigma(&output, &at_sigma, sigma / alpha), &PICTURE));
        }
    }

    #[test]
    fn dynamic_thresholding_scales_to_the_quantile() {
        let limit = Limit::Dynamic { ratio: 0.5, max: 3.0 };
        assert_eq!(limit.apply(vec![-4.0, 2.0, 1.0]), [-1.0, 1.0, 0.5]);
        let limit = Limit::Dynamic { ratio: 1.0, max: 2.0 };
        assert_eq!(limit.apply(vec![-4.0, 2.0, 1.0]), [-1.0, 1.0, 0.5]);
    }

    #[test]
    fn a_quantile_lies_between_neighbours() {
        assert_eq!(quantile(&[0.0, -1.0, 3.0], 0.75), 2.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn nan_latents_do_not_panic() {
        let limit = Limit::Dynamic { ratio: 0.5, max: 1.0 };
        assert_eq!(limit.apply(vec![f32::NAN; 3]).len(), 3);
    }
}
