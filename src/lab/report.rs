//! What `bench` found, as JSON or a page, and the words for it.

use std::collections::HashSet;

use serde::Serialize;

use super::bench::profile::NetworkRow;
use super::bench::stats::Summary;
use super::bench::{Device, Rates, Row};
use super::ceilings::Ceilings;
use super::predict::Predicted;
use crate::gpu::Clock;

pub mod html;
mod roofline;

/// Where a report comes from.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// Of this crate.
    pub version: &'static str,
    /// When it was begun, in UTC.
    pub date: String,
    /// What made it, as a shell takes it.
    pub command: String,
}

/// Everything that one call of `bench` measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where it comes from.
    #[serde(flatten)]
    pub about: About,
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
    /// What a network's share of arithmetic is of.
    pub(crate) fn arithmetic(&self, network: &NetworkRow) -> &'static str {
        let device = self.devices.iter().find(|device| device.label == network.device).unwrap_or(&self.device);
        device.ceilings.arithmetic(network.matrices)
    }

    /// Rows of the same op and shapes together, in the order in which they first appear: one row per device.
    pub(crate) fn groups(&self) -> Vec<Vec<&Row>> {
        let mut seen = HashSet::new();
        let key = |row: &Row| (row.op.clone(), row.attributes.clone(), row.shapes.clone(), row.node.clone());
        let firsts = self.rows.iter().filter(|row| seen.insert(key(row))).collect::<Vec<_>>();
        let same = |first: &&Row| self.rows.iter().filter(|row| key(row) == key(first)).collect();
        firsts.iter().map(same).collect()
    }
}

/// Seconds in the unit that leaves one to three digits before the point.
pub(crate) fn seconds(s: f64) -> String {
    let (value, unit) = match s {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    format!("{} {unit}", digits(value))
}

/// Whose times they are.
pub(crate) fn clock(clock: Clock) -> &'static str {
    match clock {
        Clock::Timestamps => "the device's own timestamps",
        Clock::Wall => "the wall clock's",
        Clock::Processor => "processor time, all threads together",
    }
}

/// Three digits, as far as four places tell them.
pub(crate) fn digits(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        v if v < 5e-5 => format!("{v:.0e}"),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v if v >= 0.9995 => format!("{v:.2}"),
        v if v >= 0.09995 => format!("{v:.3}"),
        v => format!("{v:.4}"),
    }
}

/// Operations a second, given in 10^9.
pub(crate) fn flop_rate(gflop_s: f64) -> String {
    if gflop_s >= 1000.0 {
        format!("{} TFLOP/s", digits(gflop_s / 1e3))
    } else {
        format!("{} GFLOP/s", digits(gflop_s))
    }
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// The measured ceilings.
pub(crate) fn ceilings(c: &Ceilings) -> String {
    let rate = |name: &str, rate: Option<f64>| rate.map(|rate| format!("{name} {}", flop_rate(rate)));
    let copy = Some(format!("copy {} GB/s", digits(c.copy_gb_s)));
    let [f32, f16] = [rate("fma f32", c.fma_f32_gflop_s), rate("fma f16", c.fma_f16_gflop_s)];
    let [matrices, product] = [rate("matrices f16", c.matrix_gflop_s), rate("matrix product", c.product_gflop_s)];
    let launch = c.launch_us.map(|us| format!("launch {} µs", digits(us)));
    let [upload, download] = [("upload", c.upload_gb_s), ("download", c.download_gb_s)]
        .map(|(name, rate)| rate.map(|rate| format!("{name} {} GB/s", digits(rate))));
    let all = [copy, f32, f16, matrices, product, launch, upload, download];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// How long a network should take.
pub(crate) fn prediction(predicted: &Predicted) -> String {
    let Predicted { seconds: all, arithmetic, memory, launches, source, .. } = predicted;
    let [arithmetic, memory, launches] = [arithmetic, memory, launches].map(|part| percent(part / all));
    format!("{} {source} (arithmetic {arithmetic}, memory {memory}, launches {launches})", seconds(*all))
}

/// Operations a second and their share of the arithmetic, 10^9 bytes a second and their share of a copy.
pub(crate) fn rate_figures(rates: &Rates) -> [String; 4] {
    let [of_arithmetic, of_copy] = [rates.share_of_arithmetic, rates.share_of_copy].map(percent);
    [flop_rate(rates.gflop_s), of_arithmetic, digits(rates.gb_s), of_copy]
}

/// A network's time and its spread, the time until the host knows, operations a second and their share.
pub(crate) fn network_figures(network: &NetworkRow) -> [String; 5] {
    let NetworkRow { timing, wall, gflop_s, share_of_arithmetic, .. } = network;
    let Summary { median, spread, .. } = timing.summary;
    [seconds(median), percent(spread), seconds(*wall), flop_rate(*gflop_s), percent(*share_of_arithmetic)]
}

/// `2x64x64x320 3x3x320x320`.
pub(crate) fn shapes(shapes: &[Vec<usize>]) -> String {
    let shape = |dims: &Vec<usize>| match dims.len() {
        0 => "1".to_string(),
        _ => dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
    };
    // Vectors of parameters follow from the other shapes.
    let large = shapes.iter().filter(|dims| dims.len() > 1);
    let listed: Vec<String> = large.map(shape).collect();
    if listed.is_empty() { shapes.iter().map(shape).collect::<Vec<_>>().join(" ") } else { listed.join(" ") }
}

/// An op's attributes, those that are set: `Silu`, or `stride 2, padding [1, 1, 1, 1], bias, act Silu`.
pub(crate) fn attributes(op: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let (mut depth, mut part) = (0, String::new());
    for c in op.chars().filter(|c| !matches!(c, '}' | ')')).chain([',']) {
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
        // `Activation(Silu)` has one attribute, without a name.
        let Some((key, value)) = part.trim().split_once(": ") else {
            return part.rsplit_once('(').map(|(_, value)| value.to_string());
        };
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

    #[test]
    fn seconds_have_three_digits_in_a_fitting_unit() {
        assert_eq!([seconds(1.5), seconds(0.0123), seconds(4.56e-7)], ["1.50 s", "12.3 ms", "0.456 µs"]);
        assert_eq!(flop_rate(12_345.0), "12.3 TFLOP/s");
    }

    #[test]
    fn only_attributes_that_are_set_are_shown() {
        let op = "Conv2d { stride: 2, padding: [1, 1], epilogue: Epilogue { bias: true, row: false, act: Silu } }";
        assert_eq!(attributes(op), "stride 2, padding [1, 1], bias, act Silu");
        let op = "Conv2d { stride: 1, upsample: Some(Upsample { height: 6, width: 8 }), bias: true }";
        assert_eq!(attributes(op), "stride 1, height 6, width 8, bias");
        assert_eq!(attributes("Activation(Silu)"), "Silu");
        assert_eq!(attributes("Add"), "");
    }
}
