//! `y[b, .., c] = (x[b, .., c] - mean) / sqrt(var + eps) * gamma[c] + beta[c]`, then SiLU if asked: x `[B, .., C]`,
//! stats of [`GroupNormStats`], gamma and beta `[C]`. Mean and biased variance are those of the group's channels in
//! all pixels of the batch entry. Before every convolution of a residual block (PyTorch `GroupNorm`; Wu and He 2018).
//! An optional row `[B, C]` is added to x first, as [`GroupNormStats`] does.
//!
//! [`GroupNormStats`]: super::group_norm_stats::GroupNormStats

use rayon::prelude::*;

use super::group_norm_stats::{expect_vectors, pixels, stats_shape};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::ops::activation::{Act, Activation};
use crate::ops::host::vectorized;
use crate::ops::joined::Joined;
use crate::ops::{Case, FLAT_THREADS, Fill, Inputs, Kind, Launch, Op, Ty, expect, expect_shape, large};
use crate::tensor::{Shape, Tensor, pad4};

/// Group normalisation by given statistics, perhaps with an activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNorm {
    /// Groups of channels, which share a mean and a variance.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// A last input, `[B, C]`, is added to x first.
    pub row: bool,
    /// SiLU follows.
    pub silu: bool,
}

/// Groups that fit a workgroup's memory with mean and deviation each.
const MOST_GROUPS: usize = 2048;

impl GroupNorm {
    fn act(&self) -> Act {
        if self.silu { Act::Silu } else { Act::None }
    }

    /// Mean and reciprocal deviation of a group, from its chunks' (mean, M2, count, 0).
    fn norm(&self, chunks: &[f32]) -> [f64; 2] {
        let parts = || chunks.chunks_exact(4).map(|c| [c[0], c[1], c[2]].map(f64::from));
        let count: f64 = parts().map(|[_, _, n]| n).sum();
        let mean = parts().map(|[mean, _, n]| mean * n).sum::<f64>() / count;
        let m2: f64 = parts().map(|[part, m2, n]| m2 + n * (part - mean).powi(2)).sum();
        [mean, (m2 / count + f64::from(self.eps)).sqrt().recip()]
    }

    fn line<'a>(&self, inputs: &[&'a Tensor], batch: usize, channels: usize) -> Line<'a> {
        let [stats, gamma, beta] = [1, 2, 3].map(|i| inputs[i].data.as_slice());
        let of_batch = stats.len() / inputs[1].shape.batch();
        let chunks = stats[batch * of_batch..][..of_batch].chunks(of_batch / self.groups);
        let norms: Vec<[f64; 2]> = chunks.map(|chunks| self.norm(chunks)).collect();
        let row = self.row.then(|| &inputs[4].data[batch * channels..][..channels]);
        let norm = |c: usize| norms[c / (channels / self.groups)];
        let mean = |c| norm(c)[0] - row.map_or(0.0, |row| f64::from(row[c]));
        Line {
            mean: (0..channels).map(|c| mean(c) as f32).collect(),
            rest: (0..channels).map(|c| (mean(c) - f64::from(mean(c) as f32)) as f32).collect(),
            factor: (0..channels).map(|c| (norm(c)[1] * f64::from(gamma[c])) as f32).collect(),
            beta,
        }
    }
}

/// What the norm does with each channel of a batch entry: `y = ((x - mean) - rest) * factor + beta`.
struct Line<'a> {
    /// The mean less the row's value in f32, and what that rounded away: a large mean costs no precision.
    mean: Vec<f32>,
    rest: Vec<f32>,
    factor: Vec<f32>,
    beta: &'a [f32],
}

impl Line<'_> {
    fn apply(&self, x: &[f32], y: &mut [f32]) {
        let Self { mean, rest, factor, beta } = self;
        let n = y.len();
        let (x, mean, rest, factor, beta) = (&x[..n], &mean[..n], &rest[..n], &factor[..n], &beta[..n]);
        vectorized(
            #[inline(always)]
            || {
                for c in 0..n {
                    y[c] = ((x[c] - mean[c]) - rest[c]) * factor[c] + beta[c];
                }
            },
        );
    }
}

impl Op for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        let [stats, gamma, beta] = ["stats", "gamma", "beta"].map(|what| (what, Kind::F32));
        let wanted = [("x", Kind::Act), stats, gamma, beta, ("row", Kind::Act)];
        expect("group_norm", inputs, &wanted[..4 + usize::from(self.row)])?;
        expect_shape(inputs, 1, "group_norm: stats", &stats_shape(&inputs[0].shape, self.groups)?)?;
        expect_vectors("group_norm", inputs, 2)?;
        Ok(inputs[0].clone())
    }

    fn execute(&self, inputs: &[&Tensor], y: &mut Tensor) {
        let (channels, pixels) = (y.shape.channels(), pixels(&y.shape));
        let lines: Vec<Line> = (0..y.shape.batch()).map(|b| self.line(inputs, b, channels)).collect();
        let rows = (1usize << 14).div_ceil(channels);
        let blocks = y.data.par_chunks_mut(rows * channels).zip(inputs[0].data.par_chunks(rows * channels));
        blocks.enumerate().for_each(|(block, (y, x))| {
            let pairs = y.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
            pairs.enumerate().for_each(|(i, (y, x))| {
                lines[(block * rows + i) / pixels].apply(x, y);
                self.act().apply_all(y);
            });
        });
    }

    fn launch(&self, inputs: Inputs, output: &Ty, _caps: &Caps) -> Result<Launch> {
        let shape = &output.shape;
        if self.groups > MOST_GROUPS {
            return Err(Error::shape(format!("{} groups; the kernel takes at most {MOST_GROUPS}", self.groups)));
        }
        let chunks = inputs[1].shape.dims()[2];
        let vectors = pixels(shape) * pad4(shape.channels()) / 4;
        // The more chunks a workgroup has to put together first, the more it should then write.
        let slab = FLAT_THREADS * chunks.clamp(4, 32);
        Ok(Launch::new("group_norm", 4)
            .optional(self.row)
            .constant("HAS_ROW", self.row)
            .constant("GROUPS", self.groups as u32)
            .constant("ACTIVATION", self.act().code())
            .param("vectors", vectors)
            .param("channels", shape.channels())
            .param("chunks", chunks)
            .param("slab", slab)
            .param_f32("eps", self.eps)
            .joinable()
            .workgroups([vectors.div_ceil(slab) as u32, shape.batch() as u32, 1]))
    }

    /// The activation counts as one operation.
    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        (4 + u64::from(self.silu)) * output.shape.len() as u64
    }

    fn absorb(&self, next: &dyn Op, _operand: usize) -> Option<Box<dyn Op>> {
        let Activation(act) = next.downcast_ref()?;
        (*act == Act::Silu && !self.silu).then(|| Box::new(Self { silu: true, ..*self }) as Box<dyn Op>)
    }

    fn absorb_input(&self, previous: &dyn Op, operand: usize) -> Option<Box<dyn Op>> {
        Joined::with(*self, previous, operand)
    }
}

/// Plausible statistics: means around 0, deviations around 1, each chunk of 64 elements.
fn some_stats(i: usize) -> f32 {
    let wave = (i as f32 * 0.7).sin();
    match i % 4 {
        0 => wave,
        1 => 64.0 * (1.2 + wave),
        2 => 64.0,
        _ => 0.0,
    }
}

/// The same of values around 0 whose variance is about eps, which counts then.
fn faint_stats(i: usize) -> f32 {
    let factor = [4e-3, 1.6e-5, 1.0, 1.0][i % 4];
    factor * some_stats(i)
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |groups, silu, shape: &[usize]| {
        let shape = Shape::new(shape);
        let vector = Ty::new(Kind::F32, [shape.channels()]);
        let stats = [shape.batch(), groups, super::group_norm_stats::chunks(pixels(&shape)).0, 4];
        let types = [Ty::act(shape), Ty::new(Kind::F32, stats), vector.clone(), vector];
        Case::new(GroupNorm { groups, eps: 1e-5, row: false, silu }, types).fill(1, Fill::With(some_stats))
    };
    let with_row = |groups, shape: &[usize]| {
        let plain = case(groups, true, shape);
        let x = Shape::new(shape);
        let types = plain.types().into_iter().chain([Ty::act([x.batch(), x.channels()])]);
        Case::new(GroupNorm { groups, eps: 1e-5, row: true, silu: true }, types).fill(1, Fill::With(some_stats))
    };
    // x in two parts, of which a group may have some of both.
    let joined = |groups, [batch, pixels, a, b]: [usize; 4]| {
        let whole = case(groups, true, &[batch, pixels, a + b]).types();
        let types = [Ty::act([batch, pixels, a])].into_iter().chain(whole[1..].to_vec());
        let types = types.chain([Ty::act([batch, pixels, b])]);
        Case::new(Joined(GroupNorm { groups, eps: 1e-5, row: false, silu: true }), types)
            .fill(1, Fill::With(some_stats))
    };
    vec![
        case(1, false, &[1, 1]),
        case(4, true, &[2, 3, 5, 8]),
        case(32, false, &[1, 7, 9, 32]),
        case(3, true, &[2, 17, 9]),
        case(2, false, &[1, 19, 14, 6]),
        case(300, false, &[1, 3, 300]),
        case(32, true, &[2, 16, 16, 320]),
        case(2, true, &[1, 100, 100, 8]),
        case(3, false, &[2, 17, 9]).fill(0, Fill::With(large)),
        with_row(3, &[2, 17, 9]),
        joined(3, [2, 35, 16, 8]),
        joined(32, [1, 300, 640, 320]),
        with_row(32, &[2, 16, 16, 64]),
        case(3, true, &[2, 17, 9]).fill(0, Fill::Normal(4e-3)).fill(1, Fill::With(faint_stats)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::group_norm_stats::GroupNormStats;
    use super::*;

    /// The definition in f64, without chunks.
    fn plain(x: &Tensor, groups: usize, eps: f64) -> Vec<f64> {
        let (c, pixels) = (x.shape.channels(), pixels(&x.shape));
        let size = c / groups;
        let group_of = |i: usize| (i / (pixels * c), i % c / size);
        let moment = |at: (usize, usize), f: &dyn Fn(f64) -> f64| {
            let members = x.data.iter().enumerate().filter(|(i, _)| group_of(*i) == at);
            members.map(|(_, v)| f(f64::from(*v))).sum::<f64>() / (pixels * size) as f64
        };
        let mut norms = std::collections::HashMap::new();
        let mut norm = |at| {
            *norms.entry(at).or_insert_with(|| {
                let mean = moment(at, &|v| v);
                (mean, moment(at, &|v| (v - mean).powi(2)))
            })
        };
        let normal = |(i, v): (usize, &f32)| {
            let (mean, variance) = norm(group_of(i));
            (f64::from(*v) - mean) / (variance + eps).sqrt()
        };
        x.data.iter().enumerate().map(normal).collect()
    }

    #[test]
    fn both_passes_together_are_the_group_norm_of_the_definition() {
        let shape = Shape::from([2, 23, 14, 6]);
        let x = Tensor::new(shape.clone(), (0..shape.len()).map(|i| 9.0 + (i as f32 * 0.37).sin()).collect());
        let stats = GroupNormStats { groups: 2, row: false };
        let stats_shape = stats.output(&[Ty::act(shape.clone())]).unwrap().shape;
        assert_eq!(stats_shape, Shape::from([2, 2, 2, 4]));
        let stats = stats.reference(&[&x], &stats_shape);
        let [gamma, beta] = [1.0, 0.0].map(|v| Tensor::new([6], vec![v; 6]));
        let norm = GroupNorm { groups: 2, eps: 1e-5, row: false, silu: false };
        let y = norm.reference(&[&x, &stats, &gamma, &beta], &shape);
        for (y, wanted) in y.data.iter().zip(plain(&x, 2, 1e-5)) {
            assert!((f64::from(*y) - wanted).abs() < 3e-6, "{y} should be {wanted}");
        }
    }

    #[test]
    fn silu_alone_is_absorbed_and_only_once() {
        let norm = GroupNorm { groups: 2, eps: 1e-5, row: false, silu: false };
        let fused = norm.absorb(&Activation(Act::Silu), 0).unwrap();
        assert!(fused.absorb(&Activation(Act::Silu), 0).is_none());
        assert!(norm.absorb(&Activation(Act::Gelu), 0).is_none());
    }

    #[test]
    fn statistics_of_another_picture_are_an_error() {
        let vector = Ty::new(Kind::F32, [8]);
        let inputs = [Ty::act([1, 9, 8]), Ty::new(Kind::F32, [1, 2, 3, 4]), vector.clone(), vector];
        let error = GroupNorm { groups: 2, eps: 1e-5, row: false, silu: true }.output(&inputs).unwrap_err().to_string();
        assert!(error.contains("stats should be [1, 2, 1, 4], found [1, 2, 3, 4]"), "{error}");
    }
}
