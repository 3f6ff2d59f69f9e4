//! `cargo bench`: every op's cases by criterion, on the CPU executor and on the adapter at hand. A kernel that differs
//! from its reference is an error and is not timed. `cargo bench -- matmul` runs the cases of one op, and
//! `ORNSTEIN_TEST_DEVICE` chooses the adapter as `--device` does.
//!
//! `ornstein bench` times the shapes of the real networks and knows the device's ceilings; this is for comparing two
//! states of the code by criterion's baselines.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use ornstein::gpu::adapter::{Choice, adapters, select};
use ornstein::gpu::check::Check;
use ornstein::gpu::shader::Sources;
use ornstein::gpu::{Gpu, Session, Timer};
use ornstein::graph::plan::Storage;
use ornstein::ops::{Case, TABLE};
use ornstein::tensor::{DType, Tensor};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(100))
        .configure_from_args();
    let timer = open().map(|gpu| Timer::new(&gpu).expect("the adapter can be timed"));
    for row in TABLE {
        let mut group = criterion.benchmark_group(row.name);
        for (index, case) in row.cases().iter().enumerate() {
            let types = case.types();
            let output = case.op.output(&types).expect("a case fits its op");
            group.throughput(Throughput::Elements(case.op.flops(&types, &output).max(1)));
            let shapes: Vec<_> = types.iter().map(|ty| ty.shape.to_string()).collect();
            let id = |device: &str| BenchmarkId::new(device, format!("{index} {}", shapes.join("")));
            group.bench_function(id("cpu"), |bencher| {
                let inputs = case.tensors(1, DType::F32, DType::F32);
                let inputs: Vec<&Tensor> = inputs.iter().collect();
                bencher.iter(|| case.op.reference(&inputs, &output.shape));
            });
            let Some(timer) = &timer else { continue };
            for act in [DType::F32, DType::F16].into_iter().filter(|act| *act == DType::F32 || timer.gpu().caps.f16) {
                group.bench_function(id(&format!("device {act}")), |bencher| {
                    let session = checked(timer.gpu(), case, act);
                    let time = |runs| timer.whole(&session, runs as usize).expect("a session that ran runs again");
                    bencher.iter_custom(|runs| Duration::from_secs_f64(time(runs)));
                });
            }
        }
    }
    criterion.final_summary();
}

fn open() -> Option<Arc<Gpu>> {
    let choice = std::env::var("ORNSTEIN_TEST_DEVICE").unwrap_or_else(|_| "0".into());
    pollster::block_on(async {
        let adapters = adapters().await;
        let adapter = select(&Choice::from(choice.as_str()), &adapters).ok()??;
        Some(Gpu::open(adapter, Sources::default(), &mut |_| ()).await.expect("the adapter opens"))
    })
}

/// The case on the device, after one run that gave the reference's output.
fn checked(gpu: &Arc<Gpu>, case: &Case, act: DType) -> Session {
    let check = Check::of_case(case, Storage { act, weight: act }).expect("a case fits its op");
    let checked = pollster::block_on(check.variant(gpu, 0)).expect("the device runs the case");
    assert!(checked.fault.is_none(), "{} is not timed: {}", case.name(), checked.fault.unwrap_or_default());
    checked.session
}
