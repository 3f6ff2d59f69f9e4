//! The tiles of the core for cooperative matrices (`shaders/cores/gemm_coop.wgsl`), and where they fit.

use super::{Launch, Size};
use crate::caps::{Caps, Lanes, MatrixLoad, Needs};

/// How the subgroups of a workgroup share a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coop {
    pub(super) name: &'static str,
    core: &'static str,
    /// Side of a matrix.
    side: usize,
    /// Subgroups along the rows, the columns, and the channels of a step.
    groups: [usize; 3],
    /// Matrices of y of each subgroup, along the rows and the columns: 1, 2 or 4.
    pieces: [usize; 2],
    /// Channels in workgroup memory at once.
    step: usize,
}

const VEC4: &str = "gemm_coop_vec4";
const SCALAR: &str = "gemm_coop_scalar";

/// For matrices of 16, from the largest tile to the smallest. In the last the subgroups share K: for few rows and long
/// sums, where tiles alone would leave most of a device idle.
const SIDE_16: [Coop; 4] = [
    Coop { name: "coop16-128", core: VEC4, side: 16, groups: [2, 2, 1], pieces: [4, 4], step: 32 },
    Coop { name: "coop16-64", core: VEC4, side: 16, groups: [2, 2, 1], pieces: [2, 2], step: 32 },
    Coop { name: "coop16-32", core: VEC4, side: 16, groups: [1, 4, 1], pieces: [2, 1], step: 32 },
    Coop { name: "coop16-split", core: VEC4, side: 16, groups: [1, 1, 4], pieces: [2, 2], step: 64 },
];

/// The same for subgroups of 64 threads, in which a subgroup of the smaller tiles has twice the matrices: so each
/// matrix in workgroup memory is read for more products, and what else the loop does is for more of them.
const SIDE_16_LANES_64: [Coop; 4] = [
    SIDE_16[0],
    Coop { groups: [1, 2, 1], pieces: [4, 2], ..SIDE_16[1] },
    Coop { groups: [1, 2, 1], pieces: [2, 2], ..SIDE_16[2] },
    SIDE_16[3],
];

/// For matrices of 8. A subgroup has as many as above, so the tiles are smaller.
const SIDE_8: [Coop; 3] = [
    Coop { name: "coop8-64", core: VEC4, side: 8, groups: [2, 2, 1], pieces: [4, 4], step: 32 },
    Coop { name: "coop8-32", core: VEC4, side: 8, groups: [1, 4, 1], pieces: [4, 2], step: 32 },
    Coop { name: "coop8-split", core: VEC4, side: 8, groups: [1, 1, 4], pieces: [4, 4], step: 64 },
];
const SIDE_8_SCALAR: [Coop; 3] = [
    Coop { name: "coop8-64-scalar", core: SCALAR, ..SIDE_8[0] },
    Coop { name: "coop8-32-scalar", core: SCALAR, ..SIDE_8[1] },
    Coop { name: "coop8-split-scalar", core: SCALAR, ..SIDE_8[2] },
];

/// Times that a thread may load eight elements of each tile (MOST_LOADS).
const MOST_LOADS: usize = 8;
/// Elements f16 behind each row of a tile.
const ROW_GAP: usize = 8;

impl Coop {
    /// Rows and columns of y.
    pub(super) fn tile(&self) -> [usize; 2] {
        [0, 1].map(|i| self.groups[i] * self.pieces[i] * self.side)
    }

    fn threads(&self, lanes: usize) -> usize {
        self.groups.iter().product::<usize>() * lanes
    }

    /// Of both tiles in f16 and a row of every subgroup's matrices in f32.
    fn workgroup_bytes(&self) -> usize {
        let [rows, columns] = self.tile();
        let w = if self.core == SCALAR { [self.step, columns] } else { [columns, self.step] };
        let elements = rows * (self.step + ROW_GAP) + w[0] * (w[1] + ROW_GAP);
        2 * elements + 4 * self.side * self.side * self.pieces[1] * self.groups.iter().product::<usize>()
    }

    /// Whether the device can run it, with the same number of whole loads for every thread.
    fn fits(&self, lanes: usize, caps: &Caps) -> bool {
        let (threads, [rows, columns]) = (self.threads(lanes), self.tile());
        let even = |elements: usize| {
            let loads = elements / 8;
            loads.is_multiple_of(threads) && loads <= MOST_LOADS * threads
        };
        let needs = Needs {
            lanes: Lanes::Exactly(lanes as u32),
            threads: threads as u32,
            workgroup_memory: self.workgroup_bytes() as u32,
            matrix: Some(self.side as u32),
        };
        caps.meets(&needs) && even(rows * self.step) && even(self.step * columns)
    }

    /// Names the core and sets its overrides.
    pub(super) fn launch(&self, launch: Launch, caps: &Caps) -> Launch {
        let counts = [self.groups[0], self.groups[1], self.groups[2], self.pieces[0], self.pieces[1], self.step];
        let names = ["ROW_GROUPS", "COLUMN_GROUPS", "K_GROUPS", "ROW_PIECES", "COLUMN_PIECES", "STEP"];
        let launch = launch.core(self.core).matrix(self.side as u32);
        let launch = launch.constant("LANES", caps.subgroup_size().unwrap_or_default());
        names.into_iter().zip(counts).fold(launch, |launch, (name, count)| launch.constant(name, count as u32))
    }
}

/// Those that this device can run on this product, the preferred one first: the largest tile that still makes enough
/// workgroups, or else the one that makes the most.
pub(super) fn offered(size: Size, caps: &Caps) -> Vec<Coop> {
    let (Some(side), Some(lanes)) = (caps.matrix(), caps.subgroup_size()) else { return Vec::new() };
    // The core reads eight channels of x at once, and one w, in blocks of eight columns.
    if size.matrices > 1 || !size.c.is_multiple_of(8) || !size.n.is_multiple_of(8) {
        return Vec::new();
    }
    let loads = caps.matrix_loads().iter().flat_map(|load| match (load, side, lanes) {
        (MatrixLoad::Vec4, 16, 64) => &SIDE_16_LANES_64[..],
        (MatrixLoad::Vec4, 16, _) => &SIDE_16,
        (MatrixLoad::Vec4, ..) => &SIDE_8,
        (MatrixLoad::Scalar, ..) => &SIDE_8_SCALAR,
    });
    let mut all: Vec<Coop> = loads.copied().filter(|coop| coop.fits(lanes as usize, caps)).collect();
    let first = all.iter().position(|coop| size.keeps_busy(coop.tile())).unwrap_or(all.len().saturating_sub(1));
    all.rotate_left(first);
    all
}
