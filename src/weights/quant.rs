//! Weights stored in blocks of a few bits each, as ggml defines them: a block has a scale in f16, maybe a minimum, and a
//! small number for every element.
//!
//! Source: ggml's `ggml-quants.c`; the tests compare with the `gguf` package.

use half::f16;
use rayon::prelude::*;

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
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "q4_0",
            Self::Q5_0 => "q5_0",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Q6K => "q6_k",
        }
    }

    /// Elements of a block.
    pub fn elements(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q5_0 => 22,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// The elements of whole blocks as f32, little-endian.
    pub fn to_f32(self, blocks: &[u8]) -> Vec<u8> {
        let mut out = vec![0u8; blocks.len() / self.bytes() * self.elements() * 4];
        out.par_chunks_mut(4 * self.elements()).zip(blocks.par_chunks(self.bytes())).for_each(|(out, block)| {
            let mut values = [0f32; 256];
            self.decode(block, &mut values);
            for (to, value) in out.chunks_exact_mut(4).zip(values) {
                to.copy_from_slice(&value.to_le_bytes());
            }
        });
        out
    }

    fn decode(self, block: &[u8], out: &mut [f32; 256]) {
        match self {
            Self::Q8_0 => {
                let (d, quants) = (half(block), &block[2..]);
                out.iter_mut().zip(quants).for_each(|(out, q)| *out = d * f32::from(*q as i8));
            }
            Self::Q4_0 => {
                let (d, quants) = (half(block), &block[2..]);
                for (j, q) in quants.iter().enumerate() {
                    out[j] = d * (f32::from(q & 15) - 8.0);
                    out[j + 16] = d * (f32::from(q >> 4) - 8.0);
                }
            }
            Self::Q5_0 => {
                let (d, quants) = (half(block), &block[6..]);
                let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
                let bit = |j: usize| (fifth >> j & 1) as u8 * 16;
                for (j, q) in quants.iter().enumerate() {
                    out[j] = d * (f32::from(q & 15 | bit(j)) - 16.0);
                    out[j + 16] = d * (f32::from(q >> 4 | bit(j + 16)) - 16.0);
                }
            }
            Self::Q4K => q4_k(block, out),
            Self::Q6K => q6_k(block, out),
        }
    }
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Eight stretches of 32 elements of four bits, each with a scale and a minimum of six bits.
fn q4_k(block: &[u8], out: &mut [f32; 256]) {
    let (d, least) = (half(block), half(&block[2..]));
    let (packed, quants) = (&block[4..16], &block[16..]);
    let scale_and_minimum = |j: usize| match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4),
    };
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(j);
        let (d, least) = (d * f32::from(scale), least * f32::from(minimum));
        // Two stretches share their bytes.
        for (out, q) in out.iter_mut().zip(&quants[j / 2 * 32..]) {
            *out = d * f32::from(if j % 2 == 0 { q & 15 } else { q >> 4 }) - least;
        }
    }
}

/// Sixteen stretches of 16 elements of six bits, four in one place and two in another, each with a scale of eight bits.
fn q6_k(block: &[u8], out: &mut [f32; 256]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = (&rest[..16], half(&rest[16..]));
    for (i, out) in out.iter_mut().enumerate() {
        let (side, j, l) = (i / 128, i % 128 / 32, i % 32);
        let four = low[64 * side + 32 * (j % 2) + l] >> (j / 2 * 4) & 15;
        let two = high[32 * side + l] >> (2 * j) & 3;
        *out = d * f32::from(scales[i / 16] as i8) * (f32::from(four | two << 4) - 32.0);
    }
}
