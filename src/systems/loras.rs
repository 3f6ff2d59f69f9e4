//! LoRA files that prompts name, `<lora:NAME:0.8>`: where they are, and which of them a prompt takes.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::families::misplaced;
use super::{Request, Studio};
use crate::conditioning::Syntax;
use crate::error::{Error, Field, Remedy, Result, ten};
use crate::prompt::loras::{Tag, has_tags, take_tags};
use crate::weights::{Lora, LoraFile};

/// [`LoraFile::open`], which says of a file of another kind what that is.
///
/// # Errors
/// As there.
pub fn open_lora(path: &Path) -> Result<LoraFile> {
    LoraFile::open(path).map_err(|error| misplaced(path, Field::Lora, error))
}

/// The files that are open, and where others are.
pub struct Loras {
    given: Vec<Lora>,
    folders: Vec<PathBuf>,
    open: BTreeMap<PathBuf, Arc<LoraFile>>,
    /// Those that prompts named.
    named: BTreeMap<String, Arc<LoraFile>>,
}

impl Loras {
    /// The files that every request takes, and the folders that have others; the folders of the former are searched as
    /// well.
    ///
    /// # Errors
    /// If a folder is not there.
    pub fn new(given: Vec<Lora>, folders: &[PathBuf]) -> Result<Self> {
        if let Some(folder) = folders.iter().find(|folder| !folder.is_dir()) {
            return Err(Error::file(folder, "is not a folder; give one that has LoRA files")
                .remedies([Remedy::Other(Field::LoraDir)]));
        }
        let beside = given.iter().map(|lora| lora.file.path().parent().unwrap_or(Path::new("")).to_path_buf());
        let folders = folders.iter().cloned().chain(beside).collect();
        let open = given.iter().map(|lora| (lora.file.path().to_path_buf(), Arc::clone(&lora.file))).collect();
        Ok(Self { given, folders, open, named: BTreeMap::new() })
    }

    /// Whether every prompt's tags can be understood and their files fit the model, before anything is drawn; and
    /// whether one has tags that are text, since it is plain.
    ///
    /// # Errors
    /// The first that cannot, or does not.
    pub fn check(
        &mut self,
        prompts: impl Iterator<Item = String>,
        request: &mut Request,
        studio: &Studio,
    ) -> Result<bool> {
        let (mut checked, mut plain_tags) = (HashSet::new(), false);
        for prompt in prompts {
            self.add_to(&prompt, request)?;
            plain_tags |= request.conditioning.syntax == Syntax::Plain && has_tags(&prompt);
            // Files stay open, so each has an address of its own.
            let new = request.loras.iter().filter(|lora| checked.insert(Arc::as_ptr(&lora.file))).count();
            if new > 0 {
                studio.changes(request)?;
            }
        }
        Ok(plain_tags)
    }

    /// Gives the request its prompt and its files: those of every request, and those whose tags it takes out of a
    /// weighted prompt. Its pictures' parameters show the prompt with a tag for each, which is how the web UI would
    /// have been told.
    ///
    /// # Errors
    /// If a tag cannot be understood, or its file cannot be found or read.
    pub fn add_to(&mut self, prompt: &str, request: &mut Request) -> Result<()> {
        let mut shown = prompt.trim().to_string();
        for Lora { file, unet, .. } in &self.given {
            shown += &format!(" <lora:{}:{unet}>", file.name());
        }
        request.shown_prompt = Some(shown);
        request.loras.clone_from(&self.given);
        if request.conditioning.syntax == Syntax::Plain {
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
        let fail = |what: &str| Err(Error::usage(format!("<lora:{}> in the prompt: {what}", tag.name)));
        if self.folders.is_empty() {
            let without = fail("no folder of LoRA files is given");
            return without.map_err(|error| error.remedies([Remedy::Give(Field::LoraDir)]));
        }
        // A prompt from elsewhere must not name files anywhere.
        let in_folder = !tag.name.contains(['/', '\\']);
        let paths = self.folders.iter().map(|folder| folder.join(format!("{}.safetensors", tag.name)));
        let Some(path) = paths.filter(|_| in_folder).find(|path| path.is_file()) else {
            let known = self.names();
            let known = if known.is_empty() { "no .safetensors".into() } else { ten(&known) };
            return fail(&format!("no file of this name is in the folders; they have {known}"));
        };
        let file = match self.open.get(&path) {
            Some(file) => Arc::clone(file),
            None => Arc::new(open_lora(&path)?),
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
