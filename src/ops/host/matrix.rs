//! Matrices of parameters in the order in which products read them: packed once, when a network is loaded, in the type
//! that their file has them in, and widened to f32 a block at a time, in the cache.

use std::cell::RefCell;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::enlarge;
use super::gelu::Gate;
use super::panel::{PANEL, WHOLE, multiply};
use crate::error::Result;
use crate::ops::product::Threads;
use crate::pack::Pack;
use crate::tensor::{Elements, RawTensor, Shape, Tensor};

/// Rows of w that are in f32 at a time: a block that stays in the second-level cache.
const DEPTH: usize = 256;

/// Rows of x that one thread multiplies at a time: so many that widening costs little beside it.
const ROWS: usize = 128;

/// Rows of x for a task, at least, where there are several for the same columns.
const TASK_ROWS: usize = 48;

/// `[.., C, N]` seen as `[K, N]`: one panel of columns after the other, each `[K, width]`; columns past the matrix
/// hold zeros.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    shape: Shape,
    elements: Elements,
}

thread_local! {
    /// The last product before it was put into rows: getting new memory takes as long as filling it.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Matrix {
    /// A parameter as its file has it, in a shape that `pack` makes a matrix of.
    ///
    /// # Errors
    /// If a value is not finite, or the file holds integers.
    pub fn new(pack: Pack, raw: &RawTensor, file: &Shape) -> Result<Self> {
        Ok(Self { shape: pack.packed(file), elements: pack.to_panels(raw, file, PANEL, WHOLE)? })
    }

    /// A matrix that is not a parameter, `[.., C, N]`.
    pub fn of(w: &Tensor) -> Self {
        let (k, n) = (w.shape.rows(), w.shape.channels());
        let mut panels = vec![0.0; k * n.next_multiple_of(WHOLE)];
        panels.par_chunks_mut((k * PANEL).max(1)).enumerate().for_each(|(panel, to)| {
            let (first, width) = (panel * PANEL, to.len() / k);
            for (to, row) in to.chunks_mut(width).zip(w.data.chunks(n)) {
                let columns = &row[first..n.min(first + width)];
                to[..columns.len()].copy_from_slice(columns);
            }
        });
        Self { shape: w.shape.clone(), elements: Elements::F32(panels) }
    }

    /// Of the matrix: terms, then columns.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes of memory that a matrix of this shape takes, with elements of this size.
    pub fn bytes(shape: &Shape, element: usize) -> usize {
        shape.rows() * shape.channels().next_multiple_of(WHOLE) * element
    }

    /// Where the element of this row and column is, and how many columns its panel has.
    #[inline(always)]
    fn find(&self, row: usize, column: usize) -> (usize, usize) {
        let (panel, columns) = (column / PANEL * PANEL, self.shape.channels().next_multiple_of(WHOLE));
        let width = PANEL.min(columns - panel);
        (panel * self.shape.rows() + row * width + column % PANEL, width)
    }

    /// The columns from `first`, a multiple of 16, on of a row, as many as there are in `columns`, in f32.
    #[inline(always)]
    pub(crate) fn copy_row(&self, row: usize, first: usize, columns: &mut [f32]) {
        for (column, part) in (first..).step_by(WHOLE).zip(columns.chunks_mut(WHOLE)) {
            self.elements.widen(self.find(row, column).0, part);
        }
    }

    /// `c = x·w` or, to `add`, `c += x·w`, with some of w's rows alone: x `[M, rows]`, c `[M, N]`.
    ///
    /// # Panics
    /// If the dimensions do not fit each other.
    pub(crate) fn product(&self, c: &mut [f32], add: bool, x: &[f32], rows: Range<usize>, threads: Threads) {
        self.products(c, self.shape.channels(), x, rows, threads, |panel, sums, c| {
            let c = c[panel..].iter_mut().zip(sums);
            match add {
                false => c.for_each(|(c, sum)| *c = *sum),
                true => c.for_each(|(c, sum)| *c += sum),
            }
        });
    }

    /// `y[m, i] = p[m, 2i] * gelu(p[m, 2i + 1])` of `p = x·w + bias`: x `[M, K]`, bias `[N]`, y `[M, N/2]`.
    ///
    /// # Panics
    /// If the dimensions do not fit each other.
    pub(crate) fn gated(&self, y: &mut [f32], x: &[f32], bias: &[f32], threads: Threads) {
        let width = self.shape.channels() / 2;
        self.products(y, width, x, 0..self.shape.rows(), threads, |panel, sums, y| {
            let y = &mut y[panel / 2..][..sums.len() / 2];
            Arch::new().dispatch(Gate { pairs: [sums, &bias[panel..]], y });
        });
    }

    /// Computes `x·w` with some of w's rows, and has `put` make rows of y, so many elements each, of it: `put` is
    /// given the first column of a panel, the sums of a row for this panel's columns, and the row of y.
    fn products(
        &self,
        y: &mut [f32],
        width: usize,
        x: &[f32],
        rows: Range<usize>,
        threads: Threads,
        put: impl Fn(usize, &[f32], &mut [f32]) + Sync,
    ) {
        let (k, n) = (rows.len(), self.shape.channels());
        assert!(rows.end <= self.shape.rows() && x.len() / k * width == y.len(), "a product's dimensions");
        let columns = n.next_multiple_of(WHOLE);
        let at_once = match threads {
            Threads::One => ROWS,
            Threads::All => (y.len() / width).max(1),
        };
        for (y, x) in y.chunks_mut(at_once * width).zip(x.chunks(at_once * k)) {
            let m = y.len() / width;
            let mut sums = SCRATCH.take();
            enlarge(&mut sums, m * columns);
            let panels = sums[..m * columns].chunks_mut(m * PANEL).enumerate();
            let part = |panel: usize, x, sums| Part { w: self, rows: rows.clone(), column: panel * PANEL, x, sums };
            let multiply = |buffer: &mut Vec<f32>, part| Arch::new().dispatch(Task { part, buffer });
            match threads {
                Threads::One => {
                    let mut buffer = Vec::new();
                    panels.for_each(|(panel, sums)| multiply(&mut buffer, part(panel, x, sums)));
                }
                Threads::All => {
                    // More than one task for a thread, so that all end at about the same time.
                    let groups = (4 * rayon::current_num_threads()).div_ceil(columns.div_ceil(PANEL));
                    let group = m.div_ceil(groups).max(TASK_ROWS);
                    let parts = panels.flat_map(|(panel, sums)| {
                        let width = sums.len() / m;
                        let groups = sums.chunks_mut(group * width).zip(x.chunks(group * k));
                        groups.map(move |(sums, x)| part(panel, x, sums))
                    });
                    parts.collect::<Vec<_>>().into_par_iter().for_each_init(Vec::new, multiply);
                }
            }
            let put_row = |(row, y): (usize, &mut [f32])| {
                for (panel, sums) in sums[..m * columns].chunks(m * PANEL).enumerate() {
                    let (first, width) = (panel * PANEL, sums.len() / m);
                    put(first, &sums[row * width..][..width.min(n - first)], y);
                }
            };
            match threads {
                Threads::One => y.chunks_mut(width).enumerate().for_each(put_row),
                Threads::All => y.par_chunks_mut(width).with_min_len(TASK_ROWS).enumerate().for_each(put_row),
            }
            SCRATCH.set(sums);
        }
    }
}

/// Some rows of x times a panel.
struct Part<'a> {
    w: &'a Matrix,
    rows: Range<usize>,
    /// The panel's first.
    column: usize,
    x: &'a [f32],
    /// `[rows of x, width of the panel]`.
    sums: &'a mut [f32],
}

struct Task<'a> {
    part: Part<'a>,
    /// For what of w is widened.
    buffer: &'a mut Vec<f32>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { part: Part { w, rows, column, x, sums }, buffer } = self;
        let k = rows.len();
        for from in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - from);
            let (at, width) = w.find(rows.start + from, column);
            let block = w.elements.in_f32(at, depth * width, buffer);
            multiply(simd, (&x[from..], k), (block, [depth, width]), (&mut *sums, width), from > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use half::f16;

    use super::*;
    use crate::rng::Generator;
    use crate::tensor::DType;

    /// Rows of w as f16 holds them, and the matrix in f16 and in f32.
    fn matrices(k: usize, n: usize) -> (Vec<f32>, [Matrix; 2]) {
        let narrow: Vec<f16> = Generator::new(2).normal(k * n).into_iter().map(f16::from_f32).collect();
        let wide: Vec<f32> = narrow.iter().map(|x| x.to_f32()).collect();
        let matrices = [(DType::F16, bytemuck::cast_slice(&narrow)), (DType::F32, bytemuck::cast_slice(&wide))];
        let file = Shape::from([n, k]);
        let matrices = matrices.map(|(dtype, bytes)| {
            let raw = RawTensor { dtype, shape: file.clone(), bytes: Cow::Borrowed(bytes) };
            Matrix::new(Pack::Linear, &raw, &file).unwrap()
        });
        ((0..k * n).map(|i| wide[i % n * k + i / n]).collect(), matrices)
    }

    #[test]
    fn a_product_is_the_sum_over_the_rows_asked_for_whatever_the_shape() {
        for ([m, k, n], rows) in
            [([1, 1, 1], 0..1), ([7, 40, 66], 3..40), ([300, 600, 4], 0..600), ([130, 20, 209], 5..9)]
        {
            let (w, matrices) = matrices(k, n);
            let x = Generator::new(1).normal(m * rows.len());
            let dot = |i: usize| {
                let x = x[i / n * rows.len()..].iter();
                rows.clone().zip(x).map(|(r, x)| f64::from(*x) * f64::from(w[r * n + i % n])).sum::<f64>()
            };
            for (matrix, threads) in matrices.iter().zip([Threads::One, Threads::All]) {
                for (add, before) in [(false, f32::NAN), (true, 1.0)] {
                    let mut c = vec![before; m * n];
                    matrix.product(&mut c, add, &x, rows.clone(), threads);
                    let so_far = if add { 1.0 } else { 0.0 };
                    let off = |(i, c): (usize, &f32)| (f64::from(*c) - so_far - dot(i)).abs();
                    let worst = c.iter().enumerate().map(off).fold(0.0, f64::max);
                    assert!(worst < 1e-4 && !c.iter().any(|c| c.is_nan()), "{m} x {k} x {n}: off by {worst}");
                }
            }
        }
    }

    #[test]
    fn a_row_is_found_across_panels() {
        let (w, matrices) = matrices(3, 144);
        for matrix in &matrices {
            for (first, count) in [(0, 64), (48, 48), (128, 16), (96, 48)] {
                let mut columns = vec![0.0; count];
                matrix.copy_row(2, first, &mut columns);
                assert_eq!(columns, w[2 * 144 + first..][..count]);
            }
        }
        assert_eq!(Matrix::bytes(&[3, 130].into(), 2), 3 * 144 * 2);
    }
}
