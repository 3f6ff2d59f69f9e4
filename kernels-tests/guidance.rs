//! Guidance as requests and samplers have it, on whole pictures.

use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Error;
use ornstein::network::Executor;
use ornstein::systems::{Event, Request, Studio};
use ornstein::tensor::Tensor;
use ornstein::weights::Model;

use crate::networks::data;
use crate::support::{ensure, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    vec![
        test("guidance::cfg_plus_plus_asks_for_the_unconditional_prediction_however_weak_it_is", weak),
        test("guidance::cfg_plus_plus_has_a_guidance_of_its_own", own),
        test("guidance::a_rescale_changes_nothing_without_guidance_and_is_a_share", rescaled),
        test("guidance::cfg_plus_plus_is_refused_where_there_is_no_text_to_go_without", without_a_text),
    ]
}

fn request(sampler: &str, guidance: Option<f32>) -> Request {
    Request {
        prompt: "a red circle".into(),
        width: Some(32),
        height: Some(32),
        steps: Some(3),
        sampler: Some(sampler.into()),
        guidance,
        ..Request::default()
    }
}

/// The latents that the built-in model makes on the CPU.
fn latents(request: &Request) -> Result<Tensor, Error> {
    let studio = Studio::open(Model::builtin())?;
    let (cancel, tell) = (AtomicBool::new(false), &mut |_: Event<'_>| {});
    Ok(pollster::block_on(studio.generate(&Executor::Cpu, request, &cancel, tell))?.latents)
}

fn weak() -> Result<(), Failed> {
    for guidance in [1.0, 0.6] {
        let against = |sampler, negative: &str| {
            latents(&Request { negative: Some(negative.into()), ..request(sampler, Some(guidance)) })
        };
        ensure(against("euler", "blue")? == against("euler", "green")?, "euler guides by 1 or less")?;
        ensure(against("euler-cfg++", "blue")? != against("euler-cfg++", "green")?, "euler-cfg++ does not guide")?;
    }
    Ok(())
}

fn own() -> Result<(), Failed> {
    let own = latents(&request("Euler CFG++", None))?;
    ensure(own == latents(&request("euler-cfg++", Some(1.0)))?, "another guidance than 1")
}

fn rescaled() -> Result<(), Failed> {
    let with = |guidance, share| Request { guidance_rescale: share, ..request("ddim", Some(guidance)) };
    ensure(latents(&with(4.0, Some(0.7)))? != latents(&with(4.0, None))?, "0.7 changed nothing")?;
    ensure(latents(&with(1.0, Some(0.7)))? == latents(&with(1.0, None))?, "0.7 changed what is not guided")?;
    for share in [-0.1, 1.5, f32::NAN] {
        let error = latents(&with(4.0, Some(share))).err().ok_or("it was taken")?.to_string();
        ensure(error.starts_with("guidance rescale "), error)?;
    }
    Ok(())
}

fn without_a_text() -> Result<(), Failed> {
    let studio = Studio::open(Model::open(&data("pixels/plain"))?)?;
    let request = Request { steps: Some(2), sampler: Some("euler_cfg_pp".into()), ..Request::default() };
    let made = pollster::block_on(studio.generate(&Executor::Cpu, &request, &AtomicBool::new(false), &mut |_| {}));
    let error = made.err().ok_or("it was drawn")?.to_string();
    ensure(error.starts_with("sampler euler-cfg++ steps from the prediction without a text"), error)
}
