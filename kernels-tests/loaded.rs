//! Pictures that follow each other: networks that stay loaded draw what fresh ones do.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Failed, Trial};
use ornstein::error::Error;
use ornstein::network::Executor;
use ornstein::pipeline::{Event, Made, Pictures, Pipeline, Request};
use ornstein::weights::Model;

use crate::support::{ensure, test};

const PROMPTS: [&str; 2] = ["a red circle on a blue background", "a green square on a white background"];

pub fn trials() -> Vec<Trial> {
    vec![
        test("loaded::networks_draw_the_same_as_fresh_ones", networks_draw_the_same_as_fresh_ones),
        test("loaded::spans_add_up_to_the_whole", spans_add_up_to_the_whole),
        test("loaded::each_picture_is_handed_out_before_the_next_is_made", each_picture_is_handed_out),
        test("loaded::a_file_of_prompts_is_drawn_line_by_line", a_file_of_prompts_is_drawn_line_by_line),
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
    make: impl AsyncFnOnce(&AtomicBool, &mut dyn FnMut(ornstein::pipeline::Event<'_>)) -> ornstein::error::Result<Pictures>,
) -> Result<Pictures, Failed> {
    Ok(pollster::block_on(make(&AtomicBool::new(false), &mut |_| {}))?)
}

/// Another prompt, another size, and the first again.
fn networks_draw_the_same_as_fresh_ones() -> Result<(), Failed> {
    let pipeline = Pipeline::open(Model::builtin())?;
    let mut loaded = pipeline.load(&Executor::Cpu);
    for (prompt, size) in [(PROMPTS[0], 64), (PROMPTS[1], 64), (PROMPTS[0], 48), (PROMPTS[0], 64)] {
        let request = request(prompt, size);
        let kept = drawn(async |cancel, tell| loaded.generate(&request, cancel, tell).await)?;
        let fresh = drawn(async |cancel, tell| pipeline.generate(&Executor::Cpu, &request, cancel, tell).await)?;
        ensure(kept.pixels == fresh.pixels && kept.latents == fresh.latents, format!("{prompt} at {size} differs"))?;
    }
    Ok(())
}

fn spans_add_up_to_the_whole() -> Result<(), Failed> {
    let (pipeline, request) = (Pipeline::open(Model::builtin())?, request(PROMPTS[0], 64));
    let pictures = drawn(async |cancel, tell| pipeline.generate(&Executor::Cpu, &request, cancel, tell).await)?;
    let (spans, total) = (pictures.spans.iter().map(|span| span.seconds).sum::<f64>(), pictures.seconds.total);
    ensure(spans <= total && total - spans < 0.01, format!("{spans} s of {total} s"))
}

fn each_picture_is_handed_out() -> Result<(), Failed> {
    let (pipeline, request) = (Pipeline::open(Model::builtin())?, Request { batch: 3, ..request(PROMPTS[0], 64) });
    let whole = drawn(async |cancel, tell| pipeline.generate(&Executor::Cpu, &request, cancel, tell).await)?;
    let (mut made, cancel) = (Vec::new(), AtomicBool::new(false));
    let mut keep = |what: Made<'_>| {
        made.push(match what {
            Made::Latents(latents) if *latents == whole.latents => "latents".to_string(),
            Made::Picture(index, rgb) if rgb == whole.pixels[index] => format!("picture {index}"),
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

fn a_file_of_prompts_is_drawn_line_by_line() -> Result<(), Failed> {
    let at = tempfile::tempdir()?;
    let generate = |arguments: &[&str]| -> Result<(), Failed> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ornstein"));
        command.current_dir(&at).args(["generate", "--device", "cpu", "--steps", "2", "--seed", "7"]).args(arguments);
        let output = command.output()?;
        ensure(output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    std::fs::write(at.path().join("prompts.txt"), format!("{}\n\n  {}\n", PROMPTS[0], PROMPTS[1]))?;
    generate(&["--prompts", "prompts.txt", "--output", "many.png"])?;
    for (line, prompt) in (1..).zip(PROMPTS) {
        generate(&[prompt, "--output", "one.png"])?;
        let read = |name: &str| std::fs::read(Path::new(at.path()).join(name));
        ensure(read(&format!("many-{line}-7.png"))? == read("one.png")?, format!("line {line} differs"))?;
    }
    Ok(())
}
