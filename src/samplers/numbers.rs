//! Logarithms and exponentials as NumPy and PyTorch round them, and the way between sigmas and timesteps. Arithmetic
//! is f64 or f32 where theirs is, since some timesteps are rounded.

/// `numpy.interp` of a table over 0, 1, 2, ... at `t`.
pub(super) fn interpolate(table: &[f32], t: f64) -> f64 {
    let at = |i: usize| f64::from(table[i]);
    let last = table.len() - 1;
    if t <= 0.0 {
        return at(0);
    }
    if t >= last as f64 {
        return at(last);
    }
    let low = t as usize;
    (at(low + 1) - at(low)) * (t - low as f64) + at(low)
}

/// The timestep whose sigma this is, between training steps where need be. `logs` are the training sigmas' logarithms.
pub(super) fn sigma_to_timestep(sigma: f64, logs: &[f32]) -> f64 {
    let log = libm::log(sigma.max(1e-10));
    let Some((low, from, to)) = around(log, logs) else { return 0.0 };
    let w = ((f64::from(from) - log) / f64::from(from - to)).clamp(0.0, 1.0);
    (1.0 - w) * low as f64 + w * (low + 1) as f64
}

/// The neighbours of a logarithm: the lower one's index, and both values.
pub(super) fn around(log: f64, logs: &[f32]) -> Option<(usize, f32, f32)> {
    let low = logs.iter().rposition(|l| f64::from(*l) <= log).unwrap_or(0).min(logs.len().checked_sub(2)?);
    Some((low, logs[low], logs[low + 1]))
}

/// The f32 logarithm of NumPy's vector code on x86, to the last bit: a quotient of two polynomials of degree 5 in
/// `m - 1`, for a mantissa `m` around 1, plus the exponent's part, with fused operations throughout.
///
/// It is off by up to two roundings, and that shows: where diffusers takes logarithms in NumPy it subtracts neighbours
/// from each other (DEIS's weights), or looks for the timestep of a sigma to f32 precision.
pub(super) fn numpy_log(x: f32) -> f32 {
    const NUMERATOR: [f32; 5] = [2.589_979e-2, 3.808_837_7e-1, 1.480_000_6, 2.112_677_6, 1.0];
    const DENOMINATOR: [f32; 6] = [5.875_095_4e-3, 1.546_476_4e-1, 9.864_943e-1, 2.453_006, 2.612_677_6, 1.0];
    if x <= 0.0 || !x.is_finite() {
        return log(x);
    }
    let (half, mut exponent) = libm::frexpf(x);
    let mut m = 2.0 * half;
    exponent -= 1;
    if m > std::f32::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let m = m - 1.0;
    let horner = |coefficients: &[f32]| coefficients.iter().fold(0.0, |sum: f32, c| sum.mul_add(m, *c));
    let part = horner(&NUMERATOR).mul_add(m, 0.0) / horner(&DENOMINATOR);
    (exponent as f32).mul_add(std::f32::consts::LN_2, part)
}

/// The logarithm of an f32, rounded once.
pub(super) fn log(x: f32) -> f32 {
    libm::log(f64::from(x)) as f32
}

/// The exponential of an f32, rounded once.
pub(super) fn exp(x: f32) -> f32 {
    libm::exp(f64::from(x)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numpys_logarithm_is_two_roundings_off_at_most() {
        for i in 1..2000 {
            let x = libm::expf(i as f32 * 0.02 - 20.0);
            let steps = (numpy_log(x).to_bits() as i64 - log(x).to_bits() as i64).abs();
            assert!(steps <= 2 || (numpy_log(x) - log(x)).abs() < 1e-8, "{x}: {steps}");
        }
        assert_eq!((numpy_log(1.0), numpy_log(0.0)), (0.0, f32::NEG_INFINITY));
    }

    #[test]
    fn a_training_sigma_leads_back_to_its_timestep() {
        let sigmas: Vec<f32> = (1..100).map(|i| i as f32 * 0.1).collect();
        let logs: Vec<f32> = sigmas.iter().map(|sigma| log(*sigma)).collect();
        for t in [0, 1, 50, 98] {
            assert!((sigma_to_timestep(f64::from(sigmas[t]), &logs) - t as f64).abs() < 1e-4);
        }
        assert_eq!(sigma_to_timestep(1e9, &logs), 98.0);
        assert_eq!(sigma_to_timestep(0.0, &logs), 0.0);
    }
}
