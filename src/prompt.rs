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
//! Nothing is an error: a bracket that closes nothing is a sign like others, one that is not closed reaches to the
//! end. `BREAK` inside brackets breaks as it does outside, where the web UI takes it for a word of a negative weight.
//! What changes from step to step is [`schedule`]'s, before this; `AND` is a word like others.
//!
//! Source: the web UI's wiki, "Attention/emphasis"; behaviour of its version 1.10.
//!
//! Floor 0: may import floor 0.

mod brackets;
pub mod choices;
pub mod chunks;
pub mod loras;
pub mod schedule;

use brackets::{Bracket, Brackets, Product, product};

/// A segment of a prompt, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Segment {
    /// Neighbours of one weight are one segment: what they say is tokenized as a whole.
    Text(String, f64),
    /// `BREAK`: what follows begins a new chunk.
    Break,
}

/// What an unadorned round bracket multiplies with; a square one divides by it.
const STEP: f64 = 1.1;

/// Takes a prompt apart. There is at least one segment.
pub fn parse(prompt: &str) -> Vec<Segment> {
    let mut reader = Reader::default();
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        rest = &rest[reader.sign(first, rest)..];
    }
    reader.finish()
}

/// What was read so far. A bracket's factor is known where it closes, and multiplied in at the end.
#[derive(Default)]
struct Reader {
    segments: Vec<Segment>,
    round: Brackets,
    square: Brackets,
    /// How many brackets are closed.
    closed: usize,
}

impl Reader {
    /// Reads what `rest` begins with, and returns its length in bytes.
    fn sign(&mut self, first: char, rest: &str) -> usize {
        match first {
            '\\' => return self.escape(rest),
            '(' => self.round.open.push(self.segments.len()),
            '[' => self.square.open.push(self.segments.len()),
            ')' if self.round.open.is_empty() => self.text(")"),
            ')' => self.close(STEP, |reader| &mut reader.round),
            ']' if self.square.open.is_empty() => self.text("]"),
            ']' => self.close(1.0 / STEP, |reader| &mut reader.square),
            ':' => match weight(rest) {
                Some((weight, length)) if !self.round.open.is_empty() => {
                    self.close(weight, |reader| &mut reader.round);
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
        self.segments.push(Segment::Text(text.into(), 1.0));
    }

    /// Text without signs, which the word `BREAK` may divide.
    fn words(&mut self, mut text: &str) {
        while let Some(at) = find_break(text) {
            self.text(text[..at].trim_end());
            self.segments.push(Segment::Break);
            text = text[at + BREAK.len()..].trim_start();
        }
        self.text(text);
    }

    /// Closes the innermost bracket of a kind, if one is open.
    fn close(&mut self, factor: f64, kind: impl Fn(&mut Self) -> &mut Brackets) {
        let (to, nth) = (self.segments.len(), self.closed);
        self.closed += 1;
        let brackets = kind(self);
        if let Some(from) = brackets.open.pop() {
            brackets.closed.push(Bracket { segments: from..to, factor, nth, outer: Product::ONE });
        }
    }

    fn finish(mut self) -> Vec<Segment> {
        while !self.round.open.is_empty() {
            self.close(STEP, |reader| &mut reader.round);
        }
        while !self.square.open.is_empty() {
            self.close(1.0 / STEP, |reader| &mut reader.square);
        }
        let (mut round, mut square) = (Vec::new(), Vec::new());
        for (index, segment) in self.segments.iter_mut().enumerate().rev() {
            self.round.step_back(index, &mut round);
            self.square.step_back(index, &mut square);
            if let Segment::Text(_, weight) = segment {
                *weight = product(&round, &square);
            }
        }
        let mut joined: Vec<Segment> = Vec::new();
        for segment in self.segments {
            match (joined.last_mut(), segment) {
                (Some(Segment::Text(text, weight)), Segment::Text(more, same)) if *weight == same => *text += &more,
                (_, segment) => joined.push(segment),
            }
        }
        if joined.is_empty() { vec![Segment::Text(String::new(), 1.0)] } else { joined }
    }
}

/// `:1.2)`, blanks allowed around the number: the number, and the length up to and with the bracket.
fn weight(rest: &str) -> Option<(f64, usize)> {
    // Rust reads exponents and names too, which are words here.
    let other = |c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-' || c.is_whitespace());
    let inside = &rest[1..1 + rest[1..].find(other)?];
    let weight: f64 = inside.trim().parse().ok().filter(|_| rest[1 + inside.len()..].starts_with(')'))?;
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
        let text = |segment| match segment {
            Segment::Text(text, weight) => (text, weight),
            Segment::Break => ("/".into(), 0.0),
        };
        parse(prompt).into_iter().map(text).collect()
    }

    fn assert_segments(prompt: &str, wanted: &[(&str, f64)]) {
        let found = texts(prompt);
        let same = found.len() == wanted.len()
            && found.iter().zip(wanted).all(|((a, x), (b, y))| a == b && (x - y).abs() < 1e-12);
        assert!(same, "{prompt:?} is {found:?}, should be {wanted:?}");
    }

    #[test]
    fn text_without_signs_is_one_segment() {
        assert_segments("normal text", &[("normal text", 1.0)]);
        assert_segments("", &[("", 1.0)]);
    }

    #[test]
    fn brackets_weigh_what_they_hold() {
        assert_segments("an (important) word", &[("an ", 1.0), ("important", 1.1), (" word", 1.0)]);
        assert_segments("((a)) [b]", &[("a", 1.1 * 1.1), (" ", 1.0), ("b", 1.0 / 1.1)]);
        assert_segments("(a:1.2)(b: 0.5 )(c:-1)", &[("a", 1.2), ("b", 0.5), ("c", -1.0)]);
        assert_segments("(a (b:2) c)", &[("a ", 1.1), ("b", 2.2), (" c", 1.1)]);
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
        assert_segments("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", &wanted);
    }

    /// A weight for every text, multiplied wherever a bracket closes: the definition, in the square of the length.
    fn by_definition(prompt: &str) -> Vec<f64> {
        let (mut weights, mut open) = (Vec::new(), [Vec::new(), Vec::new()]);
        let multiply = |weights: &mut Vec<f64>, from: usize, factor: f64| {
            weights[from..].iter_mut().for_each(|weight| *weight *= factor);
        };
        let factors = [STEP, 1.0 / STEP];
        for sign in prompt.chars() {
            match "([".find(sign).or(")]".find(sign).map(|kind| kind + 2)) {
                Some(kind @ (0 | 1)) => open[kind].push(weights.len()),
                Some(kind) if !open[kind - 2].is_empty() => {
                    let from = open[kind - 2].pop().unwrap();
                    multiply(&mut weights, from, factors[kind - 2]);
                }
                _ => weights.push(1.0),
            }
        }
        for (open, factor) in open.into_iter().zip(factors) {
            open.into_iter().for_each(|from| multiply(&mut weights, from, factor));
        }
        weights
    }

    #[test]
    fn nested_and_crossing_brackets_weigh_what_the_definition_says() {
        let mut state = 1u32;
        for round in 0..3000 {
            let mut next = |below: u32| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) % below
            };
            // Now and then deep enough that not every factor is multiplied by itself.
            let (length, signs) = if round % 100 == 0 { (2000, "(([[)]x") } else { (24, "()[]xx") };
            let prompt: String =
                (0..length).map(|_| char::from(signs.as_bytes()[next(signs.len() as u32) as usize])).collect();
            // What is joined has one weight in both.
            let found = texts(&prompt).into_iter().flat_map(|(text, weight)| vec![weight; text.len()]);
            let same = found
                .zip(by_definition(&prompt))
                .all(|(a, b)| if round % 100 == 0 { (a - b).abs() <= 1e-12 * b } else { a == b });
            assert!(same, "{prompt}");
        }
    }

    #[test]
    fn a_megabyte_of_brackets_is_read_at_once() {
        for signs in ["(", "[", ")", "(a", "(a[", "(:", "(a:1", ":1.1)", "([a)", "BREAK", "a BREAK ", r"\("] {
            parse(&signs.repeat((1 << 20) / signs.len()));
        }
        let half = (1 << 19) - 1;
        let crossed = ["(", "[", "a", ")", "]"].map(|sign| sign.repeat(if sign == "a" { 1 } else { half / 2 }));
        parse(&crossed.concat());
        let nested = "([a".repeat(half / 3) + &")]".repeat(half / 3);
        // Times 1.1 and divided by it as often.
        assert!(texts(&nested).iter().all(|(_, weight)| (weight - 1.0).abs() < 1e-6));
    }

    #[test]
    fn neighbours_of_one_weight_are_one_text() {
        assert_segments("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]);
    }

    #[test]
    fn an_open_bracket_reaches_to_the_end() {
        assert_segments("a (b c", &[("a ", 1.0), ("b c", 1.1)]);
        assert_segments("a [b (c", &[("a ", 1.0), ("b ", 1.0 / 1.1), ("c", 1.0)]);
        assert_segments("(", &[("", 1.0)]);
    }

    #[test]
    fn a_bracket_that_closes_nothing_is_a_sign() {
        assert_segments("a) b] c", &[("a) b] c", 1.0)]);
        assert_segments("a:1.2) b", &[("a:1.2) b", 1.0)]);
        // Of crossed brackets each closes its own kind.
        assert_segments("(a [b) c]", &[("a ", 1.1), ("b", 1.0), (" c", 1.0 / 1.1)]);
    }

    #[test]
    fn what_is_no_number_is_text() {
        for inside in ["1.2.3", ".", "", "x", "1e3", "nan", "inf", "+-1"] {
            assert_segments(&format!("(a:{inside})"), &[(&format!("a:{inside}"), 1.1)]);
        }
        let huge = "9".repeat(40);
        assert_segments(&format!("(a:{huge})"), &[(&format!("a:{huge}"), 1.1)]);
        assert_segments("a:b", &[("a:b", 1.0)]);
    }

    #[test]
    fn escaped_signs_are_themselves() {
        assert_segments(r"\(literal\] \\", &[(r"(literal] \", 1.0)]);
        assert_segments(r"(a \(b\))", &[("a (b)", 1.1)]);
        assert_segments(r"a\b\", &[("ab", 1.0)]);
        assert_segments(r"\é", &[("é", 1.0)]);
    }

    #[test]
    fn break_stands_alone_between_words() {
        assert_segments("a BREAK b", &[("a", 1.0), ("/", 0.0), ("b", 1.0)]);
        assert_segments("a BREAK  BREAK", &[("a", 1.0), ("/", 0.0), ("", 1.0), ("/", 0.0), ("", 1.0)]);
        assert_segments("(a BREAK b:2)", &[("a", 2.0), ("/", 0.0), ("b", 2.0)]);
        assert_segments("BREAKFAST break É_BREAK", &[("BREAKFAST break É_BREAK", 1.0)]);
    }
}
