//! From the files in `shaders/` to the text that a device compiles: imports expanded, and a prelude in front that says
//! what `elem4` and `weight4` are on this device.

use naga::front::wgsl::ParseError;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, SourceLocation};

use crate::error::{Error, Result};
use crate::graph::plan::Storage;
use crate::ops::{Kind, Ty};
use crate::tensor::DType;

mod sources;

pub use sources::{Source, Sources, names, parts};

/// How a kernel's storage reads and writes its elements. Arithmetic is in f32 in every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// `elem4`: activations, f16 or f32.
    pub elem: DType,
    /// `weight4`: matrices of parameters, f16 or f32.
    pub weight: DType,
    /// The device has `shader-f16`. Without it f16 weights are read as pairs packed into u32.
    pub native_f16: bool,
}

impl Dialect {
    /// How a node with these inputs reads and writes in a session's storage. A node that reads no matrix of parameters
    /// reads activations through `weight4` (a look-up in activations).
    pub fn of(storage: Storage, inputs: &[Ty], native_f16: bool) -> Self {
        let reads_matrix = inputs.iter().any(|ty| ty.kind == Kind::Weight);
        let weight = if reads_matrix { storage.weight } else { storage.act };
        Self { elem: storage.act, weight, native_f16 }
    }

    /// The text in front of every shader of this dialect.
    pub fn prelude(self) -> String {
        let wide = |dtype| if dtype == DType::F16 { "vec4<f16>" } else { "vec4<f32>" };
        let packed = self.weight == DType::F16 && !self.native_f16;
        let enable = if self.native_f16 && (self.elem == DType::F16 || self.weight == DType::F16) {
            "enable f16;\n"
        } else {
            ""
        };
        let (weight4, load_weight) = if packed {
            ("vec2<u32>", "vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y))")
        } else {
            (wide(self.weight), "vec4<f32>(v)")
        };
        format!(
            "{enable}alias elem4 = {elem};\nalias weight4 = {weight4};\n\
             fn load(v: elem4) -> vec4<f32> {{ return vec4<f32>(v); }}\n\
             fn store(v: vec4<f32>) -> elem4 {{ return {elem}(v); }}\n\
             fn load_weight(v: weight4) -> vec4<f32> {{ return {load_weight}; }}\n",
            elem = wide(self.elem),
        )
    }

    /// Every dialect that some device uses.
    pub fn all() -> Vec<Self> {
        let dialect = |elem, weight, native_f16| Self { elem, weight, native_f16 };
        vec![
            dialect(DType::F32, DType::F32, false),
            dialect(DType::F32, DType::F16, false),
            dialect(DType::F32, DType::F16, true),
            dialect(DType::F16, DType::F16, true),
        ]
    }
}

/// A kernel's text, parsed and validated: what a device is about to be given.
///
/// # Errors
/// `FILE:LINE:COLUMN: what is wrong`, in the file that the user wrote.
pub fn validate(source: &Source, native_f16: bool) -> Result<(Module, ModuleInfo)> {
    let wrong = |location: Option<SourceLocation>, what| {
        let place = location.map_or_else(|| source.path.to_string(), |l| source.place(l.line_number, l.line_position));
        Error::config(place, what)
    };
    let module =
        naga::front::wgsl::parse_str(&source.text).map_err(|e| wrong(e.location(&source.text), explain(&e)))?;
    // Reading packed pairs is part of WGSL itself.
    let mut f16 = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    f16.set(Capabilities::SHADER_FLOAT16, native_f16);
    let info = Validator::new(ValidationFlags::all(), f16).validate(&module);
    let info = info.map_err(|e| wrong(e.location(&source.text), chain(e.as_inner())))?;
    Ok((module, info))
}

/// A parse error with its remarks, in one line.
fn explain(error: &ParseError) -> String {
    let labels = error.labels().map(|(_, label)| label).filter(|label| !label.is_empty());
    let remarks: Vec<_> = labels.chain(error.notes()).collect();
    if remarks.is_empty() { error.message().into() } else { format!("{} ({})", error.message(), remarks.join("; ")) }
}

/// An error and what it was caused by, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_is_enabled_only_where_it_is_used() {
        let mut dialect = Dialect { elem: DType::F32, weight: DType::F16, native_f16: true };
        assert!(dialect.prelude().contains("enable f16;"));
        dialect.native_f16 = false;
        assert!(!dialect.prelude().contains("enable f16;"));
        assert!(dialect.prelude().contains("unpack2x16float"));
    }
}
