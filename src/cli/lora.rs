//! LoRA files on the command line.

use std::path::Path;
use std::sync::Arc;

use clap::Args;

use crate::error::{Error, Result};
use crate::weights::{Lora, LoraFile};

#[derive(Debug, Args)]
pub(super) struct LoraArgs {
    /// A LoRA file (or LoHa, LoKr, DoRA), whose changes times SCALE [default: 1] are added to the model; may be given
    /// several times
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<String>,
}

impl LoraArgs {
    /// The files that are named, in their order.
    ///
    /// # Errors
    /// If one cannot be read, or a scale is not finite.
    pub(super) fn open(&self) -> Result<Vec<Lora>> {
        self.lora.iter().map(|text| lora(text)).collect()
    }
}

fn lora(text: &str) -> Result<Lora> {
    let scaled = text.rsplit_once(':').and_then(|(path, scale)| Some((path, scale.parse::<f32>().ok()?)));
    // A file may have a name that ends so.
    let (path, scale) = scaled.filter(|_| !Path::new(text).exists()).unwrap_or((text, 1.0));
    if !scale.is_finite() {
        return Err(Error::usage(format!("--lora {text}: {scale} is no scale; 1 is all of the file's change")));
    }
    Ok(Lora { file: Arc::new(LoraFile::open(Path::new(path))?), unet: scale, text: scale })
}
