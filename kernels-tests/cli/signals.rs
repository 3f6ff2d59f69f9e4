//! Signals, at any moment of every command that writes: which exit status, and what is left.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libc::{SIGHUP, SIGINT, SIGTERM, c_int};
use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::image::decode;
use ornstein::tensor::Tensor;
use ornstein::weights::write_tensors;

use super::{files, text};
use crate::support::{copy_of_the_model, ensure, test};

/// The outputs of each command that writes, which come last in its arguments.
const WRITING: &[(&str, &[&str], &str)] = &[
    ("generate", &["generate", "red", "--device", "cpu", "--steps", "2", "--seed", "1", "-o"], "a.png"),
    (
        "save_latents",
        &["generate", "red", "--device", "cpu", "--steps", "2", "--seed", "1", "-o", "/dev/null", "--save-latents"],
        "a.safetensors",
    ),
    (
        "forward",
        &["forward", "vae-decoder", "--device", "cpu", "--inputs", "z.safetensors", "--outputs"],
        "a.safetensors",
    ),
    ("convert_file", &["convert", "z.safetensors", "--to", "q8_0", "-o"], "a.gguf"),
    ("bench", &["bench", "add", "--suite", "cases", "--device", "cpu", "--html"], "a.html"),
    ("shader", &["shader", "matmul", "-o"], "a.wgsl"),
];

const SIGNALS: [(&str, c_int); 3] = [("int", SIGINT), ("term", SIGTERM), ("hup", SIGHUP)];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = vec![
        in_a_folder("a_batchs_pictures_are_there_as_each_is_done".into(), a_batchs_pictures_are_there),
        in_a_folder("a_folder_is_converted_whole_or_not_at_all".into(), a_folder_is_converted_whole),
        in_a_folder("a_download_keeps_what_came".into(), a_download_keeps_what_came),
        in_a_folder("a_long_pass_ends".into(), a_long_pass_ends),
        in_a_folder("a_pipe_that_nobody_reads_ends".into(), a_pipe_that_nobody_reads_ends),
        in_a_folder("what_was_ignored_stays_ignored".into(), what_was_ignored_stays_ignored),
    ];
    for &(name, arguments, output) in WRITING {
        for (signal_name, signal) in SIGNALS {
            trials.push(in_a_folder(format!("{name}_is_whole_or_not_there_after_{signal_name}"), move |at| {
                is_whole_or_not_there(at, arguments, output, signal)
            }));
        }
        trials.push(in_a_folder(format!("{name}_ends_while_it_waits_for_a_reader"), move |at| {
            ends_while_it_waits_for_a_reader(at, arguments, output)
        }));
        trials.push(in_a_folder(format!("{name}_tells_of_the_limit_on_file_sizes"), move |at| {
            tells_of_the_limit_on_file_sizes(at, arguments, output)
        }));
    }
    trials
}

fn in_a_folder(name: String, check: impl FnOnce(&Path) -> Result<(), Failed> + Send + 'static) -> Trial {
    test(format!("signals::{name}"), move || {
        let folder = tempfile::tempdir()?;
        let z = Tensor::new([1, 4, 16, 16], (0..1024).map(|i| (i as f32).sin()).collect());
        write_tensors(&folder.path().join("z.safetensors"), &[("z", &z)])?;
        check(folder.path())
    })
}

/// The program as a shell starts it in the foreground: a run of the tests in the background ignores some signals.
fn command(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
    command.current_dir(at).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    act(&mut command, libc::SIG_DFL);
    command
}

/// What the program finds that is done about signals.
fn act(command: &mut Command, action: libc::sighandler_t) {
    let act = move || {
        // SAFETY: `signal` may be called between fork and exec.
        SIGNALS.iter().for_each(|(_, signal)| unsafe { _ = libc::signal(*signal, action) });
        Ok(())
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(act) };
}

/// Starts it, and waits until it heeds signals.
fn start(command: &mut Command) -> Result<Child, Failed> {
    let child = command.spawn()?;
    until(|| Ok(heeds(&child)))?;
    Ok(child)
}

/// Whether the program handles SIGTERM by now; elsewhere than on Linux it has had the time.
fn heeds(child: &Child) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", child.id())) else {
        sleep(Duration::from_secs(1));
        return true;
    };
    let caught = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
    // What has ended catches nothing.
    status.contains("\nState:\tZ") || caught.is_some_and(|caught| caught >> (SIGTERM - 1) & 1 == 1)
}

/// Waits for what comes in a moment, or else never.
fn until(mut there: impl FnMut() -> Result<bool, Failed>) -> Result<(), Failed> {
    let begun = Instant::now();
    while !there()? {
        ensure(begun.elapsed() < Duration::from_secs(60), "nothing comes")?;
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn send(child: &Child, signal: c_int) {
    // SAFETY: the child has not been waited for, so its number is its own.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

/// What it said until its end, which is soon.
fn ended(mut child: Child) -> Result<Output, Failed> {
    let end = until(|| Ok(child.try_wait()?.is_some()));
    if end.is_err() {
        child.kill()?;
        return Err("it goes on".into());
    }
    Ok(child.wait_with_output()?)
}

fn interrupted(output: &Output, signal: c_int) -> Result<(), Failed> {
    ensure(output.status.code() == Some(128 + signal), format!("{}: {}", output.status, text(&output.stderr)))?;
    ensure(output.stdout.is_empty(), format!("stdout holds {}", text(&output.stdout)))?;
    ensure(text(&output.stderr).ends_with("ornstein: interrupted\n"), text(&output.stderr))
}

fn fifo(path: &Path) -> Result<(), Failed> {
    ensure(Command::new("mkfifo").arg(path).status()?.success(), "there is no FIFO")
}

/// A signal at several moments, with another file under the output's name before.
fn is_whole_or_not_there(at: &Path, arguments: &[&str], output: &str, signal: c_int) -> Result<(), Failed> {
    let path = at.join(output);
    ensure(command(at, &[arguments, &[output]].concat()).output()?.status.success(), "it fails")?;
    // A report's numbers differ each time, its end does not.
    let ending = |bytes: &[u8]| bytes[bytes.len().saturating_sub(8)..].to_vec();
    let whole = ending(&std::fs::read(&path)?);
    for delay in [0, 40, 160, 640] {
        std::fs::write(&path, "what was there before")?;
        let before = files(at)?;
        let child = start(&mut command(at, &[arguments, &[output]].concat()))?;
        sleep(Duration::from_millis(delay));
        send(&child, signal);
        let said = ended(child)?;
        let found = std::fs::read(&path)?;
        if said.status.code() != Some(0) {
            ensure(said.status.code() == Some(128 + signal), format!("{}: {}", said.status, text(&said.stderr)))?;
            ensure(found == b"what was there before" || ending(&found) == whole, "it is half-written")?;
        } else {
            ensure(ending(&found) == whole, "it is not written")?;
        }
        ensure(files(at)? == before, format!("files left behind: {:?}", files(at)?))?;
    }
    Ok(())
}

fn ends_while_it_waits_for_a_reader(at: &Path, arguments: &[&str], output: &str) -> Result<(), Failed> {
    fifo(&at.join(output))?;
    let before = files(at)?;
    let child = start(&mut command(at, &[arguments, &[output]].concat()))?;
    // It is there by now, or ends before.
    sleep(Duration::from_millis(500));
    send(&child, SIGINT);
    interrupted(&ended(child)?, SIGINT)?;
    ensure(files(at)? == before, format!("files left behind: {:?}", files(at)?))
}

fn tells_of_the_limit_on_file_sizes(at: &Path, arguments: &[&str], output: &str) -> Result<(), Failed> {
    let before = files(at)?;
    let limited = Command::new("sh")
        .current_dir(at)
        .args(["-c", "ulimit -f 1; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ornstein")])
        .args(arguments)
        .arg(output)
        .output()?;
    let said = text(&limited.stderr);
    ensure(limited.status.code() == Some(1), format!("{}: {said}", limited.status))?;
    ensure(said.contains(&format!("{output}: is larger than the limit on file sizes (ulimit -f)")), &said)?;
    ensure(files(at)? == before, format!("files left behind: {:?}", files(at)?))
}

/// The second picture has no reader, so that there is a moment between the two.
fn a_batchs_pictures_are_there(at: &Path) -> Result<(), Failed> {
    fifo(&at.join("a-2.png"))?;
    let arguments = ["generate", "red", "--device", "cpu", "--steps", "1", "--seed", "1", "-b", "2", "-o", "a.png"];
    let child = start(&mut command(at, &[&arguments[..], &["--json"]].concat()))?;
    until(|| Ok(at.join("a-1.png").exists()))?;
    send(&child, SIGTERM);
    interrupted(&ended(child)?, SIGTERM)?;
    decode("a-1.png", &std::fs::read(at.join("a-1.png"))?)?;
    ensure(files(at)?.len() == 3, format!("files left behind: {:?}", files(at)?))
}

fn a_folder_is_converted_whole(at: &Path) -> Result<(), Failed> {
    let model = copy_of_the_model(at)?;
    let arguments = ["convert", "model", "--to", "q8_0", "-o", "out/small"];
    for (signal, delay) in [(SIGINT, 0), (SIGTERM, 20), (SIGHUP, 80), (SIGINT, 320)] {
        let child = start(&mut command(at, &arguments))?;
        sleep(Duration::from_millis(delay));
        send(&child, signal);
        let said = ended(child)?;
        ensure(
            [Some(0), Some(128 + signal)].contains(&said.status.code()),
            format!("{}: {}", said.status, text(&said.stderr)),
        )?;
        if at.join("out").exists() {
            ensure(files(&at.join("out/small"))?.len() == files(&model)?.len(), "it is half-written")?;
            ensure(files(&at.join("out"))?.len() == 1, format!("left behind: {:?}", files(&at.join("out"))?))?;
            std::fs::remove_dir_all(at.join("out"))?;
        }
        ensure(files(at)? == [model.clone(), at.join("z.safetensors")], format!("left behind: {:?}", files(at)?))?;
    }
    Ok(())
}

/// A hub that stops in the middle of a file.
fn stalled_hub() -> Result<String, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let head = "HTTP/1.1 200 X\r\nContent-Length: 4265146304\r\n\r\n";
                _ = stream.write_all(&[head.as_bytes(), &[7; 1000]].concat());
                _ = stream.read(&mut [0]);
            });
        }
    });
    Ok(url)
}

fn a_download_keeps_what_came(at: &Path) -> Result<(), Failed> {
    let mut command = command(at, &["models", "fetch", "sd15-checkpoint"]);
    let child = start(command.env("HF_ENDPOINT", stalled_hub()?).env("ORNSTEIN_MODELS", at.join("models")))?;
    let part = || -> Result<Option<u64>, Failed> {
        let Ok(names) = files(&at.join("models/sd15-checkpoint")) else { return Ok(None) };
        let part = names.iter().find(|path| path.to_string_lossy().ends_with(".safetensors.part"));
        Ok(part.map(|path| path.metadata()).transpose()?.map(|metadata| metadata.len()))
    };
    until(|| Ok(part()? == Some(1000)))?;
    send(&child, SIGINT);
    interrupted(&ended(child)?, SIGINT)?;
    ensure(part()? == Some(1000), "what came is gone")
}

/// One pass of this size takes minutes, so the flag is not seen in time.
fn a_long_pass_ends(at: &Path) -> Result<(), Failed> {
    let size = ["--width", "1024", "--height", "1024", "--guidance", "1"];
    let child = start(&mut command(at, &[&["generate", "red", "--device", "cpu"], &size[..]].concat()))?;
    sleep(Duration::from_secs(1));
    send(&child, SIGINT);
    let output = ended(child)?;
    interrupted(&output, SIGINT)?;
    ensure(text(&output.stderr) == "ornstein: interrupted\n", text(&output.stderr))?;
    ensure(files(at)?.len() == 1, format!("files left behind: {:?}", files(at)?))
}

/// The picture is more than a pipe holds, and so is there no room for the last line in one of the two.
fn a_pipe_that_nobody_reads_ends(at: &Path) -> Result<(), Failed> {
    for output in ["-", "/dev/stderr"] {
        let arguments = ["generate", "red", "--device", "cpu", "--steps", "1", "-W", "256", "-H", "256", "-o", output];
        let mut child = start(&mut command(at, &arguments))?;
        sleep(Duration::from_secs(3));
        send(&child, SIGTERM);
        until(|| Ok(child.try_wait()?.is_some()))?;
        let code = child.wait()?.code();
        ensure(code == Some(128 + SIGTERM), format!("{code:?}"))?;
    }
    Ok(())
}

/// As by `nohup`.
fn what_was_ignored_stays_ignored(at: &Path) -> Result<(), Failed> {
    fifo(&at.join("a.wgsl"))?;
    let mut command = command(at, &["shader", "matmul", "-o", "a.wgsl"]);
    act(&mut command, libc::SIG_IGN);
    let mut child = command.spawn()?;
    sleep(Duration::from_millis(500));
    SIGNALS.iter().for_each(|(_, signal)| send(&child, *signal));
    sleep(Duration::from_millis(200));
    ensure(child.try_wait()?.is_none(), "it ended")?;
    child.kill()?;
    child.wait()?;
    Ok(())
}
