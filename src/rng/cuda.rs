//! The numbers of PyTorch's CUDA generator: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1,
//! 2, 3") and cuRAND's Box-Muller.
//!
//! `torch.randn` on CUDA (ATen's `distribution_elementwise_grid_stride_kernel`) starts a thread for every value, as
//! far as the GPU holds so many threads at once. Thread i reads Philox at the counter (draw, 0, i, 0) under the seed
//! as key, makes four normals of the four words, and stores the first. So the values do not depend on the GPU, and are
//! these, as long as a draw has no more values than multiprocessors times threads of each: a picture of 512x512 pixels
//! has 16,384, one of 1024x1024 65,536, and an RTX 3060 holds 43,008 threads, an RTX 4090 196,608. Where there are
//! fewer threads, each goes on with its three other normals; that is not done here.
//!
//! The words are exact. A GPU's own sine and logarithm are fast ones, and so its normals are off from these by a few
//! 1e-6 at most.

/// The state of one seeded stream: each draw advances every thread's counter by one.
#[derive(Debug, Clone)]
pub(super) struct Cuda {
    key: [u32; 2],
    draw: u64,
}

impl Cuda {
    /// `torch.Generator("cuda").manual_seed(seed)`.
    pub fn new(seed: u64) -> Self {
        Self { key: halves(seed), draw: 0 }
    }

    /// The `n` values of `torch.randn`, in memory order.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        // PyTorch starts no kernel for an empty tensor.
        if n == 0 {
            return Vec::new();
        }
        let [low, high] = halves(self.draw);
        self.draw += 1;
        (0..n as u64)
            .map(|thread| {
                let [t0, t1] = halves(thread);
                let [x, y, ..] = philox([low, high, t0, t1], self.key);
                box_muller(x, y)
            })
            .collect()
    }
}

/// The low and the high 32 bits.
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// Philox4x32-10: ten rounds of multiplications, with a key that a Weyl sequence moves on between them.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [low0, high0] = halves(u64::from(counter[0]) * 0xd251_1f53);
        let [low1, high1] = halves(u64::from(counter[2]) * 0xcd9e_8d57);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

/// The first normal of cuRAND's `_curand_box_muller`. The uniforms are rounded to f32 as there: that moves a normal by
/// more than what the rest of the arithmetic is rounded to.
fn box_muller(x: u32, y: u32) -> f32 {
    const UNIT: f32 = 1.0 / 4_294_967_296.0;
    const TURN: f32 = std::f32::consts::TAU / 4_294_967_296.0;
    let u = libm::fmaf(x as f32, UNIT, UNIT / 2.0);
    let v = libm::fmaf(y as f32, TURN, TURN / 2.0);
    let radius = (-2.0 * libm::log(f64::from(u))).sqrt();
    (radius * libm::sin(f64::from(v))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines `philox4x32 10` of Random123's `tests/kat_vectors`: counter, key, result.
    #[test]
    fn words_are_those_of_random123() {
        let known = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, wanted) in known {
            assert_eq!(philox(counter, key), wanted, "{counter:x?} under {key:x?}");
        }
    }

    fn assert_close(found: &[f32], wanted: &[f32], tolerance: f32) {
        assert_eq!(found.len(), wanted.len());
        for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
            assert!((a - b).abs() <= tolerance, "value {i} is {a}, should be {b}");
        }
    }

    /// The output that the documentation of AUTOMATIC1111's `modules/rng_philox.py` gives.
    #[test]
    fn normals_are_those_that_the_web_ui_publishes() {
        let wanted = [
            -0.924_662_6,
            -0.425_344_15,
            -2.643_845_7,
            0.145_183_88,
            -0.120_866_47,
            -0.579_725_6,
            -0.622_851_2,
            -0.328_387_1,
            -1.074_542_3,
            -0.363_144_07,
            -1.671_050_7,
            2.265_505,
        ];
        assert_close(&Cuda::new(0).normal(12), &wanted, 1e-6);
    }

    /// Printed by `torch.randn(.., device="cuda")` after `torch.manual_seed(42)`: flashinfer's documentation of
    /// `LogitsPipe` has the first ten values, and what reproduces PyTorch's issue 184415 six draws of four.
    #[test]
    fn successive_draws_are_those_that_a_gpu_printed() {
        let first = [0.1940, 2.1614, -0.1721, 0.8491, -1.9244, 0.6530, -0.6494, -0.8175, 0.5280, -1.2753];
        assert_close(&Cuda::new(42).normal(10), &first, 5.1e-5);
        let mut generator = Cuda::new(42);
        for wanted in [
            [0.1940, 2.1614, -0.1721, 0.8491],
            [0.1391, -0.1082, -0.7174, 0.7566],
            [-0.5187, 1.2268, 0.6255, -0.9117],
            [-0.6974, -1.8688, -0.8832, -1.6627],
            [-1.2682, -0.0383, -0.1029, 1.4400],
            [1.4640, -0.3238, 0.7740, 1.5892],
        ] {
            assert_close(&generator.normal(4), &wanted, 5.1e-5);
        }
    }

    #[test]
    fn both_halves_of_a_seed_count() {
        assert_ne!(Cuda::new((1 << 32) + 5).normal(4), Cuda::new(5).normal(4));
    }

    #[test]
    fn drawing_nothing_changes_nothing() {
        let mut generator = Cuda::new(1);
        assert!(generator.normal(0).is_empty());
        assert_eq!(generator.normal(20), Cuda::new(1).normal(20));
    }
}
