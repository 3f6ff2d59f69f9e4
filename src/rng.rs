//! See the module map in `lib.rs`.
pub struct Generator(u64);
impl Generator {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| {
                let mut s = 0.0;
                for _ in 0..12 {
                    self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    s += (self.0 >> 40) as f32 / (1u64 << 24) as f32;
                }
                s - 6.0
            })
            .collect()
    }
}
