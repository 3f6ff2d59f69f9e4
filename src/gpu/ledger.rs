//! What is known of an opened device's kernels, and what of them runs now.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::notes::{self, Notes};
use super::shader::Sources;
use super::store::{self, Store};
use super::tune::Tuned;
use super::verdicts::{Id, Verdicts, edit, read};
use crate::caps::Caps;
use crate::error::{Error, Field, Remedy, Result, Tell};

/// The verdicts on a device's kernels, and the notes of this process.
#[derive(Debug)]
pub struct Ledger {
    known: Mutex<Known>,
    /// Whether this process has checked a kernel.
    checked: AtomicBool,
    /// What was said of kernels that are wrong.
    told: Mutex<HashSet<String>>,
}

#[derive(Debug)]
struct Known {
    adapter: String,
    store: Option<Store>,
    /// On kernels of the crate's own text.
    own: Verdicts,
    /// On those with a user's text in them.
    edited: Verdicts,
    notes: Notes,
}

impl Known {
    fn of(&mut self, id: &Id) -> &mut Verdicts {
        if id.edit == 0 { &mut self.own } else { &mut self.edited }
    }

    /// Changes the verdicts on the crate's own kernels, or those on edited ones, here and on disk.
    fn keep(&mut self, edited: bool, change: impl Fn(&mut Verdicts)) {
        let Self { store, own, edited: of_edited, .. } = self;
        let verdicts = if edited { of_edited } else { own };
        match store {
            Some(store) => store.locked(|| verdicts.keep(Some(store), change)),
            None => verdicts.keep(None, change),
        }
    }
}

impl Ledger {
    /// With what earlier runs found. Kernels that one of them did not survive are refused from now on, and `tell` is
    /// told of each, this once.
    pub(super) fn open(caps: &Caps, sources: &Sources, tell: &mut Tell<'_>) -> Self {
        let (ledger, ended) = Self::at(Store::of(caps), caps, sources);
        for id in ended {
            let what = "ended an earlier run on";
            tell(&format!("{} {what} {} and will not be used there any more", id.words, caps.name));
        }
        ledger
    }

    /// Whether no kernel was checked by this process before.
    pub(super) fn is_first_check(&self) -> bool {
        !self.checked.swap(true, Ordering::Relaxed)
    }

    /// Whether this was not said before: what is wrong with a kernel is said once, however many networks have it.
    pub(crate) fn is_news(&self, text: &str) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(text.into())
    }

    /// The same in this store, with the kernels that earlier runs did not survive.
    fn at(store: Option<Store>, caps: &Caps, sources: &Sources) -> (Self, Vec<Id>) {
        let mut ended = Vec::new();
        let mut refuse = |id: Id| {
            let mut verdicts = Verdicts::kept(store.as_ref(), caps, id.edit);
            if !verdicts.ended(&id) {
                verdicts.keep(store.as_ref(), |verdicts| verdicts.refuse(&id));
                ended.push(id);
            }
        };
        if let Some(store) = &store {
            let find = || notes::of_the_dead(store.folder(), &store.ending(notes::KIND), &mut refuse);
            store.locked(find);
        }
        let [own, edited] = [0, edit(sources)].map(|edit| Verdicts::kept(store.as_ref(), caps, edit));
        let notes = Notes::new(store.clone(), !caps.on_processor());
        let known = Known { adapter: caps.name.clone(), store, own, edited, notes };
        (Self { known: Mutex::new(known), checked: AtomicBool::new(false), told: Mutex::default() }, ended)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the variant is refused, if it is.
    pub(super) fn wrong(&self, id: &Id) -> Option<String> {
        self.known().of(id).kernels.get(&id.whole).cloned().flatten()
    }

    /// Whether the kernel passed.
    pub(super) fn right(&self, id: &Id) -> bool {
        self.known().of(id).kernels.get(&id.exact).is_some_and(Option::is_none)
    }

    /// Whether a run did not survive it.
    pub(super) fn ended(&self, id: &Id) -> bool {
        self.known().of(id).ended(id)
    }

    /// How many variants failed so far.
    pub(crate) fn quarantined(&self) -> usize {
        let known = self.known();
        [&known.own, &known.edited].map(|verdicts| verdicts.kernels.values().flatten().count()).iter().sum()
    }

    /// Keeps that the kernel is right, or what is wrong with its variant.
    pub(super) fn judge(&self, id: &Id, wrong: Option<String>) {
        let key = if wrong.is_some() { &id.whole } else { &id.exact };
        self.known().keep(id.edit != 0, |verdicts| drop(verdicts.kernels.insert(key.clone(), wrong.clone())));
    }

    /// What was measured so far of the crate's own kernels, by class of shapes.
    pub fn tuned(&self) -> BTreeMap<String, Tuned> {
        self.known().own.tuned.clone()
    }

    /// What was measured of these variants for a class.
    pub(super) fn fastest(&self, class: &str, kernels: u64) -> Option<String> {
        let known = self.known();
        let mut tuned = [&known.own, &known.edited].into_iter().filter_map(|verdicts| verdicts.tuned.get(class));
        tuned.find(|tuned| tuned.kernels == kernels)?.fastest().map(str::to_string)
    }

    /// Keeps what was measured for a class, of variants with a user's text in them or without.
    pub(super) fn tune(&self, class: &str, tuned: &Tuned, edited: bool) {
        self.known().keep(edited, |verdicts| drop(verdicts.tuned.insert(class.to_string(), tuned.clone())));
    }

    /// What the driver is known to refuse of what the adapter announces.
    pub(super) fn without(&self) -> Vec<String> {
        self.known().own.without.clone()
    }

    /// Keeps what it refuses.
    pub(super) fn open_without(&self, refused: &[String]) {
        self.known().keep(false, |verdicts| verdicts.without = refused.to_vec());
    }

    /// Notes that these kernels are about to be compiled or run, for as long as the note lives. Those that are known
    /// to be right need none.
    ///
    /// # Errors
    /// [`Error::WrongKernel`] if a run did not survive one of them.
    pub(super) fn note(&self, mut ids: Vec<Id>) -> Result<Note<'_>> {
        let mut known = self.known();
        if let Some(id) = ids.iter().find(|id| known.of(id).ended(id)) {
            let what = format!("{} ended an earlier run on {} and is not run", id.words, known.adapter);
            return Err(Error::WrongKernel(what.into()).remedies([Remedy::Other(Field::Device)]));
        }
        ids.retain(|id| known.of(id).kernels.get(&id.exact) != Some(&None));
        known.notes.add(&ids);
        drop(known);
        Ok(Note { ledger: self, ids })
    }
}

/// That kernels run.
#[derive(Debug)]
pub(super) struct Note<'a> {
    ledger: &'a Ledger,
    ids: Vec<Id>,
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        // A panic is what a driver's failure is to wgpu: the run ends by it.
        if !std::thread::panicking() {
            self.ledger.known().notes.take_back(&self.ids);
        }
    }
}

/// Removes what is kept of all adapters, but for the notes of processes that live. Gives the verdicts that there were.
///
/// # Errors
/// If a file cannot be removed.
pub fn forget() -> Result<Vec<Verdicts>> {
    let Some(folder) = store::folder().filter(|folder| folder.is_dir()) else { return Ok(Vec::new()) };
    store::locked(&folder, || {
        notes::of_the_dead(&folder, notes::KIND, |_| ());
        let mut forgotten = Vec::new();
        for path in fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|ending| ending == "json") {
                forgotten.extend(read(&path));
                fs::remove_file(&path).map_err(|error| Error::file(&path, format!("cannot be removed: {error}")))?;
            }
        }
        forgotten.sort_by(|a, b| (&a.adapter, &a.driver, a.edit).cmp(&(&b.adapter, &b.driver, b.edit)));
        Ok(forgotten)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &tempfile::TempDir, caps: &Caps) -> Option<Store> {
        Some(Store::below(folder.path().to_path_buf(), caps))
    }

    /// As a process opens the device, with the words of what it finds that ended another.
    fn open(folder: &tempfile::TempDir) -> (Ledger, Vec<String>) {
        let caps = Caps::webgpu_default();
        let (ledger, ended) = Ledger::at(store(folder, &caps), &caps, &Sources::default());
        (ledger, ended.into_iter().map(|id| id.words).collect())
    }

    /// Ends as a process does: its lock is gone, its notes stay.
    fn die(ledger: Ledger) {
        let notes = std::mem::take(&mut ledger.known().notes);
        notes.abandon();
    }

    #[test]
    fn what_a_process_did_not_survive_is_refused_and_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| Id::alone(name, name));
        let (first, ended) = open(&folder);
        assert!(ended.is_empty());
        drop(first.note(vec![other.clone()]).unwrap());
        std::mem::forget(first.note(vec![one.clone()]).unwrap());
        die(first);
        let (second, ended) = open(&folder);
        assert_eq!(ended, ["one"]);
        assert!(second.ended(&one) && second.wrong(&one).is_some() && !second.ended(&other));
        assert!(matches!(second.note(vec![one.clone()]), Err(Error::WrongKernel(_))));
        let (third, ended) = open(&folder);
        assert!(ended.is_empty() && third.ended(&one));
    }

    #[test]
    fn what_a_living_process_runs_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let id = Id::alone("one", "one");
        let (first, _) = open(&folder);
        let note = first.note(vec![id.clone()]).unwrap();
        let (second, ended) = open(&folder);
        assert!(ended.is_empty() && !second.ended(&id));
        drop(note);
        die(first);
        assert!(open(&folder).1.is_empty());
    }

    #[test]
    fn a_note_within_a_note_does_not_take_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let id = Id::alone("one", "one");
        let (first, _) = open(&folder);
        std::mem::forget(first.note(vec![id.clone()]).unwrap());
        drop(first.note(vec![id, Id::alone("a longer name", "other")]).unwrap());
        die(first);
        assert_eq!(open(&folder).1, ["one"]);
    }

    #[test]
    fn verdicts_of_two_processes_come_together() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| Id::alone(name, name));
        let ((first, _), (second, _)) = (open(&folder), open(&folder));
        first.judge(&one, None);
        second.judge(&other, Some("off".into()));
        assert!(second.right(&one), "it learns what others keep");
        let (third, _) = open(&folder);
        assert!(third.right(&one) && third.wrong(&other).as_deref() == Some("off"));
    }

    #[test]
    fn verdicts_on_edited_kernels_are_apart_and_those_of_the_last_edit() {
        let (folder, caps) = (tempfile::tempdir().unwrap(), Caps::webgpu_default());
        let edited = |text: &str| {
            let files = tempfile::tempdir().unwrap();
            fs::write(files.path().join("add.wgsl"), text).unwrap();
            let sources = Sources::with_folder(files.path()).unwrap();
            let id = Id { edit: edit(&sources), ..Id::alone(text, text) };
            (Ledger::at(store(&folder, &caps), &caps, &sources).0, id)
        };
        let (first, id) = edited("// one");
        first.judge(&id, Some("off".into()));
        assert!(edited("// one").0.wrong(&id).is_some());
        assert_eq!(Verdicts::kept(store(&folder, &caps).as_ref(), &caps, 0).summary(), (0, Vec::new()));
        let (second, other) = edited("// other");
        second.judge(&other, None);
        assert!(second.wrong(&id).is_none() && edited("// one").0.wrong(&id).is_none());
    }

    #[test]
    fn without_a_cache_folder_verdicts_last_as_long_as_the_device() {
        let caps = Caps::webgpu_default();
        let (ledger, id) = (Ledger::at(None, &caps, &Sources::default()).0, Id::alone("one", "one"));
        drop(ledger.note(vec![id.clone()]).unwrap());
        ledger.judge(&id, None);
        assert!(ledger.right(&id));
    }
}
