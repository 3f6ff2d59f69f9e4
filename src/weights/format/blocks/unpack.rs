//! What each kind of block holds: one function a kind, from its bytes to numbers, scales and minima.

use half::f16;

/// What a block has for each element and for each stretch of them; in a block of fewer, the rest is nothing.
pub(super) struct Parts {
    pub quants: [u8; 256],
    pub scales: [f32; 16],
    pub minima: [f32; 16],
}

/// What the four bits of iq4 stand for, from 0..256 around 128.
const IQ4: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// 32 numbers of four bits: 16 are low halves, the other 16 the high ones.
fn fours(bytes: &[u8], out: &mut [u8], of: impl Fn(u8, usize) -> u8) {
    for (j, q) in bytes.iter().enumerate() {
        out[j] = of(q & 15, j);
        out[j + 16] = of(q >> 4, j + 16);
    }
}

/// Adds a fifth bit, and centres at 128 what is around `zero`.
fn fifth(bytes: &[u8], zero: u8) -> impl Fn(u8, usize) -> u8 {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    move |four, j| four + (bits >> j & 1) as u8 * 16 + (128 - zero)
}

pub(super) fn q4_0(block: &[u8], parts: &mut Parts) {
    parts.scales[0] = half(block);
    fours(&block[2..], &mut parts.quants, |four, _| four);
}

pub(super) fn q4_1(block: &[u8], parts: &mut Parts) {
    (parts.scales[0], parts.minima[0]) = (half(block), -half(&block[2..]));
    fours(&block[4..], &mut parts.quants, |four, _| four);
}

pub(super) fn q5_0(block: &[u8], parts: &mut Parts) {
    parts.scales[0] = half(block);
    fours(&block[6..], &mut parts.quants, fifth(&block[2..], 16));
}

pub(super) fn q5_1(block: &[u8], parts: &mut Parts) {
    (parts.scales[0], parts.minima[0]) = (half(block), -half(&block[2..]));
    fours(&block[8..], &mut parts.quants, fifth(&block[4..], 0));
}

pub(super) fn q8_0(block: &[u8], parts: &mut Parts) {
    parts.scales[0] = half(block);
    parts.quants.iter_mut().zip(&block[2..]).for_each(|(out, q)| *out = q ^ 0x80);
}

/// Its scale is in f32, and what follows the elements are their sums.
pub(super) fn q8_k(block: &[u8], parts: &mut Parts) {
    let scale = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    parts.scales[..8].fill(scale);
    parts.quants.iter_mut().zip(&block[4..]).for_each(|(out, q)| *out = q ^ 0x80);
}

/// Two bits of element `i` of 256, of which four share a byte.
fn two(bytes: &[u8], i: usize) -> u8 {
    let (side, j, l) = (i / 128, i % 128 / 32, i % 32);
    bytes[32 * side + l] >> (2 * j) & 3
}

/// Sixteen stretches of 16 elements, each with a scale and a minimum of four bits.
pub(super) fn q2_k(block: &[u8], parts: &mut Parts) {
    let (d, least) = (half(&block[80..]), half(&block[82..]));
    for (j, packed) in block[..16].iter().enumerate() {
        (parts.scales[j], parts.minima[j]) = (d * f32::from(packed & 15), least * f32::from(packed >> 4));
    }
    parts.quants.iter_mut().enumerate().for_each(|(i, out)| *out = two(&block[16..80], i));
}

/// Sixteen stretches of 16 elements of three bits, the third in another place, each with a scale of six bits.
pub(super) fn q3_k(block: &[u8], parts: &mut Parts) {
    let (third, rest) = block.split_at(32);
    let (low, rest) = rest.split_at(64);
    let (packed, d) = (&rest[..12], half(&rest[12..]));
    for (j, scale) in parts.scales.iter_mut().enumerate() {
        let four = if j < 8 { packed[j] & 15 } else { packed[j - 8] >> 4 };
        let two = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
        *scale = d * (f32::from(four | two << 4) - 32.0);
    }
    for (i, out) in parts.quants.iter_mut().enumerate() {
        // From 0..8 around 4 to 0..16 around 8.
        *out = two(low, i) + (third[i % 32] >> (i / 32) & 1) * 4 + 4;
    }
}

/// Eight stretches of 32 elements of four bits, each with a scale and a minimum of six bits.
pub(super) fn q4_k(block: &[u8], parts: &mut Parts) {
    eight_stretches(block, &block[16..], parts);
}

/// The same with a fifth bit, in another place.
pub(super) fn q5_k(block: &[u8], parts: &mut Parts) {
    eight_stretches(block, &block[48..], parts);
    for (i, out) in parts.quants.iter_mut().enumerate() {
        *out += (block[16 + i % 32] >> (i / 32) & 1) * 16 + 128;
    }
}

fn eight_stretches(block: &[u8], quants: &[u8], parts: &mut Parts) {
    let (d, least) = (half(block), half(&block[2..]));
    let packed = &block[4..16];
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
pub(super) fn q6_k(block: &[u8], parts: &mut Parts) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = (&rest[..16], half(&rest[16..]));
    parts.scales.iter_mut().zip(scales).for_each(|(out, scale)| *out = d * f32::from(*scale as i8));
    for (i, out) in parts.quants.iter_mut().enumerate() {
        let (side, j, l) = (i / 128, i % 128 / 32, i % 32);
        let four = low[64 * side + 32 * (j % 2) + l] >> (j / 2 * 4) & 15;
        // From 0..64 around 32 to 0..256 around 128.
        *out = (four | two(high, i) << 4) + 96;
    }
}

/// Four bits that are numbers of a table.
pub(super) fn iq4_nl(block: &[u8], parts: &mut Parts) {
    parts.scales[0] = half(block);
    fours(&block[2..], &mut parts.quants, |four, _| IQ4[usize::from(four)]);
}

/// Eight stretches of those, each with a scale of six bits.
pub(super) fn iq4_xs(block: &[u8], parts: &mut Parts) {
    let (d, high) = (half(block), u16::from_le_bytes([block[2], block[3]]));
    let (low, quants) = (&block[4..8], &block[8..]);
    for (j, out) in parts.quants.chunks_exact_mut(32).enumerate() {
        let four = low[j / 2] >> (4 * (j % 2)) & 15;
        let scale = f32::from(four + (high >> (2 * j) & 3) as u8 * 16) - 32.0;
        parts.scales[j] = d * scale;
        fours(&quants[16 * j..][..16], out, |four, _| IQ4[usize::from(four)]);
    }
}
