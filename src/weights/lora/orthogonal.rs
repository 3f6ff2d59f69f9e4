//! Orthogonal finetuning: what a weight's rows are multiplied with, in blocks.
//!
//! OFT (Qiu et al. 2023) rotates blocks of rows that lie side by side. BOFT (Liu et al. 2023) does so in several
//! stages, each of which takes rows from twice as far apart (a butterfly). A rotation is Cayley's transform of what the
//! file has, `(I + Q) (I - Q)^-1` with `Q = B - B^T`. As in LyCORIS, whose files these are: OFT's is transposed, the
//! strength blends each rotation with the identity, and alpha times the rows is the longest that Q may be.

use rayon::prelude::*;

use super::file::{LoraFile, Parts, incomplete};
use super::roles::Role;
use crate::tensor::Shape;

/// Blocks up to this: LyCORIS' are 4 to 64 wide, and a transform takes the cube of it.
const LARGEST_BLOCK: usize = 1 << 10;

/// The tensors of a change, their shapes checked.
#[derive(Debug)]
pub(super) struct Orthogonal {
    /// `[N, B, B]`, or `[stages, N, B, B]` of a butterfly.
    blocks: String,
    /// What each row is multiplied with at the end.
    rescale: Option<String>,
    /// How long Q may be, if it is limited.
    longest: Option<f64>,
}

/// How many blocks a stage has, and a block's width.
struct Size {
    butterfly: bool,
    count: usize,
    width: usize,
}

impl Orthogonal {
    /// The change that these parts make of a tensor of this shape, if they are those of one.
    ///
    /// # Errors
    /// What is missing, or does not fit.
    pub fn of(lora: &LoraFile, parts: &Parts, tensor: &Shape) -> Result<Option<Self>, String> {
        let mut left = parts.clone();
        let Some(blocks) = left.remove(&Role::OftBlocks) else { return Ok(None) };
        let [rescale, alpha] = [Role::Rescale, Role::Alpha].map(|part| left.remove(&part));
        if !left.is_empty() {
            return Err(incomplete(parts));
        }
        let rows = tensor.batch();
        let alpha = alpha.map(|name| lora.one_value(&name)).transpose()?.unwrap_or_default();
        let found = Self { blocks, rescale, longest: (alpha > 0.0).then_some(alpha * rows as f64) };
        let shape = |name: &String| lora.tensors.shape(name).cloned().unwrap_or_default();
        if found.size(lora).is_none_or(|size| size.count * size.width != rows) {
            return Err(format!("{} {} for a tensor {tensor}", found.blocks, shape(&found.blocks)));
        }
        match &found.rescale {
            Some(name) if shape(name).len() != rows => Err(format!("{name} {} for a tensor {tensor}", shape(name))),
            _ => Ok(Some(found)),
        }
    }

    fn size(&self, lora: &LoraFile) -> Option<Size> {
        let shape = lora.tensors.shape(&self.blocks)?;
        let (butterfly, count, width) = match *shape.dims() {
            [count, width, same] if width == same => (false, count, width),
            // The rows of the last stage's blocks come from halves of so many blocks.
            [stages, count, width, same]
                if width == same && width % 2 == 0 && stages < 32 && count % (1 << stages.saturating_sub(1)) == 0 =>
            {
                (true, count, width)
            }
            _ => return None,
        };
        (!shape.is_empty() && width <= LARGEST_BLOCK).then_some(Size { butterfly, count, width })
    }

    /// Adds the change of `base [N * B, columns]` to `sum`.
    pub fn add_to(&self, lora: &LoraFile, strength: f32, base: &[f32], sum: &mut [f32]) {
        let Some(size) = self.size(lora) else { return };
        let values = |name: &String| lora.tensors.get(name).map(|raw| raw.to_f32());
        let Some(rotations) = values(&self.blocks).map(|blocks| self.rotations(&blocks, &size)) else { return };
        let columns = base.len() / (size.count * size.width);
        let mut rows = base.to_vec();
        for (stage, rotations) in rotations.chunks_exact(size.count * size.width * size.width).enumerate() {
            rows = turned(&rows, columns, rotations, &size, stage, strength);
        }
        if let Some(factors) = self.rescale.as_ref().and_then(values) {
            let rows = rows.par_chunks_mut(columns).zip(factors);
            rows.for_each(|(row, factor)| row.iter_mut().for_each(|value| *value *= factor));
        }
        sum.par_iter_mut().zip(rows).zip(base).for_each(|((sum, new), old)| *sum += new - old);
    }

    /// Cayley's transform of each block.
    fn rotations(&self, blocks: &[f32], size: &Size) -> Vec<f32> {
        let width = size.width;
        let mut skew = vec![0f64; blocks.len()];
        for (skew, block) in skew.chunks_exact_mut(width * width).zip(blocks.chunks_exact(width * width)) {
            for (at, value) in skew.iter_mut().enumerate() {
                let (row, column) = (at / width, at % width);
                let transposed = f64::from(block[column * width + row]);
                *value = f64::from(block[at]) - transposed;
            }
        }
        let length = skew.iter().map(|value| value * value).sum::<f64>().sqrt() + 1e-8;
        let longest = self.longest.unwrap_or(f64::INFINITY);
        // OFT's is multiplied from the other side, where the transposed one is that of -Q.
        let sign = if size.butterfly { 1.0 } else { -1.0 };
        let factor = sign * (longest / length).min(1.0);
        let mut rotations = vec![0f32; blocks.len()];
        let pairs = rotations.par_chunks_mut(width * width).zip(skew.par_chunks_mut(width * width));
        pairs.for_each(|(rotation, skew)| {
            skew.iter_mut().for_each(|value| *value *= factor);
            cayley(skew, width, rotation);
        });
        rotations
    }
}

/// `(I - Q)^-1 (I + Q)`, which is the transform since both commute, by elimination. It needs no pivots: what is
/// eliminated stays a positive definite matrix and a skew one.
fn cayley(skew: &[f64], width: usize, rotation: &mut [f32]) {
    let identity = |at: usize| f64::from(u8::from(at / width == at % width));
    let mut left: Vec<f64> = skew.iter().enumerate().map(|(at, q)| identity(at) - q).collect();
    let mut right: Vec<f64> = skew.iter().enumerate().map(|(at, q)| identity(at) + q).collect();
    for pivot in 0..width {
        let own = pivot * width..(pivot + 1) * width;
        let scale = 1.0 / left[pivot * width + pivot];
        for matrix in [&mut left, &mut right] {
            matrix[own.clone()].iter_mut().for_each(|value| *value *= scale);
        }
        for row in (0..width).filter(|row| *row != pivot) {
            let factor = left[row * width + pivot];
            for matrix in [&mut left, &mut right] {
                for column in 0..width {
                    matrix[row * width + column] -= factor * matrix[pivot * width + column];
                }
            }
        }
    }
    rotation.iter_mut().zip(right).for_each(|(rotation, value)| *rotation = value as f32);
}

/// The rows after a stage: each block of them multiplied with its rotation, blended with the identity.
fn turned(rows: &[f32], columns: usize, rotations: &[f32], size: &Size, stage: usize, strength: f32) -> Vec<f32> {
    let width = size.width;
    // A butterfly's block takes rows in turn from two runs of so many.
    let run = (width / 2) << stage;
    let place = |at: usize| match size.butterfly {
        true => at / (2 * run) * (2 * run) + at % 2 * run + at % (2 * run) / 2,
        false => at,
    };
    let turned_row = |at: usize| {
        let (block, own) = (at / width, place(at));
        let factors = &rotations[at * width..][..width];
        let mut sum: Vec<f32> = rows[own * columns..][..columns].iter().map(|v| (1.0 - strength) * v).collect();
        for (other, factor) in factors.iter().enumerate() {
            let values = &rows[place(block * width + other) * columns..][..columns];
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += strength * factor * value);
        }
        (own, sum)
    };
    let mut all = vec![0.0; rows.len()];
    let found: Vec<(usize, Vec<f32>)> = (0..size.count * width).into_par_iter().map(turned_row).collect();
    for (own, row) in found {
        all[own * columns..][..columns].copy_from_slice(&row);
    }
    all
}
