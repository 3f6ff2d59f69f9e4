//! Rows as text that fits a terminal, as comma-separated values, or as Markdown.
//!
//! Text has columns of known widths, so that rows can be printed as they come. What flows (shapes, names, reasons)
//! stands last and goes on in further lines; nothing is cut off. A pipe gets one line a row, without colours.

use std::collections::HashSet;

use clap::Args;
use console::{Alignment, Style, Term, measure_text_width, pad_str};

use crate::lab::report::About;

/// How rows are printed.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct FormArgs {
    /// One JSON document instead of text
    #[arg(long)]
    pub json: bool,
    /// The rows as comma-separated values instead of text
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Markdown instead of text
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    markdown: bool,
    /// Only the rows that failed, and the summary
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

impl FormArgs {
    pub(super) fn form(self) -> Form {
        match self {
            Self { csv: true, .. } => Form::Csv,
            Self { markdown: true, .. } => Form::Markdown,
            _ => Form::Text(Screen::stdout()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text(Screen),
    Csv,
    Markdown,
}

/// What text is written on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Screen {
    /// Columns of a terminal; a pipe has no end.
    pub width: Option<usize>,
    pub colour: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Title,
    Dim,
    Good,
    Noisy,
    Bad,
}

impl Tone {
    pub(super) fn cell(self, text: impl Into<String>) -> Cell {
        Cell { text: text.into(), tone: self }
    }

    /// How many there are, which is nothing to show where there are none.
    pub(super) fn count(self, count: usize) -> Cell {
        if count == 0 { "0".into() } else { self.cell(count.to_string()) }
    }
}

/// A value of a row; an empty one is not known.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Tone::Plain.cell(text)
    }
}

/// A column by its heading, with its unit, and the width of its text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column<'a> {
    /// The first: text has a part of its own for each value.
    Section(&'a str),
    Left(&'a str, usize),
    Right(&'a str, usize),
    /// The last ones.
    Flow(&'a str),
}

use Column::{Flow, Left, Right, Section};

impl<'a> Column<'a> {
    fn heading(self) -> &'a str {
        let (Section(heading) | Left(heading, _) | Right(heading, _) | Flow(heading)) = self;
        heading
    }
}

/// Columns that what flows has at least beside the others; otherwise it goes below them.
const LEAST_FLOW: usize = 16;
/// Before what stands below a row.
const INDENT: usize = 6;

#[derive(Debug)]
pub(super) struct Table<'a> {
    form: Form,
    columns: Vec<Column<'a>>,
    section: Option<String>,
    /// Reasons that rows had.
    told: HashSet<String>,
}

impl<'a> Table<'a> {
    /// To be printed row by row.
    pub(super) fn new(form: Form, columns: impl Into<Vec<Column<'a>>>) -> Self {
        Self { form, columns: columns.into(), section: None, told: HashSet::new() }
    }

    /// All rows at once, in columns as wide as they need.
    pub(super) fn of(form: Form, columns: impl Into<Vec<Column<'a>>>, rows: &[Vec<Cell>]) -> String {
        let mut table = Self::fitting(form, columns, rows);
        rows.iter().map(|row| table.row(row)).collect()
    }

    /// With columns as wide as these rows need.
    pub(super) fn fitting(form: Form, columns: impl Into<Vec<Column<'a>>>, rows: &[Vec<Cell>]) -> Self {
        let mut table = Self::new(form, columns);
        for (i, column) in table.columns.iter_mut().enumerate() {
            let widest = rows.iter().map(|row| measure_text_width(&row[i].text)).max().unwrap_or_default();
            if let Left(heading, width) | Right(heading, width) = column {
                *width = widest.max(measure_text_width(heading));
            }
        }
        table
    }

    /// A row, below the headings where it is the first of its section. It has a cell for each column.
    pub(super) fn row(&mut self, cells: &[Cell]) -> String {
        let begins = |column: &Column| matches!(column, Section(_)).then(|| cells[0].text.clone());
        let section = self.columns.first().and_then(begins).filter(|_| matches!(self.form, Form::Text(_)));
        let section = section.unwrap_or_default();
        let mut out = String::new();
        if self.section.as_ref() != Some(&section) {
            out = self.head(&section);
            self.section = Some(section);
        }
        out + &self.line(cells)
    }

    fn head(&self, section: &str) -> String {
        let headings: Vec<Cell> = self.columns.iter().map(|column| column.heading().into()).collect();
        match self.form {
            Form::Text(screen) => {
                let line = self.text(&headings, Screen { colour: false, ..screen });
                // What does not fit into the first line is known by what stands there.
                let line = line.lines().next().unwrap_or_default().trim_end_matches(',');
                let line = if line.is_empty() { String::new() } else { screen.paint(line, Tone::Dim) + "\n" };
                format!("\n{}{line}", screen.lines(section, 0, Tone::Title))
            }
            Form::Csv => self.line(&headings),
            Form::Markdown => {
                let rule = |column: &Column| if matches!(column, Right(..)) { "---:|" } else { "---|" };
                format!("\n{}|{}\n", self.line(&headings), self.columns.iter().map(rule).collect::<String>())
            }
        }
    }

    fn line(&self, cells: &[Cell]) -> String {
        let texts = cells.iter().map(|cell| cell.text.as_str());
        match self.form {
            Form::Csv => texts.map(comma_separated).collect::<Vec<_>>().join(",") + "\n",
            Form::Markdown => {
                format!("| {} |\n", texts.map(|text| text.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
            }
            Form::Text(screen) => self.text(cells, screen),
        }
    }

    fn text(&self, cells: &[Cell], screen: Screen) -> String {
        let (mut out, mut used, mut flow) = (String::new(), 0, Vec::new());
        for (column, Cell { text, tone }) in self.columns.iter().zip(cells) {
            let padded = match *column {
                Section(_) => continue,
                Flow(_) if text.is_empty() => continue,
                Flow(_) => {
                    flow.push(text.as_str());
                    continue;
                }
                Left(_, width) => pad_str(text, width, Alignment::Left, None),
                Right(_, width) => pad_str(if text.is_empty() { "-" } else { text }, width, Alignment::Right, None),
            };
            out += &screen.paint(&padded, *tone);
            out.push(' ');
            used += measure_text_width(&padded) + 1;
        }
        let tone = cells.last().map_or(Tone::Plain, |cell| cell.tone);
        let longest = flow.iter().flat_map(|text| words(text)).map(|word| measure_text_width(&word)).max();
        let least = longest.map_or(0, |longest| longest.max(LEAST_FLOW));
        let below = screen.width.is_some_and(|width| width < used + least);
        let indent = if below { INDENT } else { used };
        let rest = screen.lines(&flow.join(", "), indent, tone);
        if below {
            return format!("{}\n{rest}", out.trim_end());
        }
        // The first line goes on behind the other columns.
        out += rest.get(used.min(rest.len())..).unwrap_or_default();
        format!("{}\n", out.trim_end())
    }

    /// Why a row is not right, and where in a text, below it in text, where rows have no column for it; nothing if
    /// another row said so.
    pub(super) fn reason(&mut self, why: &str, excerpt: &[String]) -> String {
        match self.form {
            Form::Text(screen) if self.told.insert(why.into()) => {
                let shown = |line: &String| format!("{:indent$}{line}\n", "", indent = INDENT + 2);
                screen.lines(why, INDENT, Tone::Plain) + &excerpt.iter().map(shown).collect::<String>()
            }
            _ => String::new(),
        }
    }

    /// A command below a row in text, as a shell takes it from several lines.
    pub(super) fn command(&self, command: &str) -> String {
        let Form::Text(screen) = self.form else { return String::new() };
        let room = screen.width.map(|width| width.saturating_sub(2));
        let lines = Screen { width: room, ..screen }.lines(command, INDENT, Tone::Plain);
        lines.trim_end().replace('\n', " \\\n") + "\n"
    }
}

fn comma_separated(text: &str) -> String {
    if text.contains(['"', ',', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

impl Form {
    /// Words next to the rows; a file of values has none.
    pub(super) fn lines(self, text: &str) -> String {
        match self {
            Self::Text(screen) => screen.lines(text, 0, Tone::Plain),
            Self::Csv => String::new(),
            // A paragraph, which an empty line ends.
            Self::Markdown => format!("{text}\n\n"),
        }
    }

    /// The same behind an empty line.
    pub(super) fn paragraph(self, text: &str) -> String {
        if self == Self::Csv { String::new() } else { format!("\n{}", self.lines(text)) }
    }

    /// Where a report comes from.
    pub(super) fn about(self, About { version, date, command }: &About) -> String {
        self.lines(&format!("ornstein {version}, {date}: {command}"))
    }
}

/// A row for each op: its name, and what all its rows come to. A file of values is to be summed up by who reads it.
pub(super) fn by_op<'a, R: 'a>(
    form: Form,
    columns: &[Column],
    rows: impl Iterator<Item = &'a R>,
    op: impl Fn(&'a R) -> &'a str,
    summed: impl Fn(&[&R]) -> Vec<Cell>,
) -> String {
    let mut ops: Vec<(&str, Vec<&R>)> = Vec::new();
    for row in rows {
        match ops.iter_mut().find(|(name, _)| *name == op(row)) {
            Some((_, rows)) => rows.push(row),
            None => ops.push((op(row), vec![row])),
        }
    }
    let line = |(op, rows): &(&str, Vec<&R>)| [vec![Cell::from(*op)], summed(rows)].concat();
    let lines: Vec<_> = ops.iter().map(line).collect();
    if form == Form::Csv { String::new() } else { Table::of(form, columns, &lines) }
}

impl Screen {
    /// A file.
    pub(super) const PLAIN: Self = Self { width: None, colour: false };

    pub(super) fn stdout() -> Self {
        let stdout = Term::stdout();
        // 80 where a terminal does not tell.
        let width = stdout.is_term().then(|| stdout.size().1.into());
        Self { width, colour: console::colors_enabled() }
    }

    pub(super) fn paint(self, text: &str, tone: Tone) -> String {
        let style = Style::new().force_styling(self.colour);
        let style = match tone {
            Tone::Plain => return text.into(),
            Tone::Title => style.bold(),
            Tone::Dim => style.dim(),
            Tone::Good => style.green(),
            Tone::Noisy => style.yellow(),
            Tone::Bad => style.red(),
        };
        style.apply_to(text).to_string()
    }

    /// A text in as many lines as it takes, each behind this many blanks; no line for none.
    pub(super) fn lines(self, text: &str, indent: usize, tone: Tone) -> String {
        let lines = match self.width {
            None if text.is_empty() => Vec::new(),
            None => vec![text.into()],
            Some(width) => wrapped(text, width.saturating_sub(indent).max(1)),
        };
        lines.iter().map(|line| format!("{:indent$}{}\n", "", self.paint(line, tone))).collect()
    }
}

/// Words that stay together: a number, its sign and its unit are one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let is_unit = word.starts_with(|c: char| c.is_alphabetic() || c == '%');
        let belongs =
            |last: &&mut String| last.ends_with('±') || is_unit && last.ends_with(|c: char| c.is_ascii_digit());
        match words.last_mut().filter(belongs) {
            Some(number) => *number += &format!(" {word}"),
            None => words.push(word.into()),
        }
    }
    words
}

/// Lines of at most this width, broken between words, or else behind a sign inside a long one.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words(text) {
        let mut word = word.as_str();
        while measure_text_width(word) > width {
            let end = word.char_indices().nth(width).map_or(word.len(), |(at, _)| at);
            let sign = word[..end].rfind(|c: char| !c.is_alphanumeric());
            let end = sign.map_or(end, |at| word.ceil_char_boundary(at + 1));
            lines.push(word[..end].trim_end().into());
            word = &word[end..];
        }
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column<'static>; 4] = [Section("op"), Right("ms", 6), Left("verdict", 7), Flow("shapes")];

    fn printed(width: Option<usize>, colour: bool) -> String {
        let row =
            |op: &str, ms: &str, tone: Tone| vec![op.into(), ms.into(), tone.cell("failed"), "16x17 17x63 63".into()];
        let rows = [row("add", "1.5", Tone::Bad), row("add", "", Tone::Bad), row("scale", "12.5", Tone::Plain)];
        let mut table = Table::new(Form::Text(Screen { width, colour }), COLUMNS);
        rows.iter().map(|row| table.row(row)).collect()
    }

    #[test]
    fn sections_have_headings_and_columns_align() {
        let rest = "verdict shapes\n";
        assert_eq!(
            printed(None, false),
            format!(
                "\nadd\n    ms {rest}   1.5 failed  16x17 17x63 63\n     - failed  16x17 17x63 63\n\
                 \nscale\n    ms {rest}  12.5 failed  16x17 17x63 63\n"
            )
        );
    }

    #[test]
    fn what_flows_goes_on_below_itself_or_below_the_row() {
        let [beside, below] = [31, 30].map(|width| printed(Some(width), false));
        let too_wide = |text: &str, width| text.lines().any(|line| measure_text_width(line) > width);
        assert!(!too_wide(&beside, 31) && !too_wide(&below, 30), "{beside}{below}");
        assert!(beside.contains("   1.5 failed  16x17 17x63 63\n"), "{beside}");
        assert!(below.contains("   1.5 failed\n      16x17 17x63 63\n"), "{below}");
        assert!(printed(Some(18), false).contains("      16x17 17x63\n      63\n"));
    }

    #[test]
    fn a_reason_is_said_once_and_a_command_can_be_pasted() {
        let mut table = Table::new(Form::Text(Screen { width: Some(24), colour: false }), COLUMNS);
        assert_eq!(table.reason("it is wrong", &["x".into()]), "      it is wrong\n        x\n");
        assert_eq!(table.reason("it is wrong", &["x".into()]), "");
        assert_eq!(table.command("ornstein add --case 1"), "      ornstein add \\\n      --case 1\n");
    }

    #[test]
    fn only_a_screen_with_colours_gets_them() {
        assert!(printed(Some(80), true).contains("\u{1b}[31mfailed \u{1b}[0m"));
        assert!(!printed(Some(80), false).contains('\u{1b}'));
        assert_eq!(console::strip_ansi_codes(&printed(Some(80), true)), printed(Some(80), false));
    }

    #[test]
    fn a_number_keeps_its_unit_and_a_long_word_is_broken_behind_a_sign() {
        assert_eq!(wrapped("± 38 % of 2x3 3x4", 7), ["± 38 %", "of 2x3", "3x4"]);
        assert_eq!(wrapped("GB/s (± 4 %)", 9), ["GB/s", "(± 4 %)"]);
        assert_eq!(wrapped("a unet.down_blocks.10.conv", 12), ["a", "unet.down_", "blocks.10.", "conv"]);
    }

    #[test]
    fn the_same_rows_are_comma_separated_and_markdown() {
        let rows = [vec!["add".into(), "1.5".into(), "ok".into(), "1x2, \"|\"".into()]];
        assert_eq!(Table::of(Form::Csv, COLUMNS, &rows), "op,ms,verdict,shapes\nadd,1.5,ok,\"1x2, \"\"|\"\"\"\n");
        assert_eq!(
            Table::of(Form::Markdown, COLUMNS, &rows),
            "\n| op | ms | verdict | shapes |\n|---|---:|---|---|\n| add | 1.5 | ok | 1x2, \"\\|\" |\n"
        );
    }
}
