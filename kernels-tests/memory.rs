//! Devices that cannot hold all that a picture takes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use ornstein::error::Result;
use ornstein::gpu::shader::Sources;
use ornstein::network::{Executor, IfWrong};
use ornstein::pipeline::{Event, Pictures, Pipeline, Request};
use ornstein::tensor::DType;
use ornstein::weights::Model;

use crate::support::{ensure, on_gpu, open};

pub fn trials() -> Vec<Trial> {
    vec![
        on_gpu("memory::a_decoder_that_does_not_fit_runs_on_the_cpu".into(), |_| decoded_on_the_cpu()),
        on_gpu("memory::a_unet_that_does_not_fit_is_an_error_that_names_the_node".into(), |_| refused()),
    ]
}

/// The adapter as if it bound no more than this.
fn binding(most: u64) -> Result<Executor, Failed> {
    let mut gpu = open(Sources::default())?;
    Arc::get_mut(&mut gpu).ok_or("somebody else has the device")?.caps.max_binding = most;
    Ok(Executor::Gpu(gpu, DType::F32, IfWrong::UseAnyway))
}

/// One step of a picture whose decoder has the largest values of all, and the warnings.
fn draw(executor: &Executor) -> (Result<Pictures>, Vec<String>) {
    let request = Request {
        prompt: "a red circle".into(),
        width: Some(256),
        height: Some(256),
        steps: Some(1),
        guidance: Some(1.0),
        seed: 7,
        batch: 1,
        ..Request::default()
    };
    let mut warnings = Vec::new();
    let tell = &mut |event: Event<'_>| {
        if let Event::Warning(text) = event {
            warnings.push(text.to_string());
        }
    };
    let made = Pipeline::open(Model::builtin())
        .and_then(|pipeline| pollster::block_on(pipeline.generate(executor, &request, &AtomicBool::new(false), tell)));
    (made, warnings)
}

fn decoded_on_the_cpu() -> Result<(), Failed> {
    let (made, warnings) = draw(&binding(6 << 20)?);
    let (made, right) = (made?, draw(&Executor::Cpu).0?);
    let told = |warning: &&String| {
        warning.starts_with("the VAE's decoder runs on the CPU: vae.decoder.") && warning.contains("in one buffer")
    };
    ensure(warnings.iter().filter(told).count() == 1, warnings.join("\n"))?;
    let apart = made.pixels[0].iter().zip(&right.pixels[0]).map(|(a, b)| a.abs_diff(*b)).max();
    ensure(apart <= Some(2), format!("pixels differ by {apart:?}"))
}

fn refused() -> Result<(), Failed> {
    let error = draw(&binding(1 << 10)?).0.err().map(|error| error.to_string()).unwrap_or_default();
    ensure(error.contains("needs ") && error.contains(" binds at most 0 MiB"), error)
}
