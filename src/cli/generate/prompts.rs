//! What is drawn: one prompt, or those of a file, one a line.

use std::io::IsTerminal;
use std::path::Path;

use crate::cli::warn;
use crate::error::{Error, Result};
use crate::files::{TEXT, read_from, read_text_of, text_of};

/// What a file of prompts is.
const PROMPTS: &str = "a text file of prompts, one a line";

/// The prompts in the order in which they are drawn. Of a file its text alone is kept, so that a million lines take no
/// more memory than that.
pub(super) enum Prompts {
    One(String),
    Lines { text: String, count: usize },
}

impl Prompts {
    /// The prompt of the command line, or of stdin where that is `-`.
    pub(super) fn one(prompt: &str) -> Result<Self> {
        Ok(Self::One(if prompt == "-" {
            read_stdin("a prompt")?.trim_end_matches(['\n', '\r']).into()
        } else {
            prompt.into()
        }))
    }

    /// Every line of a file, or of stdin where that is `-`.
    ///
    /// # Errors
    /// If it cannot be read, or holds no prompt.
    pub(super) fn of_file(file: &Path) -> Result<Self> {
        let text = if file == Path::new("-") { read_stdin(PROMPTS)? } else { read_text_of(file, PROMPTS)? };
        match prompts(&text).count() {
            0 => Err(Error::file(file, "holds no prompt: write one a line")),
            count => Ok(Self::Lines { text, count }),
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Lines { count, .. } => *count,
        }
    }

    /// Each with what files call it: the numbers of a file's prompts, from 1, are all of one width.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = (Option<String>, &str)> + '_> {
        match self {
            Self::One(prompt) => Box::new(std::iter::once((None, prompt.as_str()))),
            Self::Lines { text, count } => {
                let width = count.to_string().len();
                Box::new((1..).zip(prompts(text)).map(move |(n, prompt)| (Some(format!("{n:0width$}")), prompt)))
            }
        }
    }
}

/// The prompts of a file's text: lines that are neither empty nor begin with `#`. `\#` at the start of a prompt is a
/// `#`.
fn prompts(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| if line.starts_with(r"\#") { &line[1..] } else { line })
}

fn read_stdin(wanted: &str) -> Result<String> {
    let stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        warn("reading the prompt from the terminal, until Ctrl-D");
    }
    let place = Path::new("stdin");
    text_of(place, read_from(stdin, place, TEXT)?, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_no_prompts() {
        let text = "# two prompts\r\n\r\na red circle\r\n  # and\r\n\t\\#1 star \r\n a # b";
        assert_eq!(prompts(text).collect::<Vec<_>>(), ["a red circle", "#1 star", "a # b"]);
    }

    #[test]
    fn numbers_count_prompts_and_have_one_width() {
        let text = "#\n".to_string() + &"x\n\n".repeat(10);
        let lines = Prompts::Lines { count: prompts(&text).count(), text };
        let names: Vec<_> = lines.iter().filter_map(|(name, _)| name).collect();
        assert_eq!((lines.count(), names[0].as_str(), names[9].as_str()), (10, "01", "10"));
    }
}
