//! `ornstein tokenize`

use std::path::PathBuf;

use clap::Args;

use super::{ModelArg, print};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

#[derive(Debug, Args)]
pub(super) struct Tokenize {
    /// What to encode, start and end tokens included, unpadded
    text: String,
    #[command(flatten)]
    model: ModelArg,
    /// A folder with tokenizer.json, or vocab.json and merges.txt, instead of the model's
    #[arg(long, value_name = "FOLDER", conflicts_with = "model")]
    tokenizer: Option<PathBuf>,
}

impl Tokenize {
    pub(super) fn run(self) -> Result<()> {
        let tokenizer = match &self.tokenizer {
            Some(folder) => Tokenizer::from_folder(folder)?,
            None => {
                let model = self.model.open()?;
                Tokenizer::from_files(model.path("tokenizer"), |name| model.bytes(&format!("tokenizer/{name}")))?
            }
        };
        let ids = tokenizer.encode(&self.text)?;
        print(format!("{}\n", serde_json::json!(ids)).as_bytes())
    }
}
