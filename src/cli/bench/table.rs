//! A report as text for a terminal.

use std::fmt::Write as _;

use super::{
    Report, attributes, clock, digits, flop_rate, network_figures, percent, predicted, rate_figures, seconds, shapes,
};
use crate::error::{Field, Name};
use crate::lab::bench::profile::NetworkRow;
use crate::lab::bench::{Device, Row, Verdict};
use crate::lab::ceilings::Ceilings;

/// Nodes of a network that the table lists.
const NODES: usize = 15;
/// A spread of the ceilings above this is told.
const SPREAD: f64 = 0.1;

impl Report {
    /// `all` lists every refused shape and every node; `name` names what asks for that.
    pub fn table(&self, all: bool, name: Name) -> String {
        let mut out = String::new();
        for (i, device) in self.devices.iter().enumerate() {
            let _ = writeln!(out, "{}", facts(device, (self.devices.len() > 1).then_some(i)));
        }
        for network in &self.networks {
            self.network_text(&mut out, network, all);
        }
        if self.networks.is_empty() {
            self.kernels(&mut out, all, name);
        }
        self.notes(&mut out);
        out
    }

    fn kernels(&self, out: &mut String, all: bool, name: Name) {
        let mut op = "";
        for group in self.groups() {
            let timed = group.iter().any(|row| row.verdict != Verdict::Refused);
            if !timed && !all {
                continue;
            }
            if group[0].op != op {
                op = &group[0].op;
                let _ = writeln!(out, "\n{op}");
            }
            let several = self.devices.len() > 1;
            if several {
                let _ = writeln!(out, "  {}", what(group[0]));
            }
            for row in &group {
                let place = self.devices.iter().position(|device| device.label == row.device).unwrap_or_default();
                let end = if several { format!("[{place}]") } else { what(row) };
                let _ = writeln!(out, "  {} {:<13}{} {end}", numbers(row), row.variant, row.dtype);
            }
        }
        let refused = self.rows.iter().filter(|row| row.verdict == Verdict::Refused).count();
        if refused > 0 && !all {
            let full = name(Field::Full);
            let _ =
                writeln!(out, "\n{refused} shapes exceed the limits of a device and are refused ({full} lists them)");
        }
    }

    fn network_text(&self, out: &mut String, network: &NetworkRow, all: bool) {
        let NetworkRow { network: name, device, dtype, nodes, .. } = network;
        let [median, spread, wall, rate, share] = network_figures(network);
        let (arithmetic, mib) = (self.arithmetic(device), network.device_bytes >> 20);
        let inputs: Vec<String> = network.inputs.iter().map(|(name, dims)| format!("{name} {dims:?}")).collect();
        *out += &format!("\n{name} on {device}, {dtype}: {median} ± {spread} ({wall} until the host knows), ");
        *out += &format!("{rate} ({share} of {arithmetic}), {nodes} nodes, {mib} MiB\n  {}\n", inputs.join(", "));
        if let Some(predicted) = &network.predicted {
            let _ = writeln!(out, "  predicted: {}", predicted::line(predicted));
        }
        for op in &network.by_op {
            let (share, time, [rate, of_arithmetic, gb_s, of_copy]) =
                (percent(op.share), seconds(op.seconds), rate_figures(&op.rates));
            *out += &format!("  {share:>5} {time:>9}  {:<18} {:>4} nodes  {rate:>12} ", op.op, op.nodes);
            *out += &format!("{of_arithmetic:>5} of {arithmetic}  {gb_s:>5} GB/s {of_copy:>5} of copy\n");
        }
        let prefix = format!("{}.", network.network);
        let of_this = |row: &&Row| {
            row.device == network.device && row.node.as_ref().is_some_and(|node| node.starts_with(&prefix))
        };
        let mut nodes: Vec<&Row> = self.rows.iter().filter(of_this).collect();
        let median = |row: &Row| row.timing.as_ref().map_or(0.0, |timing| timing.summary.median);
        nodes.sort_by(|a, b| median(b).total_cmp(&median(a)));
        let shown = if all { nodes.len() } else { NODES.min(nodes.len()) };
        let _ = writeln!(out, "  the {shown} longest of {} nodes", nodes.len());
        for row in &nodes[..shown] {
            let _ = writeln!(out, "  {} {}", numbers(row), row.node.as_deref().unwrap_or_default());
        }
    }

    /// Warnings, and how a comparison came out.
    fn notes(&self, out: &mut String) {
        let warned = |word: &str| {
            let has = |row: &&Row| row.timing.as_ref().is_some_and(|t| t.warnings.iter().any(|w| w.starts_with(word)));
            self.rows.iter().filter(has).count()
        };
        for (word, what) in [
            ("noisy", "noisy (~): the middle half of the rounds is far apart; stop other work and run again"),
            ("short", "short (<): the samples are near the clock's resolution"),
            ("once", "(1) many times slower than the device's preferred variant, and were timed once"),
        ] {
            let count = warned(word);
            if count > 0 {
                let _ = writeln!(out, "\n{count} rows are {what}");
            }
        }
        for device in self.devices.iter().filter(|device| !device.tuned.is_empty()) {
            let _ = writeln!(out, "\n{}: the fastest variants of the networks met so far", device.label);
            for (class, tuned) in &device.tuned {
                let tried: Vec<_> =
                    tuned.seconds.iter().map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
                let _ = writeln!(out, "  {class}: {} of {}", tuned.fastest().unwrap_or_default(), tried.join(", "));
            }
        }
        for device in self.devices.iter().filter(|device| device.ceilings.spread > SPREAD) {
            let (label, spread) = (&device.label, percent(device.ceilings.spread));
            *out += &format!("\n{label}: the ceilings wavered by {spread} during the run, and shares with them: ");
            *out += "stop other work\n";
        }
        let changes: Vec<_> = self.rows.iter().filter_map(|row| Some((&row.device, row.compared?))).collect();
        for device in &self.devices {
            let of_this = || changes.iter().filter(|(label, _)| **label == device.label).map(|(_, change)| change);
            let Some(change) = of_this().next() else { continue };
            let (exceed, all) = (of_this().filter(|change| change.exceeds).count(), of_this().count());
            let _ = write!(out, "\n{}: compared with the earlier report, the median time of rows and ", device.label);
            let _ = write!(out, "ceilings is x{:.2}; beside that, {exceed} of {all} rows differ by ", change.machine);
            *out += "more than both spreads (!)\n";
        }
    }
}

/// A device and its ceilings in two lines.
fn facts(device: &Device, number: Option<usize>) -> String {
    let number = number.map_or(String::new(), |n| format!("[{n}] "));
    let driver = device.caps.get("driver").and_then(|v| v.as_str()).map_or(String::new(), |d| format!(", {d}"));
    let (clock, ceilings, spread) = (clock(device.clock), ceilings(&device.ceilings), percent(device.ceilings.spread));
    format!("{number}{}{driver}: times are {clock}\n  ceilings measured now: {ceilings} (± {spread})", device.label)
}

/// The measured ceilings as one line.
pub(super) fn ceilings(c: &Ceilings) -> String {
    let rate = |name: &str, rate: Option<f64>| rate.map(|rate| format!("{name} {}", flop_rate(rate)));
    let copy = Some(format!("copy {} GB/s", digits(c.copy_gb_s)));
    let [f32, f16] = [rate("fma f32", c.fma_f32_gflop_s), rate("fma f16", c.fma_f16_gflop_s)];
    let all = [copy, f32, f16, rate("matrix product", c.product_gflop_s)];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Shapes and attributes.
fn what(row: &Row) -> String {
    match attributes(row) {
        text if text.is_empty() => shapes(row),
        text => format!("{} ({text})", shapes(row)),
    }
}

/// Time and rates in columns, or why there are none.
fn numbers(row: &Row) -> String {
    let (Some(timing), Some(rates)) = (&row.timing, &row.rates) else {
        let reason = row.reason.as_deref().unwrap_or("not timed");
        return format!("{:?}: {reason}:", row.verdict).to_lowercase();
    };
    let mark = match timing.warnings.first() {
        Some(warning) if warning.starts_with("noisy") => '~',
        Some(warning) if warning.starts_with("once") => '1',
        Some(_) => '<',
        None => ' ',
    };
    let change =
        row.compared.map_or(String::new(), |c| format!(" x{:<5.2}{}", c.relative, if c.exceeds { '!' } else { ' ' }));
    let (median, spread) = (seconds(timing.summary.median), percent(timing.summary.spread));
    let [rate, of_arithmetic, gb_s, of_copy] = rate_figures(rates);
    format!("{median:>8} ±{spread:>5}{mark}{change} {rate:>12} {of_arithmetic:>5} {gb_s:>7} GB/s {of_copy:>5} ")
}
