//! Generated weights: a network of any size without its files, for timing.
//!
//! Every tensor is a function of its name, made when it is asked for and kept by nobody. Matrices are uniform with
//! deviation 1/sqrt(fan-in), so that activations neither grow nor vanish; norms scale by about 1, biases are small.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::f16;
use rayon::prelude::*;

use crate::tensor::{DType, RawTensor, Shape, Weights};

/// Weights of the wanted names and shapes (PyTorch's order of dimensions), in f16.
#[derive(Debug)]
pub struct Synthetic {
    place: String,
    shapes: BTreeMap<String, Shape>,
}

impl Synthetic {
    /// `place` is what messages call them.
    pub fn new(place: impl Into<String>, wanted: impl IntoIterator<Item = (String, Shape)>) -> Self {
        Self { place: place.into(), shapes: wanted.into_iter().collect() }
    }
}

impl Weights for Synthetic {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        let shape = self.shapes.get(name)?.clone();
        let (centre, deviation) = match (shape.rank(), name.ends_with(".weight")) {
            (0 | 1, true) => (1.0, 0.02),
            (0 | 1, false) => (0.0, 0.02),
            // A look-up table sums nothing, but the networks keep its entries small.
            _ if name.contains("embedding.weight") => (0.0, 0.5),
            _ => (0.0, ((shape.len() / shape.batch().max(1)) as f32).sqrt().recip()),
        };
        // A uniform variable between -1 and 1 has the deviation 1/sqrt(3).
        let reach = deviation * 3f32.sqrt();
        let seed = hash(name);
        let mut bytes = vec![0u8; 2 * shape.len()];
        bytes.par_chunks_mut(1 << 16).enumerate().for_each(|(block, bytes)| {
            let first = (block << 15) as u64;
            for (value, i) in bytes.chunks_exact_mut(2).zip(first..) {
                let uniform = (mix(seed ^ i) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                value.copy_from_slice(&f16::from_f32(centre + reach * uniform).to_le_bytes());
            }
        });
        Some(RawTensor { dtype: DType::F16, shape, bytes: Cow::Owned(bytes) })
    }

    fn shape(&self, name: &str) -> Option<Shape> {
        self.shapes.get(name).cloned()
    }

    fn dtype(&self, name: &str) -> Option<DType> {
        self.shapes.contains_key(name).then_some(DType::F16)
    }

    fn names(&self) -> Vec<String> {
        self.shapes.keys().cloned().collect()
    }
}

/// FNV-1a.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One step of SplitMix64 (Steele, Lea and Flood 2014): 64 bits that look random from a counter.
fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Synthetic {
        let shape = |dims: &[usize]| Shape::new(dims);
        let wanted = [("a.weight", shape(&[64, 400])), ("norm.weight", shape(&[512])), ("b.weight", shape(&[64, 400]))];
        Synthetic::new("synthetic", wanted.map(|(name, shape)| (name.to_string(), shape)))
    }

    #[test]
    fn a_matrix_has_the_deviation_of_its_fan_in() {
        let data = weights().get("a.weight").unwrap().to_f32();
        let mean = data.iter().sum::<f32>() / data.len() as f32;
        let variance = data.iter().map(|v| v * v).sum::<f32>() / data.len() as f32;
        assert!(mean.abs() < 1e-3, "{mean}");
        assert!((variance.sqrt() - 0.05).abs() < 1e-3, "{variance}");
    }

    #[test]
    fn a_norm_scales_by_about_one() {
        let data = weights().get("norm.weight").unwrap().to_f32();
        assert!(data.iter().all(|v| (v - 1.0).abs() < 0.05));
    }

    #[test]
    fn a_name_has_always_the_same_values_and_another_name_others() {
        let get = |name| weights().get(name).unwrap().to_f32();
        assert_eq!(get("a.weight"), get("a.weight"));
        assert_ne!(get("a.weight"), get("b.weight"));
        assert!(weights().get("c.weight").is_none());
    }
}
