//! What `bench` found, as text, JSON or a page.

use std::collections::HashSet;

use serde::Serialize;

use super::bench::profile::NetworkRow;
use super::bench::stats::Summary;
use super::bench::{Device, Rates, Row};
use crate::gpu::Clock;

pub mod html;
pub mod predicted;
mod roofline;
pub mod table;

/// Everything that one call of `bench` measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The first device; all of them are in `devices`.
    pub device: Device,
    /// In the order in which they were measured.
    pub devices: Vec<Device>,
    /// Whole networks, where some were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkRow>,
    /// Every row of every device.
    pub rows: Vec<Row>,
}

impl Report {
    /// What [`Rates::share_of_arithmetic`](super::bench::Rates) is of on the device of this label.
    fn arithmetic(&self, label: &str) -> &'static str {
        self.devices.iter().find(|device| device.label == label).unwrap_or(&self.device).ceilings.arithmetic()
    }

    /// Rows of the same op and shapes together, in the order in which they first appear: one row per device.
    fn groups(&self) -> Vec<Vec<&Row>> {
        let mut seen = HashSet::new();
        let key = |row: &Row| (row.op.clone(), row.attributes.clone(), row.shapes.clone(), row.node.clone());
        let firsts = self.rows.iter().filter(|row| seen.insert(key(row))).collect::<Vec<_>>();
        let same = |first: &&Row| self.rows.iter().filter(|row| key(row) == key(first)).collect();
        firsts.iter().map(same).collect()
    }
}

/// Seconds in the unit that leaves one to three digits before the point.
pub(super) fn seconds(s: f64) -> String {
    let (value, unit) = match s {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    format!("{} {unit}", digits(value))
}

/// Whose times they are.
fn clock(clock: Clock) -> &'static str {
    match clock {
        Clock::Timestamps => "the device's own timestamps",
        Clock::Wall => "the wall clock's",
        Clock::Processor => "processor time, all threads together",
    }
}

/// Three digits.
pub(super) fn digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Operations a second, given in 10^9.
pub(super) fn flop_rate(gflop_s: f64) -> String {
    if gflop_s >= 1000.0 {
        format!("{} TFLOP/s", digits(gflop_s / 1e3))
    } else {
        format!("{} GFLOP/s", digits(gflop_s))
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Operations a second and their share of the arithmetic, 10^9 bytes a second and their share of a copy.
fn rate_figures(rates: &Rates) -> [String; 4] {
    let [of_arithmetic, of_copy] = [rates.share_of_arithmetic, rates.share_of_copy].map(percent);
    [flop_rate(rates.gflop_s), of_arithmetic, digits(rates.gb_s), of_copy]
}

/// A network's time and its spread, the time until the host knows, operations a second and their share.
fn network_figures(network: &NetworkRow) -> [String; 5] {
    let NetworkRow { timing, wall, gflop_s, share_of_arithmetic, .. } = network;
    let Summary { median, spread, .. } = timing.summary;
    [seconds(median), percent(spread), seconds(*wall), flop_rate(*gflop_s), percent(*share_of_arithmetic)]
}

/// `2x64x64x320 3x3x320x320`.
pub(super) fn shapes(row: &Row) -> String {
    let shape = |dims: &Vec<usize>| match dims.len() {
        0 => "1".to_string(),
        _ => dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
    };
    // Vectors of parameters follow from the other shapes.
    let large = row.shapes.iter().filter(|dims| dims.len() > 1);
    let listed: Vec<String> = large.map(shape).collect();
    if listed.is_empty() { row.shapes.iter().map(shape).collect::<Vec<_>>().join(" ") } else { listed.join(" ") }
}

/// An op's attributes, those that are set: `stride 2, padding [1, 1, 1, 1], bias, act Silu`.
pub(super) fn attributes(row: &Row) -> String {
    let mut parts: Vec<String> = Vec::new();
    let (mut depth, mut part) = (0, String::new());
    for c in row.attributes.chars().filter(|c| !matches!(c, '}' | ')')).chain([',']) {
        match c {
            '{' => part.clear(),
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += match c {
                    '[' => 1,
                    ']' => -1,
                    _ => 0,
                };
                part.push(c);
            }
        }
    }
    let set = parts.iter().filter_map(|part| {
        let (key, value) = part.trim().split_once(": ")?;
        match value.trim() {
            "false" | "None" => None,
            "true" => Some(key.to_string()),
            value => Some(format!("{key} {value}")),
        }
    });
    set.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::plan::Storage;
    use crate::lab::bench::Verdict;
    use crate::lab::suite::cases;
    use crate::tensor::DType;

    #[test]
    fn seconds_have_three_digits_in_a_fitting_unit() {
        assert_eq!([seconds(1.5), seconds(0.0123), seconds(4.56e-7)], ["1.50 s", "12.3 ms", "0.46 µs"]);
        assert_eq!(flop_rate(12_345.0), "12.3 TFLOP/s");
    }

    #[test]
    fn only_attributes_that_are_set_are_shown() {
        let storage = Storage { act: DType::F32, weight: DType::F32 };
        let mut row = Row::new("cpu", &cases()[0], "reference", storage, Verdict::Right).unwrap();
        row.attributes =
            "Conv2d { stride: 2, padding: [1, 1], epilogue: Epilogue { bias: true, row: false, act: Silu } }".into();
        assert_eq!(attributes(&row), "stride 2, padding [1, 1], bias, act Silu");
        row.attributes = "Conv2d { stride: 1, upsample: Some(Upsample { height: 6, width: 8 }), bias: true }".into();
        assert_eq!(attributes(&row), "stride 1, height 6, width 8, bias");
        row.attributes = "Add".into();
        assert_eq!(attributes(&row), "");
    }
}
