//! `bench --compare OLD.json`: what has become faster or slower since then, by more than the measurements waver.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Row;
use crate::error::{Error, Result};

/// A row beside the same row of an earlier report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// This time over the earlier one: below 1 is faster.
    pub ratio: f64,
    /// The ratio over the median ratio of all rows: what changed beside the machine as a whole.
    pub relative: f64,
    /// Both spreads and both runs' drifts together.
    pub spread: f64,
    /// Whether the ratio is outside of what the spreads explain.
    pub exceeds: bool,
    /// The same of the relative ratio.
    pub relative_exceeds: bool,
}

impl Change {
    fn new(ratio: f64, relative: f64, spread: f64) -> Self {
        let exceeds = |ratio: f64| ratio.max(1.0 / ratio) - 1.0 > spread;
        Self { ratio, relative, spread, exceeds: exceeds(ratio), relative_exceeds: exceeds(relative) }
    }
}

/// What is needed of an earlier report.
#[derive(Debug, Clone)]
pub struct Earlier {
    pub rows: Vec<Row>,
    /// The largest of its devices.
    pub drift: f64,
}

/// A report that `bench --json` wrote.
///
/// # Errors
/// If the file cannot be read or holds something else.
pub fn read(path: &Path) -> Result<Earlier> {
    #[derive(Deserialize)]
    struct Facts {
        drift: f64,
    }
    #[derive(Deserialize)]
    struct Report {
        devices: Vec<Facts>,
        rows: Vec<Row>,
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let report: Report = serde_json::from_str(&text).map_err(|e| {
        Error::file(path, format!("is no report of this version's `ornstein bench --json`: {e}; make a new one"))
    })?;
    let drift = report.devices.iter().map(|device| device.drift).fold(0.0, f64::max);
    Ok(Earlier { rows: report.rows, drift })
}

/// Puts a [`Change`] into every row that `old` has as well. `drift` is that of both runs together. Devices are told apart only if `old` has several.
pub fn compare(old: &[Row], new: &mut [Row], drift: f64) {
    let several = old.iter().any(|row| row.device != old[0].device);
    let same = |a: &Row, b: &Row| {
        (!several || a.device == b.device)
            && (&a.op, &a.variant, &a.dtype, &a.weights, &a.node) == (&b.op, &b.variant, &b.dtype, &b.weights, &b.node)
            && (&a.attributes, &a.shapes) == (&b.attributes, &b.shapes)
    };
    let pair = |row: &Row| {
        let new = row.timing.as_ref()?.summary;
        let old = old.iter().find(|old| same(old, row))?.timing.as_ref()?.summary;
        (old.median > 0.0 && new.median > 0.0).then_some((new.median / old.median, old.spread + new.spread + drift))
    };
    let pairs: Vec<Option<(f64, f64)>> = new.iter().map(pair).collect();
    let mut ratios: Vec<f64> = pairs.iter().flatten().map(|(ratio, _)| *ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
    for (row, pair) in new.iter_mut().zip(pairs) {
        row.compared = pair.map(|(ratio, spread)| Change::new(ratio, ratio / median, spread));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Clock;
    use crate::lab::bench::measure::Timing;
    use crate::lab::bench::stats::Summary;
    use crate::lab::bench::{Bench, Device};
    use crate::lab::ceilings::Ceilings;
    use crate::lab::suite;
    use crate::network::Executor;

    fn rows(medians: &[f64]) -> Vec<Row> {
        let device = Device::new(None, Ceilings::default());
        let bench = Bench::new(&Executor::Cpu, None, &device, false);
        let row = |(median, entry): (&f64, _)| {
            let mut row = bench.row(entry, super::super::Verdict::Right).unwrap();
            let summary = Summary { median: *median, spread: 0.05, samples: 9 };
            row.timing = Some(Timing { summary, clock: Clock::Wall, repeats: 1, warnings: Vec::new() });
            row
        };
        medians.iter().zip(&suite::cases()).map(row).collect()
    }

    #[test]
    fn a_change_within_both_spreads_is_not_marked() {
        let mut new = rows(&[1.08, 1.2, 0.8]);
        compare(&rows(&[1.0, 1.0, 1.0]), &mut new, 0.0);
        let marks: Vec<bool> = new.iter().map(|row| row.compared.unwrap().exceeds).collect();
        assert_eq!(marks, [false, true, true]);
    }

    #[test]
    fn a_machine_that_is_slower_as_a_whole_changes_no_relative_ratio() {
        let mut new = rows(&[2.0, 2.0, 3.0]);
        compare(&rows(&[1.0, 1.0, 1.0]), &mut new, 0.0);
        let changes: Vec<Change> = new.iter().map(|row| row.compared.unwrap()).collect();
        assert_eq!(changes.iter().map(|c| c.relative).collect::<Vec<_>>(), [1.0, 1.0, 1.5]);
        assert_eq!(changes.iter().map(|c| c.relative_exceeds).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn a_row_without_an_earlier_one_is_not_compared() {
        let mut new = rows(&[1.0, 1.0]);
        compare(&rows(&[1.0]), &mut new, 0.0);
        assert!(new[0].compared.is_some() && new[1].compared.is_none());
    }

    #[test]
    fn a_file_that_is_no_report_says_what_to_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        assert!(read(file.path()).unwrap_err().to_string().contains("bench --json"));
    }
}
