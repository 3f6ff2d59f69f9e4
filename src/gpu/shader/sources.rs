//! Where the WGSL files come from: those built into the crate, and before them those of a folder of the user's. The
//! expanded text of a kernel knows which file and line each of its own lines stood in.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use include_dir::{Dir, include_dir};

use super::Dialect;
use crate::error::{Error, Field, Result, did_you_mean, instead};
use crate::files::{read_text, unreadable};
use crate::ops::Launch;

/// Folders below `shaders/`: what `#import core` stands for, parts of kernels, and the kernels that measure a device's
/// ceilings.
const CORES: &str = "cores";
const SHARED: &str = "shared";
const LAB: &str = "lab";

static SHADERS: Dir = include_dir!("$CARGO_MANIFEST_DIR/shaders");

/// One WGSL file.
#[derive(Debug, Clone)]
struct File {
    /// As errors name it.
    path: Arc<str>,
    text: Arc<str>,
    /// Part of the crate.
    builtin: bool,
}

/// The WGSL files that kernels are made from. The default is the built-in ones.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The user's files by the path of the built-in file that each stands for.
    own: BTreeMap<String, File>,
}

impl Sources {
    /// The files of a folder (`NAME.wgsl`, and those in its `cores`, `shared` and `lab`) before the built-in ones,
    /// file by file. They are read now. Files that do not end in `.wgsl` are left alone.
    ///
    /// # Errors
    /// [`Error::Usage`] if the folder does not exist or holds no WGSL file, or if a file is not named like a built-in
    /// one, since editing it would do nothing; [`Error::File`] if a file cannot be read.
    pub fn with_folder(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::usage(format!("{} is not a folder", folder.display())).of(Field::Shaders));
        }
        let (mut own, mut copies) = (BTreeMap::new(), 0);
        let mut paths = list(folder)?;
        for below in [CORES, SHARED, LAB].map(|below| folder.join(below)).iter().filter(|below| below.is_dir()) {
            paths.extend(list(below)?);
        }
        for path in paths {
            let relative = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            if SHADERS.get_file(&relative).is_none() {
                return Err(unknown(&path.display().to_string(), "stands for no built-in file", &relative));
            }
            let text = read_text(&path)?;
            // A copy that was not edited is the built-in one.
            let is_edited = SHADERS.get_file(&relative).and_then(|file| file.contents_utf8()) != Some(text.as_str());
            if !is_edited {
                copies += 1;
                continue;
            }
            own.insert(relative, File { path: path.display().to_string().into(), text: text.into(), builtin: false });
        }
        if own.is_empty() && copies == 0 {
            return Err(unknown(&folder.display().to_string(), "holds no .wgsl file", ""));
        }
        Ok(Self { own })
    }

    /// Whether every file is a built-in one.
    pub fn are_builtin(&self) -> bool {
        self.own.is_empty()
    }

    /// The files that stand before built-in ones, by path, with their texts.
    pub fn edited(&self) -> impl Iterator<Item = (&str, &str)> {
        self.own.iter().map(|(path, file)| (path.as_str(), &*file.text))
    }

    /// The whole WGSL of what a launch runs in a dialect.
    ///
    /// # Errors
    /// As [`Sources::source`].
    pub fn of_launch(&self, launch: &Launch, dialect: Dialect) -> Result<Source> {
        self.source(launch.shader, launch.core, dialect.launching(launch))
    }

    /// The whole WGSL of a kernel in a dialect. `core` is the stem in `cores/` that its `#import core` stands for.
    ///
    /// # Errors
    /// If there is no such shader or an import of it does not exist.
    pub fn source(&self, stem: &str, core: Option<&str>, dialect: Dialect) -> Result<Source> {
        let file = self.file(&format!("{stem}.wgsl")).ok_or_else(|| no_such(stem))?;
        let path = Arc::clone(&file.path);
        let mut source = Source { path, text: String::new(), lines: Vec::new(), edited: Vec::new() };
        let prelude = File { path: "(prelude)".into(), text: dialect.prelude().into(), builtin: true };
        self.expand(&prelude, core, &mut HashSet::new(), &mut source)?;
        self.expand(&file, core, &mut HashSet::new(), &mut source)?;
        Ok(source)
    }

    /// A file by its path below `shaders/`: the user's own, or else the built-in one.
    fn file(&self, path: &str) -> Option<File> {
        self.own.get(path).cloned().or_else(|| {
            let text = SHADERS.get_file(path)?.contents_utf8()?;
            Some(File { path: format!("shaders/{path}").into(), text: text.into(), builtin: true })
        })
    }

    /// Appends a file, with each import replaced by what it stands for the first time that is met: `#import name` by
    /// `shared/name.wgsl`, `#import core` by the launch's core, `#import cores/name` (of one core in another) by that.
    fn expand(&self, file: &File, core: Option<&str>, seen: &mut HashSet<String>, out: &mut Source) -> Result<()> {
        if !file.builtin {
            out.edited.push(Arc::clone(&file.path));
        }
        for (line, number) in file.text.lines().zip(1..) {
            let Some(name) = line.strip_prefix("#import ").map(str::trim) else {
                out.push(line, &file.path, number);
                continue;
            };
            let of_core = core.filter(|_| name == "core").or_else(|| name.strip_prefix("cores/"));
            let (folder, stem) = of_core.map_or((SHARED, name), |stem| (CORES, stem));
            let path = format!("{folder}/{stem}.wgsl");
            let part = self.file(&path).ok_or_else(|| {
                let place = format!("{}:{number}:{}", file.path, "#import ".len() + 1);
                let what = if of_core.is_some() { "core" } else { "shared part" };
                let what = format!("there is no {what} {stem}; {}", instead(stem, below(folder)));
                Error::shader(place, what).showing(line, "#import ".len())
            })?;
            if seen.insert(path) {
                self.expand(&part, core, seen, out)?;
            }
        }
        Ok(())
    }
}

/// That no kernel is called so, with what is.
pub fn no_such(stem: &str) -> Error {
    Error::usage(format!("there is no shader {stem}; {}", instead(stem, names())))
}

/// The `.wgsl` files of a folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| unreadable(folder, &error))?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "wgsl"));
    paths.sort();
    Ok(paths)
}

/// What is wrong with a folder or a file in it, and the built-in file that may have been meant by this name.
fn unknown(path: &str, what: &str, name: &str) -> Error {
    let below = [CORES, SHARED, LAB].into_iter().filter_map(|folder| SHADERS.get_dir(folder));
    let files = below.chain([&SHADERS]).flat_map(Dir::files).filter_map(|file| file.path().to_str());
    let meant = did_you_mean(name, files).unwrap_or("`ornstein shader` lists the names".into());
    Error::usage(format!("{path} {what}; {meant}")).of(Field::Shaders)
}

/// Stems of the ops' kernels, in alphabetical order.
pub fn names() -> Vec<&'static str> {
    stems(&SHADERS)
}

/// Stems of the cores, in alphabetical order.
pub fn cores() -> Vec<&'static str> {
    below(CORES)
}

/// Stems of the shared parts, in alphabetical order.
pub fn parts() -> Vec<&'static str> {
    below(SHARED)
}

/// Stems of the kernels that measure a device's ceilings, in alphabetical order.
pub fn lab() -> Vec<&'static str> {
    below(LAB)
}

/// Stems in a folder below `shaders/`, in alphabetical order.
fn below(folder: &str) -> Vec<&'static str> {
    SHADERS.get_dir(folder).map(stems).unwrap_or_default()
}

fn stems(folder: &'static Dir) -> Vec<&'static str> {
    let mut stems: Vec<_> = folder.files().filter_map(|f| f.path().file_stem()?.to_str()).collect();
    stems.sort_unstable();
    stems
}

/// A kernel's text, as the device is given it.
#[derive(Debug, Clone)]
pub struct Source {
    /// The kernel's own file.
    pub path: Arc<str>,
    /// The expanded WGSL, prelude in front.
    pub text: String,
    /// For each line of the text its file and its number in it, from 1.
    lines: Vec<(Arc<str>, u32)>,
    /// The user's files in it; empty if all of it is part of the crate.
    pub edited: Vec<Arc<str>>,
}

impl Source {
    /// Whether all of it is part of the crate.
    pub fn is_builtin(&self) -> bool {
        self.edited.is_empty()
    }

    fn push(&mut self, line: &str, file: &Arc<str>, number: u32) {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines.push((Arc::clone(file), number));
    }

    /// `FILE:LINE:COLUMN` of a place in the text, both counted from 1.
    pub fn place(&self, line: u32, column: u32) -> String {
        match self.lines.get((line as usize).saturating_sub(1)) {
            Some((file, number)) => format!("{file}:{number}:{column}"),
            None => self.path.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for below in [CORES, SHARED, LAB] {
            fs::create_dir(folder.path().join(below)).unwrap();
        }
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn with(files: &[(&str, &str)]) -> Result<Sources> {
        Sources::with_folder(folder(files).path())
    }

    #[test]
    fn an_unknown_shader_is_an_error() {
        assert!(Sources::default().source("no_such_kernel", None, Dialect::all()[0]).is_err());
    }

    #[test]
    fn a_folders_file_stands_before_the_built_in_one_and_the_rest_stays() {
        let sources = with(&[("shared/flat.wgsl", "// mine")]).unwrap();
        let source = sources.source("add", None, Dialect::all()[0]).unwrap();
        assert!(source.text.contains("// mine") && source.text.contains("fn main("), "{}", source.text);
        assert!(!source.text.contains("fn flat_index"), "{}", source.text);
    }

    #[test]
    fn a_folder_may_hold_the_kernels_that_measure_ceilings() {
        let folder = folder(&[]);
        fs::write(folder.path().join("lab/copy.wgsl"), "// mine").unwrap();
        let source = Sources::with_folder(folder.path()).unwrap().source("lab/copy", None, Dialect::all()[0]).unwrap();
        assert!(source.text.contains("// mine") && !source.text.contains("fn main("), "{}", source.text);
    }

    #[test]
    fn a_folder_may_hold_the_cores_that_others_are_made_from() {
        let sources = with(&[("cores/gemm_coop.wgsl", "// mine")]).unwrap();
        let source = sources.source("matmul", Some("gemm_coop_vec4"), Dialect::all()[0]).unwrap();
        assert!(source.text.contains("// mine") && source.text.contains("fn put_x("), "{}", source.text);
        assert!(!source.text.contains("fn main("), "{}", source.text);
    }

    #[test]
    fn a_core_in_the_folder_of_shared_parts_is_refused() {
        let error = with(&[("shared/gemm_tile.wgsl", "")]).unwrap_err().to_string();
        assert!(error.ends_with("stands for no built-in file; did you mean cores/gemm_tile.wgsl?"), "{error}");
    }

    #[test]
    fn a_place_is_the_users_own_file_and_line() {
        let folder = folder(&[("shared/flat.wgsl", "// one\n// two"), ("add.wgsl", "// a\n#import flat\n// b")]);
        let source = Sources::with_folder(folder.path()).unwrap().source("add", None, Dialect::all()[0]).unwrap();
        let place = |text| {
            let line = source.text.lines().zip(1..).find(|(line, _)| *line == text).unwrap().1;
            source.place(line, 7)
        };
        assert_eq!(place("// two"), format!("{}:2:7", folder.path().join("shared/flat.wgsl").display()));
        assert_eq!(place("// b"), format!("{}:3:7", folder.path().join("add.wgsl").display()));
    }

    #[test]
    fn a_file_that_stands_for_none_is_refused_with_what_was_meant() {
        let error = with(&[("matmull.wgsl", "")]).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error}");
        assert!(
            error.to_string().ends_with("matmull.wgsl stands for no built-in file; did you mean matmul.wgsl?"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_that_is_missing_or_without_shaders_is_refused() {
        assert!(matches!(Sources::with_folder(Path::new("no/such/folder")), Err(Error::Usage(_))));
        assert!(matches!(with(&[("notes.txt", "")]), Err(Error::Usage(_))));
    }

    #[test]
    fn a_missing_import_is_named_with_its_place() {
        let error =
            with(&[("add.wgsl", "//\n#import flatt")]).unwrap().source("add", None, Dialect::all()[0]).unwrap_err();
        assert!(
            error.to_string().ends_with("add.wgsl:2:9: there is no shared part flatt; did you mean flat?"),
            "{error}"
        );
        assert_eq!(error.excerpt(), ["#import flatt", "        ^"]);
        let error = Sources::default().source("matmul", Some("gemm_tiles"), Dialect::all()[0]).unwrap_err();
        let meant = "matmul.wgsl:3:9: there is no core gemm_tiles; did you mean gemm_tile?";
        assert!(error.to_string().ends_with(meant), "{error}");
    }
}
