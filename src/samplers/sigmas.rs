//! How sigmas are spread between the most and the least noise, where a request says it.
//!
//! | name | where it is from |
//! |---|---|
//! | Karras, Exponential, Beta | diffusers' `use_karras_sigmas` and its siblings |
//! | Polyexponential, Normal | k-diffusion's `get_sigmas_polyexponential` (rho 1), `DiscreteSchedule.get_sigmas` |
//! | Simple, SGM Uniform, DDIM Uniform, KL Optimal | ComfyUI's schedulers of these names |
//! | Align Your Steps | Sabour et al., "Align Your Steps" (2024): its tables, between them even in the logarithm |

use std::sync::Arc;

use puruspe::invbetai;

use crate::error::{Error, Result};

/// A way to spread sigmas.
#[derive(Debug, Clone, PartialEq)]
pub enum Sigmas {
    /// Equation 5 of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022).
    Karras,
    /// Even in the logarithm.
    Polyexponential,
    /// Even in the logarithm.
    Exponential,
    /// Quantiles of a beta distribution, dense at both ends: Lee et al., "Beta Sampling is All You Need" (2024).
    Beta,
    /// Of timesteps that are even from the last to the first.
    Normal,
    /// Of training steps at equal distances, counted down from the last.
    Simple,
    /// As `Normal`, without the first timestep.
    SgmUniform,
    /// Of training steps at equal whole distances, counted up from the second. There may be more of them than steps.
    DdimUniform,
    /// Even in the arctangent.
    KlOptimal,
    /// The paper's, for Stable Diffusion 1, or for SDXL.
    AlignYourSteps {
        /// Whether for SDXL.
        xl: bool,
    },
    /// These.
    Listed(Arc<[f64]>),
}

/// The table of the paper for ten steps of Stable Diffusion 1, and of SDXL.
const ALIGNED: [[f64; 11]; 2] = [
    [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029],
    [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029],
];
/// Both shape parameters of the beta distribution.
const SHAPE: f64 = 0.6;

impl Sigmas {
    /// Those that have a name, the longer name first where one ends in another.
    pub(super) const NAMED: [Self; 10] = [
        Self::Karras,
        Self::Polyexponential,
        Self::Exponential,
        Self::Beta,
        Self::Normal,
        Self::Simple,
        Self::SgmUniform,
        Self::DdimUniform,
        Self::KlOptimal,
        Self::AlignYourSteps { xl: false },
    ];

    /// As web UIs call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Karras => "Karras",
            Self::Polyexponential => "Polyexponential",
            Self::Exponential => "Exponential",
            Self::Beta => "Beta",
            Self::Normal => "Normal",
            Self::Simple => "Simple",
            Self::SgmUniform => "SGM Uniform",
            Self::DdimUniform => "DDIM Uniform",
            Self::KlOptimal => "KL Optimal",
            Self::AlignYourSteps { .. } => "Align Your Steps",
            Self::Listed(_) => "Listed",
        }
    }

    /// As it is typed: in lower case, with `_` for spaces.
    pub fn names() -> impl Iterator<Item = String> {
        Self::NAMED.iter().map(|sigmas| sigmas.name().to_lowercase().replace(' ', "_"))
    }

    /// The one of that name, however it is written.
    pub fn called(text: &str) -> Option<Self> {
        let plain = |text: &str| text.to_lowercase().replace([' ', '_', '-'], "");
        Self::NAMED.into_iter().find(|sigmas| plain(sigmas.name()) == plain(text))
    }

    /// Those in a text: numbers from the largest to the smallest, apart by spaces, commas or line ends, in brackets or
    /// not. A 0 at the end is left out, since every sampler ends in one.
    ///
    /// # Errors
    /// What is not a number, not above 0, or not below the one before it.
    pub fn listed(text: &str) -> Result<Self> {
        let fail = |what: String| Error::usage(what);
        let mut numbers = Vec::new();
        for word in text.split(|c: char| c.is_whitespace() || "[],".contains(c)).filter(|word| !word.is_empty()) {
            let number: f64 = word.parse().map_err(|_| fail(format!("{word:?} is not a sigma")))?;
            numbers.push(number);
        }
        if numbers.last() == Some(&0.0) {
            numbers.pop();
        }
        let descends = numbers.windows(2).all(|pair| pair[0] > pair[1]);
        let positive = numbers.iter().all(|sigma| sigma.is_finite() && *sigma > 0.0);
        if numbers.is_empty() || !descends || !positive {
            return Err(fail("sigmas are numbers above 0, each below the one before it".into()));
        }
        Ok(Self::Listed(numbers.into()))
    }

    /// The key of a `scheduler_config.json`, for those that have one.
    pub(super) fn key(&self) -> Option<&'static str> {
        match self {
            Self::Karras => Some("use_karras_sigmas"),
            Self::Exponential => Some("use_exponential_sigmas"),
            Self::Beta => Some("use_beta_sigmas"),
            _ => None,
        }
    }

    /// Whether they are those of training steps, or of a model that is trained with them.
    pub(super) fn is_of_training_steps(&self) -> bool {
        use Sigmas::{AlignYourSteps, DdimUniform, Normal, SgmUniform, Simple};
        matches!(self, Normal | Simple | SgmUniform | DdimUniform | AlignYourSteps { .. })
    }

    /// For `n` steps, from `max` down to `min`. `table` has those of the training steps, which grow.
    pub(super) fn spread(&self, n: usize, [max, min]: [f64; 2], table: &[f32]) -> Vec<f64> {
        let last = table.len().saturating_sub(1);
        let at = |t: usize| f64::from(table[t.min(last)]);
        match self {
            Self::Karras => {
                let root = |sigma| libm::pow(sigma, 1.0 / 7.0);
                even(root(max), root(min), n).map(|root| libm::pow(root, 7.0)).collect()
            }
            Self::Exponential | Self::Polyexponential => {
                even(libm::log(max), libm::log(min), n).map(libm::exp).collect()
            }
            Self::Beta => even(1.0, 0.0, n).map(|share| min + invbetai(share, SHAPE, SHAPE) * (max - min)).collect(),
            Self::Normal => even(last as f64, 0.0, n).map(|t| between(table, t)).collect(),
            Self::SgmUniform => even(last as f64, 0.0, n + 1).take(n).map(|t| between(table, t)).collect(),
            Self::Simple => (0..n).map(|i| at(last - (i as f64 * table.len() as f64 / n as f64) as usize)).collect(),
            Self::DdimUniform => (1..table.len()).step_by((table.len() / n).max(1)).rev().map(at).collect(),
            Self::KlOptimal => even(libm::atan(max), libm::atan(min), n).map(libm::tan).collect(),
            Self::AlignYourSteps { xl } => {
                let table = ALIGNED[usize::from(*xl)];
                let place = |share: f64| {
                    let (low, part) = ((share as usize).min(table.len() - 2), share);
                    let part = part - low as f64;
                    libm::exp((1.0 - part) * libm::log(table[low]) + part * libm::log(table[low + 1]))
                };
                even(0.0, (table.len() - 1) as f64, n).map(place).collect()
            }
            Self::Listed(sigmas) => sigmas.to_vec(),
        }
    }
}

/// `n` numbers from one to another, as NumPy's `linspace`; one alone is the first.
pub(super) fn even(from: f64, to: f64, n: usize) -> impl Iterator<Item = f64> {
    (0..n).map(move |i| match i {
        0 => from,
        i if i + 1 == n => to,
        i => from + i as f64 / (n - 1) as f64 * (to - from),
    })
}

/// The sigma of a timestep that may lie between two: even in the logarithm.
fn between(table: &[f32], t: f64) -> f64 {
    let low = (t as usize).min(table.len() - 1);
    let high = (low + 1).min(table.len() - 1);
    let log = |t: usize| libm::log(f64::from(table[t]));
    let part = t - low as f64;
    libm::exp((1.0 - part) * log(low) + part * log(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_of_numbers_that_fall() {
        let listed = Sigmas::Listed([14.6, 2.0, 0.5].into());
        for text in ["14.6 2 0.5", "[14.6, 2.0, 0.5, 0.0]", "14.6\n2,0.5\n0\n"] {
            assert_eq!(Sigmas::listed(text).unwrap(), listed);
        }
        for text in ["", "0", "1 2", "3 3 1", "3 -1", "nan", "inf 1", "3 zwei 1"] {
            assert!(Sigmas::listed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_name_is_understood() {
        for (name, sigmas) in Sigmas::names().zip(Sigmas::NAMED) {
            assert_eq!(Sigmas::called(&name).as_ref(), Some(&sigmas));
            assert_eq!(Sigmas::called(sigmas.name()), Some(sigmas));
        }
        assert_eq!(Sigmas::called("Automatic"), None);
    }

    #[test]
    fn all_fall_from_the_most_noise_to_the_least() {
        let table: Vec<f32> = (0..1000).map(|t| (t as f32 * 0.006 - 3.4).exp()).collect();
        let ends = [f64::from(table[999]), f64::from(table[0])];
        for sigmas in Sigmas::NAMED {
            for n in [1, 2, 7, 150, 999] {
                let spread = sigmas.spread(n, ends, &table);
                assert!(spread.len() >= n && spread.windows(2).all(|pair| pair[0] > pair[1]), "{sigmas:?} {n}");
                assert!(spread.iter().all(|sigma| (0.02..15.0).contains(sigma)), "{sigmas:?} {n}: {spread:?}");
            }
        }
    }
}
