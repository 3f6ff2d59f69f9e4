//! Which of the files in a component's folder hold its weights: `NAME.safetensors`, `NAME.VARIANT.safetensors`, an
//! index of shards in either spelling, or GGUF.

use std::collections::BTreeSet;

use crate::error::{Error, Field, Remedy, Result, ten};
use crate::weights::files::Files;
use crate::weights::format::safetensors::PICKLE;

/// Names without variant and ending: diffusers' and transformers'.
const NAMES: [&str; 2] = ["diffusion_pytorch_model", "model"];
/// Endings, the best first; and what stands before the variant in the second spelling of an index.
const ENDINGS: [&str; 3] = [".safetensors", ".safetensors.index.json", ".gguf"];
const INDEX: &str = ".safetensors.index.";
/// The variant that is taken where there is none without.
const USUAL: &str = "fp16";

/// Endings of files that hold PyTorch pickles.
const PICKLES: [&str; 4] = ["bin", "ckpt", "pt", "pth"];

/// A file of weights by what its name says.
#[derive(Debug, PartialEq)]
pub(super) struct Candidate<'a> {
    pub file: &'a str,
    ending: usize,
    name: usize,
    /// What sets it apart from others: `bf16` of `model.bf16.safetensors`, `x` of `x.safetensors`; nothing of those
    /// that are called as usual.
    pub variant: &'a str,
}

impl<'a> Candidate<'a> {
    /// `None` of other files, and of single shards.
    pub fn of(file: &'a str) -> Option<Self> {
        let (ending, stem) = ENDINGS
            .iter()
            .enumerate()
            .find_map(|(i, end)| Some((i, file.strip_suffix(end)?)))
            .or_else(|| Some((1, file.strip_suffix(".json")?)).filter(|(_, stem)| stem.contains(INDEX)))?;
        let (stem, after) = stem.split_once(INDEX).unwrap_or((stem, ""));
        if stem.split_once("-of-").is_some_and(|(_, count)| count.starts_with(|c: char| c.is_ascii_digit())) {
            return None;
        }
        let known = NAMES.iter().enumerate().find_map(|(i, name)| match stem.strip_prefix(name)? {
            "" => Some((i, after)),
            rest => Some((i, rest.strip_prefix('.')?)),
        });
        let (name, variant) = known.unwrap_or((NAMES.len(), stem));
        Some(Self { file, ending, name, variant })
    }

    /// Less is better, of those that may be taken without being asked for.
    fn rank(&self) -> (bool, bool, usize, usize, usize) {
        (self.is_unusual(), self.ending == 2, usize::from(self.variant == USUAL), self.ending, self.name)
    }

    /// Whether it is of a variant that is only taken where it is asked for or there is no other.
    fn is_unusual(&self) -> bool {
        !["", USUAL].contains(&self.variant)
    }
}

/// The variants of its weights that a component's folder has.
pub fn variants(files: &dyn Files, component: &str) -> BTreeSet<String> {
    let names = files.list(component);
    let found = names.iter().filter_map(|name| Candidate::of(name)).map(|candidate| candidate.variant.to_string());
    found.filter(|variant| !variant.is_empty()).collect()
}

/// The path of a component's weights, or of their index.
///
/// # Errors
/// If there are none, or several variants of which none is asked for and none is the usual.
pub fn weights_of(files: &dyn Files, component: &str) -> Result<String> {
    let names = files.list(component);
    let mut found: Vec<_> = names.iter().filter_map(|name| Candidate::of(name)).collect();
    found.sort_by_key(Candidate::rank);
    let asked = found.iter().find(|candidate| files.variant() == Some(candidate.variant));
    let Some(best) = asked.or(found.first()) else { return Err(absent(files, component, names)) };
    let variants: BTreeSet<_> = found.iter().map(|candidate| candidate.variant).collect();
    if asked.is_none() && best.is_unusual() && variants.len() > 1 {
        let what = format!("has several variants of its weights: {}", ten(&variants.iter().collect::<Vec<_>>()));
        let remedies = variants.iter().map(|variant| Remedy::set(Field::Variant, variant));
        return Err(Error::file(files.path(component), what).remedies(remedies.take(1)));
    }
    Ok(format!("{component}/{}", best.file))
}

/// Why a component has no weights, and what to do.
fn absent(files: &dyn Files, component: &str, names: Vec<String>) -> Error {
    let folder = files.path(component);
    if !files.has(component) {
        return Error::file(folder, "no such folder: this model has no such component, or its download is incomplete");
    }
    let is_pickle = |name: &String| name.rsplit_once('.').is_some_and(|(_, ending)| PICKLES.contains(&ending));
    let (pickle, others): (Vec<_>, Vec<_>) = names.into_iter().partition(is_pickle);
    if let Some(pickle) = pickle.first() {
        let what = format!(
            "`{pickle}` {PICKLE}; download the .safetensors, or convert it in Python with `save_pretrained(.., \
             safe_serialization=True)`"
        );
        return Error::file(folder, what);
    }
    let found = if others.is_empty() { "it is empty".into() } else { format!("it has {}", ten(&others)) };
    let [first, second] = NAMES.map(|name| format!("{name}{}", ENDINGS[0]));
    Error::file(folder, format!("no weights: expected {first} or {second}, {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_of_a_file_is_told_by_its_name() {
        let shards = "diffusion_pytorch_model";
        for (file, variant) in [
            ("model.safetensors", Some("")),
            ("diffusion_pytorch_model.non_ema.safetensors", Some("non_ema")),
            (&format!("{shards}.safetensors.index.json"), Some("")),
            (&format!("{shards}.safetensors.index.fp16.json"), Some("fp16")),
            (&format!("{shards}.fp16.safetensors.index.json"), Some("fp16")),
            (&format!("{shards}.fp16-00001-of-00002.safetensors"), None),
            (&format!("{shards}-00001-of-00002.fp16.safetensors"), None),
            ("unet-Q4_K_M.gguf", Some("unet-Q4_K_M")),
            ("config.json", None),
            ("model.bin", None),
        ] {
            assert_eq!(Candidate::of(file).map(|found| found.variant), variant, "{file}");
        }
    }
}
