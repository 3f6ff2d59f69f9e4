//! `y = [sin(t f_0), .., sin(t f_half), cos(t f_0), .., cos(t f_half)]` for every t: timesteps `[B]` or `[B, n]` to
//! `[B, n * 2 * half]`. How the U-Net learns the noise level, and SDXL's U-Net the picture's size (diffusers
//! `get_timestep_embedding`; Ho et al. 2020).

use super::{Case, Fill, Inputs, Kind, Launch, Op, Ty, expect};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor, pad4};

/// Sines and cosines of timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestepEmbedding {
    /// Cosines come first.
    pub flip_sin_to_cos: bool,
}

/// The frequencies `10000^(-i / (half - downscale_freq_shift))`, i below half = dim/2, rounded where diffusers rounds.
///
/// # Errors
/// If `dim` is odd or no frequency is left: diffusers would pad the one with zeros and make NaN of the other.
pub fn frequencies(dim: usize, downscale_freq_shift: f32) -> Result<Tensor> {
    let half = dim / 2;
    let divisor = half as f32 - downscale_freq_shift;
    if dim == 0 || !dim.is_multiple_of(2) || divisor <= 0.0 {
        let what = format!("a timestep embedding of {dim} channels, shift {downscale_freq_shift}: take an even number");
        return Err(Error::shape(what));
    }
    let ln_max_period = -(10_000f64.ln() as f32);
    Ok(Tensor::new([half], (0..half).map(|i| (ln_max_period * i as f32 / divisor).exp()).collect()))
}

impl Op for TimestepEmbedding {
    fn name(&self) -> &'static str {
        "timestep_embedding"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect("timestep_embedding", inputs, &[("the timesteps", Kind::F32), ("the frequencies", Kind::F32)])?;
        let (timesteps, frequencies) = (&inputs[0].shape, &inputs[1].shape);
        let n = match timesteps.dims() {
            [_] => 1,
            [_, n] => *n,
            _ => return Err(Error::shape(format!("timesteps should be [batch] or [batch, n], found {timesteps}"))),
        };
        Ok(Ty::act([timesteps.batch(), n * 2 * frequencies.len()]))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let mut data = Vec::with_capacity(output.len());
        for t in &inputs[0].data {
            let angles = || inputs[1].data.iter().map(move |f| t * f);
            if self.flip_sin_to_cos {
                data.extend(angles().map(f32::cos).chain(angles().map(f32::sin)));
            } else {
                data.extend(angles().map(f32::sin).chain(angles().map(f32::cos)));
            }
        }
        Tensor::new(output.clone(), data)
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let timesteps = &inputs[0].shape;
        let (n, row_vectors) =
            if timesteps.rank() == 1 { (1, 0) } else { (timesteps.channels(), pad4(timesteps.channels()) / 4) };
        Ok(Launch::flat("timestep_embedding", 2, output.device_len() / 4, caps)
            .constant("COSINES_FIRST", self.flip_sin_to_cos)
            .param("timesteps", n)
            .param("row_vectors", row_vectors)
            .param("half", inputs[1].shape.len()))
    }

    /// A sine or cosine counts as one operation.
    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        2 * output.shape.len() as u64
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |timesteps: &[usize], half: usize, flip_sin_to_cos| {
        let types = [Ty::new(Kind::F32, Shape::new(timesteps)), Ty::new(Kind::F32, [half])];
        let falling = Fill::With(|i| (i as f32 * -0.0576).exp());
        Case::new(TimestepEmbedding { flip_sin_to_cos }, types).fill(0, Fill::Below(1100)).fill(1, falling)
    };
    let fractions = case(&[9], 7, false).fill(0, Fill::With(|i| i as f32 * -0.37));
    vec![
        case(&[1], 1, false),
        case(&[5], 3, true),
        case(&[3, 6], 5, false),
        case(&[2, 6], 128, true),
        case(&[64], 160, true),
        fractions,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PyTorch in f32, as diffusers computes them.
    #[test]
    fn frequencies_fall_from_one_to_nearly_a_ten_thousandth() {
        let f = frequencies(320, 0.0).unwrap();
        assert_eq!(f.shape, Shape::from([160]));
        assert_eq!(f.data[0], 1.0);
        assert!((f.data[1] - 0.944_060_9).abs() < 1e-7, "{}", f.data[1]);
        assert!((f.data[159] / 1.059_253_7e-4 - 1.0).abs() < 1e-6, "{}", f.data[159]);
        assert!((frequencies(4, 1.0).unwrap().data[1] / 1e-4 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn an_odd_or_empty_embedding_is_an_error() {
        assert!(frequencies(5, 0.0).unwrap_err().to_string().contains("take an even number"));
        assert!(frequencies(0, 0.0).is_err());
        assert!(frequencies(2, 1.0).is_err());
    }

    #[test]
    fn flipping_puts_the_cosines_first() {
        let inputs = [&Tensor::new([1], vec![0.0]), &Tensor::new([2], vec![1.0, 0.5])];
        let embed = |flip_sin_to_cos| TimestepEmbedding { flip_sin_to_cos }.reference(&inputs, &[1, 4].into()).data;
        assert_eq!(embed(true), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(embed(false), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn several_timesteps_a_row_stand_side_by_side() {
        let op = TimestepEmbedding { flip_sin_to_cos: true };
        let inputs = [Ty::new(Kind::F32, [2, 6]), Ty::new(Kind::F32, [128])];
        assert_eq!(op.output(&inputs).unwrap(), Ty::act([2, 1536]));
        let error = op.output(&[Ty::new(Kind::F32, [2, 6, 1]), inputs[1].clone()]).unwrap_err().to_string();
        assert!(error.contains("[batch] or [batch, n]"), "{error}");
    }
}
