//! The shapes at which `benches/compare` holds these kernels against other software's: products, 3x3 convolutions and
//! attention as Stable Diffusion has them, of a size that the device finishes in a fraction of a second.

use super::suite::Workload;
use crate::caps::Caps;
use crate::ops::attention::Attention;
use crate::ops::product::conv2d::Conv2d;
use crate::ops::product::matmul::MatMul;
use crate::ops::{Case, Kind, Ty};

/// Rows, columns and terms of products with a bias.
type Product = [usize; 3];
/// Batch, channels in and out, and height and width.
type Convolution = [usize; 4];
/// Batch, heads, queries, keys, and channels of a head.
type Heads = [usize; 5];

struct Shapes {
    products: &'static [Product],
    convolutions: &'static [Convolution],
    attentions: &'static [Heads],
}

/// A cube, and SD 1.5 at 64x64 latents with guidance; SDXL's attention, and the VAE's.
const GPU: Shapes = Shapes {
    products: &[
        [4096, 4096, 4096],
        [8192, 320, 320],
        [8192, 2560, 320],
        [2048, 640, 640],
        [2048, 5120, 640],
        [512, 1280, 1280],
        [512, 10_240, 1280],
        [154, 640, 768],
    ],
    convolutions: &[
        [2, 320, 320, 64],
        [2, 640, 640, 32],
        [2, 1280, 1280, 16],
        [2, 2560, 1280, 16],
        [2, 1280, 1280, 8],
        [1, 512, 512, 64],
        [1, 256, 256, 256],
    ],
    attentions: &[
        [2, 8, 4096, 4096, 40],
        [2, 8, 1024, 1024, 80],
        [2, 8, 256, 256, 160],
        [2, 8, 4096, 77, 40],
        [2, 10, 4096, 4096, 64],
        [1, 1, 4096, 4096, 512],
    ],
};

/// The same layers where they do a hundredth of that.
const PROCESSOR: Shapes = Shapes {
    products: &[[1024, 640, 640], [4096, 320, 320], [1024, 2560, 320], [256, 1280, 1280], [154, 640, 768]],
    convolutions: &[[1, 128, 128, 64], [1, 320, 320, 32], [1, 640, 640, 16], [1, 1280, 1280, 8], [1, 320, 320, 64]],
    attentions: &[[1, 8, 1024, 1024, 40], [1, 8, 256, 256, 80], [1, 8, 1024, 77, 40], [1, 1, 1024, 1024, 512]],
};

/// The workloads for a device; `None` is the CPU executor.
pub fn workloads(device: Option<&Caps>) -> Vec<Workload> {
    let shapes = if device.is_none_or(Caps::on_processor) { PROCESSOR } else { GPU };
    let product = |[m, n, k]: &Product| {
        let inputs = [Ty::act([*m, *k]), Ty::new(Kind::Weight, [*k, *n]), Ty::new(Kind::F32, [*n])];
        Case::new(MatMul::new(true), inputs)
    };
    let convolution = |[b, c, o, size]: &Convolution| {
        let w = Ty::new(Kind::Weight, [3, 3, *c, *o]);
        Case::new(Conv2d::same(3), [Ty::act([*b, *size, *size, *c]), w, Ty::new(Kind::F32, [*o])])
    };
    let attention = |[b, heads, queries, keys, d]: &Heads| {
        let ty = |tokens: usize| Ty::act([*b, tokens, heads * d]);
        Case::new(Attention { heads: *heads, causal: false }, [ty(*queries), ty(*keys), ty(*keys)])
    };
    let products = shapes.products.iter().map(product);
    let cases = products.chain(shapes.convolutions.iter().map(convolution));
    cases.chain(shapes.attentions.iter().map(attention)).map(Workload::of).collect()
}
