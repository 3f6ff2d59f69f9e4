//! Prompts with weights, as AUTOMATIC1111's web UI reads them.
//!
//! | text | meaning |
//! |---|---|
//! | `(word)` | weight times 1.1, also nested |
//! | `[word]` | weight divided by 1.1 |
//! | `(word:1.3)` | weight times 1.3 |
//! | `\(` `\)` `\[` `\]` `\\` | that sign itself |
//! | `BREAK` | the rest starts a new chunk of tokens |
//!
//! Nothing is an error: a bracket that closes nothing is a sign like others, one that is not closed reaches to the end.
//! `BREAK` inside brackets breaks as it does outside, where the web UI takes it for a word of a negative weight. Prompt
//! editing (`[from:to:when]`) and `AND` are not read: their signs are what this table says.
//!
//! Source: the web UI's wiki, "Attention/emphasis"; behaviour of its version 1.10.

pub mod chunks;
pub mod loras;

/// A piece of a prompt, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Neighbours of one weight are one part: what they say is tokenized as a whole.
    Text(String, f64),
    Break,
}

/// What an unadorned round bracket multiplies with; a square one divides by it.
const STEP: f64 = 1.1;

/// Takes a prompt apart. There is at least one part.
pub fn parse(prompt: &str) -> Vec<Part> {
    let mut reader = Reader::default();
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        rest = &rest[reader.sign(first, rest)..];
    }
    reader.finish()
}

/// The parts so far, and at which of them each bracket was opened that is not closed yet.
#[derive(Default)]
struct Reader {
    parts: Vec<Part>,
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Reader {
    /// Reads what `rest` begins with, and returns its length in bytes.
    fn sign(&mut self, first: char, rest: &str) -> usize {
        match first {
            '\\' => return self.escape(rest),
            '(' => self.round.push(self.parts.len()),
            '[' => self.square.push(self.parts.len()),
            ')' => match self.round.pop() {
                Some(from) => self.multiply(from, STEP),
                None => self.text(")"),
            },
            ']' => match self.square.pop() {
                Some(from) => self.multiply(from, 1.0 / STEP),
                None => self.text("]"),
            },
            ':' => match weight(rest) {
                Some((weight, length)) if !self.round.is_empty() => {
                    let from = self.round.pop().unwrap_or_default();
                    self.multiply(from, weight);
                    return length;
                }
                _ => self.text(":"),
            },
            _ => {
                let length = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                self.words(&rest[..length]);
                return length;
            }
        }
        first.len_utf8()
    }

    /// A backslash that escapes nothing is left out.
    fn escape(&mut self, rest: &str) -> usize {
        let escaped = rest[1..].chars().next().filter(|sign| "()[]\\".contains(*sign));
        self.text(escaped.map_or("", |_| &rest[1..2]));
        1 + escaped.map_or(0, char::len_utf8)
    }

    fn text(&mut self, text: &str) {
        self.parts.push(Part::Text(text.into(), 1.0));
    }

    /// Text without signs, which the word `BREAK` may divide.
    fn words(&mut self, mut text: &str) {
        while let Some(at) = find_break(text) {
            self.text(text[..at].trim_end());
            self.parts.push(Part::Break);
            text = text[at + BREAK.len()..].trim_start();
        }
        self.text(text);
    }

    fn multiply(&mut self, from: usize, factor: f64) {
        for part in &mut self.parts[from..] {
            if let Part::Text(_, weight) = part {
                *weight *= factor;
            }
        }
    }

    fn finish(mut self) -> Vec<Part> {
        for from in std::mem::take(&mut self.round) {
            self.multiply(from, STEP);
        }
        for from in std::mem::take(&mut self.square) {
            self.multiply(from, 1.0 / STEP);
        }
        let mut joined: Vec<Part> = Vec::new();
        for part in self.parts {
            match (joined.last_mut(), part) {
                (Some(Part::Text(text, weight)), Part::Text(more, same)) if *weight == same => *text += &more,
                (_, part) => joined.push(part),
            }
        }
        if joined.is_empty() { vec![Part::Text(String::new(), 1.0)] } else { joined }
    }
}

/// `:1.2)`, blanks allowed around the number: the number, and the length up to and with the bracket.
fn weight(rest: &str) -> Option<(f64, usize)> {
    let (inside, _) = rest[1..].split_once(')')?;
    let number = inside.trim();
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    // Rust reads exponents and names too, which are words here.
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let weight: f64 = number.parse().ok().filter(|_| plain)?;
    (weight as f32).is_finite().then_some((weight, 1 + inside.len() + 1))
}

const BREAK: &str = "BREAK";

/// The place of the first `BREAK` that is a word of its own.
fn find_break(text: &str) -> Option<usize> {
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(BREAK)
        .map(|(at, _)| at)
        .find(|&at| !in_word(text[..at].chars().next_back()) && !in_word(text[at + BREAK.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(prompt: &str) -> Vec<(String, f64)> {
        let text = |part| match part {
            Part::Text(text, weight) => (text, weight),
            Part::Break => ("/".into(), 0.0),
        };
        parse(prompt).into_iter().map(text).collect()
    }

    fn assert_parts(prompt: &str, wanted: &[(&str, f64)]) {
        let found = texts(prompt);
        let same = found.len() == wanted.len()
            && found.iter().zip(wanted).all(|((a, x), (b, y))| a == b && (x - y).abs() < 1e-12);
        assert!(same, "{prompt:?} is {found:?}, should be {wanted:?}");
    }

    #[test]
    fn text_without_signs_is_one_part() {
        assert_parts("normal text", &[("normal text", 1.0)]);
        assert_parts("", &[("", 1.0)]);
    }

    #[test]
    fn brackets_weigh_what_they_hold() {
        assert_parts("an (important) word", &[("an ", 1.0), ("important", 1.1), (" word", 1.0)]);
        assert_parts("((a)) [b]", &[("a", 1.1 * 1.1), (" ", 1.0), ("b", 1.0 / 1.1)]);
        assert_parts("(a:1.2)(b: 0.5 )(c:-1)", &[("a", 1.2), ("b", 0.5), ("c", -1.0)]);
        assert_parts("(a (b:2) c)", &[("a ", 1.1), ("b", 2.2), (" c", 1.1)]);
    }

    /// The example of the web UI's own documentation of its parser.
    #[test]
    fn nested_brackets_multiply() {
        let wanted = [
            ("a ", 1.0),
            ("house", 1.573),
            (" ", 1.1),
            ("on", 1.0),
            (" a ", 1.1),
            ("hill", 0.55),
            (", sun, ", 1.1),
            ("sky", 1.4641),
            (".", 1.1),
        ];
        assert_parts("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", &wanted);
    }

    #[test]
    fn neighbours_of_one_weight_are_one_text() {
        assert_parts("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]);
    }

    #[test]
    fn an_open_bracket_reaches_to_the_end() {
        assert_parts("a (b c", &[("a ", 1.0), ("b c", 1.1)]);
        assert_parts("a [b (c", &[("a ", 1.0), ("b ", 1.0 / 1.1), ("c", 1.0)]);
        assert_parts("(", &[("", 1.0)]);
    }

    #[test]
    fn a_bracket_that_closes_nothing_is_a_sign() {
        assert_parts("a) b] c", &[("a) b] c", 1.0)]);
        assert_parts("a:1.2) b", &[("a:1.2) b", 1.0)]);
        // Of crossed brackets each closes its own kind.
        assert_parts("(a [b) c]", &[("a ", 1.1), ("b", 1.0), (" c", 1.0 / 1.1)]);
    }

    #[test]
    fn what_is_no_number_is_text() {
        for inside in ["1.2.3", ".", "", "x", "1e3", "nan", "inf", "+-1"] {
            assert_parts(&format!("(a:{inside})"), &[(&format!("a:{inside}"), 1.1)]);
        }
        let huge = "9".repeat(40);
        assert_parts(&format!("(a:{huge})"), &[(&format!("a:{huge}"), 1.1)]);
        assert_parts("a:b", &[("a:b", 1.0)]);
    }

    #[test]
    fn escaped_signs_are_themselves() {
        assert_parts(r"\(literal\] \\", &[(r"(literal] \", 1.0)]);
        assert_parts(r"(a \(b\))", &[("a (b)", 1.1)]);
        assert_parts(r"a\b\", &[("ab", 1.0)]);
        assert_parts(r"\é", &[("é", 1.0)]);
    }

    #[test]
    fn break_stands_alone_between_words() {
        assert_parts("a BREAK b", &[("a", 1.0), ("/", 0.0), ("b", 1.0)]);
        assert_parts("a BREAK  BREAK", &[("a", 1.0), ("/", 0.0), ("", 1.0), ("/", 0.0), ("", 1.0)]);
        assert_parts("(a BREAK b:2)", &[("a", 2.0), ("/", 0.0), ("b", 2.0)]);
        assert_parts("BREAKFAST break É_BREAK", &[("BREAKFAST break É_BREAK", 1.0)]);
    }
}
