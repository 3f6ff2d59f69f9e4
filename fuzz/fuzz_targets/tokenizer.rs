//! A tokenizer's files, and a text read by them.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use ornstein::tokenizer::Tokenizer;
use ornstein_fuzz::sections;

fuzz_target!(|text: &str| {
    let files = sections(text);
    let file = |name: &str| files.iter().find(|(other, _)| *other == name).map(|(_, text)| *text);
    let read = |name: &str| Ok(file(name).map(|text| Cow::Borrowed(text.as_bytes())));
    let Ok(mut tokenizer) = Tokenizer::from_files("tokenizer", read) else { return };
    let text = file("text").unwrap_or("a cat, 2 dogs <|endoftext|> é");
    let Ok(ids) = tokenizer.encode(text) else { return };
    assert!(ids.len() >= 2);
    if tokenizer.add_word("cat", vec![7, 8], true).is_ok() {
        tokenizer.words(text).expect("what could be encoded still can");
    }
    assert_eq!(tokenizer.encode_padded(text, 77).expect("it could be encoded").0.len(), 77);
});
