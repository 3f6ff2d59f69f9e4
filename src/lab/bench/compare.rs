//! What has become faster or slower since then, next to the machine as a whole and by more than its rounds lie apart.
//!
//! Two runs of the same differ by more than their rounds do, since a machine changes from minute to minute, and not for
//! all rows alike. So a change counts only where no round of the one run (but for one that was held up) overlaps the
//! other's, by more than rows and ceilings usually differ from their median. Of two times nine rounds of the same,
//! drawn independently, one pair of 2,431 lies apart.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::stats::{Summary, median};
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
    /// Whether the rounds were all slower, or all faster, than the earlier ones, by more than the machine wavers.
    pub exceeds: bool,
}

/// Fewer rounds than this may lie apart by chance: of twice five, in one pair of 126.
const ENOUGH_ROUNDS: usize = 5;

/// What a row's time could have been in another round: where there were few, three times as far as they lie apart; of
/// a single one nobody knows.
fn range(of: &Summary) -> Option<[f64; 2]> {
    let beyond = if of.rounds < ENOUGH_ROUNDS { of.most - of.least } else { 0.0 };
    (of.rounds > 1).then_some([of.least - beyond, of.most + beyond])
}

/// How slow a machine was next to then: the median of the ratios of its rows and ceilings, and how far those wander
/// from it, which is what differs between two runs of the same: three times the median distance, as a share.
fn machine(ratios: &[f64]) -> [f64; 2] {
    let middle = median(ratios);
    let distances: Vec<f64> = ratios.iter().map(|ratio| (ratio / middle - 1.0).abs()).collect();
    [middle, 3.0 * median(&distances)]
}

impl Change {
    fn new(old: &Summary, new: &Summary, [machine, wavers]: [f64; 2]) -> Self {
        let ratio = new.median / old.median;
        let exceeds = range(old).zip(range(new)).is_some_and(|([old_least, old_most], [least, most])| {
            least > old_most * machine * (1.0 + wavers) || most < old_least * machine / (1.0 + wavers)
        });
        Self { ratio, machine, relative: ratio / machine, spread: old.spread + new.spread, exceeds }
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
        (old.median > 0.0 && new.median > 0.0).then_some((old, new))
    };
    let pairs: Vec<Option<(Summary, Summary)>> = new.iter().map(pair).collect();
    let mut ratios: HashMap<String, Vec<f64>> = HashMap::new();
    for device in devices {
        if let Some(old) = old.devices.iter().find(|old| !several || old.label == device.label) {
            ratios.entry(device.label.clone()).or_default().extend(device.ceilings.slowness(&old.ceilings));
        }
    }
    for (row, pair) in new.iter().zip(&pairs) {
        ratios.entry(row.device.clone()).or_default().extend(pair.map(|(old, new)| new.median / old.median));
    }
    let machines: HashMap<String, [f64; 2]> = ratios.into_iter().map(|(label, all)| (label, machine(&all))).collect();
    for (row, pair) in new.iter_mut().zip(pairs) {
        row.compared = pair.map(|(old, new)| Change::new(&old, &new, machines[&row.device]));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::LazyLock;

    use super::*;
    use crate::gpu::Clock;
    use crate::graph::plan::Storage;
    use crate::lab::bench::Verdict;
    use crate::lab::bench::measure::Timing;
    use crate::lab::suite::{self, Workload};
    use crate::rng::Generator;
    use crate::tensor::DType;

    /// A device whose copies take so many seconds, and rows of these rounds.
    fn report(copy: f64, rows: &[Vec<f64>]) -> (Device, Vec<Row>) {
        let ceilings = Ceilings { copy_gb_s: 1.0 / copy, ..Ceilings::default() };
        let caps = serde_json::Value::Null;
        let storage = Storage { act: DType::F32, weight: DType::F32 };
        let row = |(rounds, workload): (&Vec<f64>, _)| {
            let mut row = Row::new("cpu", workload, "reference", storage, Verdict::Right).unwrap();
            let (summary, clock) = (Summary::of(rounds), Clock::Wall);
            row.timing = Some(Timing { summary, clock, repeats: 1, warnings: Vec::new() });
            row
        };
        static CASES: LazyLock<Vec<Workload>> = LazyLock::new(suite::cases);
        let rows = rows.iter().zip(CASES.iter()).map(row).collect();
        (Device { label: "cpu".into(), clock: Clock::Wall, ceilings, tuned: BTreeMap::new(), caps }, rows)
    }

    fn compared(old: (f64, &[Vec<f64>]), new: (f64, &[Vec<f64>])) -> Vec<Option<Change>> {
        let (device, rows) = report(old.0, old.1);
        let old = Earlier { devices: vec![EarlierDevice { label: device.label, ceilings: device.ceilings }], rows };
        let (device, mut rows) = report(new.0, new.1);
        compare(&old, &[device], &mut rows);
        rows.into_iter().map(|row| row.compared).collect()
    }

    /// Nine rounds within 2 % of each of these.
    fn steady(medians: &[f64]) -> Vec<Vec<f64>> {
        medians.iter().map(|median| (-4..=4).map(|i| median * (1.0 + 0.0025 * f64::from(i))).collect()).collect()
    }

    fn marks(changes: Vec<Option<Change>>) -> Vec<bool> {
        changes.into_iter().map(|change| change.unwrap().exceeds).collect()
    }

    #[test]
    fn a_row_whose_rounds_overlap_the_earlier_ones_is_not_marked() {
        let changes = compared((1.0, &steady(&[1.0; 5])), (1.0, &steady(&[1.0, 1.0, 1.01, 1.5, 0.6])));
        assert_eq!(marks(changes), [false, false, false, true, true]);
    }

    #[test]
    fn a_machine_that_is_slower_as_a_whole_marks_no_row() {
        let changes = compared((1.0, &steady(&[1.0; 3])), (2.0, &steady(&[2.0, 2.0, 3.0])));
        assert_eq!(changes.iter().map(|c| c.unwrap().relative).collect::<Vec<_>>(), [1.0, 1.0, 1.5]);
        assert_eq!(marks(changes), [false, false, true]);
    }

    #[test]
    fn the_ceilings_tell_a_slower_machine_from_a_slower_row() {
        let row = |copy: f64| compared((1.0, &steady(&[1.0])), (copy, &steady(&[1.5])))[0].unwrap();
        assert!(row(1.0).relative > row(1.5).relative && !row(1.5).exceeds, "{:?} {:?}", row(1.0), row(1.5));
    }

    #[test]
    fn one_round_marks_nothing() {
        let once = |seconds: f64| [vec![1.0; 9], vec![1.0; 9], vec![seconds]];
        assert_eq!(marks(compared((1.0, &once(1.0)), (1.0, &once(9.0)))), [false; 3]);
    }

    /// Of 1,000 rows measured twice, in this many rounds of log-normal noise with stragglers, on a machine that differs
    /// from row to row by as much between two runs. The last row of each twenty takes `last` times as long.
    fn marked(rounds: usize, noise: f32, last: f64) -> [usize; 2] {
        let mut generator = Generator::new(7);
        let mut draw = |deviation: f32| f64::from((deviation * generator.normal(1)[0]).exp());
        let mut marked = [0, 0];
        for _ in 0..50 {
            let mut run = |last: f64| -> Vec<Vec<f64>> {
                let mut row = |i: usize| {
                    let of_run = draw(noise) * if i == 19 { last } else { 1.0 };
                    let mut round = |_| of_run * draw(noise) * if draw(1.0) > 10.0 { 3.0 } else { 1.0 };
                    (0..rounds).map(&mut round).collect()
                };
                (0..20).map(&mut row).collect()
            };
            let (old, new) = (run(1.0), run(last));
            for (i, marks) in marks(compared((1.0, &old), (1.0, &new))).into_iter().enumerate() {
                marked[usize::from(i == 19)] += usize::from(marks);
            }
        }
        marked
    }

    #[test]
    fn runs_of_the_same_mark_next_to_nothing() {
        for (rounds, noise) in [(9, 0.02), (9, 0.3), (3, 0.1)] {
            let [others, last] = marked(rounds, noise, 1.0);
            assert!(others + last < 10, "{rounds} rounds with {noise}: {} of 1,000", others + last);
        }
    }

    #[test]
    fn a_row_that_takes_half_as_long_again_is_marked() {
        let [others, last] = marked(9, 0.02, 1.5);
        assert!(others < 10 && last >= 49, "{others} others, {last} of 50");
    }

    #[test]
    fn a_row_without_an_earlier_one_is_not_compared() {
        let changes = compared((1.0, &steady(&[1.0])), (1.0, &steady(&[1.0; 2])));
        assert!(changes[0].is_some() && changes[1].is_none());
    }

    #[test]
    fn a_file_that_is_no_report_says_what_to_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        assert!(read(file.path()).unwrap_err().to_string().contains("make a new one"));
    }
}
