//! What a file is that lacks what is wanted of it, and the errors that say so.

use std::path::Path;

use super::content::{Content, called, field_of, given_as};
use super::{Checkpoint, sorted};
use crate::error::{Error, Field};
use crate::weights::component::from_elsewhere;
use crate::weights::family::{CONTROLNET, Families};
use crate::weights::file::TensorFile;

impl Checkpoint {
    /// What the file at this path is, as far as its tensors tell.
    pub fn content_of(path: &Path, families: &'static Families) -> Option<Content> {
        let file = TensorFile::open_any(path).ok()?;
        Content::of_names(&file, families).or_else(|| sorted(file, families).content(families))
    }

    /// By its networks.
    pub fn content(&self, families: &'static Families) -> Option<Content> {
        let held: Vec<_> = self.components().collect();
        let told = self.told(families).ok()?.into_iter().find_map(|(_, family)| family);
        let denoises = |name: &str| families.components().any(|network| network.denoises && network.name == name);
        match held[..] {
            [alone] => {
                let field = field_of(alone)?;
                let of = told.filter(|_| denoises(alone)).map(|family| format!(" of {}", family.title));
                Some(Content::For(field, called(field).to_string() + &of.unwrap_or_default()))
            }
            [..] if held.iter().any(|name| denoises(name)) => {
                let title = told.map_or(String::new(), |family| family.title.to_string() + " ");
                Some(Content::For(Field::Model, format!("a {title}model")))
            }
            _ => None,
        }
    }

    /// The error of a file that is given as a component, and does not hold it.
    pub(super) fn is_not(&self, component: &'static str, families: &'static Families) -> Error {
        let content = Content::of_names(&self.file, families).or_else(|| self.content(families));
        match (content, field_of(component)) {
            (Some(Content::For(Field::Model, _)), _) | (None, _) | (_, None) => self.lacks(component),
            (Some(content), Some(field)) => content.error(self.path(), field),
        }
    }

    /// The error of a component, or of one of its files, that is not there.
    pub fn without(&self, path: &str) -> Error {
        let (held, component) = (self.components().collect::<Vec<_>>(), path.split('/').next().unwrap_or(path));
        match held[..] {
            [CONTROLNET] => return Content::of(Field::Control).error(self.path(), Field::Model),
            _ if self.astray(component).is_some() => return self.lacks(component),
            _ => {}
        }
        let alone = if let [alone] = held[..] { field_of(alone) } else { None };
        // Of a network alone, all the rest is missing.
        let elsewhere = from_elsewhere(path).take(if alone.is_some() { 1 } else { usize::MAX });
        self.lacks(component).remedies(elsewhere.chain(alone.into_iter().flat_map(given_as)))
    }

    /// What is said of a component that is there under names that are not known.
    fn astray(&self, component: &str) -> Option<&String> {
        self.astray.iter().find(|(astray, _)| *astray == component).map(|(_, what)| what)
    }

    /// What is there instead of a component.
    fn lacks(&self, component: &str) -> Error {
        if let Some(what) = self.astray(component) {
            return Error::file(self.path(), what);
        }
        let held: Vec<_> = self.components().collect();
        let has = if held.is_empty() { "no network that is known".into() } else { held.join(", ") };
        Error::file(self.path(), format!("holds no {component}, only {has}"))
    }
}
