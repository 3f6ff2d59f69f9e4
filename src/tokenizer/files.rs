//! What a tokenizer's files hold that is not the same for all of its kind: vocabulary, merges, special tokens.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::error::{Error, Result};
use crate::files::text;

/// A file's bytes, `None` if there is no such file.
pub(super) type Contents<'a> = Option<Cow<'a, [u8]>>;

/// Tokens that are merged, two at a time.
pub(super) type Merges = Vec<(String, String)>;

/// The folder's files by name.
pub(super) struct Files<'f, 'a> {
    pub place: &'f Path,
    pub read: &'f dyn Fn(&str) -> Result<Contents<'a>>,
}

impl Files<'_, '_> {
    fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(bytes) = (self.read)(name)? else { return Ok(None) };
        text(&self.place.join(name), bytes.into_owned()).map(Some)
    }

    pub fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let value = serde_json::from_str(&text);
        value.map(Some).map_err(|error| self.fail(name, format!("cannot be understood: {error}; download it again")))
    }

    pub fn fail(&self, name: &str, what: impl std::fmt::Display) -> Error {
        Error::file(self.place.join(name), what)
    }
}

/// What is said of a file that is not there.
const MISSING: &str = "no such file, and no tokenizer.json either: the model lacks this tokenizer; download its \
                       folder, or copy it from another model of the family";

/// What words are made of.
pub(super) struct Vocabulary {
    pub ids: HashMap<String, u32>,
    /// Of BPE.
    pub merges: Merges,
    /// Tokens beside the vocabulary that `tokenizer.json` lists.
    pub added: BTreeMap<u32, Added>,
}

/// The parts of `tokenizer.json` that are not the same for all of its kind.
#[derive(Deserialize)]
struct TokenizerJson {
    model: ModelJson,
    #[serde(default)]
    added_tokens: Vec<AddedWithId>,
}

#[derive(Deserialize)]
struct ModelJson {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    vocab: Value,
    #[serde(default)]
    merges: Vec<Merge>,
}

/// `"a b"` in older files, `["a", "b"]` in newer ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

impl Vocabulary {
    pub fn read(files: &Files) -> Result<Self> {
        if let Some(file) = files.json::<TokenizerJson>("tokenizer.json")? {
            return Self::from_tokenizer_json(files, file, "BPE");
        }
        let missing = |name: &str| files.fail(name, MISSING);
        let ids = files.json("vocab.json")?.ok_or_else(|| missing("vocab.json"))?;
        let text = files.text("merges.txt")?.ok_or_else(|| missing("merges.txt"))?;
        if text.is_empty() {
            return Err(files.fail("merges.txt", "is empty; download it again"));
        }
        // The first line says `#version: 0.2`.
        let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
        let merges = lines.map(|line| pair(line).ok_or_else(|| not_a_pair(files, "merges.txt", line)));
        let vocabulary = Self { ids, merges: merges.collect::<Result<_>>()?, added: BTreeMap::new() };
        vocabulary.check(files, "merges.txt")
    }

    /// The same without merges: `tokenizer.json`, or `vocab.txt`, whose lines are the tokens in the order of their ids.
    pub fn read_word_pieces(files: &Files) -> Result<Self> {
        if let Some(file) = files.json::<TokenizerJson>("tokenizer.json")? {
            return Self::from_tokenizer_json(files, file, "WordPiece");
        }
        let text = files.text("vocab.txt")?.ok_or_else(|| files.fail("vocab.txt", MISSING))?;
        let ids = text.lines().map(|line| line.trim_end().to_string()).zip(0..).collect();
        Ok(Self { ids, merges: Vec::new(), added: BTreeMap::new() })
    }

    fn from_tokenizer_json(files: &Files, file: TokenizerJson, wanted: &str) -> Result<Self> {
        const NAME: &str = "tokenizer.json";
        if let Some(kind) = file.model.kind.filter(|kind| kind != wanted) {
            return Err(files.fail(NAME, format!("is a {kind} tokenizer; this text encoder's is {wanted}")));
        }
        let ids = serde_json::from_value(file.model.vocab)
            .map_err(|error| files.fail(NAME, format!("its vocabulary cannot be understood: {error}")))?;
        let merges = file.model.merges.into_iter().map(|merge| match merge {
            Merge::Pair(a, b) => Ok((a, b)),
            Merge::Line(line) => pair(&line).ok_or_else(|| not_a_pair(files, NAME, &line)),
        });
        let added = file.added_tokens.into_iter().map(|token| (token.id, token.token)).collect();
        Self { ids, merges: merges.collect::<Result<_>>()?, added }.check(files, NAME)
    }

    /// Whether both halves of every merge, and the two together, are in the vocabulary.
    fn check(self, files: &Files, name: &str) -> Result<Self> {
        for (a, b) in &self.merges {
            if let Some(absent) = [a, b, &format!("{a}{b}")].into_iter().find(|token| !self.ids.contains_key(*token)) {
                let what =
                    format!("merges `{a}` and `{b}`, but `{absent}` is not in the vocabulary; download both again");
                return Err(files.fail(name, what));
            }
        }
        Ok(self)
    }
}

fn pair(line: &str) -> Option<(String, String)> {
    let (a, b) = line.split_once(' ')?;
    (!b.contains(' ')).then(|| (a.into(), b.into()))
}

fn not_a_pair(files: &Files, name: &str, line: &str) -> Error {
    files.fail(name, format!("`{}` is not a pair of symbols", line.chars().take(40).collect::<String>()))
}

/// A token that is matched in the text as it stands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Added {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    /// Matched in the normalised text; a special token by default is matched in the raw one.
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct AddedWithId {
    id: u32,
    #[serde(flatten)]
    token: Added,
}

impl Added {
    fn special(content: &str) -> Self {
        let content = content.to_string();
        Self { content, single_word: false, lstrip: false, rstrip: false, normalized: None, special: true }
    }

    /// A token in a configuration: its text, or an object with its text and flags.
    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(content) => Some(Self::special(content)),
            Value::Object(_) => Self::deserialize(value).ok().map(|token| Self { special: true, ..token }),
            _ => None,
        }
    }

    fn into_token(self) -> AddedToken {
        AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized.unwrap_or(!self.special))
    }
}

/// How configurations call tokens, and the token where they do not.
pub(super) type Named = (&'static str, &'static str);

/// The tokens with a meaning of their own.
pub(super) struct SpecialTokens {
    pub start: String,
    pub end: String,
    pub pad: String,
    pub unknown: String,
    /// What the files list with its id, in that order.
    pub added: Vec<AddedToken>,
    /// Those with a name that the files do not list.
    pub named: Vec<AddedToken>,
}

impl SpecialTokens {
    /// As transformers merges the files: `added_tokens_decoder` in `tokenizer_config.json` makes the others
    /// superfluous; without it `special_tokens_map.json` goes before `tokenizer_config.json`, and `added_tokens.json`
    /// and `tokenizer.json` add theirs. The four that a tokenizer has are those of the start, the end, what is unknown
    /// and padding; `others` may be missing.
    pub fn read(
        files: &Files,
        in_tokenizer_json: BTreeMap<u32, Added>,
        four: [Named; 4],
        others: &[Named],
    ) -> Result<Self> {
        let mut config: Map<String, Value> = files.json("tokenizer_config.json")?.unwrap_or_default();
        let added = match config.remove("added_tokens_decoder") {
            Some(decoder) => serde_json::from_value(decoder).map_err(|error| {
                files.fail("tokenizer_config.json", format!("added_tokens_decoder cannot be understood: {error}"))
            })?,
            None => {
                config.extend(files.json::<Map<String, Value>>("special_tokens_map.json")?.unwrap_or_default());
                let mut added = from_added_tokens_json(files, &config)?;
                added.extend(in_tokenizer_json);
                added
            }
        };
        let token = |(key, default): Named| {
            config.get(key).and_then(Added::from_json).unwrap_or_else(|| Added::special(default))
        };
        let [start, end, unknown, pad] = four.map(token);
        let others: Vec<_> = others.iter().map(|other| token(*other)).collect();
        let mut added: Vec<Added> = added.into_values().collect();
        let mut named: Vec<Added> = Vec::new();
        for token in [&start, &end, &unknown, &pad].into_iter().chain(&others) {
            match added.iter_mut().find(|known| known.content == token.content) {
                Some(known) => known.special = true,
                // The same text under two names may have two sets of flags, of which the tokenizer takes the last.
                None if !named.contains(token) => named.push(token.clone()),
                None => {}
            }
        }
        let [added, named] = [added, named].map(|tokens| tokens.into_iter().map(Added::into_token).collect());
        let [start, end, pad, unknown] = [start, end, pad, unknown].map(|token| token.content);
        Ok(Self { start, end, pad, unknown, added, named })
    }
}

/// `added_tokens.json`: token -> id, special where the configuration names it so.
fn from_added_tokens_json(files: &Files, config: &Map<String, Value>) -> Result<BTreeMap<u32, Added>> {
    let ids: HashMap<String, u32> = files.json("added_tokens.json")?.unwrap_or_default();
    let tokens = config.iter().filter(|(key, _)| key.ends_with("_token"));
    let named: Vec<String> =
        tokens.filter_map(|(_, value)| Added::from_json(value)).map(|token| token.content).collect();
    let added = |(content, id): (String, u32)| {
        let special = named.contains(&content);
        (id, Added { special, normalized: Some(!special), ..Added::special(&content) })
    };
    Ok(ids.into_iter().map(added).collect())
}
