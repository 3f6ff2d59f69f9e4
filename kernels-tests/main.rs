//! Every test that looks at the crate from outside, as one list: `cargo test --test kernels -- NAME` runs those whose
//! name holds NAME.

mod admission;
mod allocated;
mod batch;
mod bench;
mod chained;
mod checkpoints;
mod cli;
mod controlnet;
mod crash;
mod editing;
mod fetch;
mod few_steps;
mod files;
mod finite;
mod floors;
mod guidance;
mod hlsl;
mod latent_diffusion;
mod layout;
mod loaded;
mod lora;
mod manifest;
mod memory;
mod models;
mod mutated;
mod networks;
mod parity;
mod pictures;
mod pixels;
mod prompts;
mod race;
mod readme;
mod refiner;
mod rng;
mod samplers;
mod session;
mod shaders;
mod statistics;
mod support;
mod tables;
mod tokenizer;
mod translate;
mod unclip;
mod upscale;
mod validate;

use std::collections::BTreeMap;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use linkme::distributed_slice;

/// Each module adds its tests to these by itself, so that none is forgotten: a function that is in no list is dead
/// code, which the compiler reports.
#[distributed_slice]
static TRIALS: [fn() -> Vec<Trial>];

fn main() -> ExitCode {
    if let Some(ended) = crash::child() {
        return ended;
    }
    keep_out_of_the_users_cache();
    let arguments = Arguments::from_args();
    let trials: Vec<Trial> = TRIALS.iter().flat_map(|trials| trials()).collect();
    let mut left_out = BTreeMap::new();
    for trial in trials.iter().filter(|t| t.has_ignored_flag()) {
        *left_out.entry(trial.kind().to_string()).or_insert(0) += 1;
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for (kind, count) in left_out {
        match (kind.as_str(), support::gpu()) {
            ("", Err(why)) => eprintln!("left out {count} tests that need an adapter: {why}"),
            ("", Ok(_)) => eprintln!("left out {count} tests"),
            (tool, _) => eprintln!("left out {count} tests that need {tool}"),
        }
    }
    conclusion.exit_code()
}

/// Verdicts on kernels, planted faults among them, are kept with the build instead.
fn keep_out_of_the_users_cache() {
    for variable in ["XDG_CACHE_HOME", "LOCALAPPDATA"] {
        // SAFETY: `main` has started no thread yet, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(variable, env!("CARGO_TARGET_TMPDIR")) };
    }
}
