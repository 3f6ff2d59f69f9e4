//! The CPU executor gives a picture the same bits alone and in any batch, with any number of threads: every op, and
//! whole pictures.

use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::network::Executor;
use ornstein::ops::product::matmul::MatMul;
use ornstein::ops::product::matmul_geglu::MatMulGeglu;
use ornstein::ops::{Case, Kind, Op, TABLE, Ty};
use ornstein::systems::{Pictures, Request, Studio};
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::Model;

use crate::support::{ensure, test};

/// Ops whose inputs have no batch as their first dimension. The CPU executor runs none of them but in tests.
const WITHOUT_BATCH: [&str; 7] = [
    "sampler_input",
    "sampler_step",
    "dequantize",
    "winograd_weights",
    "winograd_input",
    "winograd_product",
    "winograd_output",
];
/// How often a case's batch is repeated, each time with other values.
const COPIES: usize = 3;
const THREADS: [usize; 3] = [1, 2, 3];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let rows = TABLE.iter().filter(|row| !WITHOUT_BATCH.contains(&row.name));
    let ops = rows.map(|row| test(format!("batch::{}", row.name), move || row.cases().iter().try_for_each(every_copy)));
    ops.chain([
        test("batch::a_products_row_is_the_same_among_any_number_of_rows", rows_of_products),
        test("batch::pictures_are_the_same_alone_and_in_a_batch", pictures_of_a_batch),
        test("batch::networks_that_stay_draw_the_same_after_another_batch", networks_that_stay),
    ])
    .collect()
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> Result<T, Failed> + Send) -> Result<T, Failed> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(work)
}

/// The output, into memory that holds something else.
fn execute(op: &dyn Op, types: &[Ty], inputs: &[Tensor]) -> Result<Tensor, Failed> {
    let shape = op.output(types)?.shape;
    let mut y = Tensor::new(shape.clone(), vec![f32::NAN; shape.len()]);
    op.execute(&inputs.iter().collect::<Vec<_>>(), &mut y);
    Ok(y)
}

/// The inputs' types with [`COPIES`] times the batch, and which of them have it: as few as the shape rule lets have
/// it, and no parameters of several dimensions.
fn repeated(case: &Case) -> Option<(Vec<Ty>, Vec<bool>)> {
    let (op, types) = (&case.op, case.types());
    let alone = op.output(&types).ok()?.shape;
    let mut choices: Vec<u32> = (1..1 << types.len()).collect();
    choices.sort_by_key(|chosen| chosen.count_ones());
    choices.into_iter().find_map(|chosen| {
        let is_batched = |i: usize| chosen >> i & 1 == 1 && !matches!(types[i].kind, Kind::Weight | Kind::Bytes);
        let batched: Vec<bool> = (0..types.len()).map(is_batched).collect();
        let repeat = |(ty, batched): (&Ty, &bool)| match batched {
            true => Ty::new(ty.kind, ty.shape.with_batch(COPIES * ty.shape.batch())),
            false => ty.clone(),
        };
        let whole: Vec<Ty> = types.iter().zip(&batched).map(repeat).collect();
        let fits = op.output(&whole).is_ok_and(|ty| ty.shape == alone.with_batch(COPIES * alone.batch()));
        fits.then_some((whole, batched))
    })
}

/// One of the parts that a batch consists of.
fn part(tensor: &Tensor, copy: usize) -> Tensor {
    let shape = tensor.shape.with_batch(tensor.shape.batch() / COPIES);
    Tensor::new(shape.clone(), tensor.data[copy * shape.len()..][..shape.len()].to_vec())
}

fn every_copy(case: &Case) -> Result<(), Failed> {
    let (types, batched) = repeated(case).ok_or_else(|| format!("{}: no batch; see WITHOUT_BATCH", case.name()))?;
    let fills = case.inputs.iter().map(|(_, fill)| *fill);
    let whole = Case { op: case.op.clone(), inputs: types.clone().into_iter().zip(fills).collect() };
    let inputs = whole.tensors(1, DType::F32, DType::F32);
    let of_copy = |copy: usize| -> Vec<Tensor> {
        let of_input = |(x, batched): (&Tensor, &bool)| if *batched { part(x, copy) } else { x.clone() };
        inputs.iter().zip(&batched).map(of_input).collect()
    };
    for threads in THREADS {
        let y = with_threads(threads, || execute(&*case.op, &types, &inputs))?;
        for copy in 0..COPIES {
            // What is alone runs with another number of threads, too.
            let alone = with_threads(1 + copy, || execute(&*case.op, &case.types(), &of_copy(copy)))?;
            same(&part(&y, copy), &alone, &format!("{}: {threads} threads, part {copy}", case.name()))?;
        }
    }
    Ok(())
}

fn same(found: &Tensor, wanted: &Tensor, what: &str) -> Result<(), Failed> {
    let pairs = || found.data.iter().zip(&wanted.data).enumerate();
    let differ = pairs().filter(|(_, (a, b))| a.to_bits() != b.to_bits()).count();
    let first = pairs().find(|(_, (a, b))| a.to_bits() != b.to_bits());
    ensure(differ == 0 && found.shape == wanted.shape, format!("{what}: {differ} values differ, the first {first:?}"))
}

fn rows_of_products() -> Result<(), Failed> {
    const ROWS: usize = 300;
    let (plain, gated): (Box<dyn Op>, Box<dyn Op>) = (Box::new(MatMul::new(true)), Box::new(MatMulGeglu));
    for (op, k, n) in [(&plain, 5, 1), (&plain, 600, 8), (&plain, 1030, 70), (&gated, 600, 72)] {
        let types = |rows: usize| [Ty::act([rows, k]), Ty::new(Kind::Weight, [k, n]), Ty::new(Kind::F32, [n])];
        let inputs = Case::new(MatMul::new(true), types(ROWS)).tensors(1, DType::F32, DType::F32);
        let of_rows = |first: usize, rows: usize| {
            let x = Tensor::new([rows, k], inputs[0].data[first * k..][..rows * k].to_vec());
            execute(&**op, &types(rows), &[x, inputs[1].clone(), inputs[2].clone()])
        };
        let all = of_rows(0, ROWS)?;
        for (first, rows) in [(0, 1), (17, 1), (1, 2), (5, 6), (100, 7), (3, 47), (0, 128), (1, 257)] {
            let part = of_rows(first, rows)?;
            let columns = all.shape.channels();
            let wanted = Tensor::new([rows, columns], all.data[first * columns..][..rows * columns].to_vec());
            same(&part, &wanted, &format!("{op:?} {k} x {n}, rows {first} to {}", first + rows))?;
        }
    }
    Ok(())
}

/// A batch of pictures whose seeds count up from this.
fn request(seed: u64, batch: usize, [width, height]: [usize; 2], guidance: f32) -> Request {
    Request {
        prompt: "a red circle on a blue background".into(),
        steps: Some(2),
        width: Some(width),
        height: Some(height),
        guidance: Some(guidance),
        seed,
        batch,
        ..Request::default()
    }
}

/// Whether a picture of a batch is the only picture of another run.
fn same_picture(batch: &Pictures, index: usize, alone: &Pictures, what: &str) -> Result<(), Failed> {
    let each = alone.latents.data.len();
    let latents = batch.latents.data[index * each..][..each].to_vec();
    same(&Tensor::new(alone.latents.shape.clone(), latents), &alone.latents, &format!("{what}, picture {index}"))?;
    ensure(batch.pictures[index].rgb == alone.pictures[0].rgb, format!("{what}, picture {index}: other pixels"))
}

fn pictures_of_a_batch() -> Result<(), Failed> {
    const SEED: u64 = 7;
    let pipeline = Studio::open(Model::builtin())?;
    let drawn = |threads, seed, batch, size, guidance| {
        with_threads(threads, || {
            let request = request(seed, batch, size, guidance);
            let cancel = AtomicBool::new(false);
            Ok(pollster::block_on(pipeline.generate(&Executor::Cpu, &request, &cancel, &mut |_| {}))?)
        })
    };
    // The UNet's inner half has 64, 24 and 80 pixels.
    for (size, guidance) in [([64, 64], 4.0), ([64, 64], 1.0), ([32, 48], 4.0), ([80, 64], 1.0)] {
        let alone: Vec<Pictures> =
            (0..3).map(|i| drawn(2, SEED + i, 1, size, guidance)).collect::<Result<_, Failed>>()?;
        for (threads, batch) in [(1, 3), (2, 2), (2, 3), (3, 3), (3, 1), (1, 1)] {
            let together = drawn(threads, SEED, batch, size, guidance)?;
            for (index, alone) in alone.iter().enumerate().take(batch) {
                let what = format!("{size:?}, guidance {guidance}, {batch} at once by {threads} threads");
                same_picture(&together, index, alone, &what)?;
            }
        }
    }
    Ok(())
}

fn networks_that_stay() -> Result<(), Failed> {
    let pipeline = Studio::open(Model::builtin())?;
    let mut loaded = pipeline.load(&Executor::Cpu);
    let mut drawn = |seed, batch, prompt: &str| {
        let request = Request { prompt: prompt.into(), ..request(seed, batch, [64, 64], 4.0) };
        Ok::<_, Failed>(pollster::block_on(loaded.generate(&request, &AtomicBool::new(false), &mut |_| {}))?)
    };
    let wanted = drawn(8, 1, "a red circle")?;
    for (batch, other) in [(3, "a green square on a white background"), (2, ""), (4, "a ".repeat(99).as_str())] {
        drawn(7, 1, other)?;
        same_picture(&drawn(7, batch, "a red circle")?, 1, &wanted, &format!("{batch} at once after {other:?}"))?;
    }
    Ok(())
}
