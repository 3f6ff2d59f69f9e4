//! Parameters in memory in the type that their file has them in.

use half::{bf16, f16};

/// Finite numbers of one type.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// Of [`DType::F32`](super::DType::F32).
    F32(Vec<f32>),
    /// Of [`DType::F16`](super::DType::F16).
    F16(Vec<f16>),
    /// Of [`DType::BF16`](super::DType::BF16).
    BF16(Vec<bf16>),
}

impl Elements {
    /// As many elements as `wide` has, from number `first` on, in f32.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline(always)]
    pub(crate) fn widen(&self, first: usize, wide: &mut [f32]) {
        let all = first..first + wide.len();
        match self {
            Self::F32(elements) => wide.copy_from_slice(&elements[all]),
            Self::F16(elements) => {
                for (wide, narrow) in wide.iter_mut().zip(&elements[all]) {
                    *wide = widened(*narrow);
                }
            }
            Self::BF16(elements) => {
                for (wide, narrow) in wide.iter_mut().zip(&elements[all]) {
                    *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
                }
            }
        }
    }

    /// The elements themselves where they are in f32, and otherwise so many of them in f32 in `buffer`, whose other
    /// contents do not matter.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline(always)]
    pub(crate) fn in_f32<'a>(&'a self, first: usize, len: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        if let Self::F32(elements) = self {
            return &elements[first..first + len];
        }
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        self.widen(first, &mut buffer[..len]);
        &buffer[..len]
    }
}

/// A finite f16 in f32, without a branch or a call, so that the compiler makes vectors of it for any processor:
/// exponent and digits in their places of an f32, and 2^112 times that for what the exponents are counted from.
#[inline(always)]
fn widened(narrow: f16) -> f32 {
    const FACTOR: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(narrow.to_bits());
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * FACTOR;
    f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_f16_and_bf16_keeps_its_value() {
        let all = 0..=u16::MAX;
        let f16s: Vec<f16> = all.clone().map(f16::from_bits).filter(|x| x.is_finite()).collect();
        let bf16s: Vec<bf16> = all.map(bf16::from_bits).filter(|x| x.is_finite()).collect();
        let wanted = [f16s.iter().map(|x| x.to_f32()).collect::<Vec<_>>(), bf16s.iter().map(|x| x.to_f32()).collect()];
        for (elements, wanted) in [Elements::F16(f16s), Elements::BF16(bf16s)].into_iter().zip(wanted) {
            let mut wide = vec![0.0; wanted.len()];
            elements.widen(0, &mut wide);
            assert!(wide.iter().zip(&wanted).all(|(found, wanted)| found.to_bits() == wanted.to_bits()));
        }
    }

    #[test]
    fn a_stretch_is_read_from_its_first_element_on() {
        let values = [1.0, -2.5, 0.0, 6.0];
        let f16s = Elements::F16(values.map(f16::from_f32).to_vec());
        for elements in [Elements::F32(values.to_vec()), f16s] {
            let mut buffer = vec![9.0; 3];
            assert_eq!(elements.in_f32(1, 2, &mut buffer), &values[1..3]);
        }
    }
}
