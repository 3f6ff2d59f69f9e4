//! `cargo bench`: every case on the CPU executor and on the adapter at hand, checked first and then timed by the wall
//! clock. `cargo bench -- conv2d` runs the cases of one op.
//!
//! A time on the adapter is the median over submissions that hold the dispatch many times, so that the cost of a
//! submission does not count.

use std::time::{Duration, Instant};

use ornstein::gpu::device::{Choice, adapters, select};
use ornstein::gpu::shader::Sources;
use ornstein::gpu::{Gpu, Session};
use ornstein::graph::Graph;
use ornstein::graph::plan::Storage;
use ornstein::ops::case::{compare, tolerance};
use ornstein::ops::{Case, TABLE};
use ornstein::tensor::{DType, Tensor};

const SUBMISSIONS: usize = 5;
/// A submission is filled up to about this long.
const LONG_ENOUGH: Duration = Duration::from_millis(50);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo adds `--bench`.
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let choice = std::env::var("ORNSTEIN_TEST_DEVICE").unwrap_or_else(|_| "0".into());
    let adapters = pollster::block_on(adapters());
    let gpu = match select(&Choice::from(choice.as_str()), &adapters) {
        Ok(Some(adapter)) => Some(pollster::block_on(Gpu::open(adapter, Sources::default()))?),
        _ => None,
    };
    println!("{:>9} {:>10} {:>10}  case", "device", "median", "GFLOP/s");
    for (op, cases) in TABLE.iter().filter(|(op, _)| wanted.as_ref().is_none_or(|w| op.contains(w.as_str()))) {
        for case in cases() {
            let flops = case.op.flops(&case.types(), &case.op.output(&case.types())?);
            row("cpu", time_cpu(&case), flops, &case);
            let Some(gpu) = &gpu else { continue };
            for act in [DType::F32, DType::F16] {
                if act == DType::F32 || gpu.caps.f16 {
                    let time = time_gpu(gpu, &case, act).map_err(|e| format!("{op}: {e}"))?;
                    row(&format!("gpu {act}"), time, flops, &case);
                }
            }
        }
    }
    Ok(())
}

fn row(device: &str, time: Duration, flops: u64, case: &Case) {
    let rate = flops as f64 / time.as_secs_f64() / 1e9;
    println!("{device:>9} {:>8.3}ms {rate:>10.2}  {}", time.as_secs_f64() * 1e3, case.name());
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn time_cpu(case: &Case) -> Duration {
    let inputs = case.tensors(1, DType::F32, DType::F32);
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let shape = case.op.output(&case.types()).expect("the caller checked the shapes").shape;
    let times = (0..SUBMISSIONS).map(|_| {
        let start = Instant::now();
        std::hint::black_box(case.op.reference(&inputs, &shape));
        start.elapsed()
    });
    median(times.collect())
}

fn time_gpu(gpu: &std::sync::Arc<Gpu>, case: &Case, act: DType) -> Result<Duration, Box<dyn std::error::Error>> {
    let inputs = case.tensors(1, act, act);
    let types = case.types();
    let reference = case.op.reference(&inputs.iter().collect::<Vec<_>>(), &case.op.output(&types)?.shape);
    let session =
        Session::new(gpu, Graph::of_case(case, inputs)?, &ornstein::tensor::NoWeights, Storage { act, weight: act })?;
    let output = pollster::block_on(session.run(&[]))?.remove("output").ok_or("no output")?;
    let difference = compare(&output, &reference).relative;
    if difference > tolerance(act, case.op.sum_length(&types)) {
        return Err(format!("{} is wrong by {difference:.1e}: not timed", case.name()).into());
    }
    let once = session.time(1)?;
    let repeats = (LONG_ENOUGH.as_secs_f64() / once.as_secs_f64()).clamp(1.0, 1000.0) as usize;
    let times = (0..SUBMISSIONS).map(|_| session.time(repeats).map(|t| t / repeats as u32));
    Ok(median(times.collect::<Result<_, _>>()?))
}
