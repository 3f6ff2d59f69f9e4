//! Downloading a model from a hub that is a thread of the test: whole, in two halves, and every way in which it goes wrong.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Failed, Trial};
use ornstein::weights::fetch::{Hub, Progress, fetch};
use ornstein::weights::manifest::{Defaults, Entry, Family, File, Kind};
use tempfile::TempDir;

use crate::support::{copy_model, ensure, test};

/// The file, and its SHA-256.
const BYTES: &[u8] = b"the weights of a very small model";
const SUM: &str = "8848f57c7a09430cd55ebd8cf562c1e5109a16efff8585bf56ced24aaa0d6e32";
const URL: &str = "/owner/small/resolve/v1/unet/model.safetensors";

pub fn trials() -> Vec<Trial> {
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

/// How the hub answers.
#[derive(Clone, Copy)]
enum Answer {
    /// With the file, or what a range asks of it.
    File,
    /// With the whole file, whatever is asked.
    Whole,
    /// With as many bytes less than it says.
    Cut(usize),
    Status(u16),
}

/// What was asked of a hub so far.
type Requests = Arc<Mutex<Vec<String>>>;

/// The hub's address, and the requests that it got.
fn hub(answer: Answer) -> Result<(String, Requests), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (url, requests) = (format!("http://{}", listener.local_addr()?), Requests::default());
    let kept = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
            let response = respond(answer, &request);
            kept.lock().expect("the list of requests").push(request);
            drop((&stream).write_all(&response));
        }
    });
    Ok((url, requests))
}

fn respond(answer: Answer, request: &str) -> Vec<u8> {
    let range = request.lines().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(String::from));
    let from = range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
    let (status, body) = match (answer, from) {
        (Answer::Status(status), _) => (status, &b"no"[..]),
        (Answer::File | Answer::Cut(_), Some(from)) if from < BYTES.len() => (206, &BYTES[from..]),
        (Answer::File | Answer::Cut(_), Some(_)) => (416, &b""[..]),
        (_, _) => (200, BYTES),
    };
    let sent = if let Answer::Cut(less) = answer { body.len() - less } else { body.len() };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), &body[..sent]].concat()
}

/// A model of one file.
fn entry() -> Entry {
    let (bytes, sha256) = (Some(BYTES.len() as u64), Some(SUM.into()));
    let file = File { path: "unet/model.safetensors".into(), bytes, sha256, agree: None, source: None };
    Entry {
        name: "small".into(),
        about: "a test".into(),
        family: Family::Sd1,
        kind: Kind::Folder,
        repository: Some("owner/small".into()),
        revision: Some("v1".into()),
        defaults: Defaults::default(),
        files: vec![file],
    }
}

/// What `change` makes of [`entry`], fetched into a folder where `part` has come already: the folder, what was asked of
/// the hub, and the error.
fn fetched(answer: Answer, part: &[u8], change: fn(&mut Entry)) -> Result<(TempDir, Vec<String>, String), Failed> {
    let ((url, requests), folder) = (hub(answer)?, tempfile::tempdir()?);
    fs::create_dir(folder.path().join("unet"))?;
    if !part.is_empty() {
        fs::write(folder.path().join("unet/model.safetensors.part"), part)?;
    }
    let mut entry = entry();
    change(&mut entry);
    let result = fetch(&entry, folder.path(), &Hub { url, token: Some("secret".into()) }, &mut |_| {});
    let requests = requests.lock().expect("the list of requests").clone();
    Ok((folder, requests, result.err().map(|error| error.to_string()).unwrap_or_default()))
}

/// Whether the folder has the file, whole, and nothing beside it.
fn is_whole(folder: &Path) -> Result<bool, Failed> {
    let alone = fs::read_dir(folder.join("unet"))?.count() == 1;
    Ok(alone && fs::read(folder.join("unet/model.safetensors"))? == BYTES)
}

fn whole() -> Result<(), Failed> {
    let (folder, requests, error) = fetched(Answer::File, b"", |_| {})?;
    assert_eq!(error, "");
    assert!(requests.len() == 1 && requests[0].starts_with(&format!("GET {URL} ")), "{requests:?}");
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn resumed() -> Result<(), Failed> {
    let (folder, requests, error) = fetched(Answer::File, &BYTES[..10], |_| {})?;
    assert_eq!(error, "");
    assert!(requests[0].to_lowercase().contains("range: bytes=10-"), "{requests:?}");
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn no_ranges() -> Result<(), Failed> {
    let (folder, _, error) = fetched(Answer::Whole, &BYTES[..10], |_| {})?;
    assert_eq!(error, "");
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn part_too_long() -> Result<(), Failed> {
    let long = [BYTES, b"more"].concat();
    for unknown in [false, true] {
        let change: fn(&mut Entry) = if unknown { |entry| entry.files[0].bytes = None } else { |_| {} };
        let (folder, _, error) = fetched(Answer::File, &long, change)?;
        assert_eq!(error, "");
        ensure(is_whole(folder.path())?, "it is not whole")?;
    }
    Ok(())
}

fn part_unknown() -> Result<(), Failed> {
    let (folder, requests, error) = fetched(Answer::File, b"of another one", |entry| {
        entry.revision = None;
        entry.files[0].sha256 = None;
    })?;
    assert_eq!(error, "");
    assert!(!requests[0].to_lowercase().contains("range"), "{requests:?}");
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn here() -> Result<(), Failed> {
    let ((url, requests), folder) = (hub(Answer::File)?, tempfile::tempdir()?);
    fs::create_dir(folder.path().join("unet"))?;
    fs::write(folder.path().join("unet/model.safetensors"), BYTES)?;
    let mut told = Vec::new();
    let mut tell = |progress: Progress| told.push(matches!(progress, Progress::Here(_)));
    fetch(&entry(), folder.path(), &Hub { url, token: None }, &mut tell)?;
    assert_eq!(told, [true]);
    ensure(requests.lock().expect("the list of requests").is_empty(), "it was asked for")
}

fn truncated() -> Result<(), Failed> {
    let (folder, _, error) = fetched(Answer::Cut(5), &BYTES[..10], |_| {})?;
    let there = BYTES.len() - 5;
    assert!(error.contains(URL) && error.contains(&format!("ended after {there} bytes")), "{error}");
    assert_eq!(fs::read(folder.path().join("unet/model.safetensors.part"))?, BYTES[..there]);
    ensure(!folder.path().join("unet/model.safetensors").exists(), "half a file has its name")
}

fn wrong_sum() -> Result<(), Failed> {
    let (folder, _, error) = fetched(Answer::File, b"x", |_| {})?;
    assert!(error.contains("has the SHA-256") && error.contains(SUM) && error.contains("removed"), "{error}");
    ensure(fs::read_dir(folder.path().join("unet"))?.count() == 0, "something is left")
}

fn wrong_size() -> Result<(), Failed> {
    let (folder, _, error) = fetched(Answer::File, b"", |entry| entry.files[0].bytes = Some(7))?;
    assert!(error.contains("has 33 bytes, and the manifest's file 7"), "{error}");
    ensure(fs::read_dir(folder.path().join("unet"))?.count() == 0, "something was received")
}

fn refusals() -> Result<(), Failed> {
    for (status, what) in [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "is not there (404)"), (503, "try again later")]
    {
        let (_, _, error) = fetched(Answer::Status(status), b"", |_| {})?;
        assert!(error.contains(URL) && error.contains(what) && !error.contains('\n'), "{error}");
    }
    Ok(())
}

fn token() -> Result<(), Failed> {
    let (_, requests, _) = fetched(Answer::File, b"", |_| {})?;
    ensure(!requests[0].contains("secret"), "the token was sent")
}

fn unreachable() -> Result<(), Failed> {
    // The port of a listener that is gone.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = tempfile::tempdir()?;
    let hub = Hub { url: format!("http://{address}"), token: None };
    let error = fetch(&entry(), folder.path(), &hub, &mut |_| {}).err().ok_or("it was reached")?.to_string();
    ensure(error.contains(&address.to_string()) && error.contains("cannot be reached"), error)
}

fn command() -> Result<(), Failed> {
    let ((url, requests), folder) = (hub(Answer::Status(404))?, tempfile::tempdir()?);
    let run = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
        command.args(["models", "fetch", name]).env("HF_ENDPOINT", format!("{url}/"));
        let output = command.env("ORNSTEIN_MODELS", folder.path()).output()?;
        Ok::<_, Failed>((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (status, text) = run("sd15")?;
    assert!(status == Some(1) && text.contains("model_index.json: is not there (404)"), "{text}");
    let path = "/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/";
    assert!(requests.lock().expect("the list of requests")[0].starts_with(&format!("GET {path}")));
    let (status, text) = run("nonesuch")?;
    assert!(status == Some(2) && text.contains("no model is called nonesuch; known are shapes"), "{text}");
    let (status, text) = run("shapes")?;
    ensure(status == Some(0) && text.contains("part of the program"), text)
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
    ensure(is_here()?, "with all of it")?;
    let unet = model.join("unet/diffusion_pytorch_model.safetensors");
    fs::rename(&unet, unet.with_extension("safetensors.part"))?;
    ensure(!is_here()?, "with half of its UNet")
}
