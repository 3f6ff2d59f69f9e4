//! A report as text for a terminal.

use std::fmt::Write as _;

use super::{Report, attributes, clock, digits, flop_rate, percent, seconds, shapes};
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
        let NetworkRow { timing, .. } = network;
        let arithmetic = self.arithmetic(&network.device);
        let inputs: Vec<String> = network.inputs.iter().map(|(name, dims)| format!("{name} {dims:?}")).collect();
        let _ = writeln!(
            out,
            "\n{} on {}, {}: {} ± {} ({} until the host knows), {} ({} of {arithmetic}), {} nodes, {} MiB\n  {}",
            network.network,
            network.device,
            network.dtype,
            seconds(timing.summary.median),
            percent(timing.summary.spread),
            seconds(network.wall),
            flop_rate(network.gflop_s),
            percent(network.share_of_arithmetic),
            network.nodes,
            network.device_bytes >> 20,
            inputs.join(", "),
        );
        for op in &network.by_op {
            let _ = writeln!(
                out,
                "  {:>5} {:>9}  {:<18} {:>4} nodes  {:>12} {:>5} of {arithmetic}  {:>5} GB/s {:>5} of copy",
                percent(op.share),
                seconds(op.seconds),
                op.op,
                op.nodes,
                flop_rate(op.rates.gflop_s),
                percent(op.rates.share_of_arithmetic),
                digits(op.rates.gb_s),
                percent(op.rates.share_of_copy),
            );
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
            let _ = writeln!(
                out,
                "\n{label}: the ceilings wavered by {spread} during the run, and shares with them: stop other work"
            );
        }
        let changes: Vec<_> = self.rows.iter().filter_map(|row| Some((&row.device, row.compared?))).collect();
        for device in &self.devices {
            let of_this = || changes.iter().filter(|(label, _)| **label == device.label).map(|(_, change)| change);
            let Some(change) = of_this().next() else { continue };
            let _ = writeln!(
                out,
                "\n{}: compared with the earlier report, the median time of rows and ceilings is x{:.2}; beside that, {} of \
                 {} rows differ by more than both spreads (!)",
                device.label,
                change.machine,
                of_this().filter(|change| change.exceeds).count(),
                of_this().count(),
            );
        }
    }
}

/// A device and its ceilings in two lines.
fn facts(device: &Device, number: Option<usize>) -> String {
    let number = number.map_or(String::new(), |n| format!("[{n}] "));
    let driver = device.caps.get("driver").and_then(|v| v.as_str()).map_or(String::new(), |d| format!(", {d}"));
    format!(
        "{number}{}{driver}: times are {}\n  ceilings measured now: {} (± {})",
        device.label,
        clock(device.clock),
        ceilings(&device.ceilings),
        percent(device.ceilings.spread)
    )
}

/// The measured ceilings as one line.
pub(super) fn ceilings(c: &Ceilings) -> String {
    let rate = |name: &str, rate: Option<f64>| rate.map(|rate| format!("{name} {}", flop_rate(rate)));
    let copy = Some(format!("copy {} GB/s", digits(c.copy_gb_s)));
    let all = [
        copy,
        rate("fma f32", c.fma_f32_gflop_s),
        rate("fma f16", c.fma_f16_gflop_s),
        rate("matrix product", c.product_gflop_s),
    ];
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
    format!(
        "{:>8} ±{:>5}{mark}{change} {:>12} {:>5} {:>7} GB/s {:>5} ",
        seconds(timing.summary.median),
        percent(timing.summary.spread),
        flop_rate(rates.gflop_s),
        percent(rates.share_of_arithmetic),
        digits(rates.gb_s),
        percent(rates.share_of_copy),
    )
}
