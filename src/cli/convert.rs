//! `ornstein convert`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::error::Result;
use crate::weights::{Encoding, convert};

/// Write a model anew with smaller weights
#[derive(Debug, Args)]
pub(super) struct Convert {
    /// A checkpoint (`.safetensors`, `.gguf`) or a diffusers folder
    input: PathBuf,
    /// What matrices become; vectors stay in f32, and what has no whole blocks becomes f16
    #[arg(long)]
    to: EncodingArg,
    /// For a checkpoint a file (`.gguf` or, in f16, `.safetensors`), for a folder a folder
    #[arg(short, long)]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum EncodingArg {
    F16,
    /// 8.5 bits a weight
    #[value(name = "q8_0")]
    Q8_0,
    /// 4.5 bits a weight
    #[value(name = "q4_0")]
    Q4_0,
}

impl Convert {
    pub(super) fn run(self) -> Result<()> {
        let encoding = match self.to {
            EncodingArg::F16 => Encoding::F16,
            EncodingArg::Q8_0 => Encoding::Q8_0,
            EncodingArg::Q4_0 => Encoding::Q4_0,
        };
        convert(&self.input, &self.output, encoding)
    }
}
