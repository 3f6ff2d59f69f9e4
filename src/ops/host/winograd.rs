//! 3x3 convolutions with a quarter of the multiplications: `y = Aᵀ[(G w Gᵀ) ∘ (Bᵀ d B)]A` for every 4x4 pixels
//! of y, the product ∘ summed over channels (Winograd's F(4x4, 3x3); Lavin and Gray 2015). Polynomials of degree 5
//! are evaluated at 0, ±√½, ±√2 and ∞: with these points the error is half that of 0, ±1, ±2 and ∞, and about four
//! times a plain sum's.

use std::cell::RefCell;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::matrix::Matrix;
use super::panel::{PANEL, multiply};
use super::{both, enlarge, load, scaled, store, times};

const ROOT_2: f32 = std::f32::consts::SQRT_2;
const ROOT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// Pixels of y that a tile has, and of x, each way.
const OUT: usize = 4;
const IN: usize = OUT + 2;

/// Elements of transformed input that are worked on at a time: 8 MiB. Fewer tiles and the weights are transformed too
/// often, more and they leave the cache.
const CHUNK_LEN: usize = (8 << 20) / 4;
/// Tiles that are worked on at a time, at least.
const CHUNK_TILES: usize = 64;
/// Channels of the input that one task sums over at a time: 36 matrices of weights that stay in the cache.
const DEPTH: usize = 64;
/// Tiles whose products take as long as the transform of the weights: measured at 8x8 pixels and 1280 channels.
const WEIGHTS_TILES: usize = 8;
/// Tiles of a task, at least, where the output channels alone do not make enough tasks.
const TASK_TILES: usize = 32;

/// Elements left free between matrices that are read or written side by side: at distances of powers of two they would
/// all fall into the same lines of the cache.
const APART: usize = 16;

/// A convolution with stride 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv3x3<'a> {
    /// `[3, 3, channels, n]`.
    pub w: &'a Matrix,
    pub channels: usize,
    pub n: usize,
    /// Height and width of y.
    pub size: [usize; 2],
}

thread_local! {
    /// The transformed input and products of the last convolution: getting new memory takes as long as filling it.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Tiles side by side: where they are, and their pixels of y, up to four lines.
struct Strip<'y> {
    batch: usize,
    line: usize,
    y: &'y mut [f32],
}

impl Conv3x3<'_> {
    /// Whether this takes fewer steps than nine products for every pixel would, the transforms counted in. For one row
    /// of a batch, whatever their number: the two ways round differently, and a picture has the same bits in every
    /// batch.
    pub(crate) fn pays(&self) -> bool {
        let [height, width] = self.size;
        let tiles = height.div_ceil(OUT) * width.div_ceil(OUT);
        let whole = self.channels.is_multiple_of(16) && self.n.is_multiple_of(16);
        whole && self.n.min(self.channels) >= 32 && IN * IN * (tiles + WEIGHTS_TILES) < 9 * height * width
    }

    /// Writes all of y, `pixel(b, i, j)` being x at the tap 0, 0 of y's pixel i, j, or `None` beyond the edges.
    /// `finish` gets the number of the first pixel of some that are done, and these.
    pub(crate) fn run<'x>(
        &self,
        y: &mut [f32],
        pixel: impl Fn(usize, usize, usize) -> Option<&'x [f32]> + Sync,
        finish: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let [height, width] = self.size;
        let columns = width.div_ceil(OUT);
        let lines = |(batch, y): (usize, _)| {
            let strips = <[f32]>::chunks_mut(y, OUT * width * self.n).enumerate();
            strips.map(move |(strip, y)| Strip { batch, line: strip * OUT, y })
        };
        let mut strips: Vec<Strip> = y.chunks_mut(height * width * self.n).enumerate().flat_map(lines).collect();
        let most = (CHUNK_LEN / (IN * IN * self.channels.max(self.n))).max(CHUNK_TILES);
        let [mut v, mut m] = SCRATCH.take();
        for strips in strips.chunks_mut((most / columns).max(1)) {
            let tiles = strips.len() * columns;
            enlarge(&mut v, tiles * self.v_stride());
            let tasks = Tasks::new(self.n, tiles);
            enlarge(&mut m, tasks.len());
            let (v, m) = (&mut v[..tiles * self.v_stride()], &mut m[..tasks.len()]);
            let zeros = vec![0.0; self.channels];
            v.par_chunks_mut(self.v_stride()).enumerate().for_each(|(tile, v)| {
                let (strip, at) = (&strips[tile / columns], tile % columns * OUT);
                let x = std::array::from_fn(|i| {
                    std::array::from_fn(|j| pixel(strip.batch, strip.line + i, at + j).unwrap_or(&zeros))
                });
                Arch::new().dispatch(Spread { x, v, channels: self.channels });
            });
            tasks.split(m).into_par_iter().for_each_init(Vec::new, |u, (channel, tile, m)| {
                let v = &v[tile * self.v_stride()..];
                Arch::new().dispatch(Products { conv: self, v, m, u, first: channel, block: tasks.block });
            });
            strips.par_iter_mut().enumerate().for_each(|(strip, Strip { batch, line, y })| {
                Arch::new().dispatch(Gather { m, y, tasks, first: strip * columns, width, n: self.n });
                finish((*batch * height + *line) * width, y);
            });
        }
        SCRATCH.set([v, m]);
    }

    /// Elements from one tile's transformed input to the next one's.
    fn v_stride(&self) -> usize {
        IN * IN * self.channels + APART
    }
}

/// How the products of some tiles are shared out: a task has some output channels of some tiles, `[36, tiles, block]`
/// with each of the 36 APART from the next.
#[derive(Debug, Clone, Copy)]
struct Tasks {
    n: usize,
    tiles: usize,
    /// Output channels of a task, which divide all of them.
    block: usize,
    /// Tiles of a task; the last one for the same channels may have less.
    group: usize,
}

impl Tasks {
    fn new(n: usize, tiles: usize) -> Self {
        let threads = rayon::current_num_threads();
        let even = |block: &usize| (n / block).is_multiple_of(threads) || n / block >= 4 * threads;
        let mut blocks = [PANEL, 48, 32, 16].into_iter().filter(|block| n.is_multiple_of(*block));
        let widest = blocks.clone().next().expect("channels are a multiple of 16");
        let block = blocks.find(even).unwrap_or(widest);
        let groups = threads.div_ceil(n / block);
        Self { n, tiles, block, group: tiles.div_ceil(groups).max(TASK_TILES).min(tiles) }
    }

    /// Elements of a task with so many tiles.
    fn task_len(&self, tiles: usize) -> usize {
        IN * IN * (tiles * self.block + APART)
    }

    /// Elements of all tasks with the same channels.
    fn block_len(&self) -> usize {
        let (whole, rest) = (self.tiles / self.group, self.tiles % self.group);
        whole * self.task_len(self.group) + if rest > 0 { self.task_len(rest) } else { 0 }
    }

    fn len(&self) -> usize {
        self.n / self.block * self.block_len()
    }

    /// Each task's first channel, first tile and products.
    fn split<'m>(&self, m: &'m mut [f32]) -> Vec<(usize, usize, &'m mut [f32])> {
        let channels = m.chunks_mut(self.block_len()).enumerate();
        let tasks = channels.flat_map(|(channel, m)| {
            let groups = m.chunks_mut(self.task_len(self.group)).enumerate();
            groups.map(move |(group, m)| (channel * self.block, group * self.group, m))
        });
        tasks.collect()
    }

    /// Where a tile's first product for this output channel is, and how far it is from there to the next one.
    fn find(&self, channel: usize, tile: usize) -> (usize, usize) {
        let (group, tile) = (tile / self.group, tile % self.group);
        let tiles = self.group.min(self.tiles - group * self.group);
        let task = channel / self.block * self.block_len() + group * self.task_len(self.group);
        (task + tile * self.block + channel % self.block, self.task_len(tiles) / (IN * IN))
    }
}

/// `v = Bᵀ d B` of one tile, `[6, 6, channels]`.
struct Spread<'a> {
    x: [[&'a [f32]; IN]; IN],
    v: &'a mut [f32],
    channels: usize,
}

impl WithSimd for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut planes = self.v.chunks_exact_mut(self.channels);
        let mut planes: [_; IN * IN] = std::array::from_fn(|_| planes.next().expect("a tile has 36 planes"));
        let zero = simd.splat_f32s(0.0);
        for c in (0..self.channels).step_by(S::F32_LANES) {
            let mut lines = [[zero; IN]; IN];
            for j in 0..IN {
                let mut d = [zero; IN];
                for (i, d) in d.iter_mut().enumerate() {
                    *d = load::<S>(&self.x[i][j][c..]);
                }
                for (line, value) in lines.iter_mut().zip(input(simd, d)) {
                    line[j] = value;
                }
            }
            for (line, planes) in lines.into_iter().zip(planes.chunks_exact_mut(IN)) {
                for (value, plane) in input(simd, line).into_iter().zip(planes) {
                    store::<S>(&mut plane[c..], value);
                }
            }
        }
    }
}

/// One row of `Bᵀ d`.
#[inline(always)]
fn input<S: Simd>(simd: S, d: [S::f32s; IN]) -> [S::f32s; IN] {
    let odd = [
        times(simd, ROOT_HALF, d[3], scaled(simd, -ROOT_2, d[1])),
        times(simd, ROOT_2, d[3], scaled(simd, -ROOT_HALF, d[1])),
    ];
    let near = both(simd, times(simd, -2.0, d[2], d[4]), odd[0]);
    let far = both(simd, times(simd, -0.5, d[2], d[4]), odd[1]);
    let first = simd.add_f32s(times(simd, -2.5, d[2], d[4]), d[0]);
    let last = simd.add_f32s(times(simd, -2.5, d[3], d[5]), d[1]);
    [first, near[0], near[1], far[0], far[1], last]
}

/// One task's products: `m[i, j] = v[i, j] · (G w Gᵀ)[i, j]`, `[6, 6, tiles, block]`.
struct Products<'a> {
    conv: &'a Conv3x3<'a>,
    v: &'a [f32],
    m: &'a mut [f32],
    u: &'a mut Vec<f32>,
    /// The first output channel, and how many there are.
    first: usize,
    block: usize,
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { conv, v, m, u, first, block } = self;
        let (channels, stride) = (conv.channels, conv.v_stride());
        let plane = m.len() / (IN * IN);
        let tiles = (plane - APART) / block;
        let u_plane = DEPTH.min(channels) * block + APART;
        enlarge(u, IN * IN * u_plane);
        for from in (0..channels).step_by(DEPTH) {
            let depth = DEPTH.min(channels - from);
            conv.weights(simd, [from, depth], [first, block], u, u_plane);
            for (place, (m, u)) in m.chunks_mut(plane).zip(u.chunks(u_plane)).enumerate() {
                let v = &v[place * channels + from..];
                let v = &v[..v.len().min(tiles * stride)];
                multiply(simd, (v, stride), (u, [depth, block]), (&mut m[..tiles * block], block), from > 0);
            }
        }
    }
}

impl Conv3x3<'_> {
    /// `u = G w Gᵀ` of some input and some output channels, `[6, 6, depth, block]`, each of the 36 `plane`
    /// elements after the last.
    #[inline(always)]
    fn weights<S: Simd>(
        &self,
        simd: S,
        [from, depth]: [usize; 2],
        [first, block]: [usize; 2],
        u: &mut [f32],
        plane: usize,
    ) {
        let zero = simd.splat_f32s(0.0);
        let mut taps = [[0.0; PANEL]; 9];
        for c in 0..depth {
            for (tap, row) in taps.iter_mut().enumerate() {
                self.w.copy_row(tap * self.channels + from + c, first, &mut row[..block]);
            }
            for o in (0..block).step_by(S::F32_LANES) {
                let mut lines = [[zero; 3]; IN];
                for v in 0..3 {
                    let mut w = [zero; 3];
                    for (u, tap) in w.iter_mut().enumerate() {
                        *tap = load::<S>(&taps[u * 3 + v][o..]);
                    }
                    for (line, value) in lines.iter_mut().zip(spread(simd, w)) {
                        line[v] = value;
                    }
                }
                for (i, line) in lines.into_iter().enumerate() {
                    for (j, value) in spread(simd, line).into_iter().enumerate() {
                        store::<S>(&mut u[(i * IN + j) * plane + c * block + o..], value);
                    }
                }
            }
        }
    }
}

/// One row of `G w`.
#[inline(always)]
fn spread<S: Simd>(simd: S, w: [S::f32s; 3]) -> [S::f32s; IN] {
    const NEAR: f32 = -2.0 / 3.0;
    const FAR: f32 = 1.0 / 6.0;
    let even = [
        times(simd, 0.5 * NEAR, w[2], scaled(simd, NEAR, w[0])),
        times(simd, 2.0 * FAR, w[2], scaled(simd, FAR, w[0])),
    ];
    let near = both(simd, even[0], scaled(simd, ROOT_HALF * NEAR, w[1]));
    let far = both(simd, even[1], scaled(simd, ROOT_2 * FAR, w[1]));
    [w[0], near[0], near[1], far[0], far[1], w[2]]
}

/// `y = Aᵀ m A` of a strip of tiles, without what is beyond its edges.
struct Gather<'a> {
    m: &'a [f32],
    y: &'a mut [f32],
    tasks: Tasks,
    /// The strip's first tile.
    first: usize,
    width: usize,
    n: usize,
}

impl WithSimd for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { m, y, tasks, first, width, n } = self;
        let lines = y.len() / (width * n);
        for column in 0..width.div_ceil(OUT) {
            let pixels = OUT.min(width - column * OUT);
            for o in (0..n).step_by(S::F32_LANES) {
                let (at, stride) = tasks.find(o, first + column);
                let m = &m[at..];
                let zero = simd.splat_f32s(0.0);
                let mut sums = [[zero; IN]; OUT];
                for j in 0..IN {
                    let mut column = [zero; IN];
                    for (i, value) in column.iter_mut().enumerate() {
                        *value = load::<S>(&m[(i * IN + j) * stride..]);
                    }
                    for (line, value) in sums.iter_mut().zip(output(simd, column)) {
                        line[j] = value;
                    }
                }
                for (i, line) in sums.into_iter().enumerate().take(lines) {
                    for (j, value) in output(simd, line).into_iter().enumerate().take(pixels) {
                        store::<S>(&mut y[(i * width + column * OUT + j) * n + o..], value);
                    }
                }
            }
        }
    }
}

/// One row of `Aᵀ m`.
#[inline(always)]
fn output<S: Simd>(simd: S, m: [S::f32s; IN]) -> [S::f32s; OUT] {
    let (near, far) = (both(simd, m[1], m[2]), both(simd, m[3], m[4]));
    let cubes = times(simd, 0.5 * ROOT_HALF, near[1], scaled(simd, 2.0 * ROOT_2, far[1]));
    [
        simd.add_f32s(m[0], simd.add_f32s(near[0], far[0])),
        times(simd, ROOT_HALF, near[1], scaled(simd, ROOT_2, far[1])),
        times(simd, 0.5, near[0], scaled(simd, 2.0, far[0])),
        simd.add_f32s(m[5], cubes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Generator;
    use crate::tensor::Tensor;

    /// The largest distance from the definition in f64, where outputs are about 1.
    fn error(batch: usize, size: [usize; 2], channels: usize, n: usize) -> f64 {
        let [height, width] = size;
        let x = Generator::new(1).normal(batch * height * width * channels);
        let scale = (9.0 * channels as f32).sqrt().recip();
        let w = Generator::new(2).normal(9 * channels * n).iter().map(|w| w * scale).collect();
        let w = Tensor::new([3, 3, channels, n], w);
        let pixel = |b: usize, i: usize, j: usize| {
            let (i, j) = (i.wrapping_sub(1), j.wrapping_sub(1));
            (i < height && j < width).then(|| &x[((b * height + i) * width + j) * channels..][..channels])
        };
        let mut y = vec![f32::NAN; batch * height * width * n];
        let conv = Conv3x3 { w: &Matrix::of(&w), channels, n, size };
        conv.run(&mut y, pixel, |first, y| y.iter_mut().enumerate().for_each(|(i, y)| *y += (first * n + i) as f32));
        let mut worst = 0f64;
        for (at, y) in y.iter().enumerate().step_by(7) {
            let (place, o) = (at / n, at % n);
            let (b, i, j) = (place / (height * width), place / width % height, place % width);
            let mut sum = at as f64;
            for (tap, x) in (0..9).filter_map(|tap| Some((tap, pixel(b, i + tap / 3, j + tap % 3)?))) {
                let w = |c: usize| f64::from(w.data[(tap * channels + c) * n + o]);
                sum += x.iter().enumerate().map(|(c, x)| f64::from(*x) * w(c)).sum::<f64>();
            }
            // What was added to y costs digits of its own.
            worst = worst.max(((f64::from(*y) - sum).abs() - at as f64 * 1e-7).max(0.0));
            assert!(!y.is_nan());
        }
        worst
    }

    #[test]
    fn every_pixel_is_the_sum_over_taps_and_channels_whatever_the_size() {
        for (batch, size, channels, n) in [(1, [8, 8], 32, 64), (2, [5, 13], 80, 48), (3, [1, 7], 16, 16)] {
            let error = error(batch, size, channels, n);
            assert!(error < 2e-5, "{batch} x {size:?} x {channels} to {n}: off by {error}");
        }
    }

    #[test]
    fn many_tiles_are_worked_on_in_chunks() {
        let error = error(1, [130, 129], 512, 16);
        assert!(error < 2e-5, "off by {error}");
    }

    #[test]
    fn tasks_cover_all_products_once_and_are_found_again() {
        for (n, tiles) in [(64, 1), (320, 100), (16, 200), (48, 65)] {
            let tasks = Tasks::new(n, tiles);
            let mut m = vec![0.0; tasks.len()];
            for (channel, tile, m) in tasks.split(&mut m) {
                let plane = m.len() / (IN * IN);
                for (t, o) in (0..(plane - APART) / tasks.block).flat_map(|t| (0..tasks.block).map(move |o| (t, o))) {
                    for place in 0..IN * IN {
                        m[place * plane + t * tasks.block + o] += ((tile + t) * n + channel + o) as f32 + 1.0;
                    }
                }
            }
            for (tile, channel) in (0..tiles).flat_map(|tile| (0..n).map(move |channel| (tile, channel))) {
                let (at, stride) = tasks.find(channel, tile);
                let wanted = (tile * n + channel) as f32 + 1.0;
                assert!((0..IN * IN).all(|place| m[at + place * stride] == wanted), "{n} channels, {tiles} tiles");
            }
        }
    }

    #[test]
    fn it_pays_for_many_pixels_and_whole_vectors_alone() {
        let w = Matrix::of(&Tensor::zeros([1, 1]));
        let conv = |size, channels, n| Conv3x3 { w: &w, channels, n, size: [size; 2] };
        let pays = |size, channels, n| conv(size, channels, n).pays();
        assert!(pays(64, 320, 320) && pays(8, 1280, 1280));
        assert!(!pays(4, 1280, 1280), "one tile");
        assert!(!pays(64, 320, 4) && !pays(64, 4, 320), "few channels");
        assert!(!pays(64, 321, 320));
    }
}
