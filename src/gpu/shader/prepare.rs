//! A kernel's text as naga understands it, with the launch's constants in place and its bindings held against the
//! launch: what goes wrong here is reported with the file and line that the user wrote, before a driver sees it.

use std::fmt::Display;

use naga::back::pipeline_constants::{PipelineConstantError, process_overrides};
use naga::front::wgsl::ParseError;
use naga::valid::{Capabilities, ModuleInfo, ValidationError, ValidationFlags, Validator};
use naga::{
    AddressSpace, GlobalVariable, Handle, Module, ShaderStage, SourceLocation, Span, StorageAccess, TypeInner, WithSpan,
};

use super::Source;
use crate::error::{Error, Result};
use crate::ops::{Binding, Launch};

/// Every kernel's entry point.
pub const ENTRY_POINT: &str = "main";

/// A valid module without `override` constants, ready to be translated.
#[derive(Debug)]
pub struct Prepared {
    /// With its constants set, for naga's back ends.
    pub module: Module,
    /// What naga's validator found of it.
    pub info: ModuleInfo,
    /// Whether the text is the crate's own, which devices run without checks of indices, divisions and loops.
    pub trusted: bool,
}

/// Parses and validates a kernel, checks it against a launch and puts the launch's constants into it.
///
/// # Errors
/// [`Error::Shader`] at `FILE:LINE:COLUMN` in the user's file: what naga refuses, or a binding, a constant or a member
/// of `Params` that is not what the launch gives.
pub fn prepare(source: &Source, launch: &Launch, native_f16: bool) -> Result<Prepared> {
    let module = naga::front::wgsl::parse_str(&source.text).map_err(|e| refused(source, &e))?;
    // Reading packed pairs is part of WGSL itself.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SUBGROUP;
    capabilities.set(Capabilities::SHADER_FLOAT16, native_f16 || launch.matrix.is_some());
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, launch.matrix.is_some());
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    let info = info.map_err(|e| invalid(source, &e))?;
    let stage = ShaderStage::Compute;
    if !module.entry_points.iter().any(|e| e.stage == stage && e.name == ENTRY_POINT) {
        return Err(Error::shader(&source.path, format!("there is no @compute fn {ENTRY_POINT}")));
    }
    bindings_fit(source, &module, launch)?;
    params_fit(source, &module, launch)?;
    let constants = launch.constants.iter().map(|(name, value)| ((*name).to_string(), *value)).collect();
    let resolved = process_overrides(&module, &info, Some((stage, ENTRY_POINT)), &constants);
    let (resolved, info) = resolved.map_err(|e| match e {
        PipelineConstantError::ValidationError(e) => invalid(source, &e),
        other => Error::shader(&source.path, chain(&other)),
    })?;
    Ok(Prepared { module: resolved.into_owned(), info: info.into_owned(), trusted: source.is_builtin() })
}

/// What is wrong at the first of the places that is one; naga leaves some out.
fn wrong(source: &Source, spans: impl IntoIterator<Item = Span>, what: impl Display) -> Error {
    let Some(span) = spans.into_iter().find(Span::is_defined) else { return Error::shader(&source.path, what) };
    let SourceLocation { line_number, line_position, .. } = span.location(&source.text);
    let line = source.text.lines().nth(line_number as usize - 1).unwrap_or_default();
    Error::shader(source.place(line_number, line_position), what).showing(line, line_position as usize - 1)
}

/// A parse error with its remarks, in one line.
fn refused(source: &Source, error: &ParseError) -> Error {
    let message = error.message();
    let says_more = |label: &&str| label.split_whitespace().any(|word| !message.contains(word));
    let remarks: Vec<_> = error.labels().map(|(_, label)| label).filter(says_more).chain(error.notes()).collect();
    let what = if remarks.is_empty() { message.into() } else { format!("{message} ({})", remarks.join("; ")) };
    wrong(source, error.labels().map(|(span, _)| span), what)
}

fn invalid(source: &Source, error: &WithSpan<ValidationError>) -> Error {
    wrong(source, error.spans().map(|(span, _)| *span), chain(error.as_inner()))
}

/// An error and what it was caused by, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn bindings_fit(source: &Source, module: &Module, launch: &Launch) -> Result<()> {
    let mut bound = vec![false; launch.bindings.len()];
    for (handle, variable) in module.global_variables.iter() {
        let Some(place) = variable.binding else { continue };
        let wrong = |what: String| Err(wrong(source, [module.global_variables.get_span(handle)], what));
        let number = place.binding as usize;
        let Some(binding) = launch.bindings.get(number).filter(|_| place.group == 0) else {
            let (group, last) = (place.group, launch.bindings.len().saturating_sub(1));
            let place = format!("@group({group}) @binding({number})");
            return wrong(format!("nothing is bound to {place}: there is 0, 0 to 0, {last}"));
        };
        if !binding_fits(*binding, variable) {
            return wrong(format!("@binding({number}) is declared {:?}, and bound as {binding:?}", variable.space));
        }
        bound[number] = true;
    }
    let Some(number) = bound.iter().position(|bound| !bound) else { return Ok(()) };
    let what = format!("nothing is declared at @binding({number}), {:?}", launch.bindings[number]);
    Err(Error::shader(&source.path, what))
}

fn binding_fits(binding: Binding, variable: &GlobalVariable) -> bool {
    match (binding, variable.space) {
        (Binding::Params, AddressSpace::Uniform) => true,
        (Binding::Output, AddressSpace::Storage { access }) => access.contains(StorageAccess::STORE),
        (Binding::Input(_) | Binding::Absent, AddressSpace::Storage { access }) => access == StorageAccess::LOAD,
        _ => false,
    }
}

/// The members of the uniform struct have the launch's names, in its order, 4 bytes each.
fn params_fit(source: &Source, module: &Module, launch: &Launch) -> Result<()> {
    let Some((_, uniform)) = module.global_variables.iter().find(|(_, v)| v.space == AddressSpace::Uniform) else {
        return Ok(());
    };
    let declared = members(module, uniform.ty);
    let given: Vec<_> = launch.params.iter().zip(0..).map(|((name, _), i)| ((*name).to_string(), 4 * i)).collect();
    if declared == given {
        return Ok(());
    }
    let list = |members: &[(String, u32)]| {
        members.iter().map(|(name, offset)| format!("{name} at {offset}")).collect::<Vec<_>>().join(", ")
    };
    let what = format!("the members should be {}, found {}", list(&given), list(&declared));
    Err(wrong(source, [module.types.get_span(uniform.ty)], what))
}

/// Names and offsets in bytes.
fn members(module: &Module, ty: Handle<naga::Type>) -> Vec<(String, u32)> {
    match &module.types[ty].inner {
        TypeInner::Struct { members, .. } => {
            members.iter().map(|m| (m.name.clone().unwrap_or_default(), m.offset)).collect()
        }
        _ => Vec::new(),
    }
}
