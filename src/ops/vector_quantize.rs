//! `y[r, :] = codes[k, :]`, k the first of those with the least `Σ_c (x[r, c] - codes[k, c])²`: x `[.., C]`, codes
//! `[K, C]`, y `[.., C]`. Replaces every latent by the nearest entry of a codebook, before a decoder (van den Oord et
//! al. 2017; diffusers `VectorQuantizer`, whose `argmin` takes the first of several). Both inputs are f32 on every
//! device: f16 would choose other entries.

use rayon::prelude::*;

use super::{Case, Inputs, Kind, Launch, Op, Ty, expect, expect_shape};
use crate::caps::Caps;
use crate::error::Result;
use crate::ops::case::Fill;
use crate::tensor::{Shape, Tensor, pad4};

/// The nearest entry of a codebook for each row; no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorQuantize;

impl Op for VectorQuantize {
    fn name(&self) -> &'static str {
        "vector_quantize"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect("vector_quantize", inputs, &[("x", Kind::F32), ("the codebook", Kind::F32)])?;
        let (x, codes) = (&inputs[0].shape, &inputs[1].shape);
        expect_shape(inputs, 1, "vector_quantize: the codebook", &[codes.rows(), x.channels()].into())?;
        Ok(Ty::act(x.clone()))
    }

    fn execute(&self, inputs: &[&Tensor], y: &mut Tensor) {
        let (x, codes, c) = (&inputs[0].data, &inputs[1].data, y.shape.channels());
        y.data.par_chunks_mut(c).zip(x.par_chunks(c)).for_each(|(y, x)| {
            let mut nearest = (&codes[..c], f32::INFINITY);
            for code in codes.chunks_exact(c) {
                let distance = x.iter().zip(code).map(|(x, code)| (x - code) * (x - code)).sum();
                if distance < nearest.1 {
                    nearest = (code, distance);
                }
            }
            y.copy_from_slice(nearest.0);
        });
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let rows = output.shape.rows();
        Ok(Launch::new("vector_quantize", 2)
            .param("rows", rows)
            .param("entries", inputs[1].shape.rows())
            .param("row", pad4(output.shape.channels()) / 4)
            .threads(rows, caps))
    }

    /// A difference, its square and the sum, of every row with every entry.
    fn flops(&self, inputs: Inputs, output: &Ty) -> u64 {
        3 * (output.shape.len() * inputs[1].shape.rows()) as u64
    }
}

fn case(shape: &[usize], entries: usize) -> Case {
    let x = Shape::new(shape);
    let codes = [entries, x.channels()];
    Case::new(VectorQuantize, [Ty::new(Kind::F32, x), Ty::new(Kind::F32, codes)])
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    // Whole numbers, of which many are equally far from two entries: 0 is as far from -1 as from 1.
    let ties = case(&[3, 5, 2], 9).fill(0, Fill::With(|i| (i % 3) as f32 - 1.0)).fill(1, Fill::With(corner));
    // A single lane of a second vector decides.
    let last = case(&[7, 5], 6).fill(0, Fill::With(last_lane)).fill(1, Fill::With(last_lane));
    let far = case(&[2, 9, 3], 4).fill(0, Fill::With(|i| 3e4 * (i as f32 * 1.7).sin()));
    let shapes: [(&[usize], usize); 5] =
        [(&[1, 1], 1), (&[3, 7, 5], 11), (&[2, 4, 4, 4], 300), (&[1, 17, 19, 3], 64), (&[5, 9], 33)];
    shapes.into_iter().map(|(shape, entries)| case(shape, entries)).chain([ties, last, far]).collect()
}

/// Two coordinates from -1 to 1 of each entry, the last entries the same as the first.
fn corner(i: usize) -> f32 {
    ((i * 7 / 2) % 3) as f32 - 1.0
}

/// Rows of five that differ in their last element alone.
fn last_lane(i: usize) -> f32 {
    if i % 5 == 4 { ((i / 5) * 5 % 7) as f32 } else { 1.0 }
}

/// What a full check adds: the latents of a published super-resolution model at 512 x 512 with its 8192 entries.
pub(super) fn largest(_: &Caps) -> Vec<Case> {
    vec![case(&[1, 128, 128, 3], 8192)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(x: &[f32], codes: &[f32]) -> Vec<f32> {
        let [x, codes] = [x, codes].map(|data| Tensor::new([data.len() / 2, 2], data.to_vec()));
        VectorQuantize.reference(&[&x, &codes], &x.shape).data
    }

    #[test]
    fn every_row_becomes_its_nearest_entry() {
        let codes = [0.0, 0.0, 3.0, 4.0, -1.0, 2.0];
        assert_eq!(nearest(&[2.0, 2.1, -9.0, 0.0, 0.1, 0.1], &codes), [3.0, 4.0, -1.0, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn of_entries_that_are_equally_near_the_first_is_taken() {
        assert_eq!(nearest(&[0.0, 0.0], &[5.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 1.0]), [0.0, -1.0]);
    }

    #[test]
    fn a_codebook_of_another_width_is_an_error() {
        let inputs = [Ty::new(Kind::F32, [1, 4, 4, 3]), Ty::new(Kind::F32, [16, 4])];
        let error = VectorQuantize.output(&inputs).unwrap_err().to_string();
        assert!(error.contains("the codebook should be [16, 3], found [16, 4]"), "{error}");
    }
}
