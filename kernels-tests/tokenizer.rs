//! Token ids against those of transformers' `CLIPTokenizer` (`data/make_tokenizer_cases.py` wrote them).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Result;
use ornstein::tokenizer::Tokenizer;
use ornstein::weights::Model;
use ornstein::weights::vocabulary::{merges, vocabulary};
use serde::Deserialize;

const OPENAI: &str = include_str!("data/tokenizer/openai.json");
const SHAPES: &str = include_str!("data/tokenizer/shapes.json");
const SHAPES_ONE_FILE: &[u8] = include_bytes!("data/tokenizer/shapes.tokenizer.json.gz");

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    /// To 77.
    padded: Option<Vec<u32>>,
}

/// A way to configure the built-in model's vocabulary.
#[derive(Deserialize)]
struct Variant {
    name: String,
    /// `tokenizer.json` instead of `vocab.json` and `merges.txt`.
    one_file: bool,
    /// What stands beside; the built-in model's own files if `None`.
    files: Option<HashMap<String, serde_json::Value>>,
    cases: Vec<Case>,
}

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let variants: Vec<Variant> = serde_json::from_str(SHAPES).unwrap();
    let variants = variants
        .into_iter()
        .map(|variant| Trial::test(format!("tokenizer: configured as {}", variant.name), move || configured(&variant)));
    let others = [
        ("openai's vocabulary", openai as fn() -> Result<(), Failed>),
        ("ten thousand characters", ten_thousand_characters),
        ("a quarter megabyte of any kind", a_quarter_megabyte_of_any_kind),
        ("padding cuts before the end token", padding_cuts_before_the_end_token),
        ("what is missing is named", what_is_missing_is_named),
        ("what is corrupt is named", what_is_corrupt_is_named),
        ("a folder without one", a_folder_without_one),
    ];
    let others = others.into_iter().map(|(name, test)| Trial::test(format!("tokenizer: {name}"), test));
    variants.chain(others).collect()
}

type Files = BTreeMap<&'static str, Vec<u8>>;

fn from(files: &Files) -> Result<Tokenizer> {
    Tokenizer::from_files("here", |name| Ok(files.get(name).map(|bytes| Cow::Borrowed(bytes.as_slice()))))
}

fn own(name: &str) -> Vec<u8> {
    Model::builtin().bytes(&format!("tokenizer/{name}")).unwrap().unwrap().into_owned()
}

fn unzip(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut text).unwrap();
    text
}

fn compare(tokenizer: &Tokenizer, cases: &[Case]) -> Result<(), Failed> {
    assert!(!cases.is_empty());
    for Case { text, ids, padded } in cases {
        let found = tokenizer.encode(text)?;
        if found != *ids {
            return Err(format!("{text:?} is {found:?}, not {ids:?}").into());
        }
        let Some(padded) = padded else { continue };
        let found = tokenizer.encode_padded(text, 77)?;
        if found != (padded.clone(), ids.len().saturating_sub(77)) {
            return Err(format!("{text:?} padded is {found:?}, not {padded:?}").into());
        }
    }
    Ok(())
}

fn configured(variant: &Variant) -> Result<(), Failed> {
    let mut files = Files::new();
    if variant.one_file {
        files.insert("tokenizer.json", unzip(SHAPES_ONE_FILE));
    } else {
        files.extend(["vocab.json", "merges.txt"].map(|name| (name, own(name))));
    }
    for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        match &variant.files {
            Some(beside) => files.extend(beside.get(name).map(|json| (name, json.to_string().into_bytes()))),
            None if name == "added_tokens.json" => {}
            None => _ = files.insert(name, own(name)),
        }
    }
    compare(&from(&files)?, &variant.cases)
}

fn openai() -> Result<(), Failed> {
    let files = Files::from([("vocab.json", vocabulary().into_bytes()), ("merges.txt", merges().into_bytes())]);
    compare(&from(&files)?, &serde_json::from_str::<Vec<Case>>(OPENAI)?)
}

fn ten_thousand_characters() -> Result<(), Failed> {
    let files = ["vocab.json", "merges.txt"].map(|name| (name, own(name)));
    let tokenizer = from(&Files::from(files))?;
    for unit in ["circle ", "z", "🐱", "<|endoftext|>", " "] {
        let text: String = unit.chars().cycle().take(10_000).collect();
        let ids = tokenizer.encode(&text)?;
        let (padded, dropped) = tokenizer.encode_padded(&text, 77)?;
        assert_eq!((padded.len(), dropped), (77, ids.len().saturating_sub(77)));
    }
    Ok(())
}

/// Words of any length and signs of any kind take a time in proportion: the square would be minutes.
fn a_quarter_megabyte_of_any_kind() -> Result<(), Failed> {
    let files = ["vocab.json", "merges.txt", "tokenizer_config.json"].map(|name| (name, own(name)));
    let tokenizer = from(&Files::from(files))?;
    for signs in ["a", "red", "ab1", "1", "é", "\u{301}", " ", "<|endoftext|>", "<|", "'s"] {
        let (ids, _) = tokenizer.encode_padded(&signs.repeat((1 << 18) / signs.len()), 77)?;
        assert_eq!(ids.len(), 77, "{signs:?}");
    }
    Ok(())
}

fn padding_cuts_before_the_end_token() -> Result<(), Failed> {
    let tokenizer =
        Tokenizer::from_folder(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo-model/tokenizer")))?;
    let ids = tokenizer.encode("a red circle")?;
    assert_eq!(ids.len(), 5);
    assert_eq!(tokenizer.encode_padded("a red circle", 4)?, (vec![ids[0], ids[1], ids[2], ids[4]], 1));
    assert_eq!(tokenizer.encode_padded("a red circle", 5)?, (ids.clone(), 0));
    assert_eq!(tokenizer.encode_padded("a red circle", 6)?, ([ids, vec![2047]].concat(), 0));
    Ok(())
}

fn message(files: &[(&'static str, &[u8])]) -> String {
    let files: Files = files.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect();
    from(&files).err().expect("an error").to_string()
}

fn what_is_missing_is_named() -> Result<(), Failed> {
    assert!(message(&[]).starts_with("here/vocab.json: no such file, and no tokenizer.json either"));
    assert!(
        message(&[("vocab.json", b"{}")]).starts_with("here/merges.txt: no such file, and no tokenizer.json either")
    );
    let empty = message(&[("vocab.json", b"{\"a\": 0}"), ("merges.txt", b"#version: 0.2\n")]);
    assert!(empty.contains("`<|startoftext|>` is not in the vocabulary"), "{empty}");
    Ok(())
}

fn what_is_corrupt_is_named() -> Result<(), Failed> {
    let vocab: &[u8] = br#"{"a": 0, "b": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}"#;
    let with_merges = |merges: &[u8]| message(&[("vocab.json", vocab), ("merges.txt", merges)]);
    assert!(message(&[("tokenizer.json", b"{\"model\"")]).starts_with("here/tokenizer.json: cannot be understood"));
    assert!(message(&[("tokenizer.json", br#"{"model": {"type": "Unigram", "vocab": []}}"#)]).contains("Unigram"));
    assert!(
        message(&[("vocab.json", b"{\"a\": -1}"), ("merges.txt", b"#version: 0.2\n")]).starts_with("here/vocab.json: ")
    );
    assert!(message(&[("vocab.json", b"caf\xe9")]).contains("UTF-8"));
    assert!(with_merges(b"#version: 0.2\na\n").contains("`a` is not a pair"));
    assert!(with_merges(b"#version: 0.2\na b\n").contains("`ab` is not in the vocabulary"));
    let config: &[u8] = b"[]";
    let broken =
        message(&[("vocab.json", vocab), ("merges.txt", b"#version: 0.2\n"), ("tokenizer_config.json", config)]);
    assert!(broken.starts_with("here/tokenizer_config.json: cannot be understood"), "{broken}");
    Ok(())
}

fn a_folder_without_one() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let text = |path: &Path| Tokenizer::from_folder(path).err().expect("an error").to_string();
    assert!(text(folder.path()).contains("vocab.json: no such file"));
    assert!(text(&folder.path().join("no")).contains("no such folder"));
    Ok(())
}
