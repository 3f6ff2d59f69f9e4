//! Seeded normal noise: the numbers that PyTorch draws on the CPU or on CUDA, so that one seed gives one picture there
//! and here.
//!
//! Floor 0: may import floor 0.

mod cpu;
mod cuda;

use cpu::Cpu;
use cuda::Cuda;

/// Which of PyTorch's generators noise is drawn like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoiseSource {
    /// `torch.Generator("cpu")`: diffusers' advice for pictures that can be made again.
    #[default]
    Cpu,
    /// `torch.Generator("cuda")`: what AUTOMATIC1111's web UI draws by default, and calls `NV` where it imitates it.
    Cuda,
}

impl NoiseSource {
    /// What AUTOMATIC1111's web UI calls it in a picture's parameters.
    pub fn automatic1111_name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Cuda => "NV",
        }
    }

    /// The generator of a seed.
    pub fn seeded(self, seed: u64) -> Generator {
        match self {
            Self::Cpu => Generator::new(seed),
            Self::Cuda => Generator(Stream::Cuda(Cuda::new(seed))),
        }
    }
}

/// The state of one seeded stream of noise. Equal seeds give equal streams.
#[derive(Debug, Clone)]
pub struct Generator(Stream);

#[derive(Debug, Clone)]
enum Stream {
    Cpu(Box<Cpu>),
    Cuda(Cuda),
}

impl Generator {
    /// `torch.Generator().manual_seed(seed)`, on the CPU.
    pub fn new(seed: u64) -> Self {
        Self(Stream::Cpu(Box::new(Cpu::new(seed))))
    }

    /// The `n` values of `torch.randn(shape, generator=self)` for any shape of `n` elements, in memory order.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        match &mut self.0 {
            Stream::Cpu(cpu) => cpu.normal(n),
            Stream::Cuda(cuda) => cuda.normal(n),
        }
    }
}
