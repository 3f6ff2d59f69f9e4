//! Downloading a model from a hub that is a thread of the test: whole, in two halves, and every way in which it goes
//! wrong.

mod faults;
mod hub;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::weights::fetch::{Hub, Patience, Progress, fetch};
use ornstein::weights::manifest::{self, Defaults, Entry, File, Kind};
use tempfile::TempDir;

use self::hub::{Answer, BYTES, SUM, Server, range};
use crate::support::{copy_model, ensure, test};

const URL: &str = "/owner/small/resolve/v1/unet/model.safetensors";

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let tests = [
        ("a_file_is_received_whole", whole as fn() -> Result<(), Failed>),
        ("what_was_interrupted_goes_on", resumed),
        ("a_hub_that_cannot_go_on_gives_the_whole", no_ranges),
        ("a_part_that_is_too_long_begins_anew", part_too_long),
        ("a_part_of_nobody_knows_what_begins_anew", part_unknown),
        ("what_is_here_is_not_asked_for", here),
        ("a_connection_that_ends_too_early_keeps_what_came", truncated),
        ("a_wrong_sum_is_an_error_and_the_file_is_removed", wrong_sum),
        ("a_file_of_another_size_is_refused_before_it_is_received", wrong_size),
        ("a_refusal_says_what_to_do", refusals),
        ("the_token_is_not_sent_to_other_hubs", token),
        ("a_hub_that_is_not_there_is_named", unreachable),
        ("the_command_takes_the_endpoint_from_the_environment", command),
        ("a_model_is_listed_as_here_once_it_is_whole", listed),
    ];
    tests.into_iter().map(|(name, run)| test(format!("fetch::{name}"), run)).collect()
}

/// A model of one file.
fn entry() -> Entry {
    let (bytes, sha256) = (Some(BYTES.len() as u64), Some(SUM.into()));
    let file = File { path: "unet/model.safetensors".into(), bytes, sha256, agree: None, source: None };
    Entry {
        name: "small".into(),
        about: "a test".into(),
        family: Some("sd1".into()),
        kind: Kind::Folder,
        repository: Some("owner/small".into()),
        folder: None,
        revision: Some("v1".into()),
        licence: None,
        size_mb: None,
        memory_mib: None,
        defaults: Defaults::default(),
        knows: None,
        words: Vec::new(),
        plain: Vec::new(),
        files: vec![file],
    }
}

/// Tries a few times, one right after the other.
fn quick() -> Patience {
    Patience { tries: 2, pause: Duration::from_millis(1), ..Patience::default() }
}

/// What came of a download.
struct Fetched {
    folder: TempDir,
    /// What was asked of the hub, in lower case.
    requests: Vec<String>,
    /// Empty where there was none.
    error: String,
}

/// What `change` makes of [`entry`], fetched into a folder where `part` has come already.
fn fetched(answers: impl Into<Vec<Answer>>, part: &[u8], change: impl FnOnce(&mut Entry)) -> Result<Fetched, Failed> {
    let (server, folder) = (Server::start(answers)?, tempfile::tempdir()?);
    let mut entry = entry();
    change(&mut entry);
    if !part.is_empty() {
        fs::create_dir(folder.path().join("unet"))?;
        fs::write(folder.path().join(format!("{}.part", entry.files[0].path)), part)?;
    }
    let hub = Hub { url: server.url.clone(), token: Some("secret".into()), patience: quick() };
    let result = fetch(&entry, folder.path(), &hub, &mut |_| {});
    let error = result.err().map(|error| error.to_string()).unwrap_or_default();
    Ok(Fetched { folder, requests: server.requests(), error })
}

/// Whether the folder has the file, whole, and nothing beside it.
fn is_whole(folder: &Path) -> Result<bool, Failed> {
    let alone = fs::read_dir(folder.join("unet"))?.count() == 1;
    Ok(alone && fs::read(folder.join("unet/model.safetensors"))? == BYTES)
}

fn whole() -> Result<(), Failed> {
    let Fetched { folder, requests, error } = fetched(Answer::File, b"", |_| {})?;
    assert_eq!(error, "");
    assert!(requests.len() == 1 && requests[0].starts_with(&format!("get {URL} ")), "{requests:?}");
    assert!(requests[0].contains("accept-encoding: identity"), "{requests:?}");
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn resumed() -> Result<(), Failed> {
    let Fetched { folder, requests, error } = fetched(Answer::File, &BYTES[..10], |_| {})?;
    assert_eq!(error, "");
    assert_eq!(range(&requests[0]), Some(10));
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn no_ranges() -> Result<(), Failed> {
    let Fetched { folder, error, .. } = fetched(Answer::Whole, &BYTES[..10], |_| {})?;
    assert_eq!(error, "");
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn part_too_long() -> Result<(), Failed> {
    let long = [BYTES, b"more"].concat();
    for size in [Some(BYTES.len() as u64), None] {
        let Fetched { folder, error, .. } = fetched(Answer::File, &long, |entry| entry.files[0].bytes = size)?;
        assert_eq!(error, "");
        ensure(is_whole(folder.path())?, "it is not whole")?;
    }
    Ok(())
}

fn part_unknown() -> Result<(), Failed> {
    let Fetched { folder, requests, error } = fetched(Answer::File, b"of another one", |entry| {
        entry.revision = None;
        entry.files[0].sha256 = None;
        entry.files[0].path = "unet/merges.txt".into();
    })?;
    assert_eq!(error, "");
    assert_eq!(range(&requests[0]), None);
    assert_eq!(fs::read(folder.path().join("unet/merges.txt"))?, BYTES);
    Ok(())
}

fn here() -> Result<(), Failed> {
    let (server, folder) = (Server::start(Answer::File)?, tempfile::tempdir()?);
    fs::create_dir(folder.path().join("unet"))?;
    fs::write(folder.path().join("unet/model.safetensors"), BYTES)?;
    let mut told = Vec::new();
    let hub = Hub { url: server.url.clone(), token: None, patience: quick() };
    let mut tell = |progress: Progress| told.push(matches!(progress, Progress::Here(_)));
    fetch(&entry(), folder.path(), &hub, &mut tell)?;
    // Its sum is computed once.
    assert_eq!(told, [false, true]);
    ensure(server.requests().is_empty(), "it was asked for")
}

fn truncated() -> Result<(), Failed> {
    let there = BYTES.len() - 5;
    let answers = [Answer::HangUp(there - 10), Answer::HangUp(0)];
    let Fetched { folder, error, .. } = fetched(answers, &BYTES[..10], |_| {})?;
    assert!(error.contains(URL) && error.contains(&format!("ended after {there} bytes")), "{error}");
    assert!(error.contains("goes on from there"), "{error}");
    assert_eq!(fs::read(folder.path().join("unet/model.safetensors.part"))?, BYTES[..there]);
    ensure(!folder.path().join("unet/model.safetensors").exists(), "half a file has its name")
}

fn wrong_sum() -> Result<(), Failed> {
    let Fetched { folder, error, .. } = fetched(Answer::File, b"x", |_| {})?;
    assert!(error.contains("has the SHA-256") && error.contains(SUM) && error.contains("removed"), "{error}");
    ensure(fs::read_dir(folder.path().join("unet"))?.count() == 0, "something is left")
}

fn wrong_size() -> Result<(), Failed> {
    let Fetched { folder, error, .. } = fetched(Answer::File, b"", |entry| entry.files[0].bytes = Some(7))?;
    assert!(error.contains("has 33 bytes, and the manifest's file 7"), "{error}");
    ensure(!folder.path().join("unet").exists(), "something was received")
}

fn refusals() -> Result<(), Failed> {
    for (status, what) in [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "is not there (404)"), (503, "try again later")]
    {
        let Fetched { error, .. } = fetched(Answer::Status(status), b"", |_| {})?;
        assert!(error.contains(URL) && error.contains(what) && !error.contains('\n'), "{error}");
    }
    Ok(())
}

fn token() -> Result<(), Failed> {
    let Fetched { requests, .. } = fetched(Answer::File, b"", |_| {})?;
    ensure(!requests[0].contains("secret"), "the token was sent")
}

fn unreachable() -> Result<(), Failed> {
    // The port of a listener that is gone.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = tempfile::tempdir()?;
    let hub = Hub { url: format!("http://{address}"), token: None, patience: Patience::default() };
    let error = fetch(&entry(), folder.path(), &hub, &mut |_| {}).err().ok_or("it was reached")?.to_string();
    ensure(error.contains(&address.to_string()) && error.contains("cannot be reached"), error)
}

fn command() -> Result<(), Failed> {
    let (server, folder) = (Server::start(Answer::Status(404))?, tempfile::tempdir()?);
    let run = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
        command.args(["models", "fetch", name]).env("HF_ENDPOINT", format!("{}/", server.url));
        let output = command.env("ORNSTEIN_MODELS", folder.path()).output()?;
        Ok::<_, Failed>((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (status, text) = run("sd15")?;
    assert!(status == Some(1) && text.contains("model_index.json: is not there (404)"), "{text}");
    let path = "/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/";
    assert!(server.requests()[0].starts_with(&format!("get {path}")));
    let (status, text) = run("nonesuch")?;
    assert!(status == Some(2) && text.contains("no model is called nonesuch; known are shapes"), "{text}");
    let (status, text) = run("shapes")?;
    ensure(status == Some(0) && text.contains("shapes is here"), text)
}

fn listed() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let model = folder.path().join("sd15");
    let is_here = || -> Result<bool, Failed> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
        let output = command.args(["models", "list", "--json"]).env("ORNSTEIN_MODELS", folder.path()).output()?;
        let list: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let mut rows = list["models"].as_array().ok_or("no list")?.iter();
        Ok(rows.any(|row| row["name"] == "sd15" && row["here"] == true))
    };
    ensure(!is_here()?, "without a folder")?;
    copy_model(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model"), &model)?;
    ensure(!is_here()?, "with files of other sizes")?;
    for file in &manifest::find("sd15").ok_or("no sd15")?.files {
        let path = model.join(&file.path);
        if file.path.ends_with(".safetensors") {
            write_tensors(&path, file.bytes.unwrap_or(1000))?;
        } else if !path.exists() {
            fs::write(path, "{}")?;
        }
    }
    ensure(is_here()?, "with all of it")?;
    fs::write(model.join("vae/config.json"), "")?;
    ensure(!is_here()?, "with an empty file")?;
    fs::write(model.join("vae/config.json"), "{}")?;
    let unet = model.join("unet/diffusion_pytorch_model.safetensors");
    fs::rename(&unet, unet.with_extension("safetensors.part"))?;
    ensure(!is_here()?, "with half of its UNet")
}

/// A safetensors file of this many bytes, most of which are a hole.
fn write_tensors(path: &Path, bytes: u64) -> Result<(), Failed> {
    let data = bytes - 8 - 200;
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{data}],"data_offsets":[0,{data}]}}}}"#);
    fs::write(path, [&200u64.to_le_bytes()[..], format!("{header:200}").as_bytes()].concat())?;
    Ok(fs::File::options().append(true).open(path)?.set_len(bytes)?)
}
