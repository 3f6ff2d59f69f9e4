//! Pictures that follow each other: networks that stay loaded draw what fresh ones do.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Error;
use ornstein::network::Executor;
use ornstein::systems::{Event, Made, Pictures, Request, Studio, Tell};
use ornstein::weights::Model;

use crate::support::{ensure, test};

const PROMPTS: [&str; 2] = ["a red circle on a blue background", "a green square on a white background"];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        test("loaded::networks_draw_the_same_as_fresh_ones", networks_draw_the_same_as_fresh_ones),
        test("loaded::spans_add_up_to_the_whole", spans_add_up_to_the_whole),
        test("loaded::each_picture_is_handed_out_before_the_next_is_made", each_picture_is_handed_out),
        test("loaded::a_file_of_prompts_is_drawn_line_by_line", a_file_of_prompts_is_drawn_line_by_line),
        test("loaded::a_million_prompts_begin_at_once", a_million_prompts_begin_at_once),
        test("loaded::a_tag_in_a_million_prompts_is_checked_before_the_first", a_tag_is_checked_before_the_first),
    ]
}

fn request(prompt: &str, size: usize) -> Request {
    Request {
        prompt: prompt.into(),
        steps: Some(2),
        width: Some(size),
        height: Some(size),
        batch: 1,
        seed: 7,
        ..Request::default()
    }
}

fn drawn(
    make: impl AsyncFnOnce(&AtomicBool, &mut Tell<'_>) -> ornstein::error::Result<Pictures>,
) -> Result<Pictures, Failed> {
    Ok(pollster::block_on(make(&AtomicBool::new(false), &mut |_| {}))?)
}

/// Another prompt, another size, and the first again.
fn networks_draw_the_same_as_fresh_ones() -> Result<(), Failed> {
    let pipeline = Studio::open(Model::builtin())?;
    let mut loaded = pipeline.load(&Executor::Cpu);
    for (prompt, size) in [(PROMPTS[0], 64), (PROMPTS[1], 64), (PROMPTS[0], 48), (PROMPTS[0], 64)] {
        let request = request(prompt, size);
        let kept = drawn(async |cancel, tell| loaded.generate(&request, cancel, tell).await)?;
        let fresh = drawn(async |cancel, tell| pipeline.generate(&Executor::Cpu, &request, cancel, tell).await)?;
        ensure(
            kept.pictures == fresh.pictures && kept.latents == fresh.latents,
            format!("{prompt} at {size} differs"),
        )?;
    }
    Ok(())
}

fn spans_add_up_to_the_whole() -> Result<(), Failed> {
    let (pipeline, request) = (Studio::open(Model::builtin())?, request(PROMPTS[0], 64));
    let pictures = drawn(async |cancel, tell| pipeline.generate(&Executor::Cpu, &request, cancel, tell).await)?;
    let (spans, total) = (pictures.spans.iter().map(|span| span.seconds).sum::<f64>(), pictures.seconds.total);
    ensure(spans <= total && total - spans < 0.01, format!("{spans} s of {total} s"))
}

fn each_picture_is_handed_out() -> Result<(), Failed> {
    let (pipeline, request) = (Studio::open(Model::builtin())?, Request { batch: 3, ..request(PROMPTS[0], 64) });
    let whole = drawn(async |cancel, tell| pipeline.generate(&Executor::Cpu, &request, cancel, tell).await)?;
    let (mut made, cancel) = (Vec::new(), AtomicBool::new(false));
    let mut keep = |what: Made<'_>| {
        made.push(match what {
            Made::Latents(latents) if *latents == whole.latents => "latents".to_string(),
            Made::Picture(index, picture) if *picture == whole.pictures[index] => format!("picture {index}"),
            other => format!("another: {other:?}"),
        });
        cancel.store(made.len() == 3, Ordering::Relaxed);
        Ok(())
    };
    let tell = &mut |_: Event<'_>| {};
    let stopped = pollster::block_on(pipeline.generate_each(&Executor::Cpu, &request, &cancel, tell, &mut keep));
    ensure(matches!(stopped, Err(Error::Interrupted)), "it goes on")?;
    ensure(made == ["latents", "picture 0", "picture 1"], format!("{made:?}"))
}

fn command(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
    command.current_dir(at).args(["generate", "--device", "cpu", "--steps", "2", "--seed", "7"]).args(arguments);
    command
}

/// With comments, empty lines and a byte order mark, from a file in UTF-8 and in UTF-16, and from stdin.
fn a_file_of_prompts_is_drawn_line_by_line() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let generate = |arguments: &[&str], stdin: Option<&str>| -> Result<(), Failed> {
        let mut command = command(at.path(), arguments);
        if let Some(stdin) = stdin {
            command.stdin(std::fs::File::open(at.path().join(stdin))?);
        }
        let output = command.output()?;
        ensure(output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let text = format!("\u{feff}{}\r\n# a comment\r\n\r\n  {}\r\n", PROMPTS[0], PROMPTS[1]);
    std::fs::write(at.path().join("prompts.txt"), &text)?;
    std::fs::write(at.path().join("utf16.txt"), text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())?;
    std::fs::write(at.path().join("one.txt"), format!("\u{feff}{}\r\n", PROMPTS[0]))?;
    generate(&["--prompts", "prompts.txt", "--output", "many.png"], None)?;
    generate(&["--prompts", "utf16.txt", "--output", "wide.png"], None)?;
    generate(&["--prompts", "-", "--output", "piped.png"], Some("prompts.txt"))?;
    generate(&["-", "--output", "stdin.png"], Some("one.txt"))?;
    let read = |name: &str| std::fs::read(at.path().join(name));
    for (number, prompt) in (1..).zip(PROMPTS) {
        generate(&[prompt, "--output", "one.png"], None)?;
        for name in ["many", "wide", "piped"] {
            ensure(read(&format!("{name}-{number}-7.png"))? == read("one.png")?, format!("{name} {number} differs"))?;
        }
        ensure(number > 1 || read("stdin.png")? == read("one.png")?, "the prompt of stdin differs")?;
    }
    Ok(())
}

fn a_million_prompts_begin_at_once() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    std::fs::write(at.path().join("prompts.txt"), "a red circle\n".repeat(1_000_000))?;
    let mut child =
        command(at.path(), &["--prompts", "prompts.txt", "--output", "many.png"]).stdout(Stdio::null()).spawn()?;
    let (begun, first) = (Instant::now(), at.path().join("many-0000001-7.png"));
    // Every path by itself would take minutes.
    while !first.exists() && begun.elapsed() < Duration::from_secs(20) && child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    ensure(first.exists(), "there is no picture yet")
}

fn a_tag_is_checked_before_the_first() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let prompts = "a red circle\n".repeat(1_000_000) + "a <lora:nobody:0.5> circle\n";
    std::fs::write(at.path().join("prompts.txt"), prompts)?;
    let tags = ["--prompts", "prompts.txt", "--prompt-syntax", "weighted", "--lora-dir", "."];
    let output = command(at.path(), &tags).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure(said.contains("<lora:nobody> in the prompt: no file of this name is in the folders"), said)?;
    ensure(std::fs::read_dir(&at)?.count() == 1, "a picture was drawn")
}
