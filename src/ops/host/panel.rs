//! A matrix product with its right side already in a panel: a few columns of b, one row of them after the other.

use pulp::Simd;

use super::{load, store};

/// Columns of a panel, at most: four vectors of the widest kind.
pub(super) const PANEL: usize = 64;

/// Rows of a whose products are summed up in registers at a time.
const ROWS: usize = 6;

/// `c (+)= a·b`: a `[rows, k]` with rows `a_stride` apart, b `[k, width]`, c `[rows, width]`. Without `add` the old contents
/// of c are not read.
///
/// # Panics
/// If a slice is too short, or `width` is no multiple of 16 or above PANEL.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    simd: S,
    (a, a_stride): (&[f32], usize),
    (b, k): (&[f32], usize),
    (c, width): (&mut [f32], usize),
    add: bool,
) {
    assert!(width.is_multiple_of(16) && width <= PANEL && b.len() >= k * width && a_stride >= k);
    // As many vectors as leave registers for the sums of all rows.
    let vectors = if S::REGISTER_COUNT >= 32 { 4 } else { 2 };
    for (a, c) in a.chunks(ROWS * a_stride).zip(c.chunks_mut(ROWS * width)) {
        let (rows, mut from) = (c.len() / width, 0);
        assert!(a.len() >= (rows - 1) * a_stride + k);
        while from < width {
            let left = (width - from) / S::F32_LANES;
            let (tile, b) = (Tile { a, a_stride, k, width, from, add }, &b[from..]);
            let taken = vectors.min(left);
            match (taken, rows) {
                (4, 6) => tile.sum::<S, 6, 4>(simd, b, c),
                (3, 6) => tile.sum::<S, 6, 3>(simd, b, c),
                (2, 6) => tile.sum::<S, 6, 2>(simd, b, c),
                (4, _) => tile.rows::<S, 4>(simd, b, c),
                (3, _) => tile.rows::<S, 3>(simd, b, c),
                (2, _) => tile.rows::<S, 2>(simd, b, c),
                _ => tile.rows::<S, 1>(simd, b, c),
            }
            from += taken * S::F32_LANES;
        }
    }
}

/// A product of a few rows and columns.
struct Tile<'a> {
    a: &'a [f32],
    a_stride: usize,
    k: usize,
    width: usize,
    /// The first column, in c.
    from: usize,
    add: bool,
}

impl Tile<'_> {
    #[inline(always)]
    fn rows<S: Simd, const V: usize>(&self, simd: S, b: &[f32], c: &mut [f32]) {
        match c.len() / self.width {
            6 => self.sum::<S, 6, V>(simd, b, c),
            5 => self.sum::<S, 5, V>(simd, b, c),
            4 => self.sum::<S, 4, V>(simd, b, c),
            3 => self.sum::<S, 3, V>(simd, b, c),
            2 => self.sum::<S, 2, V>(simd, b, c),
            _ => self.sum::<S, 1, V>(simd, b, c),
        }
    }

    #[inline(always)]
    fn sum<S: Simd, const R: usize, const V: usize>(&self, simd: S, b: &[f32], c: &mut [f32]) {
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        assert!(self.a.len() >= (R - 1) * self.a_stride + self.k);
        for (i, b) in b.chunks(self.width).take(self.k).enumerate() {
            let mut row = [simd.splat_f32s(0.0); V];
            for (v, vector) in row.iter_mut().enumerate() {
                *vector = load::<S>(&b[v * S::F32_LANES..]);
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: r is below R and i below k, so the assertion above holds for the index.
                let a = simd.splat_f32s(unsafe { *self.a.get_unchecked(r * self.a_stride + i) });
                for (sum, b) in sums.iter_mut().zip(row) {
                    *sum = simd.mul_add_e_f32s(a, b, *sum);
                }
            }
        }
        for (row, sums) in c.chunks_mut(self.width).zip(sums) {
            for (y, sum) in row[self.from..].chunks_mut(S::F32_LANES).zip(sums) {
                let sum = if self.add { simd.add_f32s(sum, load::<S>(y)) } else { sum };
                store::<S>(y, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;
    use crate::rng::Generator;

    struct Product<'a>(&'a [f32], usize, &'a [f32], usize, &'a mut [f32], usize, bool);

    impl WithSimd for Product<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            multiply(simd, (self.0, self.1), (self.2, self.3), (self.4, self.5), self.6);
        }
    }

    #[test]
    fn a_product_with_panels_is_the_sum_over_k_whatever_the_shape() {
        for (rows, k, width) in [(1, 1, 16), (5, 7, 48), (6, 9, 64), (13, 20, 32), (24, 3, 64)] {
            let stride = k + 3;
            let (a, b) = (Generator::new(1).normal(rows * stride), Generator::new(2).normal(k * width));
            let mut c = vec![1.0; rows * width];
            for (add, before) in [(false, 0.0), (true, 1.0)] {
                c.fill(1.0);
                Arch::new().dispatch(Product(&a, stride, &b, k, &mut c, width, add));
                for (i, c) in c.iter().enumerate() {
                    let (row, column) = (i / width, i % width);
                    let dot: f64 =
                        (0..k).map(|j| f64::from(a[row * stride + j]) * f64::from(b[j * width + column])).sum();
                    assert!((f64::from(*c) - dot - before).abs() < 1e-5, "{rows} x {k} x {width} at {i}");
                }
            }
        }
    }
}
