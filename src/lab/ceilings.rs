//! What a device can do at most, measured: bytes a second by a kernel that copies, multiply-adds a second by a kernel
//! that does nothing else. On the CPU executor it is a copy and a matrix product by all threads.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bench::measure::{Budget, Route, Watch, on_cpu as on_host, on_gpu as on_device};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::gpu::Timer;
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
    /// A matrix product of the CPU executor.
    pub product_gflop_s: Option<f64>,
    /// The largest of their spreads between rounds, as a share.
    pub spread: f64,
}

impl Ceilings {
    /// Operations a second, in 10^9, that kernels with activations in `dtype` may hope for. Every device can use f32
    /// arithmetic for f16 data.
    pub fn gflop_s(&self, dtype: DType) -> f64 {
        let f16 = self.fma_f16_gflop_s.filter(|_| dtype == DType::F16);
        [self.fma_f32_gflop_s, f16, self.product_gflop_s].into_iter().flatten().fold(0.0, f64::max)
    }

    /// What [`Ceilings::gflop_s`] is the rate of.
    pub fn arithmetic(&self) -> &'static str {
        if self.product_gflop_s.is_some() { "matrix product" } else { "fma" }
    }

    /// How slow the machine is beside another time: for each ceiling that both have, the other's rate over this one's.
    pub fn slowness(&self, other: &Self) -> Vec<f64> {
        let all = |c: &Self| [Some(c.copy_gb_s), c.fma_f32_gflop_s, c.fma_f16_gflop_s, c.product_gflop_s];
        let pairs = all(self).into_iter().zip(all(other)).filter_map(|(a, b)| Some(b? / a?));
        pairs.filter(|ratio| ratio.is_finite() && *ratio > 0.0).collect()
    }
}

/// A device's ceilings being measured, in turn with everything else.
pub struct Probes<'a> {
    copy: Probe<'a>,
    /// Of multiply-adds in f32 and in f16, and of a product.
    arithmetic: [Option<Probe<'a>>; 3],
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
        let copy = Copy::case(caps);
        let bytes = 2 * copy.inputs[0].0.device_len() * DType::F32.size();
        let fma = Fma::case();
        let operations = fma.op.flops(&fma.types(), &fma.inputs[0].0) as f64;
        let copy = probe(timer, &copy, DType::F32, bytes as f64).await?;
        let fma_f32 = probe(timer, &fma, DType::F32, operations).await?;
        let fma_f16 = match caps.native_f16() {
            true => Some(probe(timer, &fma, DType::F16, operations).await?),
            false => None,
        };
        Ok(Self { copy, arithmetic: [Some(fma_f32), fma_f16, None] })
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
        Ok(Self { copy, arithmetic: [None, None, product] })
    }

    /// Takes this round's samples.
    ///
    /// # Errors
    /// If the device fails.
    pub fn round(&mut self) -> Result<()> {
        self.copy.watch.round()?;
        self.arithmetic.iter_mut().flatten().try_for_each(|probe| probe.watch.round())
    }

    /// What the rounds so far say, or a first look where there was none.
    pub fn ceilings(&self) -> Ceilings {
        let rates = self.arithmetic.each_ref().map(|probe| probe.as_ref().map(Probe::rate));
        let [fma_f32_gflop_s, fma_f16_gflop_s, product_gflop_s] = rates;
        let all = self.arithmetic.iter().flatten().chain([&self.copy]);
        let spread = all.map(|probe| probe.watch.timing().summary.spread).fold(0.0, f64::max);
        Ceilings { copy_gb_s: self.copy.rate(), fma_f32_gflop_s, fma_f16_gflop_s, product_gflop_s, spread }
    }
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
    /// More bytes than a device's caches hold, where it can bind so many.
    fn case(caps: &Caps) -> Case {
        let elements = caps.max_binding.min(caps.max_buffer).min(caps.beyond_caches()) as usize / DType::F32.size();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_data_may_use_the_faster_arithmetic() {
        let ceilings = Ceilings { fma_f32_gflop_s: Some(10.0), fma_f16_gflop_s: Some(20.0), ..Ceilings::default() };
        assert_eq!((ceilings.gflop_s(DType::F32), ceilings.gflop_s(DType::F16)), (10.0, 20.0));
        let emulated = Ceilings { fma_f16_gflop_s: Some(2.0), ..ceilings };
        assert_eq!(emulated.gflop_s(DType::F16), 10.0);
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
        assert!(Copy::case(&caps).inputs[0].0.device_len() * 4 <= caps.max_binding as usize);
    }
}
