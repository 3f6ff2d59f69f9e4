//! The options of `generate` that say how its prompts are read.

use std::path::PathBuf;

use clap::Args;
use clap::builder::TypedValueParser;

use crate::cli::{one_of, value};
use crate::conditioning::{Embedding, Options, Syntax};
use crate::error::Result;

#[derive(Debug, Args)]
pub(super) struct PromptArgs {
    /// How prompts are read
    #[arg(long, value_name = "SYNTAX", default_value = "plain", value_parser = syntaxes())]
    prompt_syntax: Syntax,
    /// Condition on the output of the Nth text encoder layer from the end [default: 1, the last; SDXL 2]
    #[arg(long, value_name = "N")]
    clip_skip: Option<usize>,
    /// A safetensors file of textual inversion, used where its name (the token in the file, or the file's) stands in a
    /// prompt; may be given several times
    #[arg(long, value_name = "FILE")]
    embedding: Vec<PathBuf>,
}

fn syntaxes() -> impl TypedValueParser<Value = Syntax> {
    let plain = value("plain", "As diffusers: every sign is text, and what exceeds 77 tokens is left out");
    let weighted = "As AUTOMATIC1111: (word), (word:1.3), [word], \\(, BREAK, [from:to:when] and [a|b], of any length";
    one_of([(plain, Syntax::Plain), (value("weighted", weighted), Syntax::Weighted)])
}

impl PromptArgs {
    /// How prompts are read.
    pub(super) fn syntax(&self) -> Syntax {
        self.prompt_syntax
    }

    /// # Errors
    /// If an embedding cannot be read.
    pub(super) fn options(&self) -> Result<Options> {
        let embeddings = self.embedding.iter().map(|path| Embedding::read(path)).collect::<Result<_>>()?;
        Ok(Options { syntax: self.prompt_syntax, clip_skip: self.clip_skip, embeddings })
    }
}
