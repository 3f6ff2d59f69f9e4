//! Every test that looks at the crate from outside, as one list: `cargo test --test kernels -- NAME` runs those whose
//! name holds NAME.

mod files;
mod models;
mod rng;
mod samplers;
mod support;
mod tokenizer;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials: Vec<Trial> =
        [files::trials(), models::trials(), rng::trials(), samplers::trials(), tokenizer::trials()]
            .into_iter()
            .flatten()
            .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
