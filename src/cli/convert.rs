//! `ornstein convert`

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::TypedValueParser;

use super::{megabytes, one_of, tell, value};
use crate::error::Result;
use crate::weights::manifest::{self, Kind};
use crate::weights::{Encoding, Model, convert};

/// Write a model anew with smaller weights
#[derive(Debug, Args)]
pub(super) struct Convert {
    /// A checkpoint (`.safetensors`, `.gguf`), a diffusers folder, or a name from `ornstein models list`
    input: PathBuf,
    /// What matrices become; vectors stay in f32, and what has no whole blocks becomes f16
    #[arg(long, value_parser = encodings())]
    to: Encoding,
    /// For a checkpoint a file (`.gguf` or, in f16, `.safetensors`), for a folder a folder
    #[arg(short, long)]
    output: PathBuf,
}

fn encodings() -> impl TypedValueParser<Value = Encoding> {
    let (q8_0, q4_0) = (value("q8_0", "8.5 bits a weight"), value("q4_0", "4.5 bits a weight"));
    one_of([("f16".into(), Encoding::F16), (q8_0, Encoding::Q8_0), (q4_0, Encoding::Q4_0)])
}

impl Convert {
    pub(super) fn run(self) -> Result<()> {
        let entry = self.input.to_str().and_then(manifest::find).filter(|entry| entry.kind != Kind::BuiltIn);
        let is_name = entry.is_some() && !self.input.exists();
        let input = if is_name { Model::resolve(Some(self.input.as_os_str()))?.path("") } else { self.input.clone() };
        convert(&input, &self.output, self.to)?;
        let size = |path: &Path| path.metadata().ok().filter(|file| file.is_file()).map(|file| megabytes(file.len()));
        let sizes = match (size(&input), size(&self.output)) {
            (Some(from), Some(to)) => format!(": {to}, from {from}"),
            _ => String::new(),
        };
        tell(&format!("wrote {}{sizes}", self.output.display()));
        Ok(())
    }
}
