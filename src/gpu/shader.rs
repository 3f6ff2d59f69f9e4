//! From the files in `shaders/` to the text that a device compiles: imports expanded, and a prelude in front that says
//! what `elem4`, its half `elem2` and `weight4` are on this device. And on to what the drivers of other platforms
//! would be given.

use crate::error::Result;
use crate::graph::plan::Storage;
use crate::ops::{Case, Kind, Launch, Ty};
use crate::tensor::DType;

#[cfg(test)]
mod offered;
mod prepare;
mod sources;
pub(super) mod translate;
mod visible;

pub use prepare::{ENTRY_POINT, Prepared, prepare};
pub use sources::{Source, Sources, cores, lab, names, no_such, parts};
pub(super) use translate::spirv_words;
pub use translate::{hlsl, msl, spirv};

/// How a kernel's storage reads and writes its elements. Arithmetic is in f32 in every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// `elem4`: activations, f16 or f32.
    pub elem: DType,
    /// `weight4`: matrices of parameters, f16 or f32.
    pub weight: DType,
    /// f16 is the device's own type. Otherwise it is kept as pairs packed into u32.
    pub native_f16: bool,
    /// Side of the cooperative matrices that the kernel multiplies, if it does.
    pub matrix: Option<u32>,
}

impl Dialect {
    /// How a node with these inputs and output reads and writes in a session's storage. A node that reads no matrix of
    /// parameters reads activations through `weight4` (a look-up in activations), and one that has no activations
    /// either works on f32 values alone.
    pub fn of(storage: Storage, inputs: &[Ty], output: &Ty, native_f16: bool) -> Self {
        let has = |kind| inputs.iter().chain([output]).any(|ty| ty.kind == kind);
        let elem = if has(Kind::Act) { storage.act } else { DType::F32 };
        let weight = if has(Kind::Weight) { storage.weight } else { elem };
        Self { elem, weight, native_f16, matrix: None }
    }

    /// The same of a case's op.
    ///
    /// # Errors
    /// If the case contradicts its op's shape rule.
    pub fn of_case(storage: Storage, case: &Case, native_f16: bool) -> Result<Self> {
        let types = case.types();
        Ok(Self::of(storage, &types, &case.op.output(&types)?, native_f16))
    }

    /// As this launch needs it: cooperative matrices are of the device's own f16, even where other kernels do without.
    pub fn launching(self, launch: &Launch) -> Self {
        Self { native_f16: self.native_f16 || launch.matrix.is_some(), matrix: launch.matrix, ..self }
    }

    /// The text in front of every shader of this dialect.
    pub fn prelude(self) -> String {
        let uses_f16 = self.elem == DType::F16 || self.weight == DType::F16;
        let enable = if uses_f16 && self.native_f16 { "enable f16;\n" } else { "" };
        // Type, how a value of it becomes vec4f, and back; the type of half of it, and how one is made.
        let unpacked = "vec4f(unpack2x16float(v.x), unpack2x16float(v.y))";
        let packed = "vec2u(pack2x16float(v.xy), pack2x16float(v.zw))";
        let stored = |dtype| match (dtype, self.native_f16) {
            (DType::F16, false) => ["vec2u", unpacked, packed, "u32", "pack2x16float(v)"],
            (DType::F16, true) => ["vec4h", "vec4f(v)", "vec4h(v)", "vec2h", "vec2h(v)"],
            _ => ["vec4f", "v", "v", "vec2f", "v"],
        };
        let [elem, load, store, elem2, store2] = stored(self.elem);
        let [weight, load_weight, ..] = stored(self.weight);
        let (enable_matrix, matrix) = self.matrix.map(matrices).unwrap_or_default();
        format!(
            "{enable}{enable_matrix}alias elem4 = {elem};\nalias elem2 = {elem2};\nalias weight4 = {weight};\n\
             fn load(v: elem4) -> vec4f {{ return {load}; }}\n\
             fn store(v: vec4f) -> elem4 {{ return {store}; }}\n\
             fn store2(v: vec2f) -> elem2 {{ return {store2}; }}\n\
             fn load_weight(v: weight4) -> vec4f {{ return {load_weight}; }}\n{matrix}"
        )
    }

    /// Every dialect that some device uses.
    pub fn all() -> Vec<Self> {
        let dialect = |elem, weight, native_f16| Self { elem, weight, native_f16, matrix: None };
        vec![
            dialect(DType::F32, DType::F32, false),
            dialect(DType::F32, DType::F16, false),
            dialect(DType::F32, DType::F16, true),
            dialect(DType::F16, DType::F16, true),
            dialect(DType::F16, DType::F16, false),
        ]
    }
}

/// The line that enables cooperative matrices, and the names of those of this side: an override cannot be part of a
/// type.
fn matrices(side: u32) -> (&'static str, String) {
    let alias = |role, elem| format!("alias Matrix{role} = coop_mat{side}x{side}<{elem}, {role}>;\n");
    let names = [alias("A", "f16"), alias("B", "f16"), alias("C", "f32")].concat();
    ("enable wgpu_cooperative_matrix;\n", format!("const MATRIX: u32 = {side}u;\n{names}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_is_enabled_only_where_it_is_used() {
        let mut dialect = Dialect { elem: DType::F32, weight: DType::F16, native_f16: true, matrix: None };
        assert!(dialect.prelude().contains("enable f16;"));
        dialect.native_f16 = false;
        assert!(!dialect.prelude().contains("enable f16;"));
        assert!(dialect.prelude().contains("unpack2x16float"));
    }
}
