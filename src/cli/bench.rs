//! `ornstein bench`

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValue, TypedValueParser};
use indicatif::ProgressBar;

use super::table::FormArgs;
use super::{DTypeArg, DeviceArgs, ShadersArg, about, dtypes, one_of, print, print_json, tell, warn};
use crate::error::{Error, Result};
use crate::gpu::Timer;
use crate::graph::plan::Storage;
use crate::lab::bench::{self, Bench, Options, Row, Suite, compare, profile};
use crate::lab::predict::{Card, cards};
use crate::lab::published::{PUBLISHED, Published};
use crate::lab::report::Report;
use crate::network::Executor;
use crate::ops::check_names;
use crate::tensor::DType;
use crate::weights::{Model, check_writable, write_atomically};

use table::View;

mod table;

/// The published models that have no file here.
pub(super) fn published() -> impl TypedValueParser<Value = &'static Published> {
    one_of(PUBLISHED.iter().map(|&published| (published.name.into(), published)))
}

fn suites() -> impl TypedValueParser<Value = Suite> {
    one_of(Suite::named().map(|(name, suite)| (name.into(), suite)))
}

/// Of which cards to predict.
#[derive(Debug, Clone, Copy)]
enum Predict {
    AtHand,
    Cards(&'static [Card]),
}

const AT_HAND: &str = "here";

fn predictions() -> impl TypedValueParser<Value = Predict> {
    let each = cards().iter().map(|card| (PossibleValue::new(card.caps.name.as_str()), std::slice::from_ref(card)));
    let named = each.chain([("all".into(), cards())]).map(|(name, cards)| (name, Predict::Cards(cards)));
    one_of(named.chain([(AT_HAND.into(), Predict::AtHand)]))
}

/// Check kernels, then time them, as a share of what the device can do
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Only these ops
    #[arg(value_name = "OP", value_delimiter = ',')]
    ops: Vec<String>,
    /// Time the whole networks of a model instead: a checkpoint, a diffusers folder, or a name from
    /// `ornstein models list`
    #[arg(short, long, value_name = "MODEL", conflicts_with_all = ["synthetic", "suite"])]
    model: Option<OsString>,
    /// Time whole networks of full size with generated weights
    #[arg(long, value_name = "FAMILY", value_parser = published(), conflicts_with = "suite")]
    synthetic: Option<&'static Published>,
    /// Height and width of the latents of whole networks [default: the model's]
    #[arg(long, value_name = "N")]
    latent: Option<usize>,
    /// Rows of whole networks' text encoders and UNet; 2 is guidance
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Which shapes: the small cases of every op, those of benches/compare (peers), those of a published model's
    /// networks, or Stable Diffusion 1.5's and SDXL's (all)
    #[arg(long, value_name = "SUITE", value_parser = suites(), default_value = "all")]
    suite: Suite,
    /// Every shape and every node, however long it takes
    #[arg(long)]
    full: bool,
    /// Every variant that the device can run, not only the one that it would use
    #[arg(long)]
    all_variants: bool,
    #[command(flatten)]
    shaders: ShadersArg,
    /// As for `generate`; several are measured one after the other, at the shapes chosen for the first
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: Vec<String>,
    /// On a software device: count what the processors spend, which other work on the machine changes less than time
    #[arg(long)]
    processor_time: bool,
    /// Type of activations on a GPU; the CPU computes in f32
    #[arg(long, default_value = "auto", value_parser = dtypes())]
    dtype: DTypeArg,
    /// Say how long whole networks should take, by data sheets and compilers: next to what is measured, or, with the
    /// name of a card or `all`, of those cards instead of measuring
    #[arg(long, value_name = "CARD", num_args = 0..=1, default_missing_value = AT_HAND, value_parser = predictions())]
    predict: Option<Predict>,
    #[command(flatten)]
    form: FormArgs,
    /// Also write the report as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Compare with a report that `bench --json` wrote earlier
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
}

impl BenchArgs {
    pub(super) fn run(self) -> Result<()> {
        check_names(&self.ops)?;
        if self.predict.is_some() && self.model.is_none() && self.synthetic.is_none() {
            return Err(Error::usage("--predict is for whole networks: give --synthetic sd15, or --model"));
        }
        if let Some(Predict::Cards(cards)) = self.predict {
            return self.print_predicted(cards);
        }
        let old = self.compare.as_deref().map(compare::read).transpose()?;
        if let Some(path) = &self.html {
            check_writable(path)?;
        }
        let mut report: Option<Report> = None;
        for device in &self.device {
            let executor = DeviceArgs { device: device.clone(), dtype: self.dtype }.open(self.shaders.open()?)?;
            let timer = self.timer(&executor)?;
            let same =
                report.as_ref().map(|report| report.rows.clone()).or_else(|| old.as_ref().map(|old| old.rows.clone()));
            pollster::block_on(self.measure(&executor, timer.as_ref(), same, &mut report))?;
        }
        let Some(mut report) = report else { return Ok(()) };
        if let Some(old) = old {
            compare::compare(&old, &report.devices, &mut report.rows);
        }
        if let Some(path) = &self.html {
            write_atomically(path, report.page().as_bytes())?;
            tell(&format!("wrote {}", path.display()));
        }
        if self.form.json {
            print_json(&serde_json::json!(report))?;
        } else {
            let FormArgs { quiet, .. } = self.form;
            let view = View { form: self.form.form(), all: self.full, quiet };
            print(view.report(&report).as_bytes())?;
        }
        bench::verdict(&report.rows)?;
        if self.shaders.shaders.is_some() {
            tell("right at these shapes and types: `ornstein validate` with the same --shaders checks every case");
        }
        Ok(())
    }

    fn print_predicted(&self, cards: &[Card]) -> Result<()> {
        let subjects = self.subjects()?;
        let act = self.dtype.unwrap_or(DType::F16);
        let storage = Storage { act, weight: act };
        let networks =
            |card: &Card| subjects.iter().map(|s| card.network(&s.graph, storage)).collect::<Result<Vec<_>>>();
        let rows: Vec<_> = cards.iter().map(|c| Ok((&*c.caps.name, networks(c)?))).collect::<Result<_>>()?;
        if self.form.json {
            let rows = rows.iter().map(|(card, networks)| serde_json::json!({ "card": card, "networks": networks }));
            return print_json(&rows.collect());
        }
        print(table::predicted(self.form.form(), &rows).as_bytes())
    }

    fn timer(&self, executor: &Executor) -> Result<Option<Timer>> {
        match executor {
            Executor::Cpu if self.processor_time => Err(Error::usage("--processor-time is for software adapters")),
            Executor::Cpu => Ok(None),
            Executor::Gpu(gpu, ..) if self.processor_time => Timer::by_processor(gpu).map(Some),
            Executor::Gpu(gpu, ..) => Timer::new(gpu).map(Some),
        }
    }

    /// Adds a device's rows to the report: those of `same`, if it is given.
    async fn measure(
        &self,
        executor: &Executor,
        timer: Option<&Timer>,
        same: Option<Vec<Row>>,
        report: &mut Option<Report>,
    ) -> Result<()> {
        let progress = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let mut tell = |what: &str| {
            progress.set_message(format!("{}: {what}", executor.name()));
            progress.tick();
        };
        tell("measuring the ceilings");
        let mut bench = Bench::new(executor, timer, self.full).await?.all_variants(self.all_variants);
        bench = bench.predicting(self.predict.is_some());
        let mut networks = Vec::new();
        let mut rows = Vec::new();
        if self.model.is_some() || self.synthetic.is_some() {
            for subject in self.subjects()? {
                tell(&subject.graph.network);
                let mut say = |what: &str| progress.suspend(|| warn(what));
                let (network, mut nodes) = bench.network(subject, &mut say).await?;
                nodes.retain(|row| self.ops.is_empty() || self.ops.contains(&row.op));
                networks.push(network);
                rows.extend(nodes);
            }
        } else {
            let options = Options { ops: self.ops.clone(), suite: self.suite, full: self.full };
            rows = bench.run(&options, same.as_deref(), &mut tell).await?;
        }
        let device = bench.device();
        progress.finish_and_clear();
        let report = report.get_or_insert_with(|| Report {
            about: about(),
            device: device.clone(),
            devices: Vec::new(),
            networks: Vec::new(),
            rows: Vec::new(),
        });
        report.devices.push(device);
        report.networks.extend(networks);
        report.rows.extend(rows);
        Ok(())
    }

    fn subjects(&self) -> Result<Vec<profile::Subject>> {
        match self.synthetic {
            None => profile::of_model(&Model::resolve(self.model.as_deref())?, self.latent, self.batch),
            Some(family) => profile::synthetic(family, self.latent, self.batch),
        }
    }
}
