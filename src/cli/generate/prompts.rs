//! What is drawn: one prompt, or those of a file, one a line; and each of their choices.

use std::io::IsTerminal;
use std::path::Path;

use crate::cli::warn;
use crate::conditioning::Syntax;
use crate::error::{Error, Result};
use crate::files::{TEXT, read_from, read_text_of, text_of};
use crate::prompt::choices::{MOST, choices};

/// The letters of `generate`'s short options.
const SHORT: &[u8] = b"HWbhmnopsv";

/// What a file of prompts is.
const PROMPTS: &str = "a text file of prompts, one a line";

/// A prompt, and how its pictures differ from the command line's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// What files call it, where it is one of several: numbers from 1, all of one width.
    pub number: Option<String>,
    pub prompt: String,
    /// Options as words of a command line.
    pub options: Vec<String>,
}

/// The prompts in the order in which they are drawn. Of a file its text alone is kept, so that a million lines take no
/// more memory than that.
pub(super) struct Prompts {
    text: String,
    /// Whether it is a file's, with a prompt a line.
    in_lines: bool,
    syntax: Syntax,
    count: usize,
}

impl Prompts {
    /// The prompt of the command line, or of stdin where that is `-`.
    ///
    /// # Errors
    /// If it has too many choices.
    pub(super) fn one(prompt: &str, syntax: Syntax) -> Result<Self> {
        let text = match prompt {
            "-" => read_stdin("a prompt")?.trim_end_matches(['\n', '\r']).into(),
            _ => prompt.into(),
        };
        Self::of(text, false, syntax)
    }

    /// Every line of a file, or of stdin where that is `-`.
    ///
    /// # Errors
    /// If it cannot be read, holds no prompt, or one that has too many choices, or what is behind it are not words.
    pub(super) fn of_file(file: &Path, syntax: Syntax) -> Result<Self> {
        let text = if file == Path::new("-") { read_stdin(PROMPTS)? } else { read_text_of(file, PROMPTS)? };
        let prompts = Self::of(text, true, syntax).map_err(|error| error.on(file.display()))?;
        match prompts.count {
            0 => Err(Error::file(file, "holds no prompt: write one a line")),
            _ => Ok(prompts),
        }
    }

    fn of(text: String, in_lines: bool, syntax: Syntax) -> Result<Self> {
        let prompts = Self { text, in_lines, syntax, count: 0 };
        let mut count = 0;
        for line in prompts.lines() {
            let (prompt, options) = prompts.split(line);
            let many = || Error::usage(format!("{prompt:?} has more than {MOST} choices"));
            let all = prompts.choices(prompt).ok_or_else(many)?.len();
            if shlex::split(options).is_none() {
                return Err(Error::usage(format!("{options:?} has a quote that is not closed")));
            }
            count += all;
        }
        Ok(Self { count, ..prompts })
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = Line> + '_ {
        let width = self.count.to_string().len();
        let several = self.in_lines || self.count > 1;
        let all = self.lines().flat_map(move |line| {
            let (prompt, options) = self.split(line);
            let options = shlex::split(options).unwrap_or_default();
            let prompts = self.choices(prompt).unwrap_or_default();
            prompts.into_iter().map(move |prompt| Line { number: None, prompt, options: options.clone() })
        });
        (1..).zip(all).map(move |(n, line)| Line { number: several.then(|| format!("{n:0width$}")), ..line })
    }

    fn choices(&self, prompt: &str) -> Option<Vec<String>> {
        if self.syntax == Syntax::Weighted { choices(prompt) } else { Some(vec![prompt.into()]) }
    }

    fn lines(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        if self.in_lines { Box::new(prompts(&self.text)) } else { Box::new(std::iter::once(self.text.as_str())) }
    }

    /// A line's prompt, and the options behind it.
    fn split<'t>(&self, line: &'t str) -> (&'t str, &'t str) {
        let is_long =
            |word: &str| word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
        let is_short = |word: &str| matches!(word.as_bytes(), [b'-', letter] if SHORT.contains(letter));
        let begins = |at: &usize| {
            let word = line[*at..].split_whitespace().next().unwrap_or_default();
            (is_long(word) || is_short(word)) && (*at == 0 || line[..*at].ends_with(char::is_whitespace))
        };
        let mut places = line.match_indices('-').map(|(at, _)| at).filter(|_| self.in_lines);
        let (prompt, options) = line.split_at(places.find(begins).unwrap_or(line.len()));
        (if self.in_lines { prompt.trim_end() } else { prompt }, options)
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

    fn lines(text: &str, syntax: Syntax) -> Vec<Line> {
        Prompts::of(text.into(), true, syntax).unwrap().iter().collect()
    }

    #[test]
    fn comments_and_empty_lines_are_no_prompts() {
        let text = "# two prompts\r\n\r\na red circle\r\n  # and\r\n\t\\#1 star \r\n a # b";
        assert_eq!(prompts(text).collect::<Vec<_>>(), ["a red circle", "#1 star", "a # b"]);
    }

    #[test]
    fn numbers_count_prompts_and_have_one_width() {
        let all = lines(&("#\n".to_string() + &"x\n\n".repeat(10)), Syntax::Plain);
        let number = |at: usize| all[at].number.as_deref();
        assert_eq!((all.len(), number(0), number(9)), (10, Some("01"), Some("10")));
    }

    #[test]
    fn options_stand_behind_a_lines_prompt() {
        let line = |text: &str| {
            let Line { prompt, options, .. } = lines(text, Syntax::Plain).remove(0);
            (prompt, options.join("|"))
        };
        let of = |prompt: &str, options: &str| (prompt.to_string(), options.to_string());
        assert_eq!(line("a cat --seed 5 -n 'a dog'"), of("a cat", "--seed|5|-n|a dog"));
        assert_eq!(line("a -- b --2 c-- d--e"), of("a -- b --2 c-- d--e", ""));
        assert_eq!(line("--steps 3"), of("", "--steps|3"));
        assert_eq!(line("a cat -n fog"), of("a cat", "-n|fog"));
        assert_eq!(line("a - b -x -4 c-n"), of("a - b -x -4 c-n", ""));
        assert!(Prompts::of("a --negative 'b".into(), true, Syntax::Plain).is_err());
        // A prompt of the command line is a word of its own.
        let one = Prompts::one("a --seed 5", Syntax::Plain).unwrap().iter().next().unwrap();
        assert_eq!((one.number, one.prompt.as_str()), (None, "a --seed 5"));
    }

    #[test]
    fn the_short_options_are_those_of_the_command() {
        let command = crate::cli::command();
        let generate = command.find_subcommand("generate").unwrap().get_arguments().filter_map(|arg| arg.get_short());
        let mut letters: Vec<u8> = generate.map(|letter| letter as u8).chain([b'h']).collect();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters, SHORT);
    }

    #[test]
    fn choices_are_prompts_where_the_syntax_has_them() {
        let prompts =
            |syntax| lines("a {b|c} --seed 1", syntax).into_iter().map(|line| line.prompt).collect::<Vec<_>>();
        assert_eq!(prompts(Syntax::Plain), ["a {b|c}"]);
        assert_eq!(prompts(Syntax::Weighted), ["a b", "a c"]);
        let both = Prompts::one("{b|c}", Syntax::Weighted).unwrap();
        let numbers = both.iter().map(|line| line.number.unwrap());
        assert_eq!(numbers.collect::<Vec<_>>(), ["1", "2"]);
        assert!(Prompts::one(&"{a|b}".repeat(13), Syntax::Weighted).is_err());
    }
}
