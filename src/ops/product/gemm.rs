//! The families of the matrix product that [`MatMul`](super::matmul::MatMul), [`Conv2d`](super::conv2d::Conv2d) and
//! [`WinogradProduct`](crate::ops::winograd::winograd_product::WinogradProduct) are launched as: which cores
//! (`shaders/cores/gemm_*.wgsl`) a device can run, with which tiles, the preferred first.

mod coop;

use coop::Coop;

use crate::caps::Caps;
use crate::ops::{Launch, Tiles, Variant, fold_groups};

/// One core with one size of tile.
#[derive(Debug, Clone, Copy)]
struct Tile {
    name: &'static str,
    core: &'static str,
    /// The core's overrides that make up the tile, the number of rows first.
    constants: &'static [(&'static str, u32)],
    /// Of y.
    rows: usize,
    columns: usize,
}

/// What any device can run. A thread has 8 x 4 or 4 x 4 sums: the more, the fewer bytes of workgroup memory each
/// multiply-add takes, which is what bounds a GPU (1.5 and 2 bytes). Compiled by Mesa for RDNA2 to 4, Turing, Ampere,
/// M1, Arc and Adreno, no thread of either spills registers.
const PORTABLE: [Tile; 2] = [
    Tile { name: "tile64", core: "gemm_tile", constants: &[("TILE_ROWS", 64), ("ROWS", 8)], rows: 64, columns: 64 },
    Tile { name: "tile16", core: "gemm_tile", constants: &[("TILE_ROWS", 16), ("ROWS", 4)], rows: 16, columns: 64 },
];

/// What devices with [many registers](Caps::many_registers) can run besides: 8 x 8 sums a thread, 1 byte each.
const WIDE: Tile = Tile {
    name: "tile64-wide",
    core: "gemm_tile",
    constants: &[("TILE_ROWS", 64), ("ROWS", 8), ("COLUMNS4", 2)],
    rows: 64,
    columns: 128,
};

/// What software devices run many times faster than that.
const BROADCAST: [Tile; 3] = [
    Tile { name: "broadcast32", core: "gemm_broadcast", constants: &[("ROW_GROUPS", 4)], rows: 32, columns: 32 },
    Tile { name: "broadcast16", core: "gemm_broadcast", constants: &[("ROW_GROUPS", 2)], rows: 16, columns: 32 },
    Tile { name: "broadcast8", core: "gemm_broadcast", constants: &[("ROW_GROUPS", 1)], rows: 8, columns: 32 },
];

/// The last resort of any device.
const NAIVE: Tile = Tile { name: "naive", core: "gemm_naive", constants: &[], rows: 16, columns: 64 };

/// Workgroups that a large device is busy with: about one for each of its multiprocessors.
const BUSY: usize = 128;
/// A tile of so few rows is worth filling in part.
const FEW_ROWS: usize = 32;

/// The sizes of a product: y `[rows, n]`, the sum of `taps` products over `c` channels each. Or of so many of them,
/// each with such rows and a w of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) matrices: usize,
    pub(crate) rows: usize,
    pub(crate) c: usize,
    pub(crate) taps: usize,
    pub(crate) n: usize,
}

impl Size {
    /// Whether tiles of so many rows and columns give a device enough to do without multiplying mostly rows that are
    /// not there.
    fn keeps_busy(self, [rows, columns]: [usize; 2]) -> bool {
        let tiles = (self.matrices * self.rows).div_ceil(rows) * self.n.div_ceil(columns);
        tiles >= BUSY && (rows <= FEW_ROWS || self.rows > rows / 2)
    }
}

/// The launches of a shader that imports a core, for one with its own bindings and constants; `finish` adds its
/// params.
pub(crate) fn variants(shader: &Launch, size: Size, caps: &Caps, finish: impl Fn(Launch) -> Launch) -> Vec<Variant> {
    let variant = |name, [rows, columns]: [usize; 2], with_core: &dyn Fn(Launch) -> Launch| {
        let tiles = Tiles { count: (size.matrices * size.rows).div_ceil(rows), folded: true };
        let [y, z, _] = fold_groups(tiles.count, caps);
        let launch = with_core(shader.clone()).tiled(tiles);
        Variant { name, launch: finish(launch.workgroups([size.n.div_ceil(columns) as u32, y, z])) }
    };
    let plain = |tile: Tile| {
        variant(tile.name, [tile.rows, tile.columns], &|launch| {
            let launch = launch.core(tile.core);
            tile.constants.iter().fold(launch, |launch, &(name, value)| launch.constant(name, value))
        })
    };
    let coop = |coop: Coop| variant(coop.name, coop.tile(), &|launch| coop.launch(launch, caps));
    let coops = coop::offered(size, caps).into_iter().map(coop);
    // A tile does not reach from one matrix into the next; threads that share nothing may.
    let fits = |tile: &Tile| size.matrices == 1 || size.rows.is_multiple_of(tile.rows);
    let mut portable: Vec<Tile> = ordered(&PORTABLE, size.rows).collect();
    if caps.many_registers() || caps.on_processor() {
        let first = caps.many_registers() && size.keeps_busy([WIDE.rows, WIDE.columns]);
        portable.insert(if first { 0 } else { portable.len() }, WIDE);
    }
    let portable = portable.into_iter().filter(fits).chain([NAIVE]).map(plain);
    if caps.fast_matrices() {
        return coops.chain(portable).collect();
    }
    let broadcast = caps.broadcasts().then(|| ordered(&BROADCAST, size.rows).filter(fits).map(plain));
    broadcast.into_iter().flatten().chain(portable).chain(coops).collect()
}

/// Tiles from the largest on, with the smallest that has all rows in front of the others: in a larger one most threads
/// would multiply rows that are not there.
fn ordered(tiles: &[Tile], rows: usize) -> impl Iterator<Item = Tile> {
    let first = tiles.iter().rposition(|tile| rows <= tile.rows).unwrap_or(0);
    let others = tiles.iter().enumerate().filter(move |(i, _)| *i != first).map(|(_, tile)| *tile);
    [tiles[first]].into_iter().chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::DeviceType;
    use crate::tensor::DType;

    /// Names of the variants in f16 on a device with matrices of 16, changed so.
    fn names(size: Size, change: impl Fn(&mut Caps)) -> Vec<&'static str> {
        let mut caps = Caps::kinds(true, DType::F16, DType::F16).remove(2);
        change(&mut caps);
        variants(&Launch::new("matmul", 2), size, &caps, |launch| launch).iter().map(|v| v.name).collect()
    }

    const LARGE: Size = Size { matrices: 1, rows: 4096, c: 320, taps: 1, n: 1280 };

    #[test]
    fn the_largest_tile_that_keeps_a_device_busy_comes_first() {
        let first = |rows, n| names(Size { rows, n, ..LARGE }, |_| {})[0];
        assert_eq!(first(4096, 1280), "coop16-128");
        assert_eq!(first(1024, 1280), "coop16-64");
        assert_eq!(first(256, 1280), "coop16-32");
        assert_eq!(first(128, 1280), "coop16-split");
        assert_eq!(first(2, 1280), "coop16-split");
        assert_eq!(first(2, 10_240), "coop16-32");
    }

    #[test]
    fn the_wide_tile_is_for_many_registers_and_comes_first_where_it_keeps_them_busy() {
        let portable = |size, change: &dyn Fn(&mut Caps)| {
            let mut names = names(size, change);
            names.retain(|name| name.starts_with("tile"));
            names
        };
        assert_eq!(portable(LARGE, &|_| {}), ["tile64-wide", "tile64", "tile16"]);
        assert_eq!(portable(Size { rows: 64, ..LARGE }, &|_| {}), ["tile64", "tile16", "tile64-wide"]);
        assert_eq!(portable(Size { rows: 16, n: 65_536, ..LARGE }, &|_| {}), ["tile16", "tile64", "tile64-wide"]);
        let without = ["tile64", "tile16"];
        assert_eq!(portable(LARGE, &|caps| caps.subgroups = Some([8, 32])), without, "threads in subgroups of 8");
        assert_eq!(portable(LARGE, &|caps| caps.device_type = DeviceType::Integrated), without, "an integrated GPU");
    }

    #[test]
    fn few_rows_take_the_smallest_tile_that_has_them_all() {
        let first = |rows| ordered(&BROADCAST, rows).next().unwrap().name;
        assert_eq!(
            [8, 9, 16, 17, 100].map(first),
            ["broadcast8", "broadcast16", "broadcast16", "broadcast32", "broadcast32"]
        );
        assert_eq!(ordered(&BROADCAST, 16).map(|tile| tile.rows).collect::<Vec<_>>(), [16, 32, 8]);
    }

    #[test]
    fn subgroups_of_32_and_of_64_threads_have_the_same_cooperative_tiles() {
        let tiles = |lanes: u32| {
            let mut caps = Caps::kinds(true, DType::F16, DType::F16).remove(2);
            caps.subgroups = Some([lanes, lanes]);
            coop::offered(LARGE, &caps).iter().map(|coop| (coop.name, coop.tile())).collect::<Vec<_>>()
        };
        assert_eq!(tiles(32).len(), 4);
        assert_eq!(tiles(64), tiles(32));
    }

    #[test]
    fn cooperative_matrices_are_offered_only_where_they_are_known_to_fit() {
        let offers = |size: Size, change: &dyn Fn(&mut Caps)| {
            names(size, change).iter().filter(|name| name.starts_with("coop")).count()
        };
        assert_eq!(offers(LARGE, &|_| {}), 4);
        assert_eq!(offers(Size { c: 324, ..LARGE }, &|_| {}), 0, "rows that are not vectors of eight");
        assert_eq!(offers(Size { n: 4, ..LARGE }, &|_| {}), 0, "columns that are not vectors of eight");
        assert_eq!(offers(LARGE, &|caps| caps.subgroups = Some([8, 32])), 0, "subgroups of an unknown size");
        assert_eq!(offers(LARGE, &|caps| caps.coop_matrix[0].cr = "f16".into()), 0, "sums in f16");
        assert_eq!(offers(LARGE, &|caps| caps.coop_matrix[0].k = 8), 0, "matrices that are not square");
        assert_eq!(offers(LARGE, &|caps| caps.backend = "metal".into()), 0, "matrices that Metal does not have");
        assert_eq!(offers(LARGE, &|caps| *caps = caps.storing(DType::F32, DType::F16)), 0, "activations in f32");
        assert_eq!(offers(LARGE, &|caps| caps.workgroup_memory = 32 << 10), 3, "32 KiB of workgroup memory");
        assert_eq!(offers(LARGE, &|caps| caps.max_invocations = 64), 0, "64 threads");
    }
}
