//! The tiles of attention's core for cooperative matrices (`shaders/cores/attention_coop.wgsl`), and where they fit.

use crate::caps::{Caps, Lanes, MatrixLoad, Needs};
use crate::ops::Launch;

/// How a head is cut into matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coop {
    pub(super) name: &'static str,
    core: &'static str,
    /// Side of a matrix.
    side: usize,
    /// Matrices of keys in a tile.
    keys: usize,
    /// Matrices of channels that scores are summed over at once, and how often.
    step: usize,
    steps: usize,
    /// Matrices of channels of y side by side, groups of them that a workgroup computes, and workgroups that share a
    /// head's.
    group: usize,
    groups: usize,
    pub(super) chunks: usize,
}

/// Of a workgroup, each with a matrix's rows of queries.
const SUBGROUPS: usize = 4;
/// Matrices of channels that a workgroup holds of queries and keys; of y, in one group and in two.
const MOST_STEP: usize = 5;
const MOST_GROUP: usize = 5;
const MOST_OUT: usize = 2 * MOST_GROUP;
/// Elements behind each row of a tile of f16, and of the stage.
const ROW_GAP: usize = 8;
const STAGE_GAP: usize = 4;

impl Coop {
    fn new(name: &'static str, core: &'static str, side: usize, d: usize, keys: usize) -> Self {
        let pieces = d.div_ceil(side);
        let (steps, chunks) = (pieces.div_ceil(MOST_STEP), pieces.div_ceil(MOST_OUT));
        let (step, out) = (pieces.div_ceil(steps), pieces.div_ceil(chunks));
        let groups = out.div_ceil(MOST_GROUP);
        Self { name, core, side, keys, step, steps, group: out.div_ceil(groups), groups, chunks }
    }

    /// Queries of a workgroup.
    pub(super) fn queries(&self) -> usize {
        SUBGROUPS * self.side
    }

    fn kv_pieces(&self) -> usize {
        self.step.max(self.group * self.groups)
    }

    fn stage_pieces(&self) -> usize {
        self.keys.max(self.group)
    }

    /// Queries, then keys or values, and weights in f16; the stage in f32; a word for each subgroup.
    fn workgroup_bytes(&self) -> usize {
        let Self { side, keys, step, .. } = *self;
        let row = |pieces: usize| pieces * side + ROW_GAP;
        let tiles = self.queries() * (row(step) + row(keys)) + keys * side * row(self.kv_pieces());
        2 * tiles + 4 * self.queries() * (self.stage_pieces() * side + STAGE_GAP) + 4 * SUBGROUPS
    }

    fn needs(&self, lanes: u32) -> Needs {
        Needs {
            lanes: Lanes::Exactly(lanes),
            threads: SUBGROUPS as u32 * lanes,
            workgroup_memory: self.workgroup_bytes() as u32,
            matrix: Some(self.side as u32),
        }
    }

    /// Rounds of a thread's loops over so many keys, at most.
    pub(super) fn rounds(&self, keys: usize, lanes: u32) -> usize {
        let Self { side, step, steps, .. } = *self;
        let vectors = |tokens: usize, pieces: usize| tokens * pieces * side / 4 / (SUBGROUPS * lanes as usize) + 1;
        let tile = self.keys * side;
        let scores = steps * (1 + vectors(self.queries(), step) + vectors(tile, step) + step);
        // The largest score and the weights by the row's lanes, and both halves of the sums scaled down.
        let rows = 4 * (tile.max(MOST_GROUP * side) * side / 4 / lanes as usize + 1);
        keys.div_ceil(tile) * (1 + scores + vectors(tile, self.kv_pieces()) + rows + self.keys)
    }

    /// Names the core and sets its overrides.
    pub(super) fn launch(&self, launch: Launch, lanes: u32) -> Launch {
        let Self { keys, step, steps, group, groups, .. } = *self;
        let names = ["KEY_PIECES", "STEP_PIECES", "STEPS", "GROUP_PIECES", "GROUPS", "KV_PIECES", "STAGE_PIECES"];
        let counts = [keys, step, steps, group, groups, self.kv_pieces(), self.stage_pieces()];
        let launch = launch.core(self.core).matrix(self.side as u32).constant("LANES", lanes);
        names.into_iter().zip(counts).fold(launch, |launch, (name, count)| launch.constant(name, count as u32))
    }
}

/// Those that this device can run on heads of `d` channels, the preferred one first, with its lanes.
pub(super) fn offered(d: usize, caps: &Caps) -> Option<(Vec<Coop>, u32)> {
    let (side, lanes) = (caps.matrix()?, caps.subgroup_size()?);
    // A row of a matrix is shared out among whole lanes.
    if !lanes.is_multiple_of(side) {
        return None;
    }
    let side = side as usize;
    // As many keys at once as there is room for come first.
    let tiles = caps.matrix_loads().iter().flat_map(|load| match load {
        MatrixLoad::Vec4 => [("coop-wide", "attention_coop_vec4", 4), ("coop-narrow", "attention_coop_vec4", 2)],
        MatrixLoad::Scalar => {
            [("coop-wide-scalar", "attention_coop_scalar", 4), ("coop-narrow-scalar", "attention_coop_scalar", 2)]
        }
    });
    let coops = tiles.map(|(name, core, keys)| Coop::new(name, core, side, d, keys));
    Some((coops.filter(|coop| caps.meets(&coop.needs(lanes))).collect(), lanes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    /// Of the first one offered in f16 on the device with matrices of 16, changed so.
    fn first(d: usize, change: impl Fn(&mut Caps)) -> Option<Coop> {
        let mut caps = Caps::kinds(true, DType::F16, DType::F16).remove(2);
        change(&mut caps);
        offered(d, &caps)?.0.first().copied()
    }

    #[test]
    fn heads_are_cut_into_as_few_parts_as_registers_and_memory_allow() {
        let cut = |d| first(d, |_| {}).map(|c| (c.keys, [c.step, c.steps], [c.group, c.groups, c.chunks]));
        assert_eq!(cut(40), Some((4, [3, 1], [3, 1, 1])));
        assert_eq!(cut(80), Some((2, [5, 1], [5, 1, 1])));
        assert_eq!(cut(160), Some((2, [5, 2], [5, 2, 1])));
        assert_eq!(cut(512), Some((2, [5, 7], [4, 2, 4])));
    }

    #[test]
    fn it_is_offered_only_where_it_is_known_to_fit() {
        assert!(first(40, |caps| caps.subgroups = Some([8, 8])).is_none(), "half a row for a lane");
        assert!(first(40, |caps| caps.subgroups = Some([8, 32])).is_none(), "subgroups of an unknown size");
        assert!(first(40, |caps| caps.max_invocations = 64).is_none(), "64 threads");
        assert!(first(40, |caps| caps.workgroup_memory = 16 << 10).is_none(), "16 KiB of workgroup memory");
        assert!(first(40, |caps| *caps = caps.storing(DType::F32, DType::F16)).is_none(), "activations in f32");
        assert!(first(40, |caps| caps.backend = "metal".into()).is_none(), "matrices that Metal does not have");
    }
}
