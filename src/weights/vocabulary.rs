//! The vocabulary of CLIP, OpenAI's and OpenCLIP's alike, for models that come without a tokenizer's files.
//!
//! The merges are an asset (`assets/clip`); the rest follows from them: every byte, every byte that ends a word, every
//! merge in order, and the two special tokens.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;

static MERGES: &[u8] = include_bytes!("../../assets/clip/merges.txt.gz");

/// The text of `merges.txt`.
pub fn merges() -> String {
    let mut text = String::new();
    // The bytes are part of the program, so a mistake in them is one of this source; a test reads them.
    GzDecoder::new(MERGES).read_to_string(&mut text).expect("the merges can be unpacked");
    text
}

/// The text of `vocab.json`: token -> id.
pub fn vocabulary() -> String {
    let merges = merges();
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    // Bytes that cannot be printed have characters of their own, from 256 on.
    let bytes = (0..=255u8).filter(printable).map(char::from).chain((256..256 + 68).filter_map(char::from_u32));
    let mut tokens: Vec<String> = bytes.map(String::from).collect();
    tokens.extend_from_within(..);
    tokens[256..].iter_mut().for_each(|token| token.push_str("</w>"));
    tokens.extend(merges.lines().skip(1).map(|line| line.replace(' ', "")));
    tokens.extend(["<|startoftext|>".into(), "<|endoftext|>".into()]);
    let ids: BTreeMap<String, usize> = tokens.into_iter().enumerate().map(|(id, token)| (token, id)).collect();
    serde_json::json!(ids).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_has_as_many_tokens_as_the_encoders_have_rows() {
        let ids: BTreeMap<String, usize> = serde_json::from_str(&vocabulary()).unwrap();
        assert_eq!((ids.len(), ids["<|startoftext|>"], ids["<|endoftext|>"]), (49408, 49406, 49407));
    }
}
