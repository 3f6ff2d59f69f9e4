//! Devices that cannot hold all that a picture takes.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Result;
use ornstein::gpu::shader::Sources;
use ornstein::image::decode;
use ornstein::network::{Executor, IfWrong};
use ornstein::systems::{Event, Made, Pictures, Request, Studio};
use ornstein::tensor::DType;
use ornstein::weights::Model;

use crate::networks::data;
use crate::support::{ensure, on_gpu, open};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        on_gpu("memory::a_decoder_that_does_not_fit_runs_in_diffusers_tiles".into(), |_| decoded_in_tiles()),
        on_gpu("memory::each_part_of_a_batch_is_decoded_before_the_next".into(), |_| decoded_part_by_part()),
        on_gpu("memory::a_unet_that_does_not_fit_is_an_error_that_names_the_node".into(), |_| refused()),
    ]
}

/// The adapter as if it bound no more than this.
pub fn binding(most: u64) -> Result<Executor, Failed> {
    let mut gpu = open(Sources::default())?;
    Arc::get_mut(&mut gpu).ok_or("somebody else has the device")?.context.caps.max_binding = most;
    Ok(Executor::Gpu(gpu, DType::F32, IfWrong::UseAnyway))
}

/// One step of pictures whose decoder has the largest values of all.
fn request(batch: usize) -> Request {
    Request {
        prompt: "a red circle".into(),
        width: Some(256),
        height: Some(256),
        steps: Some(1),
        guidance: Some(1.0),
        seed: 7,
        batch,
        ..Request::default()
    }
}

/// The pictures, and the warnings.
fn draw(executor: &Executor, request: &Request) -> (Result<Pictures>, Vec<String>) {
    let mut warnings = Vec::new();
    let tell = &mut |event: Event<'_>| {
        if let Event::Warning(text) = event {
            warnings.push(text.to_string());
        }
    };
    let made = Studio::open(Model::builtin())
        .and_then(|pipeline| pollster::block_on(pipeline.generate(executor, request, &AtomicBool::new(false), tell)));
    (made, warnings)
}

/// What diffusers draws with `enable_tiling` (`data/make_upscale.py`): tiles of the VAE's own size, 64 pixels.
fn decoded_in_tiles() -> Result<(), Failed> {
    let request = Request { width: Some(128), height: Some(144), steps: Some(2), ..request(2) };
    let (made, warnings) = draw(&binding(2 << 20)?, &request);
    let told = |warning: &&String| {
        warning
            .starts_with("the VAE's decoder runs in tiles of 16x16 latents, which changes the picture a little: vae.")
            && warning.contains("in one buffer")
    };
    ensure(warnings.iter().filter(told).count() == 1, warnings.join("\n"))?;
    for (index, picture) in made?.pictures.iter().enumerate() {
        let name = format!("tiled-{index}.png");
        let wanted = decode(&name, &std::fs::read(data("upscale").join(&name))?)?;
        let apart = wanted.rgb.iter().zip(&picture.rgb).map(|(a, b)| a.abs_diff(*b)).max();
        ensure(apart <= Some(1), format!("{name}: pixels differ by {apart:?}"))?;
    }
    Ok(())
}

fn refused() -> Result<(), Failed> {
    let error = draw(&binding(1 << 10)?, &request(1)).0.err().map(|error| error.to_string()).unwrap_or_default();
    ensure(error.contains("needs ") && error.contains(" binds at most 0 MiB"), error)
}

/// Six pictures need 24 MiB in one buffer, three of them half.
fn decoded_part_by_part() -> Result<(), Failed> {
    let (executor, pipeline) = (binding(20 << 20)?, Studio::open(Model::builtin())?);
    let events = Mutex::new(Vec::new());
    let told = |what: String| events.lock().unwrap().push(what);
    let tell = &mut |event: Event<'_>| {
        if let Event::Step(done, of) = event {
            told(format!("step {done} of {of}"));
        }
    };
    let keep = &mut |made: Made<'_>| {
        told(match made {
            Made::Latents(latents) => format!("latents of {}", latents.shape.batch()),
            Made::Picture(index, _) => format!("picture {index}"),
        });
        Ok(())
    };
    pollster::block_on(pipeline.generate_each(&executor, &request(6), &AtomicBool::new(false), tell, keep))?;
    let events: Vec<String> = events.into_inner()?;
    let first = ["step 0 of 2", "step 1 of 2", "picture 0", "picture 1", "picture 2"];
    let second = ["step 1 of 2", "step 2 of 2", "latents of 6", "picture 3", "picture 4", "picture 5"];
    ensure(events == [&first[..], &second[..]].concat(), events.join(", "))
}
