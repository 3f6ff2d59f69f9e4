//! `y[b, i, j, :] = act(Σ x[b, s·i + u − top, s·j + v − left, :] · w[u, v] + bias + row) + residual` over taps u, v:
//! x `[B, H, W, C]`, w `[KH, KW, C, N]`, y `[B, OH, OW, N]`; beyond x's edges there are zeros. The parts after the sum
//! are the [`Epilogue`]'s. With [`Conv2d::upsample`] the up-sampled x takes the place of x, and is never stored.
//!
//! Every convolution of the U-Net and the VAE (PyTorch `Conv2d`, whose weight [`crate::pack`] transposes). It is a
//! matrix product whose K runs over taps and channels (implicit GEMM: the matrix of patches is never stored whole).

use rayon::prelude::*;

use super::epilogue::{Act, Epilogue, rows_per_batch};
use super::gemm::{self, Size};
use super::{Threads, in_blocks};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::ops::host::matrix::Matrix;
use crate::ops::host::winograd::Conv3x3;
use crate::ops::upsample::{Upsample, nearest, scale};
use crate::ops::weight::packed;
use crate::ops::{Case, Fill, Inputs, Kind, Launch, Op, Ty, UNET, VAE, Variant, Weighted, large, subnormal};
use crate::tensor::{Shape, Tensor, pad4};

/// A convolution over height and width, with what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Pixels of x from one output pixel to the next, both ways.
    pub stride: usize,
    /// Zeros around x: top, left, bottom, right.
    pub padding: [usize; 4],
    /// x is read as if this had been applied to it.
    pub upsample: Option<Upsample>,
    /// What follows it in the same kernel.
    pub epilogue: Epilogue,
}

/// All sizes of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    batch: usize,
    /// Height and width of x, and as which it is read.
    source: [usize; 2],
    size: [usize; 2],
    channels: usize,
    taps: [usize; 2],
    out_size: [usize; 2],
    n: usize,
}

impl Conv2d {
    /// Stride 1, with the padding that keeps the size under an odd kernel, and a bias.
    pub fn same(kernel: usize) -> Self {
        Self { stride: 1, padding: [kernel / 2; 4], upsample: None, epilogue: Epilogue::bias(true) }
    }

    fn geometry(&self, x: &Shape, w: &Shape) -> Result<Geometry> {
        let [batch, source_height, source_width, channels] = x.image()?;
        let [height, width] = self.upsample.map_or([source_height, source_width], |up| [up.height, up.width]);
        let &[taps_y, taps_x, c, n] = w.dims() else {
            return Err(Error::shape(format!("conv2d: w should be [KH, KW, C, N], found {w}")));
        };
        if c != channels || w.is_empty() {
            return Err(Error::shape(format!("conv2d: x {x} has no C in common with w [KH, KW, C, N] = {w}")));
        }
        let [top, left, bottom, right] = self.padding;
        let out = |size: usize, taps: usize| Some(size.checked_sub(taps)?.checked_div(self.stride)? + 1);
        match (out(height + top + bottom, taps_y), out(width + left + right, taps_x)) {
            (Some(y), Some(x)) => {
                let (source, size) = ([source_height, source_width], [height, width]);
                Ok(Geometry { batch, source, size, channels, taps: [taps_y, taps_x], out_size: [y, x], n })
            }
            _ => Err(Error::shape(format!(
                "conv2d: w {w} does not fit into x {x} with padding {:?} and stride {}",
                self.padding, self.stride
            ))),
        }
    }

    /// The input pixel of tap `u`, `v` of output pixel `i`, `j` of batch entry `b`, or `None` beyond the edges.
    fn pixel<'a>(&self, g: &Geometry, x: &'a [f32], [b, i, j]: [usize; 3], [u, v]: [usize; 2]) -> Option<&'a [f32]> {
        // Above or left of the image these wrap around to huge numbers, which are outside as well.
        let y = (i * self.stride + u).wrapping_sub(self.padding[0]);
        let x_at = (j * self.stride + v).wrapping_sub(self.padding[1]);
        let ([height, width], [source_height, source_width]) = (g.size, g.source);
        (y < height && x_at < width).then(|| {
            let (y, x_at) = match self.upsample {
                Some(_) => (nearest(y, source_height, height), nearest(x_at, source_width, width)),
                None => (y, x_at),
            };
            &x[((b * source_height + y) * source_width + x_at) * g.channels..][..g.channels]
        })
    }

    /// Copies, for tap number `tap`, the input pixel of output pixel number `row`, or zeros beyond the edges.
    fn gather(&self, g: &Geometry, x: &[f32], row: usize, tap: usize, patch: &mut [f32]) {
        let [out_y, out_x] = g.out_size;
        let place = [row / (out_y * out_x), row / out_x % out_y, row % out_x];
        match self.pixel(g, x, place, [tap / g.taps[1], tap % g.taps[1]]) {
            Some(pixel) => patch.copy_from_slice(pixel),
            None => patch.fill(0.0),
        }
    }

    /// The definition: sums over patches, which exist for some rows of y and some taps at a time.
    fn sum_patches(&self, others: &[&Tensor], w: &Matrix, y: &mut Tensor) {
        let x = others[0];
        let g = self.checked(x, w);
        let (taps, operands) = (g.taps[0] * g.taps[1], self.epilogue.operands(others, &y.shape));
        let group = GROUP_LEN.div_ceil(g.channels).min(taps);
        in_blocks(&mut y.data, g.n, group * g.channels, |first, block, threads| {
            let rows = block.len() / g.n;
            let mut patches = vec![0.0; rows * group * g.channels];
            for tap in (0..taps).step_by(group) {
                let k = group.min(taps - tap) * g.channels;
                let patches = &mut patches[..rows * k];
                let fill = |(row, patch): (usize, &mut [f32])| {
                    let pixels = patch.chunks_exact_mut(g.channels).enumerate();
                    pixels.for_each(|(t, pixel)| self.gather(&g, &x.data, first + row, tap + t, pixel));
                };
                match threads {
                    Threads::One => patches.chunks_exact_mut(k).enumerate().for_each(fill),
                    Threads::All => patches.par_chunks_exact_mut(k).enumerate().for_each(fill),
                }
                let first = tap * g.channels;
                w.product(block, tap > 0, patches, first..first + k, threads);
            }
            operands.finish(first, block, threads);
        });
    }

    /// The convolution as one of 3x3 with stride 1, if it is one for which Winograd's algorithm pays.
    fn winograd<'a>(&self, x: &Tensor, w: &'a Matrix) -> Option<(Geometry, Conv3x3<'a>)> {
        let g = self.checked(x, w);
        let conv = Conv3x3 { w, channels: g.channels, n: g.n, size: g.out_size };
        (self.stride == 1 && g.taps == [3, 3] && conv.pays()).then_some((g, conv))
    }

    fn checked(&self, x: &Tensor, w: &Matrix) -> Geometry {
        self.geometry(&x.shape, w.shape()).expect("the graph checked the shapes")
    }
}

/// Terms of the sum that a product on the CPU takes at once, at least: so many that the output is seldom rewritten,
/// and so few that the patches of many pixels stay in the cache.
const GROUP_LEN: usize = 1024;

impl Weighted for Conv2d {
    fn execute_packed(&self, others: &[&Tensor], w: &Matrix, y: &mut Tensor) {
        let Some((g, conv)) = self.winograd(others[0], w) else { return self.sum_patches(others, w, y) };
        let (x, operands) = (&others[0].data, self.epilogue.operands(others, &y.shape));
        let pixel = |b, i, j| self.pixel(&g, x, [b, i, j], [0, 0]);
        conv.run(&mut y.data, pixel, |first, block| operands.finish(first, block, Threads::One));
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        let [x, w, ..] = inputs else {
            return Err(Error::shape(format!("conv2d takes at least x and w, found {} inputs", inputs.len())));
        };
        let g = self.geometry(&x.shape, &w.shape)?;
        let output = Shape::from([g.batch, g.out_size[0], g.out_size[1], g.n]);
        self.epilogue.check("conv2d", 2, inputs, &output)?;
        Ok(Ty::act(output))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let mut y = Tensor::zeros(output.clone());
        let (others, w) = packed(inputs);
        self.sum_patches(&others, &w, &mut y);
        y
    }

    fn execute(&self, inputs: &[&Tensor], y: &mut Tensor) {
        let (others, w) = packed(inputs);
        self.execute_packed(&others, &w, y);
    }

    fn weighted(&self) -> Option<&dyn Weighted> {
        Some(self)
    }

    fn variants(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Vec<Variant>> {
        let (x, w) = (&inputs[0].shape, &inputs[1].shape);
        let g = self.geometry(x, w)?;
        let c4 = pad4(g.channels) / 4;
        let size = Size { matrices: 1, rows: output.shape.rows(), c: g.channels, taps: g.taps[0] * g.taps[1], n: g.n };
        Ok(gemm::variants(&self.epilogue.launch(Launch::new("conv2d", 2)), size, caps, |launch| {
            launch
                .constant("TAPS_X", g.taps[1] as u32)
                .constant("UPSAMPLED", self.upsample.is_some())
                .param("rows", size.rows)
                .param("taps", size.taps)
                .param("c4", c4)
                .param("n4", pad4(g.n) / 4)
                .param("rows_per_batch", rows_per_batch(&output.shape))
                .param("height", g.size[0])
                .param("width", g.size[1])
                .param("out_width", g.out_size[1])
                .param("stride", self.stride)
                .param("top", self.padding[0])
                .param("left", self.padding[1])
                .param("in_height", g.source[0])
                .param("in_width", g.source[1])
                .param_f32("y_scale", scale(g.source[0], g.size[0]))
                .param_f32("x_scale", scale(g.source[1], g.size[1]))
        }))
    }

    fn flops(&self, inputs: Inputs, output: &Ty) -> u64 {
        2 * (inputs[1].shape.rows() * output.shape.len()) as u64
    }

    fn sum_length(&self, inputs: Inputs) -> Option<usize> {
        Some(inputs[1].shape.rows())
    }

    fn absorb(&self, next: &dyn Op, operand: usize) -> Option<Box<dyn Op>> {
        Some(Box::new(Self { epilogue: self.epilogue.absorb(next, operand)?, ..*self }))
    }

    fn absorb_input(&self, previous: &dyn Op, operand: usize) -> Option<Box<dyn Op>> {
        let upsample = *previous.downcast_ref::<Upsample>()?;
        (operand == 0 && self.upsample.is_none())
            .then(|| Box::new(Self { upsample: Some(upsample), ..*self }) as Box<dyn Op>)
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |x: [usize; 4], kernel: [usize; 2], n: usize, op: Conv2d| {
        let types = [Ty::act(x), Ty::new(Kind::Weight, [kernel[0], kernel[1], x[3], n])];
        let g = op.geometry(&types[0].shape, &types[1].shape).expect("a case's shapes fit");
        let output = Shape::from([g.batch, g.out_size[0], g.out_size[1], n]);
        cases.push(Case::new(op, types.into_iter().chain(op.epilogue.operand_types(&output))));
    };
    let plain = |stride, padding| Conv2d { stride, padding, upsample: None, epilogue: Epilogue::default() };
    let (one, three) = (Conv2d::same(1), Conv2d::same(3));
    let with =
        |op: Conv2d, row, act, residual| Conv2d { epilogue: Epilogue { row, act, residual, ..op.epilogue }, ..op };
    // One, odd, just under and over the tile; other kernels, strides and paddings.
    case([1, 1, 1, 1], [1, 1], 1, plain(1, [0; 4]));
    case([1, 1, 1, 1], [3, 3], 1, three);
    case([2, 3, 5, 7], [3, 3], 5, three);
    case([1, 8, 8, 16], [3, 3], 64, three);
    case([1, 5, 13, 6], [3, 3], 65, plain(1, [1; 4]));
    case([1, 9, 7, 3], [5, 2], 9, plain(1, [2, 0, 1, 1]));
    case([2, 9, 7, 12], [3, 3], 10, plain(2, [1; 4]));
    case([1, 8, 10, 12], [3, 3], 20, plain(2, [0, 0, 1, 1]));
    case([1, 7, 9, 5], [1, 1], 6, plain(2, [0; 4]));
    case([2, 4, 3, 10], [1, 1], 22, one);
    // Read larger than it is, or smaller, with or without a picture's own kernel.
    let up = |op: Conv2d, height, width| Conv2d { upsample: Some(Upsample { height, width }), ..op };
    case([2, 3, 5, 7], [3, 3], 9, up(three, 6, 10));
    case([1, 7, 5, 6], [3, 3], 65, up(three, 13, 9));
    case([1, 4, 6, 3], [3, 3], 5, up(plain(2, [0, 0, 1, 1]), 9, 5));
    case([1, 3, 2, 5], [1, 1], 6, up(one, 5, 4));
    case([1, 8, 8, 64], [3, 3], 64, up(three, 16, 16));
    // Every epilogue that a network uses.
    case([2, 6, 5, 9], [3, 3], 14, with(three, true, Act::None, false));
    case([2, 6, 5, 9], [3, 3], 14, with(three, true, Act::Silu, false));
    case([2, 6, 5, 9], [3, 3], 14, with(three, false, Act::None, true));
    case([2, 6, 5, 9], [1, 1], 14, with(one, false, Act::None, true));
    case([2, 6, 5, 9], [3, 3], 14, with(three, true, Act::Gelu, true));
    // The U-Net's first and last convolution, and SD 1.5's innermost and outermost blocks.
    case([2, 16, 16, 4], [3, 3], 64, three);
    case([1, 16, 16, 64], [3, 3], 4, three);
    case([1, 4, 4, 1280], [3, 3], 1280, with(three, true, Act::None, false));
    case([1, 8, 8, 64], [3, 3], 64, three);
    case([1, 16, 16, 320], [3, 3], 320, with(three, false, Act::None, true));
    // Vectors of eight, which cooperative matrices take: less and more than a tile.
    case([1, 3, 3, 8], [3, 3], 8, three);
    case([2, 9, 15, 40], [3, 3], 72, with(plain(2, [0, 0, 1, 1]), true, Act::Silu, true));
    // Sums that overflow f16, and such as it holds as subnormals.
    let extreme = |fill, scale: f32| {
        let w = Fill::Normal(scale / 54f32.sqrt());
        let inputs = [Ty::act([1, 5, 7, 6]), Ty::new(Kind::Weight, [3, 3, 6, 9])];
        Case::new(plain(1, [1; 4]), inputs).fill(0, Fill::With(fill)).fill(1, w)
    };
    cases.extend([extreme(large, 2.0), extreme(subnormal, 1.0)]);
    cases
}

/// What a full check adds: both U-Nets' convolutions, and both VAEs'.
pub(crate) fn largest(_: &Caps) -> Vec<Case> {
    let case = |x: [usize; 4], n| {
        let types = [Ty::act(x), Ty::new(Kind::Weight, [3, 3, x[3], n]), Ty::new(Kind::F32, [n])];
        Case::new(Conv2d::same(3), types)
    };
    vec![
        case([2, 64, 64, 960], 320),
        case(UNET, 320),
        case([2, 32, 32, 2560], 1280),
        case([1, 512, 512, 128], 128),
        case([1, 512, 512, 256], 256),
        case(VAE, 3),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::case::compare;
    use crate::tensor::DType;

    /// The definition, one tap at a time, in f64.
    fn naive(op: &Conv2d, x: &Tensor, w: &Tensor, output: &Shape) -> Tensor {
        let [_, height, width, channels] = x.shape.image().unwrap();
        let [_, out_y, out_x, n] = output.image().unwrap();
        let &[taps_y, taps_x, ..] = w.shape.dims() else { unreachable!("a case's w has four dimensions") };
        let mut y = Tensor::zeros(output.clone());
        for (index, y) in y.data.iter_mut().enumerate() {
            let (pixel, o) = (index / n, index % n);
            let (b, i, j) = (pixel / (out_y * out_x), pixel / out_x % out_y, pixel % out_x);
            let mut sum = 0f64;
            for (u, v) in (0..taps_y).flat_map(|u| (0..taps_x).map(move |v| (u, v))) {
                let row = (i * op.stride + u) as isize - op.padding[0] as isize;
                let column = (j * op.stride + v) as isize - op.padding[1] as isize;
                if row < 0 || column < 0 || row >= height as isize || column >= width as isize {
                    continue;
                }
                let at = ((b * height + row as usize) * width + column as usize) * channels;
                let taps = &w.data[(u * taps_x + v) * channels * n..];
                sum += (0..channels).map(|c| f64::from(x.data[at + c]) * f64::from(taps[c * n + o])).sum::<f64>();
            }
            *y = sum as f32;
        }
        y
    }

    fn check(case: &Case) {
        let (types, tensors) = (case.types(), case.tensors(3, DType::F32, DType::F32));
        let output = case.op.output(&types).unwrap().shape;
        let inputs: Vec<&Tensor> = tensors.iter().collect();
        let op = case.op.downcast_ref::<Conv2d>().unwrap();
        let upsampled = op.upsample.map(|up| up.reference(&inputs[..1], &up.output(&types[..1]).unwrap().shape));
        let mut wanted = naive(op, upsampled.as_ref().unwrap_or(inputs[0]), inputs[1], &output);
        op.epilogue.operands(&inputs, &output).finish(0, &mut wanted.data, Threads::One);
        let difference = compare(&op.reference(&inputs, &output), &wanted);
        assert!(difference.relative < 1e-6, "{}: {difference:?}", case.name());
    }

    #[test]
    fn the_reference_is_the_naive_sum_on_every_case() {
        cases().iter().for_each(check);
    }

    /// A kernel case's tolerance is 1e-5.
    fn executor_agrees(case: &Case) {
        let (types, tensors) = (case.types(), case.tensors(3, DType::F32, DType::F32));
        let inputs: Vec<&Tensor> = tensors.iter().collect();
        let wanted = case.op.reference(&inputs, &case.op.output(&types).unwrap().shape);
        let mut y = Tensor::new(wanted.shape.clone(), vec![f32::NAN; wanted.shape.len()]);
        case.op.execute(&inputs, &mut y);
        let difference = compare(&y, &wanted);
        assert!(difference.relative < 1e-5, "{}: {difference:?}", case.name());
    }

    #[test]
    fn the_executor_computes_what_the_reference_does() {
        cases().iter().for_each(executor_agrees);
        let epilogue = Epilogue { bias: true, row: true, act: Act::Silu, residual: true };
        let upsample = Some(Upsample { height: 27, width: 18 });
        for op in [Conv2d { epilogue, ..Conv2d::same(3) }, Conv2d { upsample, ..Conv2d::same(3) }] {
            let types = [Ty::act([2, 13, 18, 48]), Ty::new(Kind::Weight, [3, 3, 48, 64])];
            let g = op.geometry(&types[0].shape, &types[1].shape).unwrap();
            let operands = op.epilogue.operand_types(&[2, g.out_size[0], g.out_size[1], 64].into());
            let case = Case::new(op, types.clone().into_iter().chain(operands));
            let tensors = case.tensors(3, DType::F32, DType::F32);
            assert!(op.winograd(&tensors[0], &Matrix::of(&tensors[1])).is_some());
            executor_agrees(&case);
        }
    }

    #[test]
    fn many_pixels_are_worked_on_in_blocks() {
        let types = [Ty::act([3, 91, 23, 5]), Ty::new(Kind::Weight, [3, 3, 5, 6]), Ty::new(Kind::F32, [6])];
        check(&Case::new(Conv2d::same(3), types));
    }

    #[test]
    fn the_output_size_follows_stride_and_padding() {
        let size = |op: Conv2d, kernel: usize| {
            let inputs = [Ty::act([1, 9, 8, 3]), Ty::new(Kind::Weight, [kernel, kernel, 3, 5])];
            op.output(&inputs).map(|ty| ty.shape)
        };
        let op = |stride, padding| Conv2d { stride, padding, upsample: None, epilogue: Epilogue::default() };
        assert_eq!(size(op(1, [1; 4]), 3).unwrap(), Shape::from([1, 9, 8, 5]));
        assert_eq!(size(op(2, [1; 4]), 3).unwrap(), Shape::from([1, 5, 4, 5]));
        assert_eq!(size(op(2, [0, 0, 1, 1]), 3).unwrap(), Shape::from([1, 4, 4, 5]));
        assert!(size(op(1, [0; 4]), 10).unwrap_err().to_string().contains("does not fit"));
        assert!(size(op(0, [0; 4]), 3).is_err(), "a stride of 0");
    }

    #[test]
    fn a_weight_for_other_channels_is_an_error_that_shows_both() {
        let inputs = [Ty::act([1, 9, 8, 3]), Ty::new(Kind::Weight, [3, 3, 4, 5]), Ty::new(Kind::F32, [5])];
        let error = Conv2d::same(3).output(&inputs).unwrap_err().to_string();
        assert!(error.contains("[1, 9, 8, 3]") && error.contains("[3, 3, 4, 5]"), "{error}");
    }

    #[test]
    fn up_sampling_before_it_is_absorbed_once_and_for_x_alone() {
        let up = Upsample { height: 4, width: 6 };
        let fused = Conv2d::same(3).absorb_input(&up, 0).unwrap();
        assert_eq!(format!("{fused:?}"), format!("{:?}", Conv2d { upsample: Some(up), ..Conv2d::same(3) }));
        assert!(fused.absorb_input(&up, 0).is_none(), "a second one");
        assert!(Conv2d::same(3).absorb_input(&up, 3).is_none(), "of the residual");
    }
}
