//! Weights stored in blocks of a few bits each, as ggml defines them: a block has a scale in f16, maybe a minimum, and
//! a small number for every element.
//!
//! Source: ggml's `ggml-quants.c`; the tests compare with the `gguf` package.

use half::f16;
use rayon::prelude::*;

use crate::tensor::{BlockLayout, Quantized};

/// A kind of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    Q4_0,
    Q5_0,
    Q8_0,
    Q4K,
    Q6K,
}

impl Blocks {
    /// Its name, the elements and bytes of a block, and how the blocks are laid out for a device: five bits as eight,
    /// and large blocks as their stretches.
    fn facts(self) -> (&'static str, usize, usize, BlockLayout) {
        let layout = |bits, block, minimum| BlockLayout { bits, block, minimum };
        match self {
            Self::Q4_0 => ("q4_0", 32, 18, layout(4, 32, false)),
            Self::Q5_0 => ("q5_0", 32, 22, layout(8, 32, false)),
            Self::Q8_0 => ("q8_0", 32, 34, layout(8, 32, false)),
            Self::Q4K => ("q4_k", 256, 144, layout(4, 32, true)),
            Self::Q6K => ("q6_k", 256, 210, layout(8, 16, false)),
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
        let Parts { quants: out, scales, .. } = &mut parts;
        match self {
            Self::Q8_0 => {
                scales[0] = half(block);
                out.iter_mut().zip(&block[2..]).for_each(|(out, q)| *out = q ^ 0x80);
            }
            Self::Q4_0 => {
                scales[0] = half(block);
                for (j, q) in block[2..].iter().enumerate() {
                    out[j] = q & 15;
                    out[j + 16] = q >> 4;
                }
            }
            Self::Q5_0 => {
                scales[0] = half(block);
                let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
                // From 0..32 around 16 to 0..256 around 128.
                let centred = |four: u8, j: usize| four + (fifth >> j & 1) as u8 * 16 + 112;
                for (j, q) in block[6..].iter().enumerate() {
                    out[j] = centred(q & 15, j);
                    out[j + 16] = centred(q >> 4, j + 16);
                }
            }
            Self::Q4K => q4_k(block, &mut parts),
            Self::Q6K => q6_k(block, &mut parts),
        }
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

/// What a block has for each element and for each stretch of them; in a block of fewer, the rest is nothing.
struct Parts {
    quants: [u8; 256],
    scales: [f32; 16],
    minima: [f32; 16],
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Eight stretches of 32 elements of four bits, each with a scale and a minimum of six bits.
fn q4_k(block: &[u8], parts: &mut Parts) {
    let (d, least) = (half(block), half(&block[2..]));
    let (packed, quants) = (&block[4..16], &block[16..]);
    let scale_and_minimum = |j: usize| match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4),
    };
    for (j, out) in parts.quants.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(j);
        (parts.scales[j], parts.minima[j]) = (d * f32::from(scale), least * f32::from(minimum));
        // Two stretches share their bytes.
        for (out, q) in out.iter_mut().zip(&quants[j / 2 * 32..]) {
            *out = if j % 2 == 0 { q & 15 } else { q >> 4 };
        }
    }
}

/// Sixteen stretches of 16 elements of six bits, four in one place and two in another, each with a scale of eight
/// bits.
fn q6_k(block: &[u8], parts: &mut Parts) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = (&rest[..16], half(&rest[16..]));
    parts.scales.iter_mut().zip(scales).for_each(|(out, scale)| *out = d * f32::from(*scale as i8));
    for (i, out) in parts.quants.iter_mut().enumerate() {
        let (side, j, l) = (i / 128, i % 128 / 32, i % 32);
        let four = low[64 * side + 32 * (j % 2) + l] >> (j / 2 * 4) & 15;
        let two = high[32 * side + l] >> (2 * j) & 3;
        // From 0..64 around 32 to 0..256 around 128.
        *out = (four | two << 4) + 96;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_matrix_make_up_its_elements() {
        for blocks in [Blocks::Q4_0, Blocks::Q5_0, Blocks::Q8_0, Blocks::Q4K, Blocks::Q6K] {
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
