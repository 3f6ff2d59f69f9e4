//! The one door to the `gemm` crate: a matrix product on slices, with every length checked.

use gemm::Parallelism;

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
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that begin `row_stride` apart.
    ///
    /// # Panics
    /// If `data` ends before the last row does.
    pub(crate) fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(data.len() >= extent(rows, columns, row_stride), "{rows} x {columns} elements do not fit");
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// Rows and columns exchanged, in the same memory.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
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
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that begin `row_stride` apart.
    ///
    /// # Panics
    /// If `data` ends before the last row does, or if rows overlap.
    pub(crate) fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(data.len() >= extent(rows, columns, row_stride), "{rows} x {columns} elements do not fit");
        assert!(rows <= 1 || row_stride >= columns, "rows of {columns} overlap at a stride of {row_stride}");
        Self { data, rows, columns, row_stride }
    }
}

/// Elements from the first to the last one of a matrix with contiguous columns.
fn extent(rows: usize, columns: usize, row_stride: usize) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    (rows - 1).checked_mul(row_stride).and_then(|n| n.checked_add(columns)).expect("a matrix is within the address space")
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
    // given. The constructors of `Mat` and `MatMut` checked that the largest of these offsets is inside the slice, the
    // fields are private to this module and `transposed` exchanges them in pairs. The dimensions agree (asserted
    // above). `c` is borrowed exclusively, so nothing else reads or writes it, and its elements are distinct, so
    // threads that write different elements do not meet.
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

#[cfg(test)]
mod bench {
    use super::*;
    #[test]
    #[ignore]
    fn speed() {
        for (m, k, n) in [(40,1280,1280),(48,1280,1280),(56,1280,1280),(60,1280,1280),(63,1280,1280),(64, 1280, 1280),(65,1280,1280), (72,1280,1280),(80,1280,1280),(96,1280,1280),(64, 11520, 1280), (64, 1280, 1280), (64, 2560, 1280), (1024, 2880, 320), (1024, 320, 320), (1024, 320, 2560), (256, 5760, 640), (128, 1280,1280),(32,1280,1280),(16,1280,1280),(1, 1280, 1280), (2, 1280, 1280), (77, 768, 3072)] {
            let a = vec![0.5f32; m * k];
            let b = vec![0.25f32; k * n];
            let mut c = vec![0f32; m * n];
            for threads in [Threads::One, Threads::All] {
                let mut best = f64::MAX;
                for _ in 0..9 {
                    let t = std::time::Instant::now();
                    product(MatMut::new(&mut c, m, n), 0.0, Mat::new(&a, m, k), Mat::new(&b, k, n), 1.0, threads);
                    best = best.min(t.elapsed().as_secs_f64());
                }
                print!("{m}x{k}x{n} {threads:?} {:.1} GFLOP/s  ", 2e-9 * (m * k * n) as f64 / best);
            }
            println!();
        }
    }
}
