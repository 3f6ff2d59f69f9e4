//! What `ornstein validate` found as text, comma-separated values or Markdown.

use crate::caps::Caps;
use crate::cli::table::{Cell, Column, Form, Table, Tone, by_op};
use crate::error::counted;
use crate::lab::report::{attributes, shapes};
use crate::lab::validate::network::{End, Report};
use crate::lab::validate::{Row, Verdict};

use Column::{Flow, Left, Right, Section};

/// How many of a network's nodes are shown: those nearest to their limits.
const WORST_NODES: usize = 5;

/// What is being checked, in one line.
pub fn device(caps: &Caps) -> String {
    let driver = if caps.driver.is_empty() { "unknown driver" } else { &caps.driver };
    let f16 = if caps.f16 { "f16" } else { "no f16" };
    format!("{}: {}, {driver}, {f16}", caps.name, caps.backend)
}

const CASES: [Column; 11] = [
    Section("op"),
    Right("case", 4),
    Left("verdict", 7),
    Left("variant", 11),
    Left("types", 7),
    Right("relative", 8),
    Right("max abs", 7),
    Right("ulp", 6),
    Flow("shapes"),
    Flow("attributes"),
    Flow("reason"),
];

/// Rows of cases, printed as they come.
pub struct Cases {
    table: Table<'static>,
    form: Form,
    /// Ops of which a row did not compile.
    broken: Vec<&'static str>,
}

impl Cases {
    pub fn new(form: Form) -> Self {
        Self { table: Table::new(form, CASES), form, broken: Vec::new() }
    }

    /// A row, and where it did not pass why and how to run it again. Of a kernel's text that does not compile, the
    /// first row says it for all.
    pub fn row(&mut self, row: &Row, rerun: &str) -> String {
        let is_text = matches!(self.form, Form::Text(_));
        if row.does_not_compile && is_text && self.broken.contains(&row.op) {
            return String::new();
        }
        self.broken.extend(row.does_not_compile.then_some(row.op));
        let types = format!("{} {}", row.dtype, row.weights.as_deref().unwrap_or_default());
        let [relative, max_abs, ulp] = [row.relative, row.max_abs, row.ulp].map(number);
        let case = row.case.map_or_else(String::new, |case| case.to_string());
        let cells = [
            row.op.into(),
            case.into(),
            verdict(row.verdict),
            row.variant.into(),
            types.trim_end().into(),
            relative.into(),
            max_abs.into(),
            ulp.into(),
            shapes(&row.shapes).into(),
            attributes(&row.attributes).into(),
            reason(row, self.form),
        ];
        self.table.row(&cells) + &details(&mut self.table, row, rerun)
    }
}

/// The reason in the row itself: in text it stands below.
fn reason(row: &Row, form: Form) -> Cell {
    match (form, row.does_not_compile) {
        (Form::Text(_), true) => "does not compile, and so fails every other row of this op".into(),
        (Form::Text(_), false) => Cell::default(),
        (Form::Csv | Form::Markdown, _) => row.reason.as_deref().unwrap_or_default().into(),
    }
}

/// Why a row did not pass, and how to run it again: of a kernel's text that does not compile, once.
fn details(table: &mut Table, row: &Row, rerun: &str) -> String {
    let why = row.reason.as_deref().map_or_else(String::new, |reason| table.reason(reason, &row.excerpt));
    let again = row.verdict == Verdict::Failed && !(row.does_not_compile && why.is_empty());
    if again { why + &table.command(rerun) } else { why }
}

const SUMMARY: [Column; 5] =
    [Left("op", 0), Right("rows", 0), Right("failed", 0), Right("refused", 0), Right("worst % of limit", 0)];

/// The last lines: op by op, how many rows there were and how near they came to their limits.
pub fn summary<'a>(form: Form, rows: impl Iterator<Item = &'a Row> + Clone) -> String {
    let count = |rows: &[&Row], verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let summed = |rows: &[&Row]| {
        let worst = rows.iter().filter_map(|row| row.share_of_limit()).reduce(f64::max);
        let worst = worst.map_or_else(String::new, percent);
        let [failed, refused] = [Verdict::Failed, Verdict::Refused].map(|verdict| count(rows, verdict));
        vec![rows.len().to_string().into(), Tone::Bad.count(failed), refused.to_string().into(), worst.into()]
    };
    let all: Vec<&Row> = rows.clone().collect();
    let refused = match count(&all, Verdict::Refused) {
        0 => String::new(),
        n => format!(", {n} rightly refused"),
    };
    let end = format!("{}, {} failed{refused}", counted(all.len(), "row"), count(&all, Verdict::Failed));
    by_op(form, &SUMMARY, rows, |row| row.op, summed) + &form.paragraph(&end)
}

/// A share in hundredths, up to three digits of them.
fn percent(share: f64) -> String {
    if share > 9.99 { ">999".into() } else { format!("{:.0}", share * 100.0) }
}

const NODES: [Column; 8] = [
    Section("network"),
    Right("relative", 8),
    Right("limit", 6),
    Right("rounding", 8),
    Left("verdict", 7),
    Left("op", 10),
    Flow("node or output"),
    Flow("reason"),
];

/// Networks, printed as they come.
pub struct Networks {
    table: Table<'static>,
    form: Form,
    quiet: bool,
}

impl Networks {
    /// `quiet` leaves only what failed.
    pub fn new(form: Form, quiet: bool) -> Self {
        Self { table: Table::new(form, NODES), form, quiet }
    }

    /// A network's outputs end to end, what is wrong with its nodes, and the nodes nearest to their limits.
    pub fn report(&mut self, report: &Report, rerun: &dyn Fn(&Row) -> String) -> String {
        let wrong = report.nodes.iter().filter(|row| row.verdict == Verdict::Failed).count();
        let Report { network, dtype, weights, nodes, outputs } = report;
        let name =
            format!("{network}, {dtype} with {weights} weights: {}, {wrong} wrong", counted(nodes.len(), "node"));
        let mut out = String::new();
        for End { output, relative, limit, rounding, reason, verdict: found } in outputs {
            if self.quiet && *found != Verdict::Failed {
                continue;
            }
            let numbers = [*relative, *limit, *rounding].map(|value| number(Some(value)));
            let why = reason.as_deref().unwrap_or_default();
            let in_a_row = if matches!(self.form, Form::Text(_)) { "" } else { why };
            out += &self.row(&name, numbers, *found, ["end to end", output], in_a_row.into());
            out += &self.table.reason(why, &[]);
        }
        let share = |row: &Row| match row.verdict {
            Verdict::Failed => f64::INFINITY,
            _ => row.share_of_limit().unwrap_or_default(),
        };
        let mut near: Vec<&Row> = nodes.iter().collect();
        near.sort_by(|a, b| share(b).total_cmp(&share(a)));
        let right = match self.form {
            _ if self.quiet => 0,
            Form::Csv => near.len(),
            Form::Text(_) | Form::Markdown => WORST_NODES,
        };
        for row in near.into_iter().take(wrong + right) {
            let numbers = [number(row.relative), number(Some(row.limit)), String::new()];
            let node = row.node.as_deref().unwrap_or_default();
            out += &self.row(&name, numbers, row.verdict, [row.op, node], reason(row, self.form));
            out += &details(&mut self.table, row, &rerun(row));
        }
        out
    }

    fn row(&mut self, name: &str, numbers: [String; 3], found: Verdict, words: [&str; 2], reason: Cell) -> String {
        let [relative, limit, rounding] = numbers.map(Cell::from);
        let [op, node] = words.map(Cell::from);
        self.table.row(&[name.into(), relative, limit, rounding, verdict(found), op, node, reason])
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(0.0) => "0".into(),
        Some(value) => format!("{value:.1e}"),
    }
}

fn verdict(verdict: Verdict) -> Cell {
    match verdict {
        Verdict::Passed => Tone::Good.cell("ok"),
        Verdict::Refused => Tone::Dim.cell("refused"),
        Verdict::Failed => Tone::Bad.cell("FAILED"),
    }
}
