//! A matrix product with its right side already in a panel: a few columns of b, one row of them after the other.

use pulp::Simd;

use super::{load, store};

/// Columns of a panel, at most: four vectors of the widest kind.
pub(super) const PANEL: usize = 64;

/// Columns that a panel's width is a multiple of: a vector of the widest kind.
pub(super) const WHOLE: usize = 16;

/// Rows of a whose products are summed up in registers at a time.
pub(super) const ROWS: usize = 6;

/// `c (+)= a·b`: a `[rows, k]`, b `[k, width]` without gaps, c `[rows, width]`; rows of a and c are so far apart as is
/// said with them. Without `add` the old contents of c are not read.
///
/// # Panics
/// If a slice is too short, or `width` is not a multiple of WHOLE or above PANEL.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    simd: S,
    (a, a_stride): (&[f32], usize),
    (b, [k, width]): (&[f32], [usize; 2]),
    (c, c_stride): (&mut [f32], usize),
    add: bool,
) {
    assert!(width.is_multiple_of(WHOLE) && width <= PANEL && b.len() >= k * width);
    assert!(a_stride >= k && c_stride >= width);
    // As many vectors as leave registers for the sums of all rows.
    let vectors = if S::REGISTER_COUNT >= 32 { 4 } else { 2 };
    for (a, c) in a.chunks(ROWS * a_stride).zip(c.chunks_mut(ROWS * c_stride)) {
        let (rows, mut from) = (c.len().div_ceil(c_stride), 0);
        assert!(a.len() >= (rows - 1) * a_stride + k);
        while from < width {
            let left = (width - from) / S::F32_LANES;
            let (tile, b) = (Tile { a, a_stride, k, width, c_stride, from, add }, &b[from..]);
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
    c_stride: usize,
    /// The first column, in c.
    from: usize,
    add: bool,
}

impl Tile<'_> {
    #[inline(always)]
    fn rows<S: Simd, const V: usize>(&self, simd: S, b: &[f32], c: &mut [f32]) {
        match c.len().div_ceil(self.c_stride) {
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
        for (row, sums) in c.chunks_mut(self.c_stride).zip(sums) {
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

    struct Product<'a> {
        a: (&'a [f32], usize),
        b: (&'a [f32], [usize; 2]),
        c: (&'a mut [f32], usize),
        add: bool,
    }

    impl WithSimd for Product<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            multiply(simd, self.a, self.b, self.c, self.add);
        }
    }

    #[test]
    fn a_product_with_panels_is_the_sum_over_k_whatever_the_shape() {
        for (rows, k, width, apart) in [(1, 1, 16, 0), (5, 7, 48, 9), (6, 9, 64, 1), (13, 20, 32, 0), (24, 3, 64, 70)] {
            let (stride, c_stride) = (k + 3, width + apart);
            let (a, b) = (Generator::new(1).normal(rows * stride), Generator::new(2).normal(k * width));
            for (add, before) in [(false, 0.0), (true, 1.0)] {
                // The last row ends without the gap behind the others.
                let mut c = vec![1.0; rows * c_stride - apart];
                Arch::new().dispatch(Product { a: (&a, stride), b: (&b, [k, width]), c: (&mut c, c_stride), add });
                for (i, c) in c.iter().enumerate() {
                    let (row, column) = (i / c_stride, i % c_stride);
                    let product = |j: usize| f64::from(a[row * stride + j]) * f64::from(b[j * width + column]);
                    let wanted = if column < width { before + (0..k).map(product).sum::<f64>() } else { 1.0 };
                    assert!((f64::from(*c) - wanted).abs() < 1e-5, "{rows} x {k} x {width} at {i}");
                }
            }
        }
    }
}
