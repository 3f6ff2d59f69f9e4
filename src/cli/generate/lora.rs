//! The options of `generate` that are LoRA files'.

use std::path::PathBuf;

use clap::Args;

use crate::cli::lora::LoraArgs;
use crate::error::Result;
use crate::systems::Loras;

#[derive(Debug, Args)]
pub(super) struct PromptLoraArgs {
    #[command(flatten)]
    files: LoraArgs,
    /// Where `<lora:NAME:SCALE>` in a weighted prompt finds NAME.safetensors, beside the folders of --lora; may be
    /// given several times
    #[arg(long, value_name = "FOLDER")]
    lora_dir: Vec<PathBuf>,
}

impl PromptLoraArgs {
    /// # Errors
    /// If a file of `--lora` cannot be read, or a folder is not there.
    pub(super) fn open(&self) -> Result<Loras> {
        Loras::new(self.files.open()?, &self.lora_dir)
    }
}
