//! Prompt to token ids, as transformers' `CLIPTokenizer` makes them; `word_pieces` has those of `BertTokenizer`.
//!
//! Text is normalised (NFC, any white space to one space, lower case), split into words, numbers and signs by CLIP's
//! expression, written in the byte-level alphabet, and merged pair by pair; the last symbol of a word ends in `</w>`.
//! Special tokens stand for themselves wherever they occur in the text.
//!
//! Source: transformers 5 `CLIPTokenizer`, which takes the vocabulary and the merges from either kind of file and
//! builds the rest itself; Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
//! Supervision".
//!
//! Floor 3: may import `graph`, `ops` and floor 0.

mod files;
mod word_pieces;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{self, NFC, replace::ReplacePattern, utils::Lowercase};
use tokenizers::pre_tokenizers::{self, byte_level::ByteLevel, split::Split, split::SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use files::{Contents, Files, Merges, SpecialTokens, Vocabulary};

use crate::error::{Error, Result};
use crate::files::{TEXT, read};
use crate::prompt::chunks::Special;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A tokenizer, of CLIP or of BERT.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    start: u32,
    end: u32,
    pad: u32,
    /// Tokens beside the vocabulary, and what they stand for.
    words: HashMap<u32, Vec<u32>>,
}

impl Tokenizer {
    /// Reads a tokenizer from its files, which `read` gives by name (`None` where there is none): `tokenizer.json`, or
    /// `vocab.json` and `merges.txt`; and if they are there `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json`. Error messages call their folder `place`.
    ///
    /// # Errors
    /// Files that are missing, no JSON, or do not fit each other.
    pub fn from_files<'a>(place: impl AsRef<Path>, read: impl Fn(&str) -> Result<Contents<'a>>) -> Result<Self> {
        let files = Files { place: place.as_ref(), read: &|name| read(name) };
        let vocabulary = Vocabulary::read(&files)?;
        let four = [("bos_token", START), ("eos_token", END), ("unk_token", END), ("pad_token", END)];
        let special = SpecialTokens::read(&files, vocabulary.added, four, &[])?;
        let inner = clip(vocabulary.ids, vocabulary.merges, &special.unknown);
        Self::of(&files, inner, special)
    }

    /// The same around a vocabulary.
    fn of(files: &Files, inner: tokenizers::Result<tokenizers::Tokenizer>, special: SpecialTokens) -> Result<Self> {
        let fail = |error: tokenizers::Error| Error::file(files.place, format!("no tokenizer can be made: {error}"));
        let mut inner = inner.map_err(fail)?;
        inner.add_tokens(special.added).map_err(fail)?;
        let unknown = |token: &str| Error::file(files.place, format!("`{token}` is not in the vocabulary"));
        let id = |token: &str| inner.token_to_id(token).ok_or_else(|| unknown(token));
        let (start, end, pad) = (id(&special.start)?, id(&special.end)?, id(&special.pad)?);
        // Only now: a token that is in neither would get a new id, which the text encoder has no embedding for.
        inner.add_tokens(special.named).map_err(fail)?;
        Ok(Self { inner, start, end, pad, words: HashMap::new() })
    }

    /// The same from a folder.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::file(folder, "no such folder; give the one with the tokenizer's files"));
        }
        Self::from_files(folder, |name| {
            let path = folder.join(name);
            path.exists().then(|| read(&path, TEXT).map(Cow::Owned)).transpose()
        })
    }

    /// Lets a name, in any case, stand for these ids; `alone` if only as a word of its own. Of two names that fit, the
    /// longer is taken.
    ///
    /// # Errors
    /// If it is a token already.
    pub fn add_word(&mut self, name: &str, ids: Vec<u32>, alone: bool) -> Result<()> {
        if name.trim().is_empty() || self.inner.token_to_id(name).is_some() {
            let what = format!("`{name}` is in the tokenizer's vocabulary and cannot name something else");
            return Err(Error::usage(what));
        }
        let added = AddedToken::from(name, false).single_word(alone);
        let fail = |error| Error::config("tokenizer", format!("cannot take the word `{name}`: {error}"));
        self.inner.add_tokens([added]).map_err(fail)?;
        self.words.extend(self.inner.token_to_id(name).map(|token| (token, ids)));
        Ok(())
    }

    /// The ids of a text, those of one added word together.
    pub fn words(&self, text: &str) -> Result<Vec<Vec<u32>>> {
        let encoding = self.inner.encode_fast(text, false);
        let fail = |error| Error::config("tokenizer", format!("cannot encode this text: {error}"));
        let ids = encoding.map_err(fail)?.get_ids().to_vec();
        Ok(ids.into_iter().map(|id| self.words.get(&id).cloned().unwrap_or_else(|| vec![id])).collect())
    }

    /// The ids of a text with the start and the end token, however many.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = vec![self.start];
        ids.extend(self.words(text)?.into_iter().flatten());
        ids.push(self.end);
        Ok(ids)
    }

    /// The tokens that divide a prompt into chunks.
    pub fn special(&self) -> Special {
        let Self { start, end, pad, .. } = *self;
        Special { start, end, pad, comma: self.inner.token_to_id(",</w>") }
    }

    /// Exactly `length` ids, at least two: padded with the tokenizer's pad token, or cut before the end token; and how
    /// many were cut.
    pub fn encode_padded(&self, text: &str, length: usize) -> Result<(Vec<u32>, usize)> {
        let mut ids = self.encode(text)?;
        let dropped = ids.len().saturating_sub(length.max(2));
        ids.drain(ids.len() - 1 - dropped..ids.len() - 1);
        ids.resize(length.max(2), self.pad);
        Ok((ids, dropped))
    }
}

/// The tokenizer around the vocabulary, the same for every CLIP.
fn clip(ids: HashMap<String, u32>, merges: Merges, unknown: &str) -> tokenizers::Result<tokenizers::Tokenizer> {
    let bpe = BPE::builder()
        .vocab_and_merges(ids.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
        .end_of_word_suffix("</w>".into())
        .unk_token(unknown.into())
        .build()?;
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    let spaces = normalizers::Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    tokenizer.with_normalizer(Some(normalizers::Sequence::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))?;
    // Inverted: what matches is kept, and what is between (white space) removed.
    let split = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizers::sequence::Sequence::new(vec![split.into(), bytes.into()])));
    Ok(tokenizer)
}
