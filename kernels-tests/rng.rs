//! Seeded noise against PyTorch.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::rng::Generator;
use safetensors::SafeTensors;

/// The contract's absolute error of a normal.
const TOLERANCE: f32 = 1e-6;

/// One trial for each seed: the tensors `SEED.00.N`, `SEED.01.N`, .. of `data/rng.safetensors` are successive draws of
/// `N` values (longer ones: the first and the last 64 of them) from one generator.
#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/rng.safetensors");
    let bytes: &'static [u8] = std::fs::read(path).expect("data/rng.safetensors").leak();
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    let mut draws: Vec<(String, &'static [u8])> =
        file.tensors().into_iter().map(|(name, tensor)| (name, tensor.data())).collect();
    draws.sort();
    let seed = |name: &str| name.split('.').next().unwrap_or_default().to_string();
    draws
        .chunk_by(|a, b| seed(&a.0) == seed(&b.0))
        .map(|draws| {
            let (name, draws) = (seed(&draws[0].0), draws.to_vec());
            Trial::test(format!("rng::seed_{name}"), move || matches_torch(&name, &draws))
        })
        .collect()
}

fn matches_torch(seed: &str, draws: &[(String, &[u8])]) -> Result<(), Failed> {
    let mut generator = Generator::new(seed.parse()?);
    for (name, bytes) in draws {
        let n: usize = name.rsplit('.').next().unwrap_or_default().parse()?;
        let found = generator.normal(n);
        let wanted: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let found = if n > 128 { [&found[..64], &found[n - 64..]].concat() } else { found };
        let worst = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if found.len() != wanted.len() || worst > TOLERANCE {
            return Err(format!("{name}: off by {worst:e}").into());
        }
    }
    Ok(())
}
