//! The families of the matrix product that [`MatMul`](super::matmul::MatMul) and [`Conv2d`](super::conv2d::Conv2d) are
//! launched as: which cores (`shaders/shared/gemm_*.wgsl`) a device can run, with which tiles, the preferred first.

use super::epilogue::Epilogue;
use super::{Launch, Variant, fold_groups};
use crate::caps::Caps;

/// One core with one size of tile.
#[derive(Debug, Clone, Copy)]
struct Tile {
    name: &'static str,
    core: &'static str,
    /// The core's override that sets the number of rows, and its value.
    constant: (&'static str, u32),
    /// Of y.
    rows: usize,
    columns: usize,
}

/// What any device can run.
const PORTABLE: [Tile; 2] = [
    Tile { name: "tile64", core: "gemm_tile", constant: ("TILE_ROWS", 64), rows: 64, columns: 64 },
    Tile { name: "tile16", core: "gemm_tile", constant: ("TILE_ROWS", 16), rows: 16, columns: 64 },
];

/// What software devices run many times faster than that.
const BROADCAST: [Tile; 2] = [
    Tile { name: "broadcast32", core: "gemm_broadcast", constant: ("ROW_GROUPS", 4), rows: 32, columns: 32 },
    Tile { name: "broadcast8", core: "gemm_broadcast", constant: ("ROW_GROUPS", 1), rows: 8, columns: 32 },
];

/// The launches of a shader that imports a core, for `rows` rows of `n` columns; `finish` adds its params.
pub(super) fn variants(
    shader: &'static str,
    rows: usize,
    n: usize,
    epilogue: Epilogue,
    caps: &Caps,
    finish: impl Fn(Launch) -> Launch,
) -> Vec<Variant> {
    let launch = |tile: Tile| {
        let [y, z, _] = fold_groups(rows.div_ceil(tile.rows), caps);
        let launch = epilogue
            .launch(Launch::new(shader, epilogue.inputs()).core(tile.core))
            .constant(tile.constant.0, tile.constant.1)
            .workgroups([n.div_ceil(tile.columns) as u32, y, z]);
        Variant { name: tile.name, launch: finish(launch) }
    };
    let families = if caps.broadcasts() { vec![BROADCAST, PORTABLE] } else { vec![PORTABLE] };
    // Few rows prefer the tile of few rows: in the other most threads would multiply rows that are not there.
    families
        .into_iter()
        .flat_map(|[large, small]| if rows <= small.rows { [small, large] } else { [large, small] })
        .map(launch)
        .collect()
}
