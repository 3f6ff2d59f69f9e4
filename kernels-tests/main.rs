//! Every test that looks at the crate from outside, as one list: `cargo test --test kernels -- NAME` runs those whose
//! name holds NAME.

mod admission;
mod bench;
mod cli;
mod files;
mod floors;
mod models;
mod networks;
mod parity;
mod rng;
mod samplers;
mod shaders;
mod support;
mod tokenizer;
mod validate;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials: Vec<Trial> = [
        bench::trials(),
        admission::trials(),
        cli::trials(),
        files::trials(),
        floors::trials(),
        models::trials(),
        networks::trials(),
        parity::trials(),
        rng::trials(),
        samplers::trials(),
        shaders::trials(),
        tokenizer::trials(),
        validate::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let left_out = trials.iter().filter(|t| t.has_ignored_flag()).count();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let (Err(why), true) = (support::gpu(), left_out > 0) {
        eprintln!("left out {left_out} tests that need an adapter: {why}");
    }
    conclusion.exit_code()
}
