//! A group norm in one pass over the device: [`GroupNormStats`] and [`GroupNorm`] as one node, for pictures of which a
//! workgroup can take a whole group without keeping the device waiting. x `[B, .., C]`, gamma and beta `[C]`, perhaps
//! a row `[B, C]` that is added to x first (PyTorch `GroupNorm`; Wu and He 2018). Most norms of a UNet; the VAE's
//! large pictures take the two passes.

use super::group_norm::GroupNorm;
use super::group_norm_stats::{GroupNormStats, chunks, expect_vectors, pixels, stats_shape};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::ops::activation::{Act, Activation};
use crate::ops::joined::Joined;
use crate::ops::{Case, Fill, Inputs, Kind, Launch, Op, Ty, expect, large};
use crate::tensor::{Shape, Tensor};

/// Group normalisation in one kernel, where a group's channels are few.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNormWhole {
    /// Groups of channels, which share a mean and a variance.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// A last input, `[B, C]`, is added to x first.
    pub row: bool,
    /// SiLU follows.
    pub silu: bool,
}

const THREADS: usize = 256;
const MOST_SPAN_GROUPS: usize = 4;
/// Elements of a workgroup: those of SD 1.5's largest latents, 64 x 64 with 320 channels in 32 groups, and half as
/// many again.
const MOST_ELEMENTS: usize = 3 << 15;

/// As few groups as fill whole vectors of four channels.
fn span_groups(group_channels: usize) -> usize {
    match group_channels % 4 {
        0 => 1,
        2 => 2,
        _ => MOST_SPAN_GROUPS,
    }
}

impl GroupNormWhole {
    /// Whether an x of this shape is small enough, and its groups fill whole vectors.
    pub fn fits(x: &Shape, groups: usize) -> bool {
        if groups == 0 || x.rank() < 2 || !x.channels().is_multiple_of(groups) {
            return false;
        }
        let size = x.channels() / groups;
        let span = span_groups(size);
        groups.is_multiple_of(span) && span * size <= 4 * THREADS && pixels(x) * span * size <= MOST_ELEMENTS
    }

    /// Of the first pass's output.
    fn stats_shape(&self, x: &Shape) -> Shape {
        [x.batch(), self.groups, chunks(pixels(x)).0, 4].into()
    }

    fn passes(&self) -> (GroupNormStats, GroupNorm) {
        let Self { groups, eps, row, silu } = *self;
        (GroupNormStats { groups, row }, GroupNorm { groups, eps, row, silu })
    }
}

impl Op for GroupNormWhole {
    fn name(&self) -> &'static str {
        "group_norm_whole"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        let wanted = [("x", Kind::Act), ("gamma", Kind::F32), ("beta", Kind::F32), ("row", Kind::Act)];
        expect("group_norm_whole", inputs, &wanted[..3 + usize::from(self.row)])?;
        let x = &inputs[0].shape;
        stats_shape(x, self.groups)?;
        expect_vectors("group_norm_whole", inputs, 1)?;
        if !Self::fits(x, self.groups) {
            let what = format!("{x} in {} groups is too large for a group norm in one pass", self.groups);
            return Err(Error::shape(what));
        }
        Ok(inputs[0].clone())
    }

    fn execute(&self, inputs: &[&Tensor], y: &mut Tensor) {
        let (stats, norm) = self.passes();
        let row = &inputs[3..];
        let moments = stats.reference(&[&inputs[..1], row].concat(), &self.stats_shape(&y.shape));
        norm.execute(&[&[inputs[0], &moments, inputs[1], inputs[2]], row].concat(), y);
    }

    fn launch(&self, _inputs: Inputs, output: &Ty, _caps: &Caps) -> Result<Launch> {
        let shape = &output.shape;
        let size = shape.channels() / self.groups;
        let span = span_groups(size);
        let act = if self.silu { Act::Silu } else { Act::None };
        Ok(Launch::new("group_norm_whole", 3)
            .optional(self.row)
            .constant("HAS_ROW", self.row)
            .constant("ACTIVATION", act.code())
            .param("pixels", pixels(shape))
            .param("vectors", shape.channels() / 4)
            .param("width", span * size / 4)
            .param("size", size)
            .param_f32("eps", self.eps)
            .joinable()
            .workgroups([(self.groups / span) as u32, shape.batch() as u32, 1]))
    }

    /// Those of both passes.
    fn flops(&self, inputs: Inputs, output: &Ty) -> u64 {
        let (stats, norm) = self.passes();
        stats.flops(inputs, output) + norm.flops(inputs, output)
    }

    fn absorb(&self, next: &dyn Op, _operand: usize) -> Option<Box<dyn Op>> {
        let Activation(act) = next.downcast_ref()?;
        (*act == Act::Silu && !self.silu).then(|| Box::new(Self { silu: true, ..*self }) as Box<dyn Op>)
    }

    fn absorb_input(&self, previous: &dyn Op, operand: usize) -> Option<Box<dyn Op>> {
        Joined::with(*self, previous, operand)
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let case = |groups, row: bool, silu, shape: &[usize]| {
        let x = Shape::new(shape);
        let vector = Ty::new(Kind::F32, [x.channels()]);
        let offset = row.then(|| Ty::act([x.batch(), x.channels()]));
        let types = [Ty::act(x), vector.clone(), vector].into_iter().chain(offset);
        Case::new(GroupNormWhole { groups, eps: 1e-5, row, silu }, types.collect::<Vec<_>>())
    };
    // x in two parts, of which a group may have some of both.
    let joined = |groups, row: bool, [batch, pixels, a, b]: [usize; 4]| {
        let vector = Ty::new(Kind::F32, [a + b]);
        let offset = row.then(|| Ty::act([batch, a + b]));
        let first = [Ty::act([batch, pixels, a]), vector.clone(), vector].into_iter().chain(offset);
        let op = Joined(GroupNormWhole { groups, eps: 1e-5, row, silu: true });
        Case::new(op, first.chain([Ty::act([batch, pixels, b])]))
    };
    vec![
        joined(1, false, [1, 1, 8, 8]),
        joined(3, true, [2, 57, 16, 8]),
        joined(32, false, [1, 64, 1280, 640]),
        case(1, false, false, &[1, 1, 4]),
        case(4, false, true, &[2, 3, 5, 8]),
        case(8, false, false, &[1, 7, 9, 8]),
        case(2, true, false, &[3, 50, 12]),
        case(1, false, true, &[1, 3, 1024]),
        case(32, true, true, &[2, 16, 16, 320]),
        case(32, true, true, &[1, 9, 11, 960]),
        // As many pixels as rows of threads, one less and one more; and the largest of Stable Diffusion 1.5.
        case(2, false, false, &[1, 51, 40]),
        case(2, false, false, &[1, 50, 40]),
        case(2, false, false, &[1, 52, 40]),
        case(32, false, true, &[1, 64, 64, 320]),
        // A mean that dwarfs the deviation (the reference keeps it in f32), and values near f16's end.
        case(2, false, false, &[1, 9, 17, 8]).fill(0, Fill::With(|i| 100.0 + (i as f32 * 0.37).sin())),
        case(2, false, false, &[1, 9, 17, 8]).fill(0, Fill::With(large)),
        // A variance of about eps, which counts here.
        case(2, false, false, &[1, 9, 17, 8]).fill(0, Fill::Normal(4e-3)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_vectors() {
        assert_eq!([10, 20, 30, 40, 5, 7].map(span_groups), [2, 1, 2, 1, 4, 4]);
        let fits = |channels, groups, side| GroupNormWhole::fits(&[2, side, side, channels].into(), groups);
        assert!(fits(320, 32, 64) && fits(2560, 32, 8) && !fits(320, 32, 128) && !fits(6, 3, 2) && !fits(8, 0, 2));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let vector = Ty::new(Kind::F32, [128]);
        let inputs = [Ty::act([1, 512, 512, 128]), vector.clone(), vector];
        let norm = GroupNormWhole { groups: 32, eps: 1e-6, row: false, silu: true };
        assert!(norm.output(&inputs).unwrap_err().to_string().contains("[1, 512, 512, 128] in 32 groups is too large"));
    }
}
