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
    /// Of [`DType::F8E4M3`](super::DType::F8E4M3).
    E4M3(Vec<u8>),
    /// Of [`DType::F8E5M2`](super::DType::F8E5M2).
    E5M2(Vec<u8>),
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
            Self::E4M3(elements) => {
                for (wide, narrow) in wide.iter_mut().zip(&elements[all]) {
                    *wide = finite_e4m3(*narrow);
                }
            }
            Self::E5M2(elements) => {
                for (wide, narrow) in wide.iter_mut().zip(&elements[all]) {
                    *wide = widened(f16::from_bits(u16::from(*narrow) << 8));
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

/// The same of an E4M3.
#[inline(always)]
fn finite_e4m3(narrow: u8) -> f32 {
    const FACTOR: f32 = f32::from_bits((127 + 120) << 23);
    let bits = u32::from(narrow);
    let magnitude = f32::from_bits((bits & 0x7f) << 20) * FACTOR;
    f32::from_bits(magnitude.to_bits() | (bits & 0x80) << 24)
}

/// What an E4M3 stands for: it has no infinities, and one NaN of either sign.
pub(crate) fn e4m3(narrow: u8) -> f32 {
    if narrow & 0x7f == 0x7f { f32::NAN } else { finite_e4m3(narrow) }
}

/// What an E5M2 stands for.
pub(crate) fn e5m2(narrow: u8) -> f32 {
    f16::from_bits(u16::from(narrow) << 8).to_f32()
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
    fn every_finite_number_of_eight_bits_keeps_its_value() {
        let finite = |of: fn(u8) -> f32| (0..=u8::MAX).filter(|x| of(*x).is_finite()).collect::<Vec<u8>>();
        let (four, five) = (finite(e4m3), finite(e5m2));
        assert_eq!((four.len(), five.len()), (254, 248));
        // 448, the least above 0, 1 and -1.5.
        assert_eq!([0x7e, 0x01, 0x38, 0xbc].map(e4m3), [448.0, 1.0 / 512.0, 1.0, -1.5]);
        assert_eq!([0x7b, 0x01, 0x3c, 0xbe].map(e5m2), [57344.0, 1.0 / 65536.0, 1.0, -1.5]);
        let wanted = [four.iter().map(|x| e4m3(*x)).collect::<Vec<_>>(), five.iter().map(|x| e5m2(*x)).collect()];
        for (elements, wanted) in [Elements::E4M3(four), Elements::E5M2(five)].into_iter().zip(wanted) {
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
