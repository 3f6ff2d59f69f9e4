//! The tables of `ornstein validate`, at most 100 columns wide where names allow it.

use crate::caps::Caps;
use crate::lab::validate::network::{End, Report};
use crate::lab::validate::{Row, Verdict};

/// How many of a network's nodes are shown: those nearest to their limits.
const WORST_NODES: usize = 5;

/// What is being checked, in one line.
pub fn device(caps: &Caps) -> String {
    let driver = if caps.driver.is_empty() { "unknown driver" } else { &caps.driver };
    let f16 = if caps.f16 { "f16" } else { "no f16" };
    format!("{}: {}, {driver}, {f16}\n", caps.name, caps.backend)
}

/// Rows in groups, one per op.
#[derive(Debug, Default)]
pub struct Cases {
    op: &'static str,
}

impl Cases {
    /// The lines of a row, with a heading where an op's first row comes.
    pub fn row(&mut self, row: &Row, rerun: &str) -> String {
        let mut text = String::new();
        if self.op != row.op {
            self.op = row.op;
            text = format!("\n{:<62}{:>8} {:>8} {:>8}\n", row.op, "relative", "max abs", "ulp");
        }
        let weights = row.weights.as_deref().unwrap_or("-");
        let head = format!("{:>4} {:<9} {:<3} {weights:<3}", row.case.unwrap_or_default(), row.variant, row.dtype);
        let [relative, max_abs, ulp] = [row.relative, row.max_abs, row.ulp].map(number);
        let (shapes, verdict) = (shapes(row), verdict(row.verdict));
        text += &format!("{head} {shapes:<38} {relative:>8} {max_abs:>8} {ulp:>8}  {verdict}\n");
        text + &details(row, rerun)
    }
}

/// Why a row did not pass, and the way back to it.
fn details(row: &Row, rerun: &str) -> String {
    match (&row.reason, row.verdict) {
        (Some(reason), Verdict::Failed) => format!("       {}\n       {reason}\n       {rerun}\n", row.attributes),
        (Some(reason), _) => format!("       {reason}\n"),
        (None, _) => String::new(),
    }
}

/// The last lines of the cases' table.
pub fn summary(rows: &[Row]) -> String {
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let refused = match count(Verdict::Refused) {
        0 => String::new(),
        n => format!(", {n} rightly refused"),
    };
    format!("\n{} rows, {} failed{refused}\n", rows.len(), count(Verdict::Failed))
}

/// A network: its verdict from end to end, and the nodes nearest to their limits.
pub fn network(report: &Report, rerun: &dyn Fn(&Row) -> String) -> String {
    let wrong: Vec<&Row> = report.nodes.iter().filter(|row| row.verdict == Verdict::Failed).collect();
    let Report { network, dtype, weights, nodes, outputs, .. } = report;
    let mut text =
        format!("\n{network}, {dtype} with {weights} weights: {} nodes, {} wrong\n", nodes.len(), wrong.len());
    for End { output, relative, limit, rounding, reason, verdict: found } in outputs {
        text += &format!("  {output:<34} end to end {relative:.1e} of {limit:.0e}, rounding alone {rounding:.1e}  ");
        text += verdict(*found);
        text += &reason.as_ref().map_or("\n".into(), |reason| format!("\n    {reason}\n"));
    }
    for row in &wrong {
        text += &format!("  {}  failed\n", row.node.as_deref().unwrap_or_default());
        text += &details(row, &rerun(row));
    }
    let mut near: Vec<&Row> = nodes.iter().filter(|row| row.verdict == Verdict::Passed).collect();
    let share = |row: &Row| row.relative.unwrap_or_default() / row.limit;
    near.sort_by(|a, b| share(b).total_cmp(&share(a)));
    for row in near.into_iter().take(WORST_NODES) {
        let (relative, name) = (number(row.relative), row.node.as_deref().unwrap_or_default());
        text += &format!("  {relative:>7} of {:.0e}  {} {name}\n", row.limit, row.op);
    }
    text
}

/// `2x3x4 4x5`
fn shapes(row: &Row) -> String {
    let shape = |dims: &Vec<usize>| dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    row.shapes.iter().map(shape).collect::<Vec<_>>().join(" ")
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(0.0) => "0".into(),
        Some(value) => format!("{value:.1e}"),
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "ok",
        Verdict::Refused => "refused",
        Verdict::Failed => "FAILED",
    }
}
