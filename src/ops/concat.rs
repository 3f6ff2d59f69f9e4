//! `y[.., :A] = a, y[.., A:] = b`: a `[.., A]` and b `[.., B]` to `[.., A+B]`. The U-Net's up blocks join skips by it
//! (PyTorch `cat` along the channels).

use rayon::prelude::*;

use super::{Case, Fill, Inputs, Kind, Launch, Op, Ty, UNET, expect, expect_shape, subnormal};
use crate::caps::Caps;
use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// `y = [a, b]` along the channels; no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concat;

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect("concat", inputs, &[("a", Kind::Act), ("b", Kind::Act)])?;
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        expect_shape(inputs, 1, "concat: b", &a.with_channels(b.channels()))?;
        Ok(Ty::act(a.with_channels(a.channels() + b.channels())))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let [a, b] = [0, 1].map(|i| (&inputs[i].data, inputs[i].shape.channels()));
        let mut y = Tensor::zeros(output.clone());
        y.data.par_chunks_mut(output.channels()).with_min_len(16).enumerate().for_each(|(row, y)| {
            let (left, right) = y.split_at_mut(a.1);
            left.copy_from_slice(&a.0[row * a.1..][..a.1]);
            right.copy_from_slice(&b.0[row * b.1..][..b.1]);
        });
        y
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let (a, b) = (inputs[0].shape.channels(), inputs[1].shape.channels());
        Ok(Launch::flat("concat", 2, output.device_len() / 4, caps)
            .constant("ALIGNED", a.is_multiple_of(4))
            .param("a_channels", a)
            .param("b_channels", b))
    }

    fn flops(&self, _inputs: Inputs, _output: &Ty) -> u64 {
        0
    }

    fn moves(&self) -> bool {
        true
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |rows: &[usize], a, b| {
        let shape = |c| Shape::new([rows, &[c]].concat());
        Case::new(Concat, [Ty::act(shape(a)), Ty::act(shape(b))])
    };
    vec![
        case(&[1], 1, 1),
        case(&[3, 7], 3, 6),
        case(&[2, 5], 4, 3),
        case(&[2, 3, 5], 9, 8),
        case(&[1, 13, 9], 5, 12),
        case(&[2, 8, 8], 1280, 640),
        case(&[2, 5], 4, 3).fill(0, Fill::With(subnormal)).fill(1, Fill::With(subnormal)),
    ]
}

/// What a full check adds: two latents of SDXL and a skip connection to them.
pub(super) fn largest(_: &Caps) -> Vec<Case> {
    vec![Case::new(Concat, [Ty::act([2, 128, 128, 640]), Ty::act(UNET)])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_joined_end_to_end() {
        let a = Tensor::new([2, 1], vec![1.0, 2.0]);
        let b = Tensor::new([2, 2], vec![3.0, 4.0, 5.0, 6.0]);
        let y = Concat.reference(&[&a, &b], &[2, 3].into());
        assert_eq!(y.data, [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
    }

    #[test]
    fn inputs_of_other_pixels_are_an_error() {
        let error = Concat.output(&[Ty::act([2, 4, 3]), Ty::act([2, 5, 8])]).unwrap_err().to_string();
        assert!(error.contains("b should be [2, 4, 8], found [2, 5, 8]"), "{error}");
    }
}
