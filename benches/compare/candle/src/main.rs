//! One network of Stable Diffusion 1.5 by candle on the CPU in f32: writes its output and prints the seconds of each
//! run.
//!
//! `candle-networks unet|vae-decoder MODEL INPUTS OUTPUTS RUNS`, the files as `ornstein forward` takes them.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, safetensors};
use candle_transformers::models::stable_diffusion::StableDiffusionConfig;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [component, model, inputs, outputs, runs] = arguments.as_slice() else {
        candle_core::bail!("usage: candle-networks unet|vae-decoder MODEL INPUTS OUTPUTS RUNS");
    };
    let runs: usize = runs.parse().map_err(candle_core::Error::wrap)?;
    let given = safetensors::load(inputs, &Device::Cpu)?;
    let input = |name: &str| given.get(name).cloned().ok_or_else(|| candle_core::Error::Msg(format!("no input {name}")));
    let config = StableDiffusionConfig::v1_5(None, None, None);
    let file = |network: &str| Path::new(model).join(network).join("diffusion_pytorch_model.safetensors");
    let (output, seconds) = if component == "vae-decoder" {
        let vae = config.build_vae(file("vae"), &Device::Cpu, DType::F32)?;
        let z = input("z")?;
        timed(runs, || vae.decode(&z))?
    } else {
        let unet = config.build_unet(file("unet"), &Device::Cpu, 4, false, DType::F32)?;
        let (sample, states) = (input("sample")?, input("encoder_hidden_states")?);
        let timestep = f64::from(input("timestep")?.to_vec1::<f32>()?[0]);
        timed(runs, || unet.forward(&sample, timestep, &states))?
    };
    safetensors::save(&HashMap::from([("sample", output)]), outputs)?;
    println!("{seconds:?}");
    Ok(())
}

/// The last output and the seconds of each run.
fn timed(runs: usize, run: impl Fn() -> Result<Tensor>) -> Result<(Tensor, Vec<f64>)> {
    let mut seconds = Vec::new();
    loop {
        let start = Instant::now();
        let output = run()?;
        seconds.push(start.elapsed().as_secs_f64());
        if seconds.len() >= runs {
            return Ok((output, seconds));
        }
    }
}
