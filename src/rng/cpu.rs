//! The numbers of PyTorch's CPU generator.
//!
//! The random bits are those of `torch.Generator().manual_seed(seed)`, a 32-bit Mersenne Twister (mt19937). The
//! normals are those of `torch.randn` in float32 to within 1e-6; PyTorch's own builds differ by as much, since each
//! instruction set has its own sine and logarithm. Here these are the `libm` crate's, so every machine draws the same
//! bits.

use std::f32::consts::TAU as TAU32;
use std::f64::consts::TAU;

/// PyTorch draws fewer values than this one by one, and any more in blocks of this size.
const BLOCK: usize = 16;

/// The state of one seeded stream.
#[derive(Debug, Clone)]
pub(super) struct Cpu {
    engine: Mt19937,
    /// Box-Muller makes normals in pairs; the one-by-one path keeps the second for its next draw, as PyTorch does,
    /// even when blocks are drawn in between.
    spare: Option<f64>,
}

impl Cpu {
    /// `torch.Generator().manual_seed(seed)`. The Mersenne Twister takes the low 32 bits of the seed.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed as u32), spare: None }
    }

    /// The `n` values of `torch.randn(shape, generator=self)` for any shape of `n` elements, in memory order.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK { (0..n).map(|_| self.single() as f32).collect() } else { self.blocks(n) }
    }

    /// `at::normal_distribution<double>`.
    fn single(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        let (u1, u2) = (self.uniform64(), self.uniform64());
        let radius = (-2.0 * libm::log1p(-u2)).sqrt();
        let angle = TAU * u1;
        self.spare = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }

    /// `normal_fill`: uniforms for the whole tensor first, which blocks of 16 then turn into normals. A last block
    /// that is not full is the tensor's last 16 values, drawn afresh.
    fn blocks(&mut self, n: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform32()).collect();
        values.chunks_exact_mut(BLOCK).for_each(box_muller);
        if !n.is_multiple_of(BLOCK) {
            let tail = &mut values[n - BLOCK..];
            tail.fill_with(|| self.uniform32());
            box_muller(tail);
        }
        values
    }

    /// In [0, 1), of 24 random bits.
    fn uniform32(&mut self) -> f32 {
        (self.engine.next() & 0x00ff_ffff) as f32 / (1 << 24) as f32
    }

    /// In [0, 1), of 53 random bits.
    fn uniform64(&mut self) -> f64 {
        let high = u64::from(self.engine.next());
        let bits = (high << 32 | u64::from(self.engine.next())) & ((1 << 53) - 1);
        bits as f64 / (1u64 << 53) as f64
    }
}

/// 16 uniforms to 16 normals: the first eight give the radii, the last eight the angles. The angle is rounded to f32
/// before its sine, as PyTorch's vector code does; that rounding alone can move a normal by 1e-6.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let log = libm::log(f64::from(1.0 - *a)) as f32;
        let radius = f64::from((-2.0 * log).sqrt());
        let angle = f64::from(TAU32 * *b);
        *a = (radius * libm::cos(angle)) as f32;
        *b = (radius * libm::sin(angle)) as f32;
    }
}

const N: usize = 624;
const M: usize = 397;

/// The 32-bit Mersenne Twister of Matsumoto and Nishimura (1998), with the seeding of its 2002 revision.
#[derive(Debug, Clone)]
struct Mt19937 {
    state: [u32; N],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let last = state[i - 1];
            state[i] = (last ^ last >> 30).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    fn next(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9d2c_5680;
        y ^= y << 15 & 0xefc6_0000;
        y ^ y >> 18
    }

    fn twist(&mut self) {
        for i in 0..N {
            let joined = self.state[i] & 0x8000_0000 | self.state[(i + 1) % N] & 0x7fff_ffff;
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ joined >> 1 ^ odd;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_thousandth_output_is_the_standards() {
        // The C++ standard requires this value of std::mt19937 with its default seed.
        let mut engine = Mt19937::new(5489);
        let last = (0..10_000).map(|_| engine.next()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn only_the_low_half_of_a_seed_counts() {
        assert_eq!(Cpu::new((1 << 32) + 5).normal(40), Cpu::new(5).normal(40));
    }

    #[test]
    fn drawing_nothing_changes_nothing() {
        let mut generator = Cpu::new(1);
        assert!(generator.normal(0).is_empty());
        assert_eq!(generator.normal(20), Cpu::new(1).normal(20));
    }
}
