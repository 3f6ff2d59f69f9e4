//! `ornstein validate`

use std::ffi::OsString;
use std::sync::Arc;

use clap::Args;

use super::bench::published;
use super::table::{Form, FormArgs};
use super::{DTypeArg, DeviceArgs, ShadersArg, about, dtypes, print, print_json, quoted, warn};
use crate::error::{Error, Result, counted};
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
    #[arg(value_name = "OP", value_delimiter = ',')]
    ops: Vec<String>,
    /// Check every node of this model's networks instead, then each network end to end: a checkpoint, a diffusers
    /// folder, or a name from `ornstein models list` (`shapes` is the built-in model)
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
    #[command(flatten)]
    form: FormArgs,
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
        let form = self.form.form();
        if !self.form.json {
            print((form.about(&about()) + &form.lines(&table::device(&gpu.caps))).as_bytes())?;
        }
        match subjects {
            Some(subjects) => self.networks(&gpu, subjects, form),
            None => self.cases(&gpu, form),
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

    fn cases(&self, gpu: &Arc<Gpu>, form: Form) -> Result<()> {
        let mut table = table::Cases::new(form);
        let mut printed = Ok(());
        let rows = pollster::block_on(validate(gpu, &self.selection(), &mut |row| {
            let shown = !self.form.json && (!self.form.quiet || row.verdict == Verdict::Failed);
            if shown && printed.is_ok() {
                printed = print(table.row(row, &self.rerun(row)).as_bytes());
            }
        }))?;
        printed?;
        if self.form.json {
            self.print_json(gpu, rows.iter(), None)?;
        } else {
            print(table::summary(form, rows.iter()).as_bytes())?;
        }
        let failed = rows.iter().filter(|row| row.verdict == Verdict::Failed).count();
        self.verdict(gpu, failed, &counted(rows.len(), "kernel case"))
    }

    fn networks(&self, gpu: &Arc<Gpu>, subjects: Vec<network::Subject>, form: Form) -> Result<()> {
        let (selection, mut printed) = (self.selection(), Ok(()));
        let mut table = table::Networks::new(form, self.form.quiet);
        let mut tell = |report: &network::Report| {
            if !self.form.json && printed.is_ok() {
                printed = print(table.report(report, &|row| self.rerun(row)).as_bytes());
            }
        };
        let work = network::validate(gpu, subjects, &selection, self.node.as_deref(), &mut tell);
        let reports = pollster::block_on(work)?;
        printed?;
        let rows = reports.iter().flat_map(|report| &report.nodes);
        if self.form.json {
            self.print_json(gpu, rows, Some(&reports))?;
        } else {
            print(table::summary(form, rows).as_bytes())?;
        }
        let failed = reports.iter().filter(|report| !report.passed()).count();
        self.verdict(gpu, failed, &counted(reports.len(), "network run"))
    }

    fn print_json<'a>(
        &self,
        gpu: &Gpu,
        rows: impl Iterator<Item = &'a Row>,
        networks: Option<&[network::Report]>,
    ) -> Result<()> {
        let mut document = serde_json::json!(about());
        document["device"] = serde_json::json!(gpu.caps);
        document["rows"] = self.with_rerun(rows).into();
        if let Some(networks) = networks {
            document["networks"] = serde_json::json!(networks);
        }
        print_json(&document)
    }

    /// The exit status follows from this.
    fn verdict(&self, gpu: &Gpu, failed: usize, all: &str) -> Result<()> {
        if failed == 0 {
            return Ok(());
        }
        let what = "checked against the CPU: the rows above say which";
        Err(Error::device(format!("{failed} of {all} failed on {}, {what}", gpu.caps.name)))
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
