//! The ops that are matrix products, what their kernels share (`gemm`, [`epilogue`]), and how products on the CPU
//! share their rows out.

use rayon::prelude::*;

pub mod conv2d;
pub mod epilogue;
pub(crate) mod gemm;
pub mod matmul;
pub mod matmul_geglu;

/// Who works on a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread alone: for callers that are parallel themselves.
    One,
    /// All of rayon's.
    All,
}

/// What the working set of a block may take, in f32s: 2 MiB, so that two threads' blocks stay in a shared cache.
const BLOCK_LEN: usize = (2 << 20) / 4;

/// Fewer rows than this for each thread, and a product that shares its columns out, too, keeps all threads busy
/// better.
const ROWS_PER_THREAD: usize = 128;

/// Cuts the rows (of `n` elements) of `y` into blocks, each with a working set of `width` elements a row, and calls
/// `work` with each block's first row, its elements, and the threads it may use. Many rows are worked on in blocks
/// side by side, few in blocks one after the other.
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
