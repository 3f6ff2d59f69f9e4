//! `<lora:NAME:0.8>` in a prompt: files whose changes are added to the weights, as AUTOMATIC1111's web UI names them.
//!
//! `<lora:NAME>` is all of it. `<lora:NAME:0.8:0.5>` adds 0.8 of it to the text encoders and 0.5 to the UNet, which
//! can be named, too: `<lora:NAME:te=0.8:unet=0.5>`. `lyco` is the same. What is not written so is text.
//!
//! Source: the behaviour of the web UI 1.10.

use crate::error::{Error, Result};

/// A file that a prompt names, and how much of its changes is added.
#[derive(Debug, Clone, PartialEq)]
pub struct Tag {
    /// The file's name without its folder and ending.
    pub name: String,
    /// To the text encoders.
    pub text: f32,
    /// To the UNet.
    pub unet: f32,
}

const STARTS: [&str; 2] = ["<lora:", "<lyco:"];

/// Whether there is such a tag.
pub fn has_tags(prompt: &str) -> bool {
    find(prompt).is_some()
}

/// Takes the tags out of a prompt: what is left of it, and the tags in their order.
///
/// # Errors
/// If something in a tag is not a number where one is expected.
pub fn take_tags(prompt: &str) -> Result<(String, Vec<Tag>)> {
    let (mut text, mut tags, mut rest) = (String::new(), Vec::new(), prompt);
    while let Some((before, inside, after)) = find(rest) {
        text += before;
        tags.push(tag(inside).map_err(|what| Error::usage(format!("<lora:{inside}> in the prompt: {what}")))?);
        rest = after;
    }
    Ok((text + rest, tags))
}

/// The first tag: what is before it, inside, and after.
fn find(prompt: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let begins = |at: &usize| STARTS.iter().any(|start| prompt[*at..].starts_with(start));
        let start = prompt[from..].match_indices('<').map(|(at, _)| from + at).find(begins)?;
        let inside = start + STARTS[0].len();
        let end = inside + prompt[inside..].find('>')?;
        if end > inside {
            return Some((&prompt[..start], &prompt[inside..end], &prompt[end + 1..]));
        }
        from = end;
    }
}

fn tag(inside: &str) -> Result<Tag, String> {
    let mut tag = Tag { name: String::new(), text: 1.0, unet: 1.0 };
    let mut unet = None;
    for (place, item) in inside.split(':').enumerate() {
        let (key, value) = match (place, item.split_once('=')) {
            (0, _) => ("name", item),
            (_, Some((key, value))) => (key, value),
            (1, None) => ("te", item),
            (2, None) => ("unet", item),
            (_, None) => return Err(format!("nothing is known of its part {item:?}")),
        };
        match key {
            "name" => tag.name = item.trim().into(),
            "te" => tag.text = number(value)?,
            "unet" => unet = Some(number(value)?),
            _ => return Err(format!("{key} is not supported, te and unet are")),
        }
    }
    Ok(Tag { unet: unet.unwrap_or(tag.text), ..tag })
}

fn number(text: &str) -> Result<f32, String> {
    let number = text.trim().parse().ok().filter(|number: &f32| number.is_finite());
    number.ok_or_else(|| format!("{text:?} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(prompt: &str) -> (String, Vec<(String, f32, f32)>) {
        let (text, tags) = take_tags(prompt).unwrap();
        (text, tags.into_iter().map(|tag| (tag.name, tag.text, tag.unet)).collect())
    }

    fn named(name: &str, text: f32, unet: f32) -> (String, f32, f32) {
        (name.into(), text, unet)
    }

    #[test]
    fn tags_are_taken_out_and_the_rest_stays_as_it_is() {
        let wanted = ("a cat , (red:1.2)".into(), vec![named("style v2", 0.8, 0.8), named("x", 1.0, 1.0)]);
        assert_eq!(tags("a cat <lora:style v2:0.8>, <lyco:x>(red:1.2)"), wanted);
    }

    #[test]
    fn text_encoders_and_unet_may_differ() {
        assert_eq!(tags("<lora:a:0.5:-1>").1, [named("a", 0.5, -1.0)]);
        assert_eq!(tags("<lora:a:0.5:unet=0.25>").1, [named("a", 0.5, 0.25)]);
        assert_eq!(tags("<lora:a:unet=0.25:te=2>").1, [named("a", 2.0, 0.25)]);
        assert_eq!(tags("<lora:a:te=2>").1, [named("a", 2.0, 2.0)]);
    }

    #[test]
    fn what_is_no_tag_is_text() {
        for text in ["<lora:a", "<lora:>", "<LORA:a>", "<hypernet:a:1>", "a < b", "<lora a>", ""] {
            assert_eq!(tags(text), (text.into(), vec![]), "{text}");
            assert!(!has_tags(text), "{text}");
        }
        assert_eq!(tags("<lora:><lora:a>"), ("<lora:>".into(), vec![named("a", 1.0, 1.0)]));
        assert!(has_tags("é <lora:a>"));
    }

    #[test]
    fn a_megabyte_of_tags_is_read_at_once() {
        assert_eq!(tags(&"<lora:a>".repeat(1 << 17)).1.len(), 1 << 17);
        for text in ["<lora:", "<lora:>", "<", "<lora:<lyco:"] {
            assert!(!has_tags(&text.repeat((1 << 20) / text.len())), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_an_error_that_shows_the_tag() {
        for (tag, what) in [
            ("<lora:a:b>", "<lora:a:b> in the prompt: \"b\" is not a number"),
            ("<lora:a:nan>", "\"nan\" is not a number"),
            ("<lora:a:1:inf>", "\"inf\" is not a number"),
            ("<lora:a:1:1:8>", "nothing is known of its part \"8\""),
            ("<lora:a:dyn=8>", "dyn is not supported"),
            ("<lora:a:>", "\"\" is not a number"),
        ] {
            let error = take_tags(tag).unwrap_err();
            assert!(matches!(error, Error::Usage(_)) && error.to_string().contains(what), "{error}");
        }
    }
}
