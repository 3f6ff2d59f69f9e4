//! Prompts that change from step to step, as AUTOMATIC1111's web UI reads them.
//!
//! | text | meaning |
//! |---|---|
//! | `[from:to:when]` | `from`, and `to` after step `when` |
//! | `[to:when]` `[from::when]` | nothing before, or after it |
//! | `[a\|b\|c]` | another at each step, in turn |
//!
//! `when` is a step's number or, with a point in it, a share of all steps: 0.5 is half of them. All parts may hold more
//! of the same. A bracket that is not one of these is left to [`parse`](super::parse). A `|` anywhere else, or a
//! backslash at the end, leaves the whole prompt as it is, and so it does in the web UI.
//!
//! Source: the web UI's wiki, "Prompt editing" and "Alternating Words"; behaviour of its version 1.10.

use std::collections::BTreeSet;
use std::ops::Range;

/// What a prompt says, and up to which step; the last step is that of the last.
///
/// The web UI counts steps from 0 where it looks one up and from 1 where it makes this list, so that the first text is
/// there for a step more than its number says. The same is done here.
pub fn schedule(prompt: &str, steps: usize) -> Vec<(usize, String)> {
    let changes = changes(prompt, steps).unwrap_or_default();
    let mut ends = BTreeSet::from([steps]);
    for change in &changes {
        match change.kind {
            Kind::Until(step) => ends.extend(Some(step).filter(|step| *step > 0)),
            Kind::InTurn => ends.extend(1..=steps),
        }
    }
    ends.into_iter().map(|end| (end, text_at(prompt, &changes, end))).collect()
}

/// The place in a schedule of what is said at a step, counted from 0.
pub fn at(schedule: &[(usize, String)], step: usize) -> usize {
    schedule.iter().position(|(end, _)| step <= *end).unwrap_or(schedule.len().saturating_sub(1))
}

/// A bracket of which one part is said at a time.
struct Change {
    /// With its brackets.
    whole: Range<usize>,
    /// Of the texts between which is chosen.
    parts: Vec<Range<usize>>,
    kind: Kind,
}

enum Kind {
    /// The first of two up to this step.
    Until(usize),
    /// One after the other.
    InTurn,
}

impl Change {
    fn part_at(&self, step: usize) -> Range<usize> {
        let chosen = match self.kind {
            Kind::Until(last) => usize::from(step > last),
            Kind::InTurn => step.saturating_sub(1) % self.parts.len(),
        };
        self.parts[chosen].clone()
    }
}

fn text_at(prompt: &str, changes: &[Change], step: usize) -> String {
    let (mut text, mut rest) = (String::new(), vec![(0, prompt.len())]);
    while let Some((start, end)) = rest.pop() {
        let next = changes.partition_point(|change| change.whole.start < start);
        match changes.get(next).filter(|change| change.whole.start < end) {
            None => text += &prompt[start..end],
            Some(change) => {
                text += &prompt[start..change.whole.start];
                let part = change.part_at(step);
                rest.extend([(change.whole.end, end), (part.start, part.end)]);
            }
        }
    }
    text
}

/// A bracket that is not closed yet.
struct Open {
    at: usize,
    sign: u8,
    /// Colons and bars in it, outside of brackets within.
    colons: Vec<usize>,
    bars: Vec<usize>,
    /// Whether all brackets within are ones that a part may hold.
    sound: bool,
}

/// The changes in the order of their beginnings; `None` if a sign stands where none may.
fn changes(prompt: &str, steps: usize) -> Option<Vec<Change>> {
    let (mut changes, mut open) = (Vec::new(), Vec::<Open>::new());
    let mut signs = prompt.bytes().enumerate();
    while let Some((at, sign)) = signs.next() {
        match sign {
            // The rest of a character of several bytes is not a sign.
            b'\\' => drop(signs.next()?),
            b'(' | b'[' => open.push(Open { at, sign, colons: Vec::new(), bars: Vec::new(), sound: true }),
            b':' => open.last_mut().into_iter().for_each(|last| last.colons.push(at)),
            b'|' => open.last_mut()?.bars.push(at),
            b')' | b']' => match open.pop_if(|last| last.sign == if sign == b')' { b'(' } else { b'[' }) {
                Some(closed) => {
                    let sound = close(prompt, steps, closed, at, &mut changes)?;
                    open.last_mut().into_iter().for_each(|last| last.sound &= sound);
                }
                // Nothing that is open can hold it.
                None => none_has_bars(&std::mem::take(&mut open))?,
            },
            _ => {}
        }
    }
    none_has_bars(&open)?;
    changes.sort_unstable_by_key(|change| change.whole.start);
    Some(changes)
}

fn none_has_bars(open: &[Open]) -> Option<()> {
    open.iter().all(|bracket| bracket.bars.is_empty()).then_some(())
}

/// Whether a bracket that is closed at this place may stand in another's part. `None` if its bars have no meaning.
fn close(prompt: &str, steps: usize, bracket: Open, end: usize, changes: &mut Vec<Change>) -> Option<bool> {
    let Open { at, sign, colons, bars, sound } = bracket;
    let between = |signs: &[usize], end: usize| {
        let begins = std::iter::once(at).chain(signs.iter().copied()).map(|sign| sign + 1);
        begins.zip(signs.iter().copied().chain([end])).map(|(from, to)| from..to).collect::<Vec<_>>()
    };
    let is_square = sign == b'[';
    let (kind, parts) = match (&colons[..], &bars[..]) {
        ([], []) => return Some(sound),
        ([_], []) if !is_square => return Some(sound),
        ([], bars) if is_square && sound => (Kind::InTurn, between(bars, end)),
        (_, [_, ..]) => return None,
        ([.., last], []) if is_square && sound && colons.len() <= 2 => match step(&prompt[last + 1..end], steps) {
            None => return Some(false),
            Some(when) => (Kind::Until(when), between(&colons[..colons.len() - 1], *last)),
        },
        _ => return Some(false),
    };
    // Nothing stands before `[to:when]`.
    let nothing = (parts.len() == 1).then_some(at..at);
    let parts = nothing.into_iter().chain(parts).collect();
    changes.push(Change { whole: at..end + 1, parts, kind });
    Some(true)
}

/// A step's number or, where it has a point, a share of the steps; 0 for one before the first.
fn step(text: &str, steps: usize) -> Option<usize> {
    let text = text.trim();
    // Rust reads names too, which are words here.
    let is_number = text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E'));
    let number: f64 = text.parse().ok().filter(|_| is_number)?;
    let step = if text.contains('.') { number * steps as f64 } else { number };
    // Cast to the nearest that there is: 0 below it.
    Some((step as usize).min(steps))
}

/// The ways of writing that others give a meaning and that are read as text.
pub fn unread(prompt: &str) -> Vec<&'static str> {
    let is_and = |word: &str| word == "AND";
    let mut words = prompt.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let braced = || prompt.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    let between: Vec<_> = prompt.split("__").collect();
    let named =
        between.iter().skip(1).rev().skip(1).any(|name| !name.is_empty() && !name.contains(char::is_whitespace));
    let found =
        [("AND", words.any(is_and)), ("{a|b}", braced().any(|(inside, _)| inside.contains('|'))), ("__name__", named)];
    found.into_iter().filter_map(|(what, found)| found.then_some(what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ten steps of it are.
    fn assert_schedule(prompt: &str, wanted: &[(usize, &str)]) {
        let found = schedule(prompt, 10);
        let found: Vec<_> = found.iter().map(|(end, text)| (*end, text.as_str())).collect();
        assert_eq!(found, wanted, "{prompt}");
    }

    /// Examples of the web UI's documentation of its parser, and what that makes of others.
    #[test]
    fn a_text_is_there_up_to_a_step() {
        assert_schedule("test", &[(10, "test")]);
        assert_schedule("", &[(10, "")]);
        assert_schedule("a [b:3]", &[(3, "a "), (10, "a b")]);
        assert_schedule("a [b: 3 ]", &[(3, "a "), (10, "a b")]);
        assert_schedule("a [b::3]", &[(3, "a b"), (10, "a ")]);
        assert_schedule("[(a:2):3]", &[(3, ""), (10, "(a:2)")]);
        assert_schedule("a [b : c : 1] d", &[(1, "a b  d"), (10, "a  c  d")]);
        assert_schedule("a [b:.5] c", &[(5, "a  c"), (10, "a b c")]);
        assert_schedule("[a:b:1.5]", &[(10, "a")]);
        assert_schedule("[a:b:1e0] [é:ü:+2]", &[(1, "a é"), (2, "b é"), (10, "b ü")]);
        assert_schedule("[a:b:-1][c:d:0]", &[(10, "bd")]);
        assert_schedule(r"[a\]:b:3]", &[(3, r"a\]"), (10, "b")]);
    }

    #[test]
    fn parts_hold_more_of_the_same() {
        assert_schedule("a [[[b]]:2]", &[(2, "a "), (10, "a [[b]]")]);
        assert_schedule("a[b:[c:d:2]:1]e", &[(1, "abe"), (2, "ace"), (10, "ade")]);
        assert_schedule("(x:[a:b:3])", &[(3, "(x:a)"), (10, "(x:b)")]);
        let found = schedule("[[a|b]:c:4]", 6);
        let texts: Vec<_> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "a", "b", "c", "c"]);
    }

    #[test]
    fn words_stand_in_turn() {
        let texts = |prompt| schedule(prompt, 6).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts("[a|(b:1.1)]"), ["a", "(b:1.1)", "a", "(b:1.1)", "a", "(b:1.1)"]);
        assert_eq!(texts("[fe|||]male"), ["female", "male", "male", "male", "female", "male"]);
    }

    #[test]
    fn what_is_none_of_these_is_left_as_it_is() {
        for prompt in [
            "a [unbalanced",
            "a [b:c:d:3] e",
            "[x [a:b] y:3]",
            "[a:b:3 4]",
            "[(x:y:z):q:3]",
            "[a (b:3]",
            "[a:(b:c:1]",
            "[a:b:inf]",
            "[a:b:]",
            "[a]",
            "a [{b|d{:.5] c",
            "(a|b) [c:d:3]",
            "[a|b:1.1]",
            "[a:b|c:3]",
            "[a|b [c:3]",
            r"[c:d:3] x\",
            "a | [c:d:3]",
            "[a|(b:c:d)]",
        ] {
            assert_schedule(prompt, &[(10, prompt)]);
        }
        assert_schedule("((a][:b:c [d:3]", &[(3, "((a][:b:c "), (10, "((a][:b:c d")]);
        assert_schedule("[x [a:b] [c:d:3]]", &[(3, "[x [a:b] c]"), (10, "[x [a:b] d]")]);
        assert_schedule("(x:y:z [a:b:3])", &[(3, "(x:y:z a)"), (10, "(x:y:z b)")]);
    }

    #[test]
    fn a_step_is_counted_from_0_where_it_is_looked_up() {
        let edited = schedule("[a:b:2]", 4);
        assert_eq!([0, 1, 2, 3, 9].map(|step| at(&edited, step)), [0, 0, 0, 1, 1]);
    }

    #[test]
    fn a_megabyte_of_signs_is_read_at_once() {
        for signs in ["[", "[a:", "[a|", ":1]", "]", "|", "[a:1]", "([", "(a:b:", r"\["] {
            schedule(&signs.repeat((1 << 20) / signs.len()), 10);
        }
        let nested = "[".repeat(1 << 18) + "x" + &":1]".repeat(1 << 18);
        assert_eq!(schedule(&nested, 10), [(1, String::new()), (10, "x".into())]);
    }

    #[test]
    fn what_others_would_read_is_named() {
        assert_eq!(unread("a AND b {c|d} __animal__"), ["AND", "{a|b}", "__name__"]);
        for prompt in ["SAND and BAND", "{a} | {b", "snake__case", "__ a __", "[a|b]", ""] {
            assert!(unread(prompt).is_empty(), "{prompt}");
        }
    }
}
