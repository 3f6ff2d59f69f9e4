//! Text to word pieces, as transformers' `BertTokenizer` makes them.
//!
//! Text is normalised (control characters gone, any white space to one space, spaces around Chinese characters, and by
//! default lower case without accents), split at spaces and signs, and each word taken apart into the longest pieces
//! of the vocabulary, of which all but the first begin with `##`; a word that has none, or of more than 100 characters,
//! is unknown.
//!
//! Source: transformers 5 `BertTokenizer`; Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers
//! for Language Understanding".

use std::borrow::Cow;
use std::path::Path;

use serde::Deserialize;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use super::Tokenizer;
use super::files::{Files, Named, SpecialTokens, Vocabulary};
use crate::error::Result;

const FOUR: [Named; 4] =
    [("cls_token", "[CLS]"), ("sep_token", "[SEP]"), ("unk_token", "[UNK]"), ("pad_token", "[PAD]")];
const OTHERS: [Named; 1] = [("mask_token", "[MASK]")];

/// How text is normalised.
#[derive(Deserialize)]
struct Options {
    #[serde(default = "yes")]
    do_lower_case: bool,
    #[serde(default = "yes")]
    tokenize_chinese_chars: bool,
    /// As `do_lower_case`, if it is not said.
    strip_accents: Option<bool>,
}

fn yes() -> bool {
    true
}

impl Tokenizer {
    /// Reads a BERT's tokenizer from its files, which `read` gives by name (`None` where there is none):
    /// `tokenizer.json` or `vocab.txt`; and if they are there `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json`. Error messages call their folder `place`.
    ///
    /// # Errors
    /// Files that are missing, no JSON, or do not fit each other.
    pub fn of_word_pieces<'a>(
        place: impl AsRef<Path>,
        read: impl Fn(&str) -> Result<Option<Cow<'a, [u8]>>>,
    ) -> Result<Self> {
        let files = Files { place: place.as_ref(), read: &|name| read(name) };
        let vocabulary = Vocabulary::read_word_pieces(&files)?;
        let special = SpecialTokens::read(&files, vocabulary.added, FOUR, &OTHERS)?;
        let options: Option<Options> = files.json("tokenizer_config.json")?;
        let Options { do_lower_case, tokenize_chinese_chars, strip_accents } =
            options.unwrap_or(Options { do_lower_case: true, tokenize_chinese_chars: true, strip_accents: None });
        let pieces = WordPiece::builder().vocab(vocabulary.ids.into_iter().collect::<Vocab>());
        let inner = pieces.unk_token(special.unknown.clone()).build().and_then(|pieces| {
            let mut inner = tokenizers::Tokenizer::new(pieces);
            let normalizer = BertNormalizer::new(true, tokenize_chinese_chars, strip_accents, do_lower_case);
            inner.with_normalizer(Some(normalizer))?.with_pre_tokenizer(Some(BertPreTokenizer));
            Ok(inner)
        });
        Self::of(&files, inner, special)
    }
}
