//! The training noise schedule: betas, and the running product of `1 - beta`, which every sampler starts from.
//!
//! Betas are f32 and their product is taken in f64 and rounded to f32, as PyTorch does: the difference of two
//! neighbours is so small that other roundings show in a picture.

use std::f64::consts::FRAC_PI_2;

use super::config::Config;
use crate::error::Result;

/// How betas grow over the training steps (`beta_schedule`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Curve {
    Linear,
    /// Linear in the square root: Stable Diffusion's own.
    ScaledLinear,
    /// `squaredcos_cap_v2`: the cosine schedule of Nichol and Dhariwal (2021).
    Cosine,
    Laplace,
    Exponential,
    Sigmoid,
}

/// The curves that every class accepts.
pub(super) const CURVES: &[(&str, Curve)] =
    &[("linear", Curve::Linear), ("scaled_linear", Curve::ScaledLinear), ("squaredcos_cap_v2", Curve::Cosine)];

/// What a diffusers class does with `rescale_betas_zero_snr`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ZeroSnr {
    /// The class does not accept the key.
    Ignored,
    /// The last step is pure noise: an alpha of exactly 0.
    Exact,
    /// The last step's alpha is 2^-24, so that its sigma is finite.
    Floored,
}

/// What differs from class to class.
pub(super) struct Defaults {
    pub start: f64,
    pub end: f64,
    pub schedule: &'static str,
    pub curves: &'static [(&'static str, Curve)],
    pub zero_snr: ZeroSnr,
}

/// The defaults of most classes.
pub(super) const IGNORED: Defaults =
    Defaults { start: 0.0001, end: 0.02, schedule: "linear", curves: CURVES, zero_snr: ZeroSnr::Ignored };
pub(super) const EXACT: Defaults = Defaults { zero_snr: ZeroSnr::Exact, ..IGNORED };
pub(super) const FLOORED: Defaults = Defaults { zero_snr: ZeroSnr::Floored, ..IGNORED };

/// The noise schedule that a model was trained with.
#[derive(Debug)]
pub(super) struct Training {
    /// `alphas_cumprod`: the share of the picture's variance that is left, for each training step.
    pub alphas: Vec<f32>,
    /// `num_train_timesteps`.
    pub steps: usize,
}

impl Training {
    pub fn new(config: &Config, defaults: &Defaults) -> Result<Self> {
        let steps = config.count("num_train_timesteps", 1000)?;
        let mut betas = read_betas(config, defaults, steps)?;
        let zero_snr = defaults.zero_snr != ZeroSnr::Ignored && config.zero_snr()?;
        if zero_snr {
            rescale_to_zero_snr(&mut betas);
        }
        let mut alphas = running_product(&betas);
        if let (true, ZeroSnr::Floored, Some(last)) = (zero_snr, defaults.zero_snr, alphas.last_mut()) {
            *last = 1.0 / (1 << 24) as f32;
        }
        Ok(Self { alphas, steps })
    }

    /// What a picture and noise of unit variance are multiplied with to be the latents of a training step.
    pub fn mix(&self, timestep: usize) -> (f32, f32) {
        let alpha = self.alphas[timestep];
        (alpha.sqrt(), (1.0 - alpha).sqrt())
    }

    /// Noise over signal for each training step: `sqrt((1 - alpha) / alpha)`.
    pub fn sigmas(&self) -> Vec<f32> {
        self.alphas.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
    }
}

fn read_betas(config: &Config, defaults: &Defaults, steps: usize) -> Result<Vec<f32>> {
    let start = config.number("beta_start", defaults.start)?;
    let end = config.number("beta_end", defaults.end)?;
    let curve = config.choice("beta_schedule", defaults.schedule, defaults.curves)?;
    let trained = config.numbers("trained_betas")?;
    let key = if trained.is_some() { "trained_betas" } else { "beta_start, beta_end" };
    let betas = match trained {
        Some(betas) => betas.iter().map(|beta| *beta as f32).collect(),
        None => curve_betas(curve, start, end, steps),
    };
    match betas.iter().find(|beta| !(0.0..=1.0).contains(*beta)) {
        Some(beta) => Err(config.refused(key, beta, "is not a noise variance; betas lie from 0 to 1")),
        None if betas.is_empty() => Err(config.refused(key, "[]", "holds no value")),
        None => Ok(betas),
    }
}

fn curve_betas(curve: Curve, start: f64, end: f64, steps: usize) -> Vec<f32> {
    match curve {
        Curve::Linear => linspace(start as f32, end as f32, steps),
        Curve::ScaledLinear => {
            linspace(start.sqrt() as f32, end.sqrt() as f32, steps).into_iter().map(|root| root * root).collect()
        }
        Curve::Cosine => alpha_bar_betas(steps, |t| libm::pow(libm::cos((t + 0.008) / 1.008 * FRAC_PI_2), 2.0)),
        Curve::Exponential => alpha_bar_betas(steps, |t| libm::exp(-12.0 * t)),
        Curve::Laplace => alpha_bar_betas(steps, laplace),
        Curve::Sigmoid => linspace(-6.0, 6.0, steps)
            .into_iter()
            .map(|x| (1.0 / (1.0 + libm::exp(-f64::from(x)))) as f32 * (end - start) as f32 + start as f32)
            .collect(),
    }
}

fn laplace(t: f64) -> f64 {
    let log_snr = -0.5 * 1f64.copysign(0.5 - t) * libm::log(1.0 - 2.0 * (0.5 - t).abs() + 1e-6);
    let snr = libm::exp(log_snr);
    (snr / (1.0 + snr)).sqrt()
}

/// Betas whose running product follows `alpha_bar`, a function of time from 0 to 1.
fn alpha_bar_betas(steps: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    let at = |i: usize| alpha_bar(i as f64 / steps as f64);
    (0..steps).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32).collect()
}

/// `torch.linspace` in f32: from the start in the first half, from the end in the second, with one rounding each.
fn linspace(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / (n.max(2) - 1) as f32;
    (0..n)
        .map(|i| if i < n / 2 { step.mul_add(i as f32, start) } else { (-step).mul_add((n - i - 1) as f32, end) })
        .collect()
}

/// `torch.cumprod` of `1 - beta`.
fn running_product(betas: &[f32]) -> Vec<f32> {
    let product = |product: &mut f64, beta: &f32| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    };
    betas.iter().scan(1.0, product).collect()
}

/// Shifts and scales the square roots of the running product so that the last is 0 and the first stays as it was:
/// algorithm 1 of Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2023).
fn rescale_to_zero_snr(betas: &mut [f32]) {
    let mut roots: Vec<f32> = running_product(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return };
    let scale = first / (first - last);
    roots.iter_mut().for_each(|root| *root = (*root - last) * scale);
    let mut before = 1.0;
    for (beta, root) in betas.iter_mut().zip(roots) {
        let alpha = root * root;
        *beta = 1.0 - alpha / before;
        before = alpha;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(text: &str) -> Result<Training> {
        Training::new(&Config::from_json(text, "config")?, &EXACT)
    }

    #[test]
    fn the_default_schedule_ends_almost_without_signal() {
        let training = training("{}").unwrap();
        assert_eq!(training.alphas.len(), 1000);
        assert_eq!(training.alphas[0], 0.9999);
        assert!(training.alphas[999] < 1e-4);
    }

    #[test]
    fn zero_snr_ends_without_any_signal() {
        let alphas = training(r#"{"rescale_betas_zero_snr": true}"#).unwrap().alphas;
        assert_eq!((alphas[0], alphas[999]), (0.9999, 0.0));
    }

    #[test]
    fn trained_betas_are_taken_as_they_are() {
        assert_eq!(training(r#"{"trained_betas": [0.5, 0.5, 0.75]}"#).unwrap().alphas, [0.5, 0.25, 0.0625]);
    }

    #[test]
    fn a_beta_outside_zero_to_one_is_an_error() {
        let error = training(r#"{"beta_end": 2.0}"#).unwrap_err().to_string();
        assert!(error.contains("beta_start, beta_end: 1.0"), "{error}");
        assert!(training(r#"{"trained_betas": []}"#).is_err());
        assert!(training(r#"{"beta_schedule": "scaled_linear", "beta_start": -1}"#).is_err());
    }

    #[test]
    fn an_unknown_curve_is_an_error_that_lists_the_known() {
        let error = training(r#"{"beta_schedule": "wavy"}"#).unwrap_err().to_string();
        assert!(error.contains("beta_schedule: wavy") && error.contains("scaled_linear"), "{error}");
    }
}
