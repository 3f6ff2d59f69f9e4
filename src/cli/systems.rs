//! `ornstein systems`

use clap::Args;
use serde_json::json;

use super::{flag, print, print_json};
use crate::error::{Field, Result};
use crate::systems::{Row, TABLE};

#[derive(Debug, Args)]
pub(super) struct Systems {
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl Systems {
    pub(super) fn run(&self) -> Result<()> {
        if self.json {
            let row = |row: &Row| {
                let (Row { classes, about, .. }, takes, example) = (row, takes(row), example(row));
                json!({"class": classes[0], "also": classes[1..], "about": about, "takes": takes, "example": example})
            };
            return print_json(&json!({"systems": TABLE.iter().map(row).collect::<Vec<_>>()}));
        }
        print(TABLE.iter().map(text).collect::<Vec<_>>().join("\n").as_bytes())
    }
}

fn takes(row: &Row) -> Vec<String> {
    row.taken().map(flag).collect()
}

/// A command that draws by it.
fn example(row: &Row) -> String {
    let mut command = "ornstein generate".to_string();
    for (field, value) in row.example {
        match field {
            Field::Prompt => command += &format!(" \"{value}\""),
            _ => command += &format!(" {} {value}", flag(*field)),
        }
    }
    command
}

fn text(row: &Row) -> String {
    let mut lines = vec![format!("{}: {}", row.classes[0], row.about)];
    lines.extend(wrapped("takes", &takes(row)));
    lines.extend(wrapped("also draws what names", row.classes.get(1..).unwrap_or_default()));
    lines.push(format!("  {}", example(row)));
    lines.join("\n") + "\n"
}

/// Words in lines of at most 100 columns; none for no words.
fn wrapped<T: AsRef<str>>(title: &str, words: &[T]) -> Vec<String> {
    let mut lines = vec![format!("  {title}")];
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.as_ref().len() <= 100 => *line += &format!(" {}", word.as_ref()),
            _ => lines.push(format!("    {}", word.as_ref())),
        }
    }
    if words.is_empty() { Vec::new() } else { lines }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_example_can_be_typed() {
        for row in TABLE {
            let command = example(row);
            let mut words = Vec::new();
            for (index, part) in command.split('"').enumerate() {
                if index % 2 == 1 { words.push(part) } else { words.extend(part.split_whitespace()) }
            }
            assert!(Cli::try_parse_from(&words).is_ok(), "{command}");
        }
    }
}
