//! Prompts with choices: `a {red|blue} {circle|square}` is four prompts.

/// The most prompts that one is.
pub const MOST: usize = 4096;

/// Every prompt that this one is, the last choice changing first; `None` for more than [`MOST`]. Braces without a bar
/// are text, and so are those behind a backslash.
pub fn choices(text: &str) -> Option<Vec<String>> {
    let Some((before, options, after)) = first(text) else { return Some(vec![unescaped(text)]) };
    let mut all = Vec::new();
    let rests = choices(after)?;
    for option in options {
        for chosen in choices(option)? {
            for rest in &rests {
                if all.len() == MOST {
                    return None;
                }
                all.push(format!("{}{chosen}{rest}", unescaped(before)));
            }
        }
    }
    Some(all)
}

/// What stands before the first choice, its options, and what follows.
fn first(text: &str) -> Option<(&str, Vec<&str>, &str)> {
    let mut opened: Vec<(usize, char)> = Vec::new();
    let mut bars: Vec<usize> = Vec::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {}
            '{' | '(' | '[' => opened.push((at, c)),
            '|' if opened.len() == 1 => bars.push(at),
            '}' | ')' | ']' => {
                let fits = |open| matches!((open, c), ('{', '}') | ('(', ')') | ('[', ']'));
                match opened.last() {
                    Some(&(start, open)) if fits(open) => {
                        opened.pop();
                        if opened.is_empty() {
                            let inside = std::mem::take(&mut bars);
                            if c == '}' && !inside.is_empty() {
                                return Some((&text[..start], split(text, start + 1, &inside, at), &text[at + 1..]));
                            }
                            // A choice may stand within other brackets.
                            if let Some((before, options, after)) = first(&text[start + 1..at]) {
                                let before = &text[..start + 1 + before.len()];
                                let after = &text[at - after.len()..];
                                return Some((before, options, after));
                            }
                        }
                    }
                    // What is not closed as it was opened is text.
                    _ => {
                        opened.clear();
                        bars.clear();
                    }
                }
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// The parts of a text between these places.
fn split<'a>(text: &'a str, start: usize, bars: &[usize], end: usize) -> Vec<&'a str> {
    let starts = std::iter::once(start).chain(bars.iter().map(|bar| bar + 1));
    let ends = bars.iter().copied().chain([end]);
    starts.zip(ends).map(|(start, end)| &text[start..end]).collect()
}

/// Braces and bars without the backslash before them.
fn unescaped(text: &str) -> String {
    text.replace(r"\{", "{").replace(r"\}", "}").replace(r"\|", "|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_a_prompt() {
        let all = |text: &str| choices(text).unwrap();
        assert_eq!(all("a {red|blue} {c|d}"), ["a red c", "a red d", "a blue c", "a blue d"]);
        assert_eq!(all("{a|{b|c} d|}"), ["a", "b d", "c d", ""]);
        assert_eq!(
            all("({a|b}:1.2), [x|{y|z}]"),
            ["(a:1.2), [x|y]", "(a:1.2), [x|z]", "(b:1.2), [x|y]", "(b:1.2), [x|z]"]
        );
        assert_eq!(all("{[a|b]|c}"), ["[a|b]", "c"]);
    }

    #[test]
    fn what_is_not_a_choice_is_text() {
        for text in ["a", "{a}", "{a|b", "a|b}", "[a|b]", "{(a|b}", ""] {
            assert_eq!(choices(text).unwrap(), [text], "{text}");
        }
        assert_eq!(choices(r"\{a\|b\}").unwrap(), ["{a|b}"]);
    }

    #[test]
    fn too_many_are_refused() {
        assert_eq!(choices(&"{a|b}".repeat(12)).unwrap().len(), 4096);
        assert_eq!(choices(&"{a|b}".repeat(13)), None);
        assert_eq!(choices(&"{a|b}".repeat(60)), None);
    }
}
