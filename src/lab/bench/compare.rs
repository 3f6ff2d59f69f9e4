//! What has become faster or slower since then, beside the machine as a whole and by more than
//! the measurements waver.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::stats::median;
use super::{Ceilings, Device, Row};
use crate::error::{Error, Result};
use crate::files::read_text;

/// A row beside the same row of an earlier report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// This time over the earlier one: below 1 is faster.
    pub ratio: f64,
    /// The median ratio of the device's rows and ceilings: how slow the machine was beside then.
    pub machine: f64,
    /// The first over the second: what changed beside the machine.
    pub relative: f64,
    /// Both spreads together.
    pub spread: f64,
    /// Whether the relative ratio is outside of what the spreads explain.
    pub exceeds: bool,
}

impl Change {
    fn new(ratio: f64, machine: f64, spread: f64) -> Self {
        let relative = ratio / machine;
        Self { ratio, machine, relative, spread, exceeds: relative.max(1.0 / relative) - 1.0 > spread }
    }
}

/// What is needed of an earlier report.
#[derive(Debug, Clone, Deserialize)]
pub struct Earlier {
    /// Its devices.
    pub devices: Vec<EarlierDevice>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// A device of an earlier report.
#[derive(Debug, Clone, Deserialize)]
pub struct EarlierDevice {
    /// Name and backend, by which rows are matched.
    pub label: String,
    /// What it could do at most then.
    pub ceilings: Ceilings,
}

/// A report in JSON.
///
/// # Errors
/// If the file cannot be read or holds something else.
pub fn read(path: &Path) -> Result<Earlier> {
    serde_json::from_str(&read_text(path)?).map_err(|e| {
        Error::file(path, format!("is not this version's JSON report of a benchmark: {e}; make a new one"))
    })
}

/// Puts a [`Change`] into every row that `old` has as well. Devices are told apart only if `old` has several.
pub fn compare(old: &Earlier, devices: &[Device], new: &mut [Row]) {
    let several = old.devices.len() > 1;
    let same = |a: &Row, b: &Row| {
        (!several || a.device == b.device)
            && (&a.op, &a.variant, &a.dtype, &a.weights, &a.node) == (&b.op, &b.variant, &b.dtype, &b.weights, &b.node)
            && (&a.attributes, &a.shapes) == (&b.attributes, &b.shapes)
    };
    let pair = |row: &Row| {
        let new = row.timing.as_ref()?.summary;
        let old = old.rows.iter().find(|old| same(old, row))?.timing.as_ref()?.summary;
        (old.median > 0.0 && new.median > 0.0).then_some((new.median / old.median, old.spread + new.spread))
    };
    let pairs: Vec<Option<(f64, f64)>> = new.iter().map(pair).collect();
    let mut ratios: HashMap<String, Vec<f64>> = HashMap::new();
    for device in devices {
        if let Some(old) = old.devices.iter().find(|old| !several || old.label == device.label) {
            ratios.entry(device.label.clone()).or_default().extend(device.ceilings.slowness(&old.ceilings));
        }
    }
    for (row, pair) in new.iter().zip(&pairs) {
        ratios.entry(row.device.clone()).or_default().extend(pair.map(|(ratio, _)| ratio));
    }
    for (row, pair) in new.iter_mut().zip(pairs) {
        row.compared = pair.map(|(ratio, spread)| Change::new(ratio, median(&ratios[&row.device]), spread));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::gpu::Clock;
    use crate::graph::plan::Storage;
    use crate::lab::bench::Verdict;
    use crate::lab::bench::measure::Timing;
    use crate::lab::bench::stats::Summary;
    use crate::lab::suite;
    use crate::tensor::DType;

    /// A device whose copies take so many seconds, and rows of these medians.
    fn report(copy: f64, medians: &[f64]) -> (Device, Vec<Row>) {
        let ceilings = Ceilings { copy_gb_s: 1.0 / copy, ..Ceilings::default() };
        let caps = serde_json::Value::Null;
        let storage = Storage { act: DType::F32, weight: DType::F32 };
        let row = |(median, workload): (&f64, _)| {
            let mut row = Row::new("cpu", workload, "reference", storage, Verdict::Right).unwrap();
            let summary = Summary { median: *median, spread: 0.05, rounds: 9 };
            row.timing = Some(Timing { summary, clock: Clock::Wall, repeats: 1, warnings: Vec::new() });
            row
        };
        let rows = medians.iter().zip(&suite::cases()).map(row).collect();
        (Device { label: "cpu".into(), clock: Clock::Wall, ceilings, tuned: BTreeMap::new(), caps }, rows)
    }

    fn compared(old: (f64, &[f64]), new: (f64, &[f64])) -> Vec<Option<Change>> {
        let (device, rows) = report(old.0, old.1);
        let old = Earlier { devices: vec![EarlierDevice { label: device.label, ceilings: device.ceilings }], rows };
        let (device, mut rows) = report(new.0, new.1);
        compare(&old, &[device], &mut rows);
        rows.into_iter().map(|row| row.compared).collect()
    }

    fn marks(changes: Vec<Option<Change>>) -> Vec<bool> {
        changes.into_iter().map(|change| change.unwrap().exceeds).collect()
    }

    #[test]
    fn a_change_within_both_spreads_is_not_marked() {
        let changes = compared((1.0, &[1.0, 1.0, 1.0, 1.0]), (1.0, &[1.0, 1.08, 1.2, 0.8]));
        assert_eq!(marks(changes), [false, false, true, true]);
    }

    #[test]
    fn a_machine_that_is_slower_as_a_whole_marks_no_row() {
        let changes = compared((1.0, &[1.0, 1.0, 1.0]), (2.0, &[2.0, 2.0, 3.0]));
        assert_eq!(changes.iter().map(|c| c.unwrap().relative).collect::<Vec<_>>(), [1.0, 1.0, 1.5]);
        assert_eq!(marks(changes), [false, false, true]);
    }

    #[test]
    fn the_ceilings_tell_a_slower_machine_from_a_slower_row() {
        let row = |copy: f64| compared((1.0, &[1.0]), (copy, &[1.5]))[0].unwrap();
        assert!(row(1.0).relative > row(1.5).relative && !row(1.5).exceeds, "{:?} {:?}", row(1.0), row(1.5));
    }

    #[test]
    fn a_row_without_an_earlier_one_is_not_compared() {
        let changes = compared((1.0, &[1.0]), (1.0, &[1.0, 1.0]));
        assert!(changes[0].is_some() && changes[1].is_none());
    }

    #[test]
    fn a_file_that_is_no_report_says_what_to_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        assert!(read(file.path()).unwrap_err().to_string().contains("make a new one"));
    }
}
