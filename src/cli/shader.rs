//! `ornstein shader`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::table::{Cell, Column, Form, Screen, Table};
use super::{DeviceArgs, ShadersArg, one_of, print, print_json};
use crate::caps::Caps;
use crate::error::{Error, Field, Remedy, Result, instead, short};
use crate::gpu::Gpu;
use crate::gpu::shader::{Dialect, Prepared, Sources, cores, hlsl, lab, msl, names, no_such, parts, prepare, spirv};
use crate::gpu::statistics::{Compiler, Executable, Statistic};
use crate::graph::plan::Storage;
use crate::network::Executor;
use crate::ops::{Launch, Row, TABLE, Variant};
use crate::tensor::DType;
use crate::weights::{check_writable, write_atomically};

#[derive(Debug, Args)]
pub(super) struct Shader {
    /// The shader; without it all are listed
    name: Option<String>,
    /// The kernel variant [default: the first]
    #[arg(long, requires = "name")]
    variant: Option<String>,
    /// Type of activations
    #[arg(long, default_value = "f32", value_parser = elements())]
    dtype: DType,
    /// Type of matrices of parameters [default: as --dtype]
    #[arg(long, value_parser = elements())]
    weights: Option<DType>,
    /// As a device without `shader-f16` is given it: f16 weights are read as pairs packed into u32
    #[arg(long)]
    no_f16: bool,
    /// The language: as given to the device or the browser, or as its driver sees it
    #[arg(long, default_value = "wgsl")]
    to: To,
    /// Edited text without the checks of indices, divisions and loops that it keeps when it runs: as it would be
    /// given to a driver if it were built in
    #[arg(long, requires = "name")]
    trusted: bool,
    /// What the device's driver says of the kernel instead of its text: registers, spills, occupancy and what else it
    /// counts. Vulkan's drivers for GPUs do
    #[arg(long, requires = "name", conflicts_with = "to")]
    stats: bool,
    /// Whose driver, as for `generate`
    #[arg(long, default_value = "auto", value_name = "DEVICE", requires = "stats")]
    device: String,
    /// Where to write it [default: stdout]
    #[arg(short, long, value_name = "FILE", requires = "name")]
    output: Option<PathBuf>,
    #[command(flatten)]
    shaders: ShadersArg,
    /// One JSON document: the list, or a shader's text or statistics with its variants and constants
    #[arg(long)]
    json: bool,
}

fn elements() -> impl TypedValueParser<Value = DType> {
    one_of([("f16".into(), DType::F16), ("f32".into(), DType::F32)])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// With imports and prelude; constants are still to be set
    Wgsl,
    /// Vulkan, binary
    Spirv,
    /// Metal
    Msl,
    /// DirectX 12
    Hlsl,
}

/// A launch of the shader, and where it comes from.
struct Example {
    variant: &'static str,
    /// All that there are.
    variants: Vec<&'static str>,
    case: String,
    launch: Launch,
    /// Of a node of that case: one without activations is in f32.
    dialect: Dialect,
}

impl Shader {
    pub(super) fn run(self) -> Result<()> {
        let sources = self.shaders.open()?;
        let Some(name) = &self.name else { return self.list() };
        let dialect = self.dialect()?;
        let to_stdout = self.output.as_deref().is_none_or(|path| path == Path::new("-"));
        if self.to == To::Spirv && to_stdout && std::io::stdout().is_terminal() {
            return Err(Error::usage("SPIR-V is binary; give --output FILE, or pipe it"));
        }
        if let Some(path) = self.output.as_deref().filter(|_| !to_stdout) {
            check_writable(path)?;
        }
        let bytes =
            if self.stats { self.statistics(name, sources, dialect) } else { self.print(name, &sources, dialect) }?;
        match self.output.as_deref().filter(|_| !to_stdout) {
            Some(path) => write_atomically(path, &bytes),
            None => print(&bytes),
        }
    }

    fn dialect(&self) -> Result<Dialect> {
        let (elem, native_f16) = (self.dtype, !self.no_f16);
        if elem == DType::F16 && !native_f16 {
            return Err(Error::usage("a device without f16 has activations in f32: use --dtype f32 with --no-f16"));
        }
        Ok(Dialect { elem, weight: self.weights.unwrap_or(elem), native_f16, matrix: None })
    }

    /// What stdout or the file is given.
    fn print(&self, name: &str, sources: &Sources, dialect: Dialect) -> Result<Vec<u8>> {
        let kinds = Caps::kinds(dialect.native_f16, dialect.elem, dialect.weight);
        let example = example(name, self.variant.as_deref(), dialect, &kinds)?;
        let (text, prepared) = self.prepared(sources, &example)?;
        let text = match self.to {
            To::Wgsl => text,
            To::Spirv if self.json => {
                return Err(Error::usage("SPIR-V is binary and cannot be part of a JSON document: leave out --json"));
            }
            To::Spirv => return spirv(&prepared),
            To::Msl => msl(&prepared)?,
            To::Hlsl => hlsl(&prepared)?,
        };
        let printed = if self.json {
            format!("{:#}\n", example.json("text", &text))
        } else {
            let about: String = example.describe().iter().map(|line| format!("// {line}\n")).collect();
            about + &text
        };
        Ok(printed.into_bytes())
    }

    fn prepared(&self, sources: &Sources, Example { launch, dialect, .. }: &Example) -> Result<(String, Prepared)> {
        let source = sources.of_launch(launch, *dialect)?;
        let mut prepared = prepare(&source, launch, dialect.native_f16)?;
        prepared.trusted |= self.trusted;
        Ok((source.text, prepared))
    }

    /// What the device's driver says of the kernel that the device would be given.
    fn statistics(&self, name: &str, sources: Sources, dialect: Dialect) -> Result<Vec<u8>> {
        let gpu = self.gpu(sources)?;
        let dialect = Dialect { native_f16: dialect.native_f16 && gpu.caps.native_f16(), ..dialect };
        let mut caps = gpu.caps.storing(dialect.elem, dialect.weight);
        caps.f16 &= !self.no_f16;
        let example = example(name, self.variant.as_deref(), dialect, &[caps])?;
        let (_, prepared) = self.prepared(&gpu.sources, &example)?;
        let told = Compiler::open(&gpu)?.executables(&prepared)?;
        let printed = if self.json {
            let mut document = example.json("executables", told);
            document["device"] = serde_json::json!(gpu.caps);
            format!("{document:#}\n")
        } else {
            let device = format!("{} {}, {}", gpu.caps.name, gpu.caps.backend, gpu.caps.driver);
            let form = Form::Text(if self.output.is_some() { Screen::PLAIN } else { Screen::stdout() });
            let about: String = [device].iter().chain(&example.describe()).map(|line| form.lines(line)).collect();
            let facts = |executable: &Executable| {
                let fact =
                    |s: &Statistic| [executable.to_string(), short(&s.name), s.value.to_string()].map(Cell::from);
                executable.statistics.iter().map(|s| fact(s).to_vec()).collect::<Vec<_>>()
            };
            let columns = [Column::Section(""), Column::Left("fact", 0), Column::Right("value", 0)];
            about + &Table::of(form, columns, &told.iter().flat_map(facts).collect::<Vec<_>>())
        };
        Ok(printed.into_bytes())
    }

    fn gpu(&self, sources: Sources) -> Result<Arc<Gpu>> {
        match (DeviceArgs { device: self.device.clone(), dtype: Some(self.dtype) }).open(sources)? {
            Executor::Gpu(gpu, ..) => Ok(gpu),
            Executor::Cpu => {
                let what = "no kernel is compiled for the CPU: `ornstein devices` lists adapters";
                Err(Error::device(what).remedies([Remedy::Other(Field::Device)]))
            }
        }
    }

    fn list(&self) -> Result<()> {
        if self.json {
            return print_json(
                &serde_json::json!({ "shaders": names(), "cores": cores(), "shared": parts(), "lab": lab() }),
            );
        }
        let below = [("cores", cores()), ("shared", parts()), ("lab", lab())];
        let below =
            below.into_iter().flat_map(|(folder, stems)| stems.into_iter().map(move |s| format!("{folder}/{s}")));
        let lines: Vec<_> = names().into_iter().map(String::from).chain(below).collect();
        print(format!("{}\n", lines.join("\n")).as_bytes())
    }
}

impl Example {
    /// With what was asked for under this name.
    fn json(&self, name: &str, asked: impl Serialize) -> serde_json::Value {
        let constants: serde_json::Map<_, _> =
            self.launch.constants.iter().map(|(name, value)| ((*name).to_string(), (*value).into())).collect();
        serde_json::json!({
            "shader": self.launch.shader,
            "variant": self.variant,
            "variants": self.variants,
            "case": self.case,
            "constants": constants,
            "workgroups": self.launch.workgroups,
            name: asked,
        })
    }

    /// What it was made for, in lines.
    fn describe(&self) -> [String; 3] {
        let Launch { shader, constants, workgroups: [x, y, z], .. } = &self.launch;
        let Self { variant, case, dialect: Dialect { elem, weight, .. }, .. } = self;
        let mut sizes = format!("with {x} x {y} x {z} workgroups");
        sizes.extend(constants.iter().map(|(name, value)| format!(", {name} = {value}")));
        let types = format!("{shader}, variant {variant}, activations {elem}, weights {weight}");
        [types, format!("launched for {case}"), sizes]
    }
}

/// The first case of the table that launches this shader as this variant on one of these kinds of devices.
fn example(name: &str, variant: Option<&str>, dialect: Dialect, kinds: &[Caps]) -> Result<Example> {
    let is_part = name.strip_prefix("shared/").is_some_and(|part| parts().contains(&part))
        || name.strip_prefix("cores/").is_some_and(|core| cores().contains(&core));
    if !names().contains(&name) && !lab().contains(&name) && !is_part {
        return Err(no_such(name));
    }
    let mut variants = Vec::new();
    let mut first = None;
    let storage = Storage { act: dialect.elem, weight: dialect.weight };
    let cases = || TABLE.iter().flat_map(Row::cases);
    for (case, caps) in kinds.iter().flat_map(|caps| cases().map(move |case| (case, caps))) {
        for Variant { name: found, launch } in case.variants(caps)? {
            if launch.shader != name {
                continue;
            }
            if !variants.contains(&found) {
                variants.push(found);
            }
            if first.is_none() && variant.is_none_or(|wanted| wanted == found) {
                first = Some((found, Dialect::of_case(storage, &case, dialect.native_f16)?, case.name(), launch));
            }
        }
    }
    match first {
        Some((variant, dialect, case, launch)) => Ok(Example { variant, variants, case, launch, dialect }),
        None if variants.is_empty() => {
            Err(Error::usage(format!("{name} is not an op's kernel: only those are launched with known constants")))
        }
        None => {
            let wanted = variant.unwrap_or_default();
            let (elem, known) = (dialect.elem, instead(wanted, variants));
            let what = format!("shader {name} has no variant {wanted} for activations in {elem}");
            Err(Error::usage(format!("{what}; {known} (--dtype chooses others)")))
        }
    }
}
