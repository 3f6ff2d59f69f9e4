//! `y = act(x·w + bias + row) + residual`: x `[.., K]`, w `[K, N]`, y `[.., N]`; the parts after `x·w` are the
//! [`Epilogue`]'s. Every linear layer of every network (PyTorch `Linear`, whose weight [`crate::pack`] transposes).

use super::epilogue::{Act, Epilogue, rows_per_batch};
use super::gemm::{self, Size};
use super::in_blocks;
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::ops::host::matrix::Matrix;
use crate::ops::joined::Joined;
use crate::ops::weight::packed;
use crate::ops::{Case, Fill, Inputs, Kind, Launch, Op, Ty, Variant, Weighted, beyond, large, subnormal};
use crate::tensor::{Shape, Tensor, pad4};

/// A matrix product, with what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatMul {
    /// What follows it in the same kernel.
    pub epilogue: Epilogue,
}

impl MatMul {
    /// A linear layer with or without a bias.
    pub fn new(bias: bool) -> Self {
        Self { epilogue: Epilogue::bias(bias) }
    }
}

/// The launches of a shader with the params of `shaders/matmul.wgsl` for x `[rows, K]` and a product of this shape.
pub(super) fn matmul_variants(
    shader: &'static str,
    k: usize,
    output: &Shape,
    epilogue: Epilogue,
    caps: &Caps,
) -> Vec<Variant> {
    let size = Size { matrices: 1, rows: output.rows(), c: k, taps: 1, n: output.channels() };
    gemm::variants(&epilogue.launch(Launch::new(shader, 2)), size, caps, |launch| {
        launch
            .param("rows", output.rows())
            .param("taps", 1)
            .param("c4", pad4(k) / 4)
            .param("n4", pad4(output.channels()) / 4)
            .param("rows_per_batch", rows_per_batch(output))
            .joinable()
    })
}

impl Weighted for MatMul {
    fn execute_packed(&self, others: &[&Tensor], w: &Matrix, y: &mut Tensor) {
        let (x, operands) = (others[0], self.epilogue.operands(others, &y.shape));
        let (k, n) = (x.shape.channels(), y.shape.channels());
        in_blocks(&mut y.data, n, k, |first, block, threads| {
            let rows = block.len() / n;
            w.product(block, false, &x.data[first * k..][..rows * k], 0..k, threads);
            operands.finish(first, block, threads);
        });
    }
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        let [x, w, ..] = inputs else {
            return Err(Error::shape(format!("matmul takes at least x and w, found {} inputs", inputs.len())));
        };
        let [k, n] = *w.shape.dims() else {
            return Err(Error::shape(format!("matmul: w should be [K, N], found {}", w.shape)));
        };
        if x.shape.rank() == 0 || x.shape.channels() != k || k * n == 0 {
            return Err(Error::shape(format!("matmul: x {} has no K in common with w [K, N] = {}", x.shape, w.shape)));
        }
        let output = x.shape.with_channels(n);
        self.epilogue.check("matmul", 2, inputs, &output)?;
        Ok(Ty::act(output))
    }

    fn execute(&self, inputs: &[&Tensor], y: &mut Tensor) {
        let (others, w) = packed(inputs);
        self.execute_packed(&others, &w, y);
    }

    fn weighted(&self) -> Option<&dyn Weighted> {
        Some(self)
    }

    fn variants(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Vec<Variant>> {
        Ok(matmul_variants("matmul", inputs[0].shape.channels(), &output.shape, self.epilogue, caps))
    }

    fn flops(&self, inputs: Inputs, output: &Ty) -> u64 {
        2 * (inputs[0].shape.channels() * output.shape.len()) as u64
    }

    fn sum_length(&self, inputs: Inputs) -> Option<usize> {
        Some(inputs[0].shape.channels())
    }

    fn absorb(&self, next: &dyn Op, operand: usize) -> Option<Box<dyn Op>> {
        Some(Box::new(Self { epilogue: self.epilogue.absorb(next, operand)? }))
    }

    fn absorb_input(&self, previous: &dyn Op, operand: usize) -> Option<Box<dyn Op>> {
        Joined::with(*self, previous, operand)
    }
}

fn case(x: &[usize], n: usize, epilogue: Epilogue) -> Case {
    let x = Shape::new(x);
    let (w, y) = (Ty::new(Kind::Weight, [x.channels(), n]), x.with_channels(n));
    Case::new(MatMul { epilogue }, [Ty::act(x), w].into_iter().chain(epilogue.operand_types(&y)))
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |x: &[usize], n, epilogue| cases.push(case(x, n, epilogue));
    let plain = Epilogue::default();
    let bias = Epilogue::bias(true);
    // One, odd, just under and over the tile, few rows and many.
    case(&[1, 1], 1, plain);
    case(&[1, 5], 7, bias);
    case(&[2, 3], 65, plain);
    case(&[16, 17], 63, bias);
    case(&[17, 16], 64, plain);
    case(&[63, 15], 66, bias);
    case(&[65, 33], 130, plain);
    case(&[2, 37, 50], 18, bias);
    // Every epilogue that a network uses.
    for act in [Act::Silu, Act::Gelu, Act::QuickGelu, Act::Relu] {
        case(&[2, 9, 35], 70, Epilogue { act, ..bias });
    }
    case(&[2, 9, 35], 70, Epilogue { residual: true, ..plain });
    case(&[2, 9, 35], 70, Epilogue { residual: true, ..bias });
    case(&[2, 9, 35], 70, Epilogue { row: true, act: Act::Silu, residual: true, ..bias });
    // A long sum; the demo model's and SD 1.5's time embedding, CLIP's projection, SD 1.5's first feed-forward.
    case(&[3, 5120], 20, bias);
    case(&[2, 320], 1280, Epilogue { act: Act::Silu, ..bias });
    case(&[1, 77, 768], 768, Epilogue { residual: true, ..bias });
    case(&[1, 256, 320], 2560, bias);
    // Vectors of eight, which cooperative matrices take: one and less than one, less and more than a tile.
    case(&[1, 8], 8, bias);
    case(&[33, 200], 72, plain);
    case(&[2, 65, 40], 136, Epilogue { row: true, act: Act::Silu, residual: true, ..bias });
    // x in two parts: as few channels as they can have, and SD 1.5's last shortcut.
    for ([rows, a, b], n, epilogue) in [([3, 8, 8], 5, plain), ([65, 16, 40], 66, bias), ([256, 640, 320], 320, bias)] {
        let w = Ty::new(Kind::Weight, [a + b, n]);
        let first = [Ty::act([rows, a]), w].into_iter().chain(epilogue.operand_types(&[rows, n].into()));
        cases.push(Case::new(Joined(MatMul { epilogue }), first.chain([Ty::act([rows, b])])));
    }
    // Sums that overflow f16, and such as it holds as subnormals.
    let extreme = |fill, scale: f32| {
        let w = Fill::Normal(scale / 33f32.sqrt());
        let inputs = [Ty::act([9, 33]), Ty::new(Kind::Weight, [33, 70])];
        Case::new(MatMul { epilogue: plain }, inputs).fill(0, Fill::With(fill)).fill(1, w)
    };
    cases.extend([extreme(large, 2.0), extreme(subnormal, 1.0)]);
    cases
}

/// What a full check adds: the end of a gated feed-forward, and a table of weights that the device cannot bind.
pub(crate) fn largest(caps: &Caps) -> Vec<Case> {
    let bias = Epilogue::bias(true);
    vec![case(&[2, 1024, 5120], 1280, bias), case(&[1, 1, 4096], beyond(caps, 4096), bias)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::add::Add;
    use crate::ops::case::compare;
    use crate::ops::product::Threads;
    use crate::tensor::DType;

    #[test]
    fn the_reference_is_the_naive_sum_on_every_case_with_one_x() {
        for case in cases() {
            // Of two parts of x, `joined` makes one.
            let Some(MatMul { epilogue }) = case.op.downcast_ref() else { continue };
            let (types, tensors) = (case.types(), case.tensors(3, DType::F32, DType::F32));
            let output = case.op.output(&types).unwrap().shape;
            let inputs: Vec<&Tensor> = tensors.iter().collect();
            let found = case.op.reference(&inputs, &output);
            let (k, n) = (types[0].shape.channels(), output.channels());
            let dot = |i: usize| {
                let (x, w) = (&tensors[0].data[i / n * k..], &tensors[1].data[i % n..]);
                (0..k).map(|j| f64::from(x[j]) * f64::from(w[j * n])).sum::<f64>() as f32
            };
            let mut wanted = Tensor::new(output.clone(), (0..output.len()).map(dot).collect());
            epilogue.operands(&inputs, &output).finish(0, &mut wanted.data, Threads::One);
            let difference = compare(&found, &wanted);
            assert!(difference.relative < 1e-6, "{}: {difference:?}", case.name());
        }
    }

    #[test]
    fn a_weight_of_another_k_is_an_error_that_shows_both() {
        let inputs = [Ty::act([2, 3]), Ty::new(Kind::Weight, [4, 5])];
        let error = MatMul::new(false).output(&inputs).unwrap_err().to_string();
        assert!(error.contains("[2, 3]") && error.contains("[4, 5]"), "{error}");
    }

    #[test]
    fn a_missing_bias_is_an_error() {
        let inputs = [Ty::act([2, 3]), Ty::new(Kind::Weight, [3, 5])];
        assert!(MatMul::new(true).output(&inputs).is_err());
        assert_eq!(MatMul::new(false).output(&inputs).unwrap(), Ty::act([2, 5]));
    }

    #[test]
    fn tiles_cover_the_output_and_few_rows_take_a_small_tile() {
        let grid = |rows: usize, n: usize| {
            let variants =
                matmul_variants("matmul", 8, &[rows, n].into(), Epilogue::default(), &Caps::webgpu_default());
            let launch = &variants[0].launch;
            (launch.constants[4].1, launch.workgroups)
        };
        assert_eq!(grid(16, 64), (16.0, [1, 1, 1]));
        assert_eq!(grid(17, 65), (64.0, [2, 1, 1]));
        assert_eq!(grid(129, 65), (64.0, [2, 3, 1]));
        assert_eq!(grid(65_536 * 64, 1), (64.0, [1, 32_768, 2]));
    }

    #[test]
    fn a_following_addition_becomes_the_residual() {
        let fused = MatMul::new(true).absorb(&Add, 1).unwrap();
        assert_eq!(
            format!("{fused:?}"),
            format!("{:?}", MatMul { epilogue: Epilogue { residual: true, ..Epilogue::bias(true) } })
        );
    }
}
