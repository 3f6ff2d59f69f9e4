//! `ornstein forward`

use std::path::PathBuf;

use clap::Args;

use super::lora::LoraArgs;
use super::{DeviceArgs, ModelArg, flag, warn};
use crate::error::{Message, Result};
use crate::forward::forward;
use crate::gpu::shader::Sources;
use crate::weights::{Changes, check_writable, read_tensors, write_tensors};

#[derive(Debug, Args)]
pub(super) struct Forward {
    /// The folder of a network of the model, of an autoencoder with the half that runs: text-encoder, text-encoder-2,
    /// unet, vae-decoder, vae-encoder, vqvae-decoder, vqvae-encoder, bert, controlnet
    component: String,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    loras: LoraArgs,
    /// A safetensors file with the inputs, in PyTorch's shapes and under diffusers' argument names
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// The safetensors file to write the outputs to, in f32
    #[arg(long, value_name = "FILE")]
    outputs: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Forward {
    pub(super) fn run(self) -> Result<()> {
        check_writable(&self.outputs)?;
        let inputs = read_tensors(&self.inputs)?.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect();
        let model = self.model.open()?;
        let changes = Changes::of(&model, &self.loras.open()?)?;
        let executor = self.device.open(Sources::default())?;
        let tell = &mut |text: &Message| warn(&text.said(flag));
        let outputs = pollster::block_on(forward(&model, &changes, &self.component, inputs, &executor, tell))?;
        let outputs: Vec<_> = outputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        write_tensors(&self.outputs, &outputs)
    }
}
