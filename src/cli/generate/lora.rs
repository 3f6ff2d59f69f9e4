//! The LoRA files of `generate`: those of `--lora`, and those that prompts name.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::cli::lora::LoraArgs;
use crate::cli::warn;
use crate::conditioning::Syntax;
use crate::error::{Error, Result, ten};
use crate::prompt::loras::{Tag, has_tags, take_tags};
use crate::systems::{Request, Studio};
use crate::weights::{Lora, LoraFile};

use super::prompts::Prompts;

#[derive(Debug, Args)]
pub(super) struct PromptLoraArgs {
    #[command(flatten)]
    files: LoraArgs,
    /// Where `<lora:NAME:SCALE>` in a weighted prompt finds NAME.safetensors, beside the folders of --lora; may be given
    /// several times
    #[arg(long, value_name = "FOLDER")]
    lora_dir: Vec<PathBuf>,
}

/// The files that are open, and where others are.
pub(super) struct Loras {
    given: Vec<Lora>,
    folders: Vec<PathBuf>,
    open: BTreeMap<PathBuf, Arc<LoraFile>>,
    /// Those that prompts named.
    named: BTreeMap<String, Arc<LoraFile>>,
    /// Whether it was said that tags in plain prompts are text.
    warned: bool,
}

impl PromptLoraArgs {
    /// # Errors
    /// If a file of `--lora` cannot be read, or a folder is not there.
    pub(super) fn open(&self) -> Result<Loras> {
        if let Some(folder) = self.lora_dir.iter().find(|folder| !folder.is_dir()) {
            return Err(Error::file(folder, "is no folder; --lora-dir takes one with LoRA files"));
        }
        let given = self.files.open()?;
        let beside = given.iter().map(|lora| lora.file.path().parent().unwrap_or(Path::new("")).to_path_buf());
        let folders = self.lora_dir.iter().cloned().chain(beside).collect();
        let open = given.iter().map(|lora| (lora.file.path().to_path_buf(), Arc::clone(&lora.file))).collect();
        Ok(Loras { given, folders, open, named: BTreeMap::new(), warned: false })
    }
}

impl Loras {
    /// Whether every prompt's tags can be understood and their files fit the model, before anything is drawn.
    ///
    /// # Errors
    /// The first that cannot, or does not.
    pub(super) fn check(&mut self, prompts: &Prompts, request: &mut Request, pipeline: &Studio) -> Result<()> {
        let mut checked = HashSet::new();
        for (_, prompt) in prompts.iter() {
            self.add_to(prompt, request)?;
            // Files stay open, so each has an address of its own.
            let new = request.loras.iter().filter(|lora| checked.insert(Arc::as_ptr(&lora.file))).count();
            if new > 0 {
                pipeline.changes(request)?;
            }
        }
        Ok(())
    }

    /// Gives the request its prompt and its files: those of `--lora`, and those whose tags it takes out of a weighted
    /// prompt. Its pictures' parameters show the prompt with a tag for each, which is how the web UI would have been
    /// told.
    ///
    /// # Errors
    /// If a tag cannot be understood, or its file cannot be found or read.
    pub(super) fn add_to(&mut self, prompt: &str, request: &mut Request) -> Result<()> {
        let mut shown = prompt.trim().to_string();
        for Lora { file, unet, .. } in &self.given {
            shown += &format!(" <lora:{}:{unet}>", file.name());
        }
        request.shown_prompt = Some(shown);
        request.loras.clone_from(&self.given);
        if request.conditioning.syntax == Syntax::Plain {
            if !self.warned && has_tags(prompt) {
                self.warned = true;
                warn("<lora:..> in a plain prompt is text: use --lora, or --prompt-syntax weighted");
            }
            request.prompt = prompt.into();
            return Ok(());
        }
        let (prompt, tags) = take_tags(prompt)?;
        request.prompt = prompt;
        for tag in tags {
            let file = self.find(&tag)?;
            request.loras.push(Lora { file, unet: tag.unet, text: tag.text });
        }
        Ok(())
    }

    fn find(&mut self, tag: &Tag) -> Result<Arc<LoraFile>> {
        if let Some(file) = self.named.get(&tag.name) {
            return Ok(Arc::clone(file));
        }
        let fail = |what: String| Err(Error::usage(format!("<lora:{}> in the prompt: {what}", tag.name)));
        if self.folders.is_empty() {
            return fail("give the folder of its file by --lora-dir".into());
        }
        // A prompt from elsewhere must not name files anywhere.
        let in_folder = !tag.name.contains(['/', '\\']);
        let paths = self.folders.iter().map(|folder| folder.join(format!("{}.safetensors", tag.name)));
        let Some(path) = paths.filter(|_| in_folder).find(|path| path.is_file()) else {
            let known = self.names();
            let known = if known.is_empty() { "no .safetensors".into() } else { ten(&known) };
            return fail(format!("there is no file of this name; --lora and --lora-dir have {known}"));
        };
        let file = match self.open.get(&path) {
            Some(file) => Arc::clone(file),
            None => Arc::new(LoraFile::open(&path)?),
        };
        self.open.insert(path, Arc::clone(&file));
        self.named.insert(tag.name.clone(), Arc::clone(&file));
        Ok(file)
    }

    /// What prompts may name, sorted.
    fn names(&self) -> Vec<String> {
        let here = |folder: &PathBuf| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.clone() };
        let entries = self.folders.iter().filter_map(|folder| std::fs::read_dir(here(folder)).ok()).flatten().flatten();
        let files =
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
        let mut names: Vec<String> =
            files.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
        names.sort();
        names.dedup();
        names
    }
}
