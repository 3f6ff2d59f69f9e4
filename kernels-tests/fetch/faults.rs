//! Downloading a model from hubs that answer badly, and by processes that are killed or meet each other.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::weights::fetch::{Hub, Patience, Progress, fetch};
use ornstein::weights::manifest;

use super::hub::{Answer, BYTES, SUM, Server, range};
use super::{Fetched, entry, fetched, is_whole, quick};
use crate::support::{ensure, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let tests = [
        ("what_stalls_is_resumed_by_itself", stalls as fn() -> Result<(), Failed>),
        ("what_is_slow_is_waited_for", slow),
        ("every_new_byte_is_a_new_chance", hang_ups),
        ("an_endless_body_stops_at_the_files_size", endless),
        ("a_busy_hub_is_waited_for", busy),
        ("a_hub_that_is_busy_for_long_is_an_error", busy_for_long),
        ("redirections_are_followed_without_the_token", redirected),
        ("redirections_in_a_circle_are_an_error", circle),
        ("what_the_hub_says_is_short_and_of_one_line", long_words),
        ("what_is_here_and_is_not_the_file_is_replaced", replaced),
        ("a_file_without_a_sum_must_be_of_its_kind", of_its_kind),
        ("the_second_of_two_waits_and_finds_it_done", two_at_once),
        ("one_that_was_killed_does_not_block_the_next", killed_holder),
        ("one_that_was_killed_is_gone_on_with", killed),
    ];
    let tests = tests.into_iter().map(|(name, run)| test(format!("fetch::{name}"), run));
    let refused = refused().map(|(name, answer, why)| {
        test(format!("fetch::{name}_is_refused"), move || {
            let Fetched { folder, error, .. } = fetched(answer, b"the weights", |_| {})?;
            assert!(error.contains(why), "{error}");
            // What was there is as good as before.
            assert_eq!(fs::read(folder.path().join("unet/model.safetensors.part"))?, b"the weights");
            ensure(!folder.path().join("unet/model.safetensors").exists(), "it has the file's name")
        })
    });
    let anew = anew().map(|(name, head)| {
        test(format!("fetch::{name}_begins_anew"), move || {
            let body = b"of another file entirely";
            let Fetched { folder, requests, error } =
                fetched([Answer::raw(head, body), Answer::File], b"the weights", |_| {})?;
            assert_eq!(error, "");
            assert_eq!(requests.iter().map(|request| range(request)).collect::<Vec<_>>(), [Some(11), None]);
            ensure(is_whole(folder.path())?, "it is not whole")
        })
    });
    tests.chain(refused).chain(anew).collect()
}

/// Answers that are not the file, and what is said of them.
fn refused() -> impl Iterator<Item = (&'static str, Answer, &'static str)> {
    let page = "<!DOCTYPE html><title>Sign in</title>";
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:8848\nsize 33\n";
    [
        ("a_page", Answer::raw("200 OK\r\nContent-Type: text/html", page), "a web page"),
        ("a_page_of_another_type", Answer::raw("200 OK\r\nContent-Type: application/octet-stream", page), "a web page"),
        ("a_pointer", Answer::raw("200 OK\r\nContent-Length: 68", pointer), "a git-lfs pointer"),
        ("an_empty_body", Answer::raw("200 OK\r\nContent-Length: 0", ""), "is empty"),
        ("a_packed_body", Answer::raw("200 OK\r\nContent-Encoding: gzip", BYTES), "is sent packed (gzip)"),
        ("no_content", Answer::raw("204 No Content", ""), "is not given (204)"),
    ]
    .into_iter()
}

/// Answers to `Range: bytes=11-` that do not go on there.
fn anew() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        ("a_range_that_starts_elsewhere", "206 X\r\nContent-Range: bytes 9-32/33\r\nContent-Length: 24"),
        ("a_range_of_another_length_than_its_body", "206 X\r\nContent-Range: bytes 11-32/33\r\nContent-Length: 24"),
        ("a_part_without_a_range", "206 X\r\nContent-Length: 24"),
        ("a_part_of_many_ranges", "206 X\r\nContent-Type: multipart/byteranges; boundary=x\r\nContent-Length: 24"),
    ]
    .into_iter()
}

/// A hub whose connections are given up after some seconds of silence.
fn impatient(url: &str, seconds: u64) -> Hub {
    let patience = Patience { idle: Duration::from_secs(seconds), ..quick() };
    Hub { url: url.into(), token: None, patience }
}

fn stalls() -> Result<(), Failed> {
    let (server, folder) = (Server::start([Answer::Stall(10), Answer::File])?, tempfile::tempdir()?);
    let mut told = String::new();
    fetch(&entry(), folder.path(), &impatient(&server.url, 3), &mut |progress| {
        if let Progress::Again(_, _, why) = progress {
            told += why;
        }
    })?;
    assert!(told.contains("after 10 bytes") && told.contains("nothing came for 3s"), "{told}");
    assert_eq!(range(&server.requests()[1]), Some(10));
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn slow() -> Result<(), Failed> {
    let (server, folder) = (Server::start([Answer::Slow])?, tempfile::tempdir()?);
    // All of it takes longer than the silence that is borne.
    fetch(&entry(), folder.path(), &impatient(&server.url, 1), &mut |_| {})?;
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn hang_ups() -> Result<(), Failed> {
    // More often than it may happen without a byte.
    let Fetched { folder, requests, error } = fetched([Answer::HangUp(4)], b"", |_| {})?;
    assert_eq!(error, "");
    assert_eq!(requests.len(), BYTES.len().div_ceil(4));
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn endless() -> Result<(), Failed> {
    for known in [true, false] {
        let (server, folder) = (Server::start([Answer::Endless])?, tempfile::tempdir()?);
        let mut entry = entry();
        entry.files[0].path = "merges.txt".into();
        let size = if known { BYTES.len() as u64 } else { 64 << 20 };
        entry.files[0].bytes = known.then_some(size);
        let mut most = 0;
        let result = fetch(&entry, folder.path(), &hub(&server.url), &mut |progress| {
            if let Progress::Bytes(_, done, _) = progress {
                most = most.max(done);
            }
        });
        let error = result.err().ok_or("it was taken")?.to_string();
        assert!(error.contains(&format!("goes on after {size} bytes")) && most == size, "{most}: {error}");
        ensure(!folder.path().join("merges.txt.part").exists(), "something is left")?;
    }
    Ok(())
}

fn hub(url: &str) -> Hub {
    Hub { url: url.into(), token: Some("secret".into()), patience: quick() }
}

fn busy() -> Result<(), Failed> {
    let answers = [
        Answer::raw("429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0", ""),
        Answer::raw("503 X\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0", ""),
        Answer::File,
    ];
    let (server, folder, began) = (Server::start(answers)?, tempfile::tempdir()?, Instant::now());
    let mut told = Vec::new();
    fetch(&entry(), folder.path(), &hub(&server.url), &mut |progress| {
        if let Progress::Again(_, pause, why) = progress {
            told.push((pause, why.to_string()));
        }
    })?;
    assert!(told.len() == 2 && told[0].1.contains("429") && told[1].1.contains("503"), "{told:?}");
    assert_eq!((told[0].0, told[1].0), (Duration::from_secs(1), Duration::ZERO));
    assert!(began.elapsed() >= Duration::from_secs(1), "it did not wait");
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn busy_for_long() -> Result<(), Failed> {
    let answer = Answer::raw("429 Too Many Requests\r\nRetry-After: 86400\r\nContent-Length: 0", "");
    let Fetched { requests, error, .. } = fetched(answer, b"", |_| {})?;
    assert!(error.contains("(429)") && error.contains("86400 s"), "{error}");
    assert_eq!(requests.len(), 1);
    let Fetched { requests, error, .. } = fetched(Answer::Status(429), b"", |_| {})?;
    assert!(error.contains("(429)") && error.contains("try again later"), "{error}");
    assert_eq!(requests.len() as u32, quick().tries + 1);
    Ok(())
}

fn redirected() -> Result<(), Failed> {
    let elsewhere = Server::start([Answer::File])?;
    let there = format!("302 X\r\nContent-Length: 0\r\nLocation: {}/there", elsewhere.url);
    let server =
        Server::start([Answer::raw("307 X\r\nContent-Length: 0\r\nLocation: /here", ""), Answer::raw(there, "")])?;
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("unet"))?;
    fs::write(folder.path().join("unet/model.safetensors.part"), &BYTES[..10])?;
    fetch(&entry(), folder.path(), &hub(&server.url), &mut |_| {})?;
    let (first, last) = (server.requests(), elsewhere.requests());
    assert!(first.len() == 2 && first[1].starts_with("get /here "), "{first:?}");
    assert!(last.len() == 1 && last[0].starts_with("get /there ") && !last[0].contains("secret"), "{last:?}");
    assert_eq!(range(&last[0]), Some(10));
    ensure(is_whole(folder.path())?, "it is not whole")
}

fn circle() -> Result<(), Failed> {
    let answer = Answer::raw("302 X\r\nContent-Length: 0\r\nLocation: /again", "");
    let Fetched { requests, error, .. } = fetched(answer, b"", |_| {})?;
    assert!(error.contains("is redirected again and again"), "{error}");
    ensure(requests.len() < 20, format!("{} requests", requests.len()))
}

fn long_words() -> Result<(), Failed> {
    for head in ["302 X\r\nContent-Length: 0\r\nLocation: /", "200 X\r\nContent-Encoding: ", "404 ", "299 "] {
        for word in [&b"\x1b[2J"[..], b"\xc2\x9b", b"x"] {
            let long = [head.as_bytes(), &word.repeat(3000)].concat();
            let Fetched { error, .. } = fetched(Answer::raw(long, ""), b"", |_| {})?;
            assert!(!error.is_empty() && error.len() < 2000, "{} bytes: {error}", error.len());
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }
    Ok(())
}

fn replaced() -> Result<(), Failed> {
    let other = BYTES.to_ascii_uppercase();
    let wrong = [(&other[..], true, "has the SHA-256"), (b"", false, "is empty"), (b"short", true, "has 5 bytes")];
    for (bytes, has_sum, why) in wrong {
        let (server, folder) = (Server::start([Answer::File])?, tempfile::tempdir()?);
        fs::create_dir(folder.path().join("unet"))?;
        fs::write(folder.path().join("unet/merges.txt"), bytes)?;
        let mut entry = entry();
        entry.files[0].path = "unet/merges.txt".into();
        entry.files[0].sha256 = entry.files[0].sha256.take().filter(|_| has_sum);
        let mut told = String::new();
        fetch(&entry, folder.path(), &hub(&server.url), &mut |progress| {
            if let Progress::Replaces(_, why) = progress {
                told += why;
            }
        })?;
        assert!(told.contains(why), "{why}: {told}");
        assert_eq!(fs::read(folder.path().join("unet/merges.txt"))?, BYTES);
    }
    Ok(())
}

fn of_its_kind() -> Result<(), Failed> {
    for (path, why) in [("unet/config.json", "is not JSON"), ("unet/model.safetensors", "is not a safetensors file")] {
        let Fetched { folder, error, .. } = fetched(Answer::File, b"", |entry| {
            entry.files[0].sha256 = None;
            entry.files[0].path = path.into();
        })?;
        assert!(error.contains(why) && error.contains("removed"), "{error}");
        ensure(fs::read_dir(folder.path().join("unet"))?.count() == 0, "something is left")?;
    }
    Ok(())
}

fn two_at_once() -> Result<(), Failed> {
    let (server, folder) = (Server::start([Answer::File])?, tempfile::tempdir()?);
    let (path, url) = (folder.path().to_path_buf(), server.url.clone());
    let (mut second, mut before) = (None, 0);
    fetch(&entry(), folder.path(), &hub(&server.url), &mut |progress| {
        if matches!(progress, Progress::Bytes(..)) && second.is_none() {
            before += 1;
            let (path, url, (sender, receiver)) = (path.clone(), url.clone(), channel());
            second = Some(std::thread::spawn(move || {
                let mut told = Vec::new();
                let result = fetch(&entry(), &path, &hub(&url), &mut |progress| {
                    if matches!(progress, Progress::Waits(_)) {
                        _ = sender.send(());
                    }
                    told.push(format!("{progress:?}"));
                });
                result.map(|()| told)
            }));
            receiver.recv().expect("the second waits");
        }
    })?;
    let told = second.ok_or("nothing came")?.join().map_err(|_| "the second panicked")??;
    let names: Vec<_> = told.iter().map(|told| told.split('(').next().unwrap_or_default()).collect();
    assert_eq!(names, ["Waits", "Checks", "Here"]);
    assert_eq!(server.requests().len(), 1);
    ensure(is_whole(folder.path())?, "it is not whole")
}

/// A name of the manifest whose only file has no size there.
const NAME: &str = "sd15-checkpoint-fp16";
const FILE: &str = "sd15-checkpoint-fp16/v1-5-pruned-emaonly-fp16.safetensors";

/// `ornstein models fetch` of that model.
fn run(url: &str, models: &Path) -> Result<Child, Failed> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
    command.args(["models", "fetch", NAME]).env("HF_ENDPOINT", url).env("ORNSTEIN_MODELS", models);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
}

/// When the hub falls silent: late enough for what came to be written.
const STALL: usize = 32;

/// One that has received this much, and then hears nothing more.
fn run_until_it_stalls(url: &str, models: &Path) -> Result<Child, Failed> {
    let (mut child, part) = (run(url, models)?, models.join(format!("{FILE}.part")));
    let began = Instant::now();
    while fs::metadata(&part).map_or(0, |part| part.len()) < STALL as u64 {
        if began.elapsed() > Duration::from_secs(100) || child.try_wait()?.is_some() {
            drop(child.kill());
            return Err("what should come never came".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child)
}

fn killed_holder() -> Result<(), Failed> {
    let (server, models) = (Server::start([Answer::Stall(STALL), Answer::File])?, tempfile::tempdir()?);
    let mut first = run_until_it_stalls(&server.url, models.path())?;
    let mut second = run(&server.url, models.path())?;
    let mut lines = BufReader::new(second.stderr.take().ok_or("no stderr")?).lines();
    let line = lines.next().ok_or("the second says nothing")??;
    first.kill()?;
    first.wait()?;
    assert!(line.contains("another process fetches into"), "{line}");
    let rest = lines.collect::<Result<Vec<_>, _>>()?;
    // These bytes are not those of the manifest's sum.
    assert_eq!(second.wait()?.code(), Some(1));
    assert!(!rest.concat().contains("another process") && rest.concat().contains("has the SHA-256"), "{rest:?}");
    let requests = server.requests();
    assert_eq!(requests.iter().map(|request| range(request)).collect::<Vec<_>>(), [None, Some(STALL)]);
    Ok(())
}

fn killed() -> Result<(), Failed> {
    let (server, models) = (Server::start([Answer::Stall(STALL), Answer::File])?, tempfile::tempdir()?);
    let mut child = run_until_it_stalls(&server.url, models.path())?;
    child.kill()?;
    child.wait()?;
    ensure(!models.path().join(FILE).exists(), "half a file has its name")?;
    let mut entry = manifest::find(NAME).ok_or("no such name")?.clone();
    entry.files[0].sha256 = Some(SUM.into());
    fetch(&entry, &models.path().join(NAME), &hub(&server.url), &mut |_| {})?;
    assert_eq!(range(&server.requests()[1]), Some(STALL));
    assert_eq!(fs::read(models.path().join(FILE))?, BYTES);
    ensure(!models.path().join(format!("{FILE}.part")).exists(), "its part is left")
}
