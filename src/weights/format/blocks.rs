//! Weights stored in blocks of a few bits each, as ggml defines them: a block has a scale in f16, maybe a minimum, and
//! a small number for every element.
//!
//! Source: ggml's `ggml-quants.c`; the tests compare with the `gguf` package.

mod unpack;

use half::f16;
use rayon::prelude::*;

use crate::tensor::{BlockLayout, Quantized};
use unpack::Parts;

/// A kind of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    Iq4Nl,
    Iq4Xs,
}

impl Blocks {
    /// Every kind.
    #[cfg(test)]
    const ALL: [Self; 13] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Q8K,
        Self::Iq4Nl,
        Self::Iq4Xs,
    ];

    /// Its name, the elements and bytes of a block, and how the blocks are laid out for a device: two and three bits as
    /// four, more than four as eight, and large blocks as their stretches.
    fn facts(self) -> (&'static str, usize, usize, BlockLayout) {
        let layout = |bits, block, minimum| BlockLayout { bits, block, minimum };
        match self {
            Self::Q4_0 => ("q4_0", 32, 18, layout(4, 32, false)),
            Self::Q4_1 => ("q4_1", 32, 20, layout(4, 32, true)),
            Self::Q5_0 => ("q5_0", 32, 22, layout(8, 32, false)),
            Self::Q5_1 => ("q5_1", 32, 24, layout(8, 32, true)),
            Self::Q8_0 => ("q8_0", 32, 34, layout(8, 32, false)),
            Self::Q2K => ("q2_k", 256, 84, layout(4, 16, true)),
            Self::Q3K => ("q3_k", 256, 110, layout(4, 16, false)),
            Self::Q4K => ("q4_k", 256, 144, layout(4, 32, true)),
            Self::Q5K => ("q5_k", 256, 176, layout(8, 32, true)),
            Self::Q6K => ("q6_k", 256, 210, layout(8, 16, false)),
            Self::Q8K => ("q8_k", 256, 292, layout(8, 32, false)),
            Self::Iq4Nl => ("iq4_nl", 32, 18, layout(8, 32, false)),
            Self::Iq4Xs => ("iq4_xs", 256, 136, layout(8, 32, false)),
        }
    }

    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// Elements of a block.
    pub fn elements(self) -> usize {
        self.facts().1
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.facts().2
    }

    /// How the blocks are laid out for a device.
    pub fn layout(self) -> BlockLayout {
        self.facts().3
    }

    /// The elements of whole blocks as f32, little-endian.
    pub fn to_f32(self, blocks: &[u8]) -> Vec<u8> {
        let BlockLayout { block: stretch, .. } = self.layout();
        let zero = self.layout().zero();
        let mut out = vec![0u8; blocks.len() / self.bytes() * self.elements() * 4];
        out.par_chunks_mut(4 * self.elements()).zip(blocks.par_chunks(self.bytes())).for_each(|(out, block)| {
            let parts = self.parts(block);
            for (i, to) in out.chunks_exact_mut(4).enumerate() {
                let value = (f32::from(parts.quants[i]) - zero) * parts.scales[i / stretch] - parts.minima[i / stretch];
                to.copy_from_slice(&value.to_le_bytes());
            }
        });
        out
    }

    /// The same as a matrix's parts.
    pub fn take_apart(self, blocks: &[u8]) -> Quantized {
        let layout = self.layout();
        let each = self.elements() / layout.block;
        let parts: Vec<Parts> = blocks.par_chunks_exact(self.bytes()).map(|block| self.parts(block)).collect();
        let quants = parts.iter().flat_map(|parts| &parts.quants[..self.elements()]).copied();
        let quants = match layout.bits {
            4 => quants.collect::<Vec<u8>>().chunks_exact(2).map(|pair| pair[0] | pair[1] << 4).collect(),
            _ => quants.collect(),
        };
        let scales = parts.iter().flat_map(|parts| &parts.scales[..each]).copied().collect();
        let minima = parts.iter().flat_map(|parts| &parts.minima[..each]).copied();
        let minima = if layout.minimum { minima.collect() } else { Vec::new() };
        Quantized { layout, quants, scales, minima }
    }

    /// Blocks of these elements: of q8_0 and q4_0, as ggml makes them.
    ///
    /// # Panics
    /// If the elements do not make whole blocks, or the blocks are of another kind.
    pub fn encoded(self, values: &[f32]) -> Vec<u8> {
        assert!(values.len().is_multiple_of(self.elements()), "{} elements in blocks", values.len());
        let encode = match self {
            Self::Q8_0 => q8_0,
            Self::Q4_0 => q4_0,
            other => panic!("{} is read and not written", other.name()),
        };
        values.par_chunks(self.elements()).flat_map_iter(encode).collect()
    }

    fn parts(self, block: &[u8]) -> Parts {
        let mut parts = Parts { quants: [0; 256], scales: [0.0; 16], minima: [0.0; 16] };
        let unpack = match self {
            Self::Q4_0 => unpack::q4_0,
            Self::Q4_1 => unpack::q4_1,
            Self::Q5_0 => unpack::q5_0,
            Self::Q5_1 => unpack::q5_1,
            Self::Q8_0 => unpack::q8_0,
            Self::Q2K => unpack::q2_k,
            Self::Q3K => unpack::q3_k,
            Self::Q4K => unpack::q4_k,
            Self::Q5K => unpack::q5_k,
            Self::Q6K => unpack::q6_k,
            Self::Q8K => unpack::q8_k,
            Self::Iq4Nl => unpack::iq4_nl,
            Self::Iq4Xs => unpack::iq4_xs,
        };
        unpack(block, &mut parts);
        parts
    }
}

/// The number that f16 rounds after the elements have been divided by it.
fn reciprocal(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { scale.recip() }
}

fn q8_0(values: &[f32]) -> Vec<u8> {
    let scale = values.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
    let quants = values.iter().map(|v| (v * reciprocal(scale)).round() as i8 as u8);
    f16::from_f32(scale).to_le_bytes().into_iter().chain(quants).collect()
}

/// The element that is farthest from zero is eight steps from it, on its own side.
fn q4_0(values: &[f32]) -> Vec<u8> {
    let farthest = values.iter().fold(0f32, |most, v| if v.abs() > most.abs() { *v } else { most });
    let scale = farthest / -8.0;
    let quant = |v: f32| ((v * reciprocal(scale) + 8.5) as u8).min(15);
    let (low, high) = values.split_at(values.len() / 2);
    let pairs = low.iter().zip(high).map(|(low, high)| quant(*low) | quant(*high) << 4);
    f16::from_f32(scale).to_le_bytes().into_iter().chain(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_matrix_make_up_its_elements() {
        for blocks in Blocks::ALL {
            // Bytes below f16's infinities, wherever a scale may stand.
            let bytes: Vec<u8> = (0..2 * blocks.bytes()).map(|i| (i * 37 % 120) as u8).collect();
            let whole: Vec<f32> = bytemuck::pod_collect_to_vec(&blocks.to_f32(&bytes));
            let Quantized { layout, quants, scales, minima } = blocks.take_apart(&bytes);
            let quant = |i: usize| match layout.bits {
                4 => quants[i / 2] >> (4 * (i % 2)) & 15,
                _ => quants[i],
            };
            for (i, value) in whole.into_iter().enumerate() {
                let minimum = minima.get(i / layout.block).copied().unwrap_or(0.0);
                let found = (f32::from(quant(i)) - layout.zero()) * scales[i / layout.block] - minimum;
                assert_eq!(found, value, "{} at {i}", blocks.name());
            }
        }
    }
}
