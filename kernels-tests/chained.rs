//! Pictures whose sampler's steps a device does by itself: the same as those whose steps a sampler on the host does,
//! but for rounding, and bit for bit those whose steps are looked at one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Error;
use ornstein::gpu::Gpu;
use ornstein::network::{Executor, IfWrong};
use ornstein::ops::case::compare;
use ornstein::systems::{Event, Pictures, Request, Studio};
use ornstein::tensor::DType;
use ornstein::weights::Model;

use crate::support::{ensure, on_gpu, test};

/// One without memory, two that draw noise, and those that remember outputs, latents, or both.
const SAMPLERS: [&str; 11] =
    ["ddim", "euler-a", "dpm++2m-sde", "dpm++2m", "heun", "pndm", "lms", "unipc", "dpm++sde", "er-sde", "euler-cfg++"];
/// Largest relative error of a picture's latents in f32.
const TOLERANCE: f64 = 1e-4;

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials: Vec<_> = SAMPLERS
        .map(|sampler| {
            on_gpu(format!("chained::{sampler}_on_the_device_draws_what_the_host_does"), move |gpu| same(gpu, sampler))
        })
        .into();
    trials.extend([
        on_gpu("chained::every_step_is_told_once_and_in_order".into(), steps_are_told),
        test("chained::what_is_done_is_told_in_order", what_is_done_is_told),
        on_gpu("chained::a_cancelled_run_stops_between_two_steps".into(), cancelled),
    ]);
    trials
}

const STEPS: usize = 4;

/// Two pictures of 32x32.
fn draw(
    executor: &Executor,
    (sampler, guidance, check): (&str, f32, bool),
    cancel: &AtomicBool,
    tell: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Pictures, Error> {
    let request = Request {
        prompt: "a red circle on a blue background".into(),
        width: Some(32),
        height: Some(32),
        steps: Some(STEPS),
        sampler: Some(sampler.into()),
        guidance: Some(guidance),
        seed: 7,
        batch: 2,
        check,
        ..Request::default()
    };
    pollster::block_on(Studio::open(Model::builtin())?.generate(executor, &request, cancel, tell))
}

fn f32_on(gpu: &Arc<Gpu>) -> Executor {
    Executor::Gpu(Arc::clone(gpu), DType::F32, IfWrong::UseAnyway)
}

fn same(gpu: &Arc<Gpu>, sampler: &str) -> Result<(), Failed> {
    for guidance in [4.0, 1.0] {
        let latents = |executor: &Executor, check| {
            let made = draw(executor, (sampler, guidance, check), &AtomicBool::new(false), &mut |_| {})?;
            Ok::<_, Error>(made.latents)
        };
        let [device, checked] = [false, true].map(|check| latents(&f32_on(gpu), check));
        let device = device?;
        ensure(device == checked?, format!("guidance {guidance}: checking changed the latents"))?;
        let error = compare(&device, &latents(&Executor::Cpu, false)?).relative;
        ensure(error <= TOLERANCE, format!("guidance {guidance}: relative error {error:.2e} exceeds {TOLERANCE:.0e}"))?;
    }
    Ok(())
}

/// Steps, not what a sampler evaluates for them.
fn steps_are_told(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    for sampler in ["ddim", "pndm", "heun"] {
        let mut told = Vec::new();
        let tell = &mut |event: Event<'_>| {
            if let Event::Step(done, of) = event {
                told.push((done, of));
            }
        };
        draw(&f32_on(gpu), (sampler, 4.0, false), &AtomicBool::new(false), tell)?;
        ensure(told == (0..=STEPS).map(|done| (done, STEPS)).collect::<Vec<_>>(), format!("{sampler}: {told:?}"))?;
    }
    Ok(())
}

fn what_is_done_is_told() -> Result<(), Failed> {
    let mut told = Vec::new();
    let tell = &mut |event: Event<'_>| {
        told.push(match event {
            Event::Loading(what) => format!("loading the {what}"),
            Event::Step(done, all) => format!("{done} of {all}"),
            Event::Decoding(nth, all) => format!("decoding {nth} of {all}"),
            Event::Warning(_) | Event::Checking(_) => "something else".into(),
        });
    };
    draw(&Executor::Cpu, ("heun", 4.0, false), &AtomicBool::new(false), tell)?;
    let loaded = ["text encoder", "UNet's part for prompts", "UNet's part for times", "UNet"];
    let loading = |what| format!("loading the {what}");
    let steps = (0..=STEPS).map(|done| format!("{done} of {STEPS}"));
    let decoding = ["loading the VAE's decoder", "decoding 1 of 2", "decoding 2 of 2"].map(String::from);
    let wanted: Vec<_> = loaded.into_iter().map(loading).chain(steps).chain(decoding).collect();
    ensure(told == wanted, told.join(", "))
}

fn cancelled(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let (cancel, mut last) = (AtomicBool::new(false), 0);
    let tell = &mut |event: Event<'_>| {
        if let Event::Step(done, _) = event {
            last = done;
            cancel.store(done == 2, Ordering::Relaxed);
        }
    };
    let result = draw(&f32_on(gpu), ("ddim", 4.0, false), &cancel, tell);
    ensure(matches!(result, Err(Error::Interrupted)) && last == 2, format!("went on to step {last}"))
}
