//! Attention on the CPU: every head's keys and values are put into panels once, then blocks of queries pass over them.
//! Scores exist for a block at a time only, with a running softmax (see
//! [`Attention`](crate::ops::attention::Attention)).

use std::cell::RefCell;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::panel::{PANEL, ROWS, WHOLE, multiply};
use super::{enlarge, exp2, load, scaled, store};

/// Queries and keys whose scores are held at a time.
const BLOCK_QUERIES: usize = 10 * ROWS;
pub(crate) const BLOCK_KEYS: usize = 512;

/// From one query's scores to the next one's: a power of two would put all of them into the same lines of the cache.
const SCORES_STRIDE: usize = BLOCK_KEYS + WHOLE;

thread_local! {
    /// The panels of the last attention: getting new memory takes as long as filling it.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The heads of all batch entries, and where they stand: channel c of head h of a token is `h * d + c` behind the
/// token's first.
pub(crate) struct Heads<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    /// From one token to the next.
    pub row: usize,
    /// Tokens of a batch entry.
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    pub d: usize,
    /// Token t sees the tokens 0..=t.
    pub causal: bool,
}

impl Heads<'_> {
    /// Writes all of y, `[batch, queries, heads * d]`.
    pub(crate) fn attend(&self, y: &mut [f32]) {
        let &Self { queries, heads, d, .. } = self;
        let (width, each) = (heads * d, self.panels_len());
        let pairs = y.len() / (queries * d);
        let mut panels = SCRATCH.take();
        enlarge(&mut panels, pairs * each);
        let panels_of_pairs = panels[..pairs * each].par_chunks_mut(each).enumerate();
        panels_of_pairs.for_each(|(pair, panels)| self.fill_panels(pair, panels));
        // Small blocks where there are few queries, so that every thread has some.
        let share = y.len() / width / (4 * rayon::current_num_threads());
        let block = share.clamp(ROWS, BLOCK_QUERIES) / ROWS * ROWS;
        y.par_chunks_mut(queries * width).enumerate().for_each(|(batch, y)| {
            let blocks = y.par_chunks_mut(block * width).enumerate();
            blocks.for_each_init(Vec::new, |buffer, (i, y)| {
                for (head, panels) in panels[batch * heads * each..].chunks(each).take(heads).enumerate() {
                    Arch::new().dispatch(Block { of: self, panels, batch, head, first: i * block, y, buffer });
                }
            });
        });
        SCRATCH.set(panels);
    }

    /// Elements of a head's panels: k, transposed, `[d, keys]` and v `[keys, d]`, their columns made up to whole
    /// vectors.
    fn panels_len(&self) -> usize {
        self.d * self.keys.next_multiple_of(WHOLE) + self.keys * self.d.next_multiple_of(WHOLE)
    }

    /// Puts a head's keys and values into panels. What is beyond the last column stays zero, or some other head's
    /// numbers: a column of a product depends on its own column alone.
    fn fill_panels(&self, pair: usize, panels: &mut [f32]) {
        let &Self { d, keys, row: stride, .. } = self;
        let at = pair / self.heads * keys * stride + pair % self.heads * d;
        let (k_panels, v_panels) = panels.split_at_mut(d * keys.next_multiple_of(WHOLE));
        for (panel, columns) in k_panels.chunks_mut(d * PANEL).enumerate() {
            let (first, width) = (panel * PANEL, columns.len() / d);
            for (channel, row) in columns.chunks_mut(width).enumerate() {
                let tokens = (first..keys).map(|token| self.k[at + token * stride + channel]);
                row.iter_mut().zip(tokens).for_each(|(to, k)| *to = k);
            }
        }
        for (panel, columns) in v_panels.chunks_mut(keys * PANEL).enumerate() {
            let (first, width) = (panel * PANEL, columns.len() / keys);
            for (token, row) in columns.chunks_mut(width).enumerate() {
                let v = &self.v[at + token * stride..][first..d.min(first + width)];
                row[..v.len()].copy_from_slice(v);
            }
        }
    }
}

/// One head of some queries.
struct Block<'a> {
    of: &'a Heads<'a>,
    /// The head's.
    panels: &'a [f32],
    batch: usize,
    head: usize,
    /// The first query.
    first: usize,
    /// All channels of these queries.
    y: &'a mut [f32],
    /// For the scores and the sums over the values.
    buffer: &'a mut Vec<f32>,
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { of, panels, batch, head, first, y, buffer } = self;
        let &Heads { row: stride, keys, d, .. } = of;
        let (y_row, columns) = (of.heads * d, d.next_multiple_of(WHOLE));
        let rows = y.len() / y_row;
        let (k_panels, v_panels) = panels.split_at(d * keys.next_multiple_of(WHOLE));
        let q = &of.q[(batch * of.queries + first) * stride + head * d..];
        enlarge(buffer, rows * (SCORES_STRIDE + columns));
        let (scores, sums) = buffer.split_at_mut(rows * SCORES_STRIDE);
        let sums = &mut sums[..rows * columns];
        let scale = (d as f32).sqrt().recip() * std::f32::consts::LOG2_E;
        let mut softmax = [Softmax::EMPTY; BLOCK_QUERIES];
        let end = if of.causal { keys.min(first + rows) } else { keys };
        for key in (0..end).step_by(BLOCK_KEYS) {
            let n = BLOCK_KEYS.min(end - key);
            for at in (0..n).step_by(PANEL) {
                let width = PANEL.min(keys.next_multiple_of(WHOLE) - key - at);
                let k = (&k_panels[(key + at) * d..], [d, width]);
                multiply(simd, (q, stride), k, (&mut scores[at..], SCORES_STRIDE), false);
            }
            for (row, (scores, softmax)) in scores.chunks_mut(SCORES_STRIDE).zip(&mut softmax).enumerate() {
                let seen = if of.causal { (first + row + 1).saturating_sub(key).min(n) } else { n };
                let scores = &mut scores[..n.next_multiple_of(WHOLE)];
                scores[seen..].fill(f32::NEG_INFINITY);
                let shrink = softmax.take(simd, scores, scale);
                if key > 0 && shrink < 1.0 {
                    shrink_row(simd, sums, [rows, row], shrink);
                }
            }
            for (panel, sums) in sums.chunks_mut(rows * PANEL).enumerate() {
                let width = sums.len() / rows;
                let v = (&v_panels[panel * PANEL * keys + key * width..], [n, width]);
                multiply(simd, (&*scores, SCORES_STRIDE), v, (sums, width), key > 0);
            }
        }
        for (panel, sums) in sums.chunks_mut(rows * PANEL).enumerate() {
            let (width, from) = (sums.len() / rows, panel * PANEL);
            for (row, (sums, softmax)) in sums.chunks_mut(width).zip(&softmax).enumerate() {
                let y = &mut y[row * y_row + head * d..][from..d.min(from + width)];
                y.iter_mut().zip(sums).for_each(|(y, sum)| *y = *sum / softmax.total);
            }
        }
    }
}

/// Scales a row of all panels of the sums down.
#[inline(always)]
fn shrink_row<S: Simd>(simd: S, sums: &mut [f32], [rows, row]: [usize; 2], shrink: f32) {
    for panel in sums.chunks_mut(rows * PANEL) {
        let width = panel.len() / rows;
        for sum in panel[row * width..][..width].chunks_mut(S::F32_LANES) {
            let smaller = scaled(simd, shrink, load::<S>(sum));
            store::<S>(sum, smaller);
        }
    }
}

/// What is known of a query's scores so far, in powers of two: a score s weighs `2^(s * scale)`.
#[derive(Debug, Clone, Copy)]
struct Softmax {
    top: f32,
    /// The sum of the weights relative to that of `top`.
    total: f32,
}

impl Softmax {
    /// Of no score.
    const EMPTY: Self = Self { top: f32::NEG_INFINITY, total: 0.0 };

    /// Turns scores, as many as fill whole vectors, into their weights relative to the largest so far. Returned is the
    /// factor by which earlier sums shrink.
    #[inline(always)]
    fn take<S: Simd>(&mut self, simd: S, scores: &mut [f32], scale: f32) -> f32 {
        let mut tops = simd.splat_f32s(f32::NEG_INFINITY);
        for scores in scores.chunks(S::F32_LANES) {
            tops = simd.max_f32s(tops, load::<S>(scores));
        }
        let top = simd.reduce_max_f32s(tops);
        let top = if top > self.top { top } else { self.top };
        // Infinite less infinite is not a number.
        let shrink = if top == self.top { 1.0 } else { (scale * (self.top - top)).exp2() };
        let (tops, mut sums) = (simd.splat_f32s(top), simd.splat_f32s(0.0));
        for scores in scores.chunks_mut(S::F32_LANES) {
            let weights = exp2(simd, scaled(simd, scale, simd.sub_f32s(load::<S>(scores), tops)));
            sums = simd.add_f32s(sums, weights);
            store::<S>(scores, weights);
        }
        *self = Self { top, total: self.total * shrink + simd.reduce_sum_f32s(sums) };
        shrink
    }
}
