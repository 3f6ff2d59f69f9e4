//! `ornstein validate`

use std::ffi::OsString;
use std::sync::Arc;

use clap::Args;

use super::bench::published;
use super::{DTypeArg, DeviceArgs, ShadersArg, dtypes, print, print_json, warn};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::gpu::adapter::{Choice, select, without_gl};
use crate::gpu::shader::Sources;
use crate::lab::published::Published;
use crate::lab::validate::{Row, Selection, Verdict, network, validate};
use crate::network::Executor;
use crate::ops::check_names;
use crate::weights::Model;

mod table;

#[derive(Debug, Args)]
pub(super) struct Validate {
    /// Ops to check [default: all of them]
    #[arg(value_name = "OP")]
    ops: Vec<String>,
    /// Check every node of this model's networks instead, then each network end to end: a checkpoint, a diffusers
    /// folder, or a name from weights-manifest.toml (`shapes` is the built-in model)
    #[arg(short, long, value_name = "MODEL", conflicts_with_all = ["ops", "case", "full", "weights"])]
    model: Option<OsString>,
    /// The same for networks of full size with generated weights, so that no file is needed: takes minutes
    #[arg(long, value_name = "FAMILY", value_parser = published())]
    #[arg(conflicts_with_all = ["model", "ops", "case", "full", "weights"])]
    synthetic: Option<&'static Published>,
    /// The largest shapes of real models too, and tensors that the device cannot bind: takes minutes
    #[arg(long)]
    full: bool,
    /// Every variant of a kernel that this device can run, not only the one it would use
    #[arg(long)]
    all_variants: bool,
    /// This variant alone
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// The case of this number alone
    #[arg(long, value_name = "NUMBER", requires = "ops")]
    case: Option<usize>,
    /// This type of weights alone; --dtype is that of activations
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = dtypes())]
    weights: DTypeArg,
    /// The node of this name alone
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    shaders: ShadersArg,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl Validate {
    pub(super) fn run(self) -> Result<()> {
        let model = self.model.as_deref().map(|name| Model::resolve(Some(name))).transpose()?;
        let subjects = match (&model, self.synthetic) {
            (Some(model), _) => Some(network::of_model(model)?),
            (None, Some(family)) => Some(network::synthetic(family)?),
            (None, None) if self.node.is_some() => {
                return Err(Error::usage("--node is of a network: give its --model or --synthetic too"));
            }
            (None, None) => None,
        };
        check_names(&self.ops)?;
        let gpu = self.open(self.shaders.open()?)?;
        if !self.json {
            print(table::device(&gpu.caps).as_bytes())?;
        }
        match subjects {
            Some(subjects) => self.networks(&gpu, subjects),
            None => self.cases(&gpu),
        }
    }

    /// The device, which cannot be the CPU. Where `auto` finds no hardware, a software adapter is worth checking too.
    fn open(&self, sources: Sources) -> Result<Arc<Gpu>> {
        let mut choice = Choice::from(self.device.device.as_str());
        if choice == Choice::Cpu {
            return Err(Error::usage(
                "--device cpu is the reference that others are checked against; `ornstein devices` lists the others",
            ));
        }
        if choice == Choice::Auto && select(&choice, &pollster::block_on(without_gl()))?.is_none() {
            warn("no hardware GPU was found: checking the first software adapter");
            choice = Choice::Index(0);
        }
        match self.device.open_as(&choice, sources)? {
            Executor::Gpu(gpu, ..) => Ok(gpu),
            Executor::Cpu => {
                Err(Error::device("there is no adapter to check: `ornstein devices` lists what was found"))
            }
        }
    }

    fn selection(&self) -> Selection {
        Selection {
            ops: self.ops.clone(),
            case: self.case,
            act: self.device.dtype,
            weight: self.weights,
            variant: self.variant.clone(),
            all_variants: self.all_variants,
            full: self.full,
        }
    }

    fn cases(&self, gpu: &Arc<Gpu>) -> Result<()> {
        let mut table = table::Cases::default();
        let mut printed = Ok(());
        let rows = pollster::block_on(validate(gpu, &self.selection(), &mut |row| {
            if !self.json && printed.is_ok() {
                printed = print(table.row(row, &self.rerun(row)).as_bytes());
            }
        }))?;
        printed?;
        if self.json {
            print_json(&serde_json::json!({ "device": gpu.caps, "rows": self.with_rerun(rows.iter()) }))?;
        } else {
            print(table::summary(&rows).as_bytes())?;
        }
        let failed = rows.iter().filter(|row| row.verdict == Verdict::Failed).count();
        self.verdict(gpu, failed, &format!("of {} kernel cases", rows.len()))
    }

    fn networks(&self, gpu: &Arc<Gpu>, subjects: Vec<network::Subject>) -> Result<()> {
        let (selection, mut printed) = (self.selection(), Ok(()));
        let mut tell = |report: &network::Report| {
            if !self.json && printed.is_ok() {
                printed = print(table::network(report, &|row| self.rerun(row)).as_bytes());
            }
        };
        let work = network::validate(gpu, subjects, &selection, self.node.as_deref(), &mut tell);
        let reports = pollster::block_on(work)?;
        printed?;
        if self.json {
            let rows = self.with_rerun(reports.iter().flat_map(|report| &report.nodes));
            print_json(&serde_json::json!({ "device": gpu.caps, "rows": rows, "networks": reports }))?;
        }
        let failed = reports.iter().filter(|report| !report.passed()).count();
        self.verdict(gpu, failed, &format!("of {} network runs", reports.len()))
    }

    /// The exit status follows from this.
    fn verdict(&self, gpu: &Gpu, failed: usize, of: &str) -> Result<()> {
        if failed == 0 {
            return Ok(());
        }
        let remedy = "the lines above say which and how to rerun them; --device cpu does not use these kernels";
        Err(Error::device(format!("{failed} {of} failed on {}: {remedy}", gpu.caps.name)))
    }

    fn with_rerun<'a>(&self, rows: impl Iterator<Item = &'a Row>) -> Vec<serde_json::Value> {
        rows.map(|row| {
            let mut value = serde_json::json!(row);
            value["rerun"] = self.rerun(row).into();
            value
        })
        .collect()
    }

    /// The command that makes just this row again.
    fn rerun(&self, row: &Row) -> String {
        let case = row.case.map(|case| format!("{} --case {case}", row.op));
        let model = self.model.as_ref().map(|model| format!("--model {}", quoted(&model.to_string_lossy())));
        let family = self.synthetic.map(|family| format!("--synthetic {}", family.name));
        let node = row.node.as_ref().map(|node| format!("--node {node}"));
        let variant = (row.variant != "-").then(|| format!("--variant {}", row.variant));
        let dtype = Some(format!("--dtype {}", row.dtype));
        let weights = row.weights.as_ref().filter(|_| row.case.is_some()).map(|weights| format!("--weights {weights}"));
        let device = Some(format!("--device {}", quoted(&self.device.device)));
        let folder = self.shaders.shaders.as_ref();
        let shaders = folder.map(|folder| format!("--shaders {}", quoted(&folder.to_string_lossy())));
        let words = [case, model, family, node, variant, dtype, weights, device, shaders];
        let words = words.into_iter().flatten();
        ["ornstein validate".into()].into_iter().chain(words).collect::<Vec<String>>().join(" ")
    }
}

/// A word as a shell takes it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,+=@".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_with_spaces_survives_the_shell() {
        assert_eq!(quoted("llvmpipe"), "llvmpipe");
        assert_eq!(quoted("GeForce RTX"), "'GeForce RTX'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
