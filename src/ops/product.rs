//! The one door to the `gemm` crate: a matrix product on slices, with every length checked, and the way its callers cut
//! their rows into blocks.

use gemm::Parallelism;
use rayon::prelude::*;

/// A matrix in somebody's memory: element `[r, c]` stands at `r * row_stride + c * column_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Mat<'a> {
    /// Rows one after the other, without gaps.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, [rows, columns], [columns, 1])
    }

    /// Any strides: a window of a larger matrix, or one that is read transposed.
    ///
    /// # Panics
    /// If `data` ends before the last element.
    pub(crate) fn strided(data: &'a [f32], size: [usize; 2], strides: [usize; 2]) -> Self {
        assert!(data.len() >= extent(size, strides), "{size:?} elements at strides {strides:?} do not fit");
        Self { data, rows: size[0], columns: size[1], row_stride: strides[0], column_stride: strides[1] }
    }
}

/// A matrix to write: its rows begin `row_stride` apart and do not overlap.
#[derive(Debug)]
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// Rows one after the other, without gaps.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, [rows, columns], columns)
    }

    /// Rows that begin `row_stride` apart.
    ///
    /// # Panics
    /// If `data` ends before the last row does, or if rows overlap.
    pub(crate) fn strided(data: &'a mut [f32], size: [usize; 2], row_stride: usize) -> Self {
        let [rows, columns] = size;
        assert!(data.len() >= extent(size, [row_stride, 1]), "{size:?} elements do not fit");
        assert!(rows <= 1 || row_stride >= columns, "rows of {columns} overlap at a stride of {row_stride}");
        Self { data, rows, columns, row_stride }
    }
}

/// Elements from the first to the last one of a matrix.
fn extent([rows, columns]: [usize; 2], [row_stride, column_stride]: [usize; 2]) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    let steps = |count: usize, stride: usize| (count - 1).checked_mul(stride);
    let last = steps(rows, row_stride).zip(steps(columns, column_stride)).and_then(|(r, c)| r.checked_add(c));
    last.and_then(|last| last.checked_add(1)).expect("a matrix is within the address space")
}

/// Who works on a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread alone: for callers that are parallel themselves.
    One,
    /// All of rayon's.
    All,
}

/// `c = alpha * c + beta * a·b`; with `alpha` 0 the old contents are not read.
///
/// # Panics
/// If the dimensions do not fit each other.
pub(crate) fn product(c: MatMut, alpha: f32, a: Mat, b: Mat, beta: f32, threads: Threads) {
    assert_eq!((a.rows, a.columns, b.columns), (c.rows, b.rows, c.columns), "a product's dimensions");
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    let stride = |n: usize| n as isize;
    // SAFETY: `gemm` reads `a[r, k]` and `b[k, n]` and reads and writes `c[r, n]`, for all indices below the dimensions
    // given. The constructors of `Mat` and `MatMut` checked that the largest of these offsets is inside the slice, and
    // the fields are private to this module. The dimensions agree (asserted above). `c` is borrowed exclusively, so
    // nothing else reads or writes it, and its elements are distinct, so threads that write different ones do not meet.
    unsafe {
        gemm::gemm(
            c.rows,
            c.columns,
            a.columns,
            c.data.as_mut_ptr(),
            1,
            stride(c.row_stride),
            alpha != 0.0,
            a.data.as_ptr(),
            stride(a.column_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.column_stride),
            stride(b.row_stride),
            alpha,
            beta,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// What the working set of a block may take, in f32s: 2 MiB, so that two threads' blocks stay in a shared cache.
const BLOCK_LEN: usize = (2 << 20) / 4;

/// Fewer rows than this for each thread, and `gemm` divides the product better itself.
const ROWS_PER_THREAD: usize = 128;

/// Cuts the rows (of `n` elements) of `y` into blocks, each with a working set of `width` elements a row, and calls
/// `work` with each block's first row, its elements, and the threads it may use. Many rows are worked on in blocks side
/// by side, few in blocks one after the other.
pub(crate) fn in_blocks(y: &mut [f32], n: usize, width: usize, work: impl Fn(usize, &mut [f32], Threads) + Sync) {
    if y.is_empty() {
        return;
    }
    let (rows, threads) = (y.len() / n, rayon::current_num_threads());
    let blocks = rows.div_ceil((BLOCK_LEN / width.max(1)).max(64));
    if rows < threads * ROWS_PER_THREAD {
        let block_rows = rows.div_ceil(blocks);
        let blocks = y.chunks_mut(block_rows * n).enumerate();
        return blocks.for_each(|(index, block)| work(index * block_rows, block, Threads::All));
    }
    // As many blocks as keep all threads busy to the end.
    let block_rows = rows.div_ceil(blocks.next_multiple_of(threads));
    let blocks = y.par_chunks_mut(block_rows * n).enumerate();
    blocks.for_each(|(index, block)| work(index * block_rows, block, Threads::One));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Generator;

    fn naive(a: impl Fn(usize, usize) -> f32, b: impl Fn(usize, usize) -> f32, [m, k, n]: [usize; 3]) -> Vec<f64> {
        let dot = |r, c| (0..k).map(|i| f64::from(a(r, i)) * f64::from(b(i, c))).sum();
        (0..m * n).map(|i| dot(i / n, i % n)).collect()
    }

    #[test]
    fn a_product_is_the_sum_over_k_whatever_the_shape() {
        for [m, k, n] in [[1, 1, 1], [1, 70, 33], [2, 3, 257], [17, 129, 5], [65, 64, 63], [300, 31, 40]] {
            let (a, b) = (Generator::new(1).normal(m * k), Generator::new(2).normal(k * n));
            let wanted = naive(|r, i| a[r * k + i], |i, c| b[i * n + c], [m, k, n]);
            for threads in [Threads::One, Threads::All] {
                let mut c = vec![f32::NAN; m * n];
                product(MatMut::new(&mut c, m, n), 0.0, Mat::new(&a, m, k), Mat::new(&b, k, n), 1.0, threads);
                let worst = c.iter().zip(&wanted).map(|(c, w)| (f64::from(*c) - w).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-4, "{m} x {k} x {n}: off by {worst}");
            }
        }
    }

    #[test]
    fn strides_transposition_and_scales_are_kept() {
        let (m, k, n) = (5, 7, 6);
        let (a, b) = (Generator::new(1).normal(m * 9), Generator::new(2).normal(n * 8));
        let mut c = vec![1.0; m * 10];
        let (rows, columns) = (Mat::strided(&a, [m, k], [9, 1]), Mat::strided(&b, [k, n], [1, 8]));
        product(MatMut::strided(&mut c, [m, n], 10), 2.0, rows, columns, 0.5, Threads::One);
        let wanted = naive(|r, i| a[r * 9 + i], |i, c| b[c * 8 + i], [m, k, n]);
        for (r, row) in c.chunks(10).enumerate() {
            for (column, value) in row.iter().enumerate() {
                let wanted = if column < n { 2.0 + 0.5 * wanted[r * n + column] } else { 1.0 };
                assert!((f64::from(*value) - wanted).abs() < 1e-5, "at [{r}, {column}]");
            }
        }
    }

    #[test]
    fn blocks_cover_every_row_once() {
        for (rows, n, width) in [(1, 3, 10), (100, 2, 1 << 20), (5000, 1, 1 << 13), (70_000, 1, 9)] {
            let mut y = vec![0.0; rows * n];
            in_blocks(&mut y, n, width, |first, block, _| {
                block.iter_mut().enumerate().for_each(|(i, y)| *y += (first * n + i) as f32 + 1.0);
            });
            assert!(y.iter().enumerate().all(|(i, y)| *y == i as f32 + 1.0), "{rows} rows");
        }
    }
}
