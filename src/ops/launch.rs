//! How a kernel is run, as plain data: the shader, its constants, its params, its bindings and its grid.

use std::ops::Range;

use crate::caps::Caps;

/// One of the op's inputs or the kernel's own resources, in the order of `@binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The input of that number.
    Input(usize),
    /// An optional input that this node does not have. A few zero bytes are bound in its place; the kernel's overrides
    /// keep it from being read.
    Absent,
    /// The output.
    Output,
    /// The uniform struct `Params`.
    Params,
}

/// One dispatch, as plain data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Launch {
    /// Stem of the file in `shaders/`.
    pub shader: &'static str,
    /// Stem of the file in `shaders/cores/` that the shader's `#import core` stands for, if it has one.
    pub core: Option<&'static str>,
    /// Side of the cooperative matrices that the core multiplies, 8 or 16, if it does.
    pub matrix: Option<u32>,
    /// Values of the shader's `override` constants.
    pub constants: Vec<(&'static str, f64)>,
    /// The members of the uniform struct `Params`, in order: names and bits. All are 4 bytes wide.
    pub params: Vec<(&'static str, u32)>,
    /// What stands at `@group(0) @binding(i)`.
    pub bindings: Vec<Binding>,
    /// The grid, along x, y and z.
    pub workgroups: [u32; 3],
    /// Along the output's rows, if the kernel can do some of them alone.
    pub tiles: Option<Tiles>,
}

/// Workgroups along the output's rows, each with as many of them. A kernel counts them from `params.first_tile` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    /// How many there are.
    pub count: usize,
    /// They are the grid's dimensions y and z (see [`fold_groups`]), or else its x.
    pub folded: bool,
}

impl Launch {
    /// A launch of `shaders/<shader>.wgsl` whose bindings are `inputs` inputs, the output and the params.
    pub fn new(shader: &'static str, inputs: usize) -> Self {
        let bindings = (0..inputs).map(Binding::Input).chain([Binding::Output, Binding::Params]).collect();
        Self { shader, bindings, workgroups: [1, 1, 1], ..Self::default() }
    }

    /// A launch of [`FLAT_THREADS`] threads a workgroup, one for each of the vectors that its first param counts.
    pub fn flat(shader: &'static str, inputs: usize, vectors: usize, caps: &Caps) -> Self {
        Self::new(shader, inputs).param("vectors", vectors).threads(vectors, caps)
    }

    /// A launch whose first param says from which tile on; all workgroups are set apart from this.
    pub fn tiled(mut self, tiles: Tiles) -> Self {
        self.tiles = Some(tiles);
        self.param("first_tile", 0)
    }

    /// The launch for some of its tiles alone; all of it, if it has none.
    pub fn part(&self, tiles: Range<usize>, caps: &Caps) -> Self {
        let mut part = self.clone();
        let [x, y, z] = &mut part.workgroups;
        match self.tiles {
            None => return part,
            Some(Tiles { folded: false, .. }) => *x = tiles.len() as u32,
            Some(Tiles { folded: true, .. }) => [*y, *z, _] = fold_groups(tiles.len(), caps),
        }
        let first = part.params.iter_mut().filter(|(name, _)| *name == "first_tile");
        first.for_each(|(_, value)| *value = tiles.start as u32);
        part
    }

    /// The core that the shader imports.
    pub fn core(mut self, core: &'static str) -> Self {
        self.core = Some(core);
        self
    }

    /// Side of the cooperative matrices that the core multiplies.
    pub fn matrix(mut self, side: u32) -> Self {
        self.matrix = Some(side);
        self
    }

    /// One more input behind the others, or what stands for it where the node does not have it.
    pub fn optional(mut self, present: bool) -> Self {
        let place = self.bindings.len() - 2;
        let inputs = self.bindings.iter().filter(|binding| matches!(binding, Binding::Input(_))).count();
        self.bindings.insert(place, if present { Binding::Input(inputs) } else { Binding::Absent });
        self
    }

    /// The value of an `override` constant; a bool is 0 or 1.
    pub fn constant(mut self, name: &'static str, value: impl Into<f64>) -> Self {
        self.constants.push((name, value.into()));
        self
    }

    /// A count, a dimension or an offset. Buffers are below 4 GiB, so it fits.
    pub fn param(mut self, name: &'static str, value: usize) -> Self {
        self.params.push((name, value as u32));
        self
    }

    /// A param that is a number in f32.
    pub fn param_f32(mut self, name: &'static str, value: f32) -> Self {
        self.params.push((name, value.to_bits()));
        self
    }

    /// The last binding, constant and param of a kernel whose x may be in two parts (see [`joined`](super::joined)):
    /// here it is whole.
    pub(crate) fn joinable(mut self) -> Self {
        self.bindings.push(Binding::Absent);
        self.constant("JOINED", false).param("x_vectors", 0)
    }

    /// The grid, along x, y and z.
    pub fn workgroups(mut self, workgroups: [u32; 3]) -> Self {
        self.workgroups = workgroups;
        self
    }

    /// The grid of at least this many threads, in workgroups of [`FLAT_THREADS`].
    pub fn threads(self, count: usize, caps: &Caps) -> Self {
        self.workgroups(fold_groups(count.div_ceil(FLAT_THREADS), caps))
    }
}

/// One of the ways to launch an op.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// What sets it apart from the op's others: `portable` where there is one only.
    pub name: &'static str,
    /// The dispatch.
    pub launch: Launch,
}

/// Threads of a workgroup of a kernel that works on one vector of four per thread. WebGPU's smallest maximum.
pub const FLAT_THREADS: usize = 256;

/// Folds `groups` workgroups into two dimensions, since one dimension holds at most 65,535 of them. The kernel numbers
/// them `wid.y * num_workgroups.x + wid.x` and returns when that is past the end.
pub fn fold_groups(groups: usize, caps: &Caps) -> [u32; 3] {
    let most = caps.max_workgroups as usize;
    if groups <= most {
        return [groups.max(1) as u32, 1, 1];
    }
    let y = groups.div_ceil(most);
    [groups.div_ceil(y) as u32, y as u32, 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_fold_into_two_dimensions_only_past_the_limit() {
        let caps = Caps::webgpu_default();
        assert_eq!(fold_groups(65_535, &caps), [65_535, 1, 1]);
        assert_eq!(fold_groups(65_536, &caps), [32_768, 2, 1]);
        let [x, y, _] = fold_groups(200_001, &caps);
        assert!(x as usize * y as usize >= 200_001);
    }

    #[test]
    fn a_part_of_a_launch_has_its_own_tiles_and_all_else() {
        let caps = Caps::webgpu_default();
        let launch = |folded| Launch::new("conv2d", 2).tiled(Tiles { count: 80_000, folded }).param("rows", 9);
        let rows = launch(true).workgroups([3, 40_000, 2]).part(70_000..80_000, &caps);
        assert_eq!((rows.workgroups, &rows.params[..]), ([3, 10_000, 1], &[("first_tile", 70_000), ("rows", 9)][..]));
        let queries = launch(false).workgroups([80_000, 8, 4]).part(0..7, &caps);
        assert_eq!((queries.workgroups, queries.params[0]), ([7, 8, 4], ("first_tile", 0)));
        let whole = Launch::new("add", 2).workgroups([5, 1, 1]);
        assert_eq!(whole.part(0..1, &caps), whole);
    }
}
