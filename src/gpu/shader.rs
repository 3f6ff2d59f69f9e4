//! From the files in `shaders/` to the text that a device compiles: imports expanded, and a prelude in front that says
//! what `elem4` and `weight4` are on this device.

use std::collections::HashSet;

use include_dir::{Dir, include_dir};
use naga::Module;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use crate::error::{Error, Result};
use crate::tensor::DType;

static SHADERS: Dir = include_dir!("$CARGO_MANIFEST_DIR/shaders");

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

/// Stems of the kernels, without the shared parts.
pub fn names() -> Vec<&'static str> {
    SHADERS.files().filter_map(|f| f.path().file_stem()?.to_str()).collect()
}

/// The whole WGSL of a kernel in a dialect.
///
/// # Errors
/// If there is no such shader or an import of it does not exist.
pub fn source(stem: &str, dialect: Dialect) -> Result<String> {
    let mut text = dialect.prelude();
    expand(&format!("{stem}.wgsl"), &mut HashSet::new(), &mut text)?;
    Ok(text)
}

/// Appends a file, with each `#import name` replaced by `shared/name.wgsl` the first time it is met.
fn expand(path: &str, seen: &mut HashSet<String>, out: &mut String) -> Result<()> {
    let file = SHADERS.get_file(path).and_then(|f| f.contents_utf8());
    let text = file.ok_or_else(|| Error::config(format!("shaders/{path}"), "there is no such shader"))?;
    for line in text.lines() {
        match line.strip_prefix("#import ") {
            Some(name) => {
                let path = format!("shared/{}.wgsl", name.trim());
                if seen.insert(path.clone()) {
                    expand(&path, seen, out)?;
                }
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    Ok(())
}

/// A kernel's text, parsed and validated: what a device is about to be given.
///
/// # Errors
/// What is wrong with the shader and where, as naga shows it.
pub fn validate(stem: &str, text: &str, native_f16: bool) -> Result<(Module, ModuleInfo)> {
    let wrong = |what: String| Error::config(format!("shaders/{stem}.wgsl"), what);
    let module = naga::front::wgsl::parse_str(text).map_err(|e| wrong(e.emit_to_string(text)))?;
    // Reading packed pairs is part of WGSL itself.
    let mut f16 = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    f16.set(Capabilities::SHADER_FLOAT16, native_f16);
    let info = Validator::new(ValidationFlags::all(), f16).validate(&module);
    let info = info.map_err(|e| wrong(e.emit_to_string(text)))?;
    Ok((module, info))
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

    #[test]
    fn an_unknown_shader_is_an_error() {
        assert!(source("no_such_kernel", Dialect::all()[0]).is_err());
    }
}
