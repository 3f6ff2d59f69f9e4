//! What a device can do at most, measured: bytes a second by a kernel that copies, multiply-adds a second by kernels
//! that do nothing else, dispatches a second, and bytes a second between the host and the device. On the CPU executor
//! it is a copy and a matrix product by all threads.

use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bench::measure::{Budget, HOST_RESOLUTION, Route, Watch, on_cpu as on_host, on_gpu as on_device};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::gpu::{Clock, Timer, Transfer};
use crate::graph::plan::Storage;
use crate::ops::case::Fill;
use crate::ops::product::matmul::MatMul;
use crate::ops::{Case, Inputs, Kind, Launch, Op, Ty};
use crate::tensor::{DType, Shape, Tensor};

/// A device's ceilings; what it cannot do is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bytes read and written a second, in 10^9.
    pub copy_gb_s: f64,
    /// Multiply-adds (two operations each) a second in f32 and in f16, in 10^9 operations.
    pub fma_f32_gflop_s: Option<f64>,
    /// Multiply-adds a second in f16, in 10^9 operations.
    pub fma_f16_gflop_s: Option<f64>,
    /// Products of cooperative matrices of f16 with sums in f32, in 10^9 operations a second.
    pub matrix_gflop_s: Option<f64>,
    /// A matrix product of the CPU executor.
    pub product_gflop_s: Option<f64>,
    /// Microseconds from the start of a kernel that does nothing to the start of the next, which waits for it.
    pub launch_us: Option<f64>,
    /// Bytes a second, in 10^9, from the host to the device,
    pub upload_gb_s: Option<f64>,
    /// and back.
    pub download_gb_s: Option<f64>,
    /// The largest spread between rounds of what shares are of (copy and arithmetic), as a share.
    pub spread: f64,
}

impl Ceilings {
    /// Operations a second, in 10^9, that kernels with activations in `dtype` may hope for, by cooperative matrices or
    /// not. Every device can use f32 arithmetic for f16 data.
    pub fn gflop_s(&self, dtype: DType, matrices: bool) -> f64 {
        let f16 = self.fma_f16_gflop_s.filter(|_| dtype == DType::F16);
        let others = [self.fma_f32_gflop_s, f16, self.product_gflop_s].into_iter().flatten().fold(0.0, f64::max);
        self.matrix_gflop_s.filter(|_| matrices).unwrap_or(others)
    }

    /// What [`Ceilings::gflop_s`] is the rate of.
    pub fn arithmetic(&self, matrices: bool) -> &'static str {
        match (self.product_gflop_s, self.matrix_gflop_s.filter(|_| matrices)) {
            (Some(_), _) => "matrix product",
            (None, Some(_)) => "cooperative matrices",
            (None, None) => "fma",
        }
    }

    /// How slow the machine is next to another time: for each ceiling that both have and that shares are of, the
    /// other's rate over this one's.
    pub fn slowness(&self, other: &Self) -> Vec<f64> {
        let arithmetic = |c: &Self| [c.fma_f32_gflop_s, c.fma_f16_gflop_s, c.matrix_gflop_s, c.product_gflop_s];
        let all = |c: &Self| [Some(c.copy_gb_s)].into_iter().chain(arithmetic(c));
        let pairs = all(self).zip(all(other)).filter_map(|(a, b)| Some(b? / a?));
        pairs.filter(|ratio| ratio.is_finite() && *ratio > 0.0).collect()
    }
}

/// A device's ceilings being measured, in turn with everything else.
pub struct Probes<'a> {
    /// What shares are of: a copy, multiply-adds in f32 and in f16, cooperative matrices, the CPU's product.
    rates: [Option<Probe<'a>>; 5],
    /// Launches, uploads, downloads.
    others: [Option<Probe<'a>>; 3],
}

struct Probe<'a> {
    /// Bytes or operations of one run.
    work: f64,
    watch: Watch<'a>,
}

impl Probe<'_> {
    /// A second, in 10^9.
    fn rate(&self) -> f64 {
        self.work / self.watch.seconds() / 1e9
    }
}

impl<'a> Probes<'a> {
    /// Of the timer's device, or of the CPU executor where there is none.
    ///
    /// # Errors
    /// If a ceiling's kernel fails or computes something else than it should.
    pub async fn new(timer: Option<&'a Timer>) -> Result<Self> {
        let Some(timer) = timer else { return Self::of_cpu() };
        let caps = &timer.gpu().caps;
        let copy = Copy::case(Copy::elements(caps));
        let bytes = 2 * copy.inputs[0].0.device_len() * DType::F32.size();
        let copy = probe(timer, &copy, DType::F32, bytes as f64).await?;
        let fma = Fma::case();
        let fma_f32 = probe(timer, &fma, DType::F32, flops(&fma)?).await?;
        let fma_f16 = match caps.native_f16() {
            true => Some(probe(timer, &fma, DType::F16, flops(&fma)?).await?),
            false => None,
        };
        let matrix = match Matrix::case(caps) {
            Some(case) => Some(probe(timer, &case, DType::F16, flops(&case)?).await?),
            None => None,
        };
        let launch = probe(timer, &Copy::case(1024), DType::F32, 1.0).await?;
        let transfer = Arc::new(Transfer::new(timer.gpu())?);
        let (up, down, bytes) = (Arc::clone(&transfer), Arc::clone(&transfer), transfer.bytes() as f64);
        let upload = by_host(bytes, move |times| up.upload(times))?;
        let download = by_host(bytes, move |times| down.download(times))?;
        let rates = [Some(copy), Some(fma_f32), fma_f16, matrix, None];
        Ok(Self { rates, others: [launch, upload, download].map(Some) })
    }

    fn of_cpu() -> Result<Self> {
        let source = vec![1f32; 16 << 20];
        let mut target = vec![0f32; source.len()];
        let bytes = 2.0 * size_of_val(source.as_slice()) as f64;
        let copy = move || {
            let chunks = target.par_chunks_mut(1 << 16).zip(source.par_chunks(1 << 16));
            chunks.for_each(|(target, source)| target.copy_from_slice(source));
            std::hint::black_box(&target);
        };
        let n = 1024;
        let case = Case::new(MatMul::new(false), [Ty::act([n, n]), Ty::new(Kind::Weight, [n, n])]);
        let product = on_host(&case, Budget::QUICK)?.watch;
        let product = product.map(|watch| Probe { work: 2.0 * (n * n * n) as f64, watch });
        let copy = Probe { work: bytes, watch: Watch::of_host(copy, Budget::QUICK)? };
        Ok(Self { rates: [Some(copy), None, None, None, product], others: [None, None, None] })
    }

    /// Takes this round's samples.
    ///
    /// # Errors
    /// If the device fails.
    pub fn round(&mut self) -> Result<()> {
        self.rates.iter_mut().chain(&mut self.others).flatten().try_for_each(|probe| probe.watch.round())
    }

    /// What the rounds so far say, or a first look where there was none.
    pub fn ceilings(&self) -> Ceilings {
        let rate = |probe: &Option<Probe>| probe.as_ref().map(Probe::rate);
        let [copy, fma_f32_gflop_s, fma_f16_gflop_s, matrix_gflop_s, product_gflop_s] = self.rates.each_ref().map(rate);
        let [launches, upload_gb_s, download_gb_s] = self.others.each_ref().map(rate);
        let spreads = self.rates.iter().flatten().map(|probe| probe.watch.timing().summary.spread);
        Ceilings {
            copy_gb_s: copy.unwrap_or_default(),
            fma_f32_gflop_s,
            fma_f16_gflop_s,
            matrix_gflop_s,
            product_gflop_s,
            // Of 10^9 a second.
            launch_us: launches.map(|rate| 1e-3 / rate),
            upload_gb_s,
            download_gb_s,
            spread: spreads.fold(0.0, f64::max),
        }
    }
}

/// Operations of one run.
fn flops(case: &Case) -> Result<f64> {
    let types = case.types();
    Ok(case.op.flops(&types, &case.op.output(&types)?) as f64)
}

/// Seconds of so many runs are told by `time`.
fn by_host<'a>(work: f64, time: impl FnMut(usize) -> Result<f64> + 'a) -> Result<Probe<'a>> {
    let watch = Watch::new(time, Clock::Wall, HOST_RESOLUTION, Budget::QUICK)?;
    Ok(Probe { work, watch })
}

async fn probe<'a>(timer: &'a Timer, case: &Case, act: DType, work: f64) -> Result<Probe<'a>> {
    let checked = on_device(timer, case, Route::Variant(0), Storage { act, weight: act }, Budget::QUICK).await?;
    checked.watch.map(|watch| Probe { work, watch }).ok_or_else(|| {
        let (adapter, kernel, error) = (&timer.gpu().caps.name, case.op.name(), checked.relative_error);
        let what = format!("{adapter}: the kernel {kernel} that measures a ceiling is wrong by {error:.1e}");
        Error::device(format!("{what}: update the driver or choose another device"))
    })
}

/// `y = x` (`shaders/lab/copy.wgsl`).
#[derive(Debug)]
struct Copy;

impl Copy {
    /// More than a device's caches hold, where it can bind so many.
    fn elements(caps: &Caps) -> usize {
        caps.max_binding.min(caps.max_buffer).min(caps.beyond_caches()) as usize / DType::F32.size()
    }

    fn case(elements: usize) -> Case {
        let x = Ty::act([elements / 1024, 1024]);
        Case::new(Self, [x]).fill(0, Fill::With(|i| (i % 251) as f32))
    }
}

impl Op for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        Ok(inputs[0].clone())
    }

    fn reference(&self, inputs: &[&Tensor], _output: &Shape) -> Tensor {
        inputs[0].clone()
    }

    fn launch(&self, _inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        Ok(Launch::flat("lab/copy", 1, output.device_len() / 4, caps))
    }

    fn flops(&self, _inputs: Inputs, _output: &Ty) -> u64 {
        0
    }
}

/// Chains of `v = 1 - v` (`shaders/lab/fma.wgsl`): after an even number of rounds each is where it began, exactly.
#[derive(Debug)]
struct Fma;

const CHAINS: usize = 16;
const ROUNDS: usize = 256;

impl Fma {
    /// Threads enough to fill the largest device.
    fn case() -> Case {
        Case::new(Self, [Ty::act([1024, 1024])]).fill(0, Fill::With(|i| (i % 16) as f32 / 4.0))
    }
}

impl Op for Fma {
    fn name(&self) -> &'static str {
        "fma"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        Ok(inputs[0].clone())
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let middle = (CHAINS - 1) as f32 / 2.0;
        Tensor::new(output.clone(), inputs[0].data.iter().map(|x| x + middle).collect())
    }

    fn launch(&self, _inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        Ok(Launch::flat("lab/fma", 1, output.device_len() / 4, caps)
            .param("rounds", ROUNDS)
            .param_f32("a", -1.0)
            .param_f32("b", 1.0))
    }

    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        (2 * CHAINS * ROUNDS * output.device_len()) as u64
    }
}

/// Products of cooperative matrices (`shaders/lab/matrix.wgsl`): `[6, side, side]` gives `[groups, 8, side, side]`.
#[derive(Debug)]
struct Matrix {
    groups: usize,
    rounds: usize,
    lanes: u32,
}

/// Of a subgroup: matrices a times matrices b.
const FACTORS: [usize; 2] = [4, 2];

impl Matrix {
    /// Where the device has them: enough to fill the largest, and little enough for one that only imitates them. The
    /// elements are so few eighths that their sums are exact.
    fn case(caps: &Caps) -> Option<Case> {
        let caps = caps.storing(DType::F16, DType::F16);
        let (side, lanes) = (caps.matrix()? as usize, caps.subgroup_size()?);
        let [groups, rounds] = if caps.fast_matrices() { [4096, 1024] } else { [8, 64] };
        let x = Ty::act([FACTORS[0] + FACTORS[1], side, side]);
        Some(Case::new(Self { groups, rounds, lanes }, [x]).fill(0, Fill::With(|i| (i % 17) as f32 / 8.0 - 0.75)))
    }
}

impl Op for Matrix {
    fn name(&self) -> &'static str {
        "matrix"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        let side = inputs[0].shape.channels();
        Ok(Ty::new(Kind::F32, [self.groups, FACTORS[0] * FACTORS[1], side, side]))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let (x, side) = (inputs[0], output.channels());
        let at = |matrix: usize, row: usize, column: usize| x.data[(matrix * side + row) * side + column];
        let mut sums = Vec::with_capacity(output.len() / self.groups);
        for (a, b) in (0..FACTORS[0]).flat_map(|a| (0..FACTORS[1]).map(move |b| (a, FACTORS[0] + b))) {
            for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
                let product: f32 = (0..side).map(|k| at(a, row, k) * at(b, k, column)).sum();
                sums.push(product * self.rounds as f32);
            }
        }
        Tensor::new(output.clone(), sums.repeat(self.groups))
    }

    fn launch(&self, inputs: Inputs, _output: &Ty, _caps: &Caps) -> Result<Launch> {
        let launch = Launch::new("lab/matrix", 1).matrix(inputs[0].shape.channels() as u32);
        let launch = launch.constant("LANES", self.lanes).param("rounds", self.rounds);
        Ok(launch.workgroups([self.groups as u32, 1, 1]))
    }

    fn flops(&self, inputs: Inputs, _output: &Ty) -> u64 {
        let products = self.groups * self.rounds * FACTORS[0] * FACTORS[1];
        2 * products as u64 * (inputs[0].shape.channels() as u64).pow(3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::CoopMatrix;
    use crate::gpu::shader::{Dialect, Sources, prepare};

    #[test]
    fn matrices_are_multiplied_by_a_valid_kernel_where_there_are_any() {
        let storage = Storage { act: DType::F16, weight: DType::F16 };
        for side in [8, 16] {
            let matrix = CoopMatrix { m: side, n: side, k: side, ab: "f16".into(), cr: "f32".into() };
            let (f16, subgroups) = (true, Some([32, 32]));
            let caps = Caps { f16, subgroups, coop_matrix: vec![matrix], ..Caps::webgpu_default() };
            let case = Matrix::case(&caps).unwrap();
            let launch = case.variants(&caps).unwrap().swap_remove(0).launch;
            let dialect = Dialect::of_case(storage, &case, true).unwrap();
            let source = Sources::default().of_launch(&launch, dialect).unwrap();
            prepare(&source, &launch, true).unwrap();
        }
        assert!(Matrix::case(&Caps::webgpu_default()).is_none());
    }

    #[test]
    fn the_ceiling_of_matrices_is_that_of_kernels_that_multiply_them() {
        let fma = Ceilings { fma_f32_gflop_s: Some(10.0), ..Ceilings::default() };
        let ceilings = Ceilings { matrix_gflop_s: Some(80.0), ..fma };
        let of = |c: Ceilings, matrices| (c.gflop_s(DType::F16, matrices), c.arithmetic(matrices));
        assert_eq!(of(ceilings, true), (80.0, "cooperative matrices"));
        assert_eq!((of(ceilings, false), of(fma, true)), ((10.0, "fma"), (10.0, "fma")));
    }

    #[test]
    fn f16_data_may_use_the_faster_arithmetic() {
        let ceilings = Ceilings { fma_f32_gflop_s: Some(10.0), fma_f16_gflop_s: Some(20.0), ..Ceilings::default() };
        assert_eq!((ceilings.gflop_s(DType::F32, false), ceilings.gflop_s(DType::F16, false)), (10.0, 20.0));
        let emulated = Ceilings { fma_f16_gflop_s: Some(2.0), ..ceilings };
        assert_eq!(emulated.gflop_s(DType::F16, false), 10.0);
    }

    #[test]
    fn a_machine_is_as_slow_as_its_ceilings_are_low() {
        let before = Ceilings { copy_gb_s: 4.0, fma_f32_gflop_s: Some(10.0), ..Ceilings::default() };
        let after = Ceilings { copy_gb_s: 2.0, fma_f32_gflop_s: Some(8.0), product_gflop_s: Some(1.0), ..before };
        assert_eq!(after.slowness(&before), [2.0, 1.25]);
    }

    #[test]
    fn a_copy_stays_inside_what_a_device_binds() {
        let caps = Caps::webgpu_default();
        assert!(Copy::case(Copy::elements(&caps)).inputs[0].0.device_len() * 4 <= caps.max_binding as usize);
    }
}
