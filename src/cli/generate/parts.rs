//! The options of `generate` that put networks from elsewhere into a model.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::error::Result;
use crate::weights::Model;

#[derive(Debug, Args)]
pub(super) struct PartArgs {
    /// The model that has what --model lacks, which may be one network alone: a UNet of a .gguf file
    #[arg(long, value_name = "MODEL", requires = "model")]
    base: Option<OsString>,
    /// Another UNet: a file that holds one, or its folder
    #[arg(long, value_name = "PATH")]
    unet: Option<PathBuf>,
    /// Another autoencoder, a VAE or a tiny one (TAESD): a file that holds it, or its folder
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// Another text encoder: a file that holds one, or its folder
    #[arg(long, value_name = "PATH")]
    text_encoder: Option<PathBuf>,
    /// The same of the second one of SDXL
    #[arg(long, value_name = "PATH")]
    text_encoder_2: Option<PathBuf>,
}

impl PartArgs {
    /// The model with these in the place of its own.
    ///
    /// # Errors
    /// If one cannot be read, or is not for the model's family.
    pub(super) fn open(&self, mut model: Model) -> Result<Model> {
        if let Some(base) = &self.base {
            model = Model::resolve(Some(base))?.with_parts_of(&model)?;
        }
        let parts =
            [("unet", &self.unet), ("text_encoder", &self.text_encoder), ("text_encoder_2", &self.text_encoder_2)];
        for (component, path) in parts {
            if let Some(path) = path {
                model = model.with_part(component, path)?;
            }
        }
        match &self.vae {
            Some(path) => model.with_vae(path),
            None => Ok(model),
        }
    }
}
