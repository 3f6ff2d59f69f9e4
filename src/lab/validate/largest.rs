//! What `--full` adds to the cases of an op: the largest shapes that real models give it, and one that the device at hand
//! cannot bind.
//!
//! SD 1.5 at 512 x 512 has latents of 64 x 64 and a U-Net of 320 to 1280 channels, SDXL at 1024 x 1024 latents of 128 x
//! 128; the U-Nets run on batches of 2. Both VAEs have 128 to 512 channels.

use crate::caps::Caps;
use crate::ops::activation::{Act, Activation};
use crate::ops::add::Add;
use crate::ops::add_row::AddRow;
use crate::ops::add_scaled::AddScaled;
use crate::ops::attention::Attention;
use crate::ops::case::Fill;
use crate::ops::concat::Concat;
use crate::ops::embedding::Embedding;
use crate::ops::geglu::Geglu;
use crate::ops::norm::group_norm_stats::GroupNormStats;
use crate::ops::norm::layer_norm::LayerNorm;
use crate::ops::product::conv2d::Conv2d;
use crate::ops::product::epilogue::Epilogue;
use crate::ops::product::matmul::MatMul;
use crate::ops::product::matmul_geglu::MatMulGeglu;
use crate::ops::scale::Scale;
use crate::ops::upsample::Upsample;
use crate::ops::{Case, Kind, Ty};
use crate::tensor::Shape;

/// Two latents of SDXL, and a picture of SDXL inside the VAE.
const UNET: [usize; 4] = [2, 128, 128, 320];
const VAE: [usize; 4] = [1, 1024, 1024, 128];

/// The cases of this op, none for an op that has no larger ones than it has anyway.
pub fn cases(op: &str, caps: &Caps) -> Vec<Case> {
    match op {
        "matmul" => matmul(caps),
        "matmul_geglu" => vec![gated([2, 4096, 320]), gated([2, 4096, 640])],
        "conv2d" => conv2d(),
        "attention" => attention(),
        "add" => vec![Case::new(Add, [Ty::act(UNET), Ty::act(UNET)]), Case::new(Add, [Ty::act(VAE), Ty::act(VAE)])],
        "add_row" => vec![Case::new(AddRow, [Ty::act(UNET), Ty::act([2, 320])])],
        "add_scaled" => {
            vec![Case::new(AddScaled, [Ty::act(UNET), Ty::act(UNET), Ty::new(Kind::F32, [UNET[0], 1])])]
        }
        "activation" => vec![Case::new(Activation(Act::Silu), [Ty::act(VAE)])],
        "group_norm_stats" => {
            [UNET, VAE].map(|x| Case::new(GroupNormStats { groups: 32, row: false }, [Ty::act(x)])).into()
        }
        "layer_norm" => {
            let vector = || Ty::new(Kind::F32, [640]);
            vec![Case::new(LayerNorm { eps: 1e-5 }, [Ty::act([2, 4096, 640]), vector(), vector()])]
        }
        "geglu" => [[2, 4096, 5120], [2, 1024, 10_240]].map(|x| Case::new(Geglu, [Ty::act(x)])).into(),
        "embedding" => {
            let [ids, table, positions] = [vec![2, 77], vec![49_408, 1280], vec![77, 1280]].map(Shape::new);
            let types = [Ty::new(Kind::U32, ids), Ty::new(Kind::Weight, table), Ty::new(Kind::Weight, positions)];
            vec![Case::new(Embedding { positions: true }, types).fill(0, Fill::Below(49_408))]
        }
        "upsample" => vec![
            Case::new(Upsample { height: 128, width: 128 }, [Ty::act([2, 64, 64, 640])]),
            Case::new(Upsample { height: 1024, width: 1024 }, [Ty::act([1, 512, 512, 256])]),
        ],
        "concat" => vec![Case::new(Concat, [Ty::act([2, 128, 128, 640]), Ty::act(UNET)])],
        "scale" => vec![too_large(caps)],
        _ => Vec::new(),
    }
}

/// A transformer block's gated feed-forward on tokens of this shape.
fn gated(x: [usize; 3]) -> Case {
    let n = 8 * x[2];
    Case::new(MatMulGeglu, [Ty::act(x), Ty::new(Kind::Weight, [x[2], n]), Ty::new(Kind::F32, [n])])
}

/// The end of a gated feed-forward, and a table of weights that the device cannot bind.
fn matmul(caps: &Caps) -> Vec<Case> {
    let case = |x: [usize; 3], n| {
        let types = [Ty::act(x), Ty::new(Kind::Weight, [x[2], n]), Ty::new(Kind::F32, [n])];
        Case::new(MatMul { epilogue: Epilogue::bias(true) }, types)
    };
    let unbound = case([1, 1, 4096], beyond(caps, 4096));
    vec![case([2, 1024, 5120], 1280), unbound]
}

fn conv2d() -> Vec<Case> {
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

fn attention() -> Vec<Case> {
    let case = |heads, channels: usize, queries: &[usize], keys: &[usize]| {
        let ty = |tokens: &[usize]| Ty::act(Shape::new([tokens, &[channels]].concat()));
        Case::new(Attention { heads, causal: false }, [ty(queries), ty(keys), ty(keys)])
    };
    vec![
        case(8, 320, &[2, 64, 64], &[2, 64, 64]),
        case(10, 640, &[2, 64, 64], &[2, 64, 64]),
        case(10, 640, &[2, 64, 64], &[2, 77]),
        case(1, 512, &[1, 64, 64], &[1, 64, 64]),
        case(1, 512, &[1, 128, 128], &[1, 128, 128]),
    ]
}

/// Activations that are just too many for one binding even in f16. Nothing of this size is ever made.
fn too_large(caps: &Caps) -> Case {
    Case::new(Scale { factor: 2.0 }, [Ty::act([beyond(caps, 1024), 1024])])
}

/// A count of rows of `columns` elements that is just beyond what the device binds, even in f16.
fn beyond(caps: &Caps, columns: usize) -> usize {
    let elements = caps.max_binding.min(caps.max_buffer) / 2;
    elements as usize / columns + 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::TABLE;

    #[test]
    fn every_case_belongs_to_its_op_and_obeys_its_shape_rule() {
        for (op, _) in TABLE {
            for case in cases(op, &Caps::webgpu_default()) {
                assert_eq!(case.op.name(), *op);
                case.op.output(&case.types()).unwrap();
            }
        }
    }
}
