//! A benchmark's report as text, comma-separated values or Markdown.

use crate::cli::flag::flag;
use crate::cli::table::{Cell, Column, Form, Table, Tone, by_op};
use crate::error::{Field, are, counted};
use crate::lab::bench::compare::Change;
use crate::lab::bench::profile::{NetworkRow, OpShare};
use crate::lab::bench::{Device, Rates, Row, Verdict};
use crate::lab::predict::Predicted;
use crate::lab::report::{
    Report, attributes, ceilings, clock, digits, network_figures, percent, prediction, seconds, shapes,
};

use Column::{Flow, Left, Right, Section};

/// Nodes of a network that the table lists.
const NODES: usize = 15;
/// A spread of the ceilings above this is reported.
const SPREAD: f64 = 0.1;

/// How a report is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub form: Form,
    /// Every refused shape and every node.
    pub all: bool,
    /// Only what failed, and the summary.
    pub quiet: bool,
}

impl View {
    pub(super) fn report(self, report: &Report) -> String {
        if self.form == Form::Csv {
            let shown: Vec<&Row> = report.rows.iter().filter(|row| self.shows(row)).collect();
            return self.rows(report, &shown, |row| row.op.clone());
        }
        let mut out = self.form.about(&report.about);
        for (i, device) in report.devices.iter().enumerate() {
            out += &self.form.lines(&facts(device, (report.devices.len() > 1).then_some(i)));
        }
        for network in &report.networks {
            out += &self.network(report, network);
        }
        if report.networks.is_empty() {
            out += &self.kernels(report);
        }
        out + &self.notes(report)
    }

    fn shows(self, row: &Row) -> bool {
        (self.all || row.verdict != Verdict::Refused) && (!self.quiet || row.is_bad())
    }

    fn kernels(self, report: &Report) -> String {
        let shown: Vec<&Row> = report.groups().into_iter().flatten().filter(|row| self.shows(row)).collect();
        let mut out = self.rows(report, &shown, |row| row.op.clone());
        let rows = |row: &&Row| row.verdict != Verdict::Refused;
        out += &by_op(self.form, &SUMMARY, report.rows.iter().filter(rows), |row| &row.op, summed);
        let refused = report.rows.iter().filter(|row| row.verdict == Verdict::Refused).count();
        if refused > 0 && !self.all {
            let full = flag(Field::Full);
            let what = format!("{} refused: beyond the limits of a device ({full} lists them)", are(refused, "shape"));
            out += &self.form.paragraph(&what);
        }
        out
    }

    /// These rows, each in a section.
    fn rows(self, report: &Report, rows: &[&Row], section: impl Fn(&Row) -> String) -> String {
        let shared = Shared {
            form: self.form,
            devices: report.devices.iter().map(|device| device.label.as_str()).collect(),
            compared: rows.iter().any(|row| row.compared.is_some()),
            nodes: rows.iter().any(|row| row.node.is_some()),
        };
        let (columns, lines): (Vec<Vec<Column>>, Vec<Vec<Cell>>) =
            rows.iter().map(|row| shared.columns(row, section(row)).into_iter().unzip()).unzip();
        let mut table = Table::fitting(self.form, columns.into_iter().next().unwrap_or_default(), &lines);
        let line = |(cells, row): (&Vec<Cell>, &&Row)| {
            let reason = row.reason.as_deref().map_or_else(String::new, |why| table.reason(why, &row.excerpt));
            table.row(cells) + &reason
        };
        lines.iter().zip(rows).map(line).collect()
    }

    fn network(self, report: &Report, network: &NetworkRow) -> String {
        let NetworkRow { network: name, device, dtype, nodes, .. } = network;
        let [median, spread, wall, rate, share] = network_figures(network);
        let (arithmetic, mib) = (report.arithmetic(network), network.device_bytes >> 20);
        let inputs: Vec<String> = network.inputs.iter().map(|(name, dims)| format!("{name} {dims:?}")).collect();
        let mut out = self.form.paragraph(&format!(
            "{name} on {device}, {dtype}: {median} ± {spread} ({wall} until the host knows), {rate} ({share} of \
             {arithmetic}), {}, {mib} MiB; {}",
            counted(*nodes, "node"),
            inputs.join(", ")
        ));
        if let Some(predicted) = &network.predicted {
            out += &self.form.lines(&format!("predicted: {}", prediction(predicted)));
        }
        let op = |op: &OpShare| {
            let first = [op.op.clone(), op.nodes.to_string(), hundredths(op.share), digits(op.seconds * 1e3)];
            first.map(Cell::from).into_iter().chain(rates(&op.rates)).collect::<Vec<_>>()
        };
        let columns = [Left("op", 0), Right("nodes", 0), Right("% time", 0), Right("ms", 0)];
        let columns = columns.into_iter().chain(RATES).collect::<Vec<_>>();
        out += &Table::of(self.form, columns, &network.by_op.iter().map(op).collect::<Vec<_>>());
        let prefix = format!("{name}.");
        let of_this = |row: &&Row| {
            row.device == network.device && row.node.as_ref().is_some_and(|node| node.starts_with(&prefix))
        };
        let mut nodes: Vec<&Row> = report.rows.iter().filter(of_this).collect();
        let median = |row: &Row| row.timing.as_ref().map_or(0.0, |timing| timing.summary.median);
        nodes.sort_by(|a, b| median(b).total_cmp(&median(a)));
        let count = nodes.len();
        let longest = if self.all { count } else { NODES.min(count) };
        nodes.truncate(longest);
        nodes.retain(|row| self.shows(row));
        out + &self.rows(report, &nodes, |_| format!("the {longest} longest of {}", counted(count, "node")))
    }

    /// Warnings, and how a comparison came out.
    fn notes(self, report: &Report) -> String {
        let mut notes = Vec::new();
        let warned = |word: &str| report.rows.iter().filter(|row| row.warning() == Some(word)).count();
        for (word, what) in [
            ("noisy", "the middle half of the rounds is far apart; stop other work and run again"),
            ("short", "the samples are near the clock's resolution"),
            ("once", "many times slower than the device's preferred variant, and timed once"),
        ] {
            match warned(word) {
                0 => {}
                count => notes.push(format!("{} marked {word}: {what}", are(count, "row"))),
            }
        }
        for device in report.devices.iter().filter(|device| !device.tuned.is_empty()) {
            notes.push(format!("{}: the fastest variants of the networks met so far", device.label));
            for (class, tuned) in &device.tuned {
                let tried: Vec<_> =
                    tuned.seconds.iter().map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
                notes.push(format!("{class}: {} of {}", tuned.fastest().unwrap_or_default(), tried.join(", ")));
            }
        }
        for device in report.devices.iter().filter(|device| device.ceilings.spread > SPREAD) {
            let (label, spread) = (&device.label, percent(device.ceilings.spread));
            let what = "during the run, and shares with them: stop other work";
            notes.push(format!("{label}: the ceilings wavered by {spread} {what}"));
        }
        notes.extend(report.devices.iter().filter_map(|device| comparison(report, device)));
        notes.iter().map(|note| self.form.paragraph(note)).collect()
    }
}

/// What the columns of all rows depend on.
struct Shared<'a> {
    form: Form,
    devices: Vec<&'a str>,
    compared: bool,
    nodes: bool,
}

impl Shared<'_> {
    fn columns(&self, row: &Row, section: String) -> Vec<(Column<'static>, Cell)> {
        let mut columns = vec![(Section("op"), section.into())];
        columns.extend([Right("ms", 0), Right("± %", 0), Left("verdict", 0)].into_iter().zip(time(row)));
        if self.compared {
            columns.push((Right("x then", 0), row.compared.map_or_else(Cell::default, then)));
        }
        columns.extend(RATES.into_iter().zip(row.rates.as_ref().map_or_else(Default::default, rates)));
        if self.devices.len() > 1 {
            let place = self.devices.iter().position(|label| *label == row.device).unwrap_or_default();
            columns.push((Right("device", 0), place.to_string().into()));
        }
        columns.push((Left("variant", 0), row.variant.as_str().into()));
        let text = matches!(self.form, Form::Text(_));
        if self.nodes {
            columns.push((Flow("node"), row.node.as_deref().unwrap_or_default().into()));
        }
        // In text a node is known by its name.
        if !(text && self.nodes) {
            columns.push((Flow("dtype"), row.dtype.as_str().into()));
            columns.push((Flow("shapes"), shapes(&row.shapes).into()));
            columns.push((Flow("attributes"), attributes(&row.attributes).into()));
        }
        let reason = match (text, row.does_not_compile) {
            (true, true) => "does not compile",
            (true, false) => "",
            (false, _) => row.reason.as_deref().unwrap_or_default(),
        };
        columns.push((Flow("reason"), reason.into()));
        columns
    }
}

/// A share of one in hundredths.
fn hundredths(share: f64) -> String {
    format!("{:.0}", share * 100.0)
}

const RATES: [Column; 4] = [Right("GFLOP/s", 0), Right("% arith", 0), Right("GB/s", 0), Right("% copy", 0)];

fn rates(rates: &Rates) -> [Cell; 4] {
    let [arith, copy] = [rates.share_of_arithmetic, rates.share_of_copy].map(hundredths);
    [digits(rates.gflop_s), arith, digits(rates.gb_s), copy].map(Cell::from)
}

/// Milliseconds, their spread, and the verdict or what the time is not to be trusted for.
fn time(row: &Row) -> [Cell; 3] {
    let (tone, verdict) = match (row.verdict, row.warning()) {
        (Verdict::Wrong, _) => (Tone::Bad, "wrong"),
        (Verdict::Failed, _) => (Tone::Bad, "failed"),
        (Verdict::Refused, _) => (Tone::Dim, "refused"),
        (_, Some(warning)) => (Tone::Noisy, warning),
        (Verdict::Right, None) => (Tone::Good, "right"),
        (Verdict::Unchecked, None) => (Tone::Dim, "ran"),
    };
    let summary = row.timing.as_ref().map(|timing| timing.summary);
    let ms = summary.map_or_else(String::new, |summary| digits(summary.median * 1e3));
    let spread = summary.map_or_else(String::new, |summary| hundredths(summary.spread));
    [ms.into(), spread.into(), tone.cell(verdict)]
}

/// This time over the earlier one, the machine divided out.
fn then(change: Change) -> Cell {
    let tone = match change {
        Change { exceeds: false, .. } => Tone::Dim,
        Change { relative, .. } if relative > 1.0 => Tone::Bad,
        _ => Tone::Good,
    };
    tone.cell(format!("{:.2}{}", change.relative, if change.exceeds { "!" } else { " " }))
}

const SUMMARY: [Column; 6] = [
    Left("op", 0),
    Right("rows", 0),
    Right("failed", 0),
    Right("noisy", 0),
    Right("best % of roof", 0),
    Right("mean % of roof", 0),
];

/// How near rows came to the ceilings; the mean is geometric.
fn summed(rows: &[&Row]) -> Vec<Cell> {
    let shares: Vec<f64> = rows.iter().filter_map(|row| Some(row.rates?.share_of_roof)).collect();
    let best = shares.iter().copied().reduce(f64::max).map_or_else(String::new, hundredths);
    let logarithms: f64 = shares.iter().map(|share| share.max(1e-6).ln()).sum();
    let mean = (!shares.is_empty()).then(|| hundredths((logarithms / shares.len() as f64).exp()));
    let failed = rows.iter().filter(|row| row.is_bad()).count();
    let noisy = rows.iter().filter(|row| row.warning() == Some("noisy")).count();
    let [failed, noisy] = [(failed, Tone::Bad), (noisy, Tone::Noisy)].map(|(count, tone)| tone.count(count));
    vec![rows.len().to_string().into(), failed, noisy, best.into(), mean.unwrap_or_default().into()]
}

/// A device and its ceilings.
fn facts(device: &Device, number: Option<usize>) -> String {
    let number = number.map_or(String::new(), |n| format!("device {n}: "));
    let driver = device.caps.get("driver").and_then(|v| v.as_str()).map_or(String::new(), |d| format!(", {d}"));
    let (clock, ceilings, spread) = (clock(device.clock), ceilings(&device.ceilings), percent(device.ceilings.spread));
    let label = &device.label;
    format!("{number}{label}{driver}: times are {clock}; ceilings measured now: {ceilings} (± {spread})")
}

/// How a comparison came out on a device, if there was one.
fn comparison(report: &Report, device: &Device) -> Option<String> {
    let of_this = || report.rows.iter().filter(|row| row.device == device.label).filter_map(|row| row.compared);
    let machine = of_this().next()?.machine;
    let (exceed, all) = (of_this().filter(|change| change.exceeds).count(), of_this().count());
    Some(format!(
        "{}: compared with the earlier report, the median time of rows and ceilings is x{machine:.2}; next to that, \
         {exceed} of {all} rows differ by more than their spreads (!)",
        device.label
    ))
}

/// How long networks should take: a row for each card, by its name, and a column for each network.
pub(super) fn predicted(form: Form, cards: &[(&str, Vec<Predicted>)]) -> String {
    let Some((_, networks)) = cards.first() else { return String::new() };
    let names: Vec<String> = networks.iter().map(|network| format!("{} ms", network.network)).collect();
    let columns = [Left("card", 0)].into_iter().chain(names.iter().map(|name| Right(name, 0)));
    let times = |networks: &[Predicted]| networks.iter().map(|n| digits(n.seconds * 1e3).into()).collect::<Vec<_>>();
    let row = |(card, networks): &(&str, Vec<Predicted>)| [vec![Cell::from(*card)], times(networks)].concat();
    let rows: Vec<_> = cards.iter().map(row).collect();
    let head = "Predicted from data sheets and compilers, not measured: the time of one run";
    form.lines(head) + &Table::of(form, columns.collect::<Vec<_>>(), &rows)
}
