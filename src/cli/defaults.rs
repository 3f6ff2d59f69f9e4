//! The file of a user's defaults: options that are taken as if they stood on the command line, unless they do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use toml::{Table, Value};

use super::command;
use crate::cache::variable;
use crate::error::{Error, Result, instead};
use crate::files::read_text;

/// Names the file, instead of the platform's place; if it is empty, there is none.
const VARIABLE: &str = "ORNSTEIN_CONFIG";

/// Where the file is, if the environment names a place for it.
pub(super) fn path() -> Option<PathBuf> {
    if std::env::var_os(VARIABLE).is_some() {
        return variable(VARIABLE);
    }
    let folder = if cfg!(windows) {
        variable("APPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")))
    };
    folder.map(|folder| folder.join("ornstein/config.toml"))
}

/// What `--help` says of it.
pub(super) fn help() -> String {
    let place = path().map_or("a file that ORNSTEIN_CONFIG names".into(), |path| path.display().to_string());
    format!(
        "Defaults of options are read from {place}: `device = \"vulkan\"` for all commands, and those of one under its \
         name, `[generate]`. ORNSTEIN_CONFIG names another file."
    )
}

/// The command line with the defaults of the file, if there is one.
///
/// # Errors
/// If the file cannot be read or understood, or sets what is not an option.
pub(super) fn added_to(words: Vec<OsString>) -> Result<Vec<OsString>> {
    let Some(path) = path().filter(|path| path.exists() || std::env::var_os(VARIABLE).is_some()) else {
        return Ok(words);
    };
    let cli = command();
    // Help, and what is wrong with the words themselves, is said when they are parsed.
    let Ok(matches) = cli.clone().try_get_matches_from(&words) else { return Ok(words) };
    let Some((name, given)) = matches.subcommand() else { return Ok(words) };
    let text = read_text(&path)?;
    let file: Table = text.parse().map_err(|error: toml::de::Error| {
        // "TOML parse error at line 1, column 5", and what.
        let place = error.to_string().lines().next().unwrap_or_default().to_string();
        Error::config(path.display(), format!("{place}: {}", error.message()))
    })?;
    let mut added = check(&path, &cli, &file)?;
    added.retain(|(command, arg, _)| command == name && !is_given(given, arg));
    // The command is the first word that is not the program's.
    let (mut all, rest) = (words[..2.min(words.len())].to_vec(), words.get(2..).unwrap_or_default());
    all.extend(added.into_iter().flat_map(|(_, _, words)| words).map(OsString::from));
    all.extend_from_slice(rest);
    Ok(all)
}

fn is_given(matches: &ArgMatches, arg: &Arg) -> bool {
    matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// An option of the command of this name, and the words that set it.
type Setting = (String, Arg, Vec<String>);

/// All defaults of a file; those of a command come after those of all, and win.
fn check(path: &Path, cli: &Command, file: &Table) -> Result<Vec<Setting>> {
    let fail = |what: String| Error::config(path.display(), what);
    let commands: Vec<&Command> = cli.get_subcommands().filter(|command| !command.has_subcommands()).collect();
    let mut defaults: Vec<Setting> = Vec::new();
    let mut set = |command: &Command, arg: &Arg, words| {
        let name = command.get_name().to_string();
        defaults.retain(|(known, other, _)| (known, other.get_id()) != (&name, arg.get_id()));
        defaults.push((name, arg.clone(), words));
    };
    for (key, value) in file.iter().filter(|(_, value)| !value.is_table()) {
        let takers: Vec<_> = commands.iter().filter_map(|command| Some((*command, option(command, key)?))).collect();
        if takers.is_empty() {
            return Err(fail(format!("{key} is not an option of any command")));
        }
        for (command, arg) in takers {
            set(command, arg, words(key, arg, value).map_err(fail)?);
        }
    }
    for (name, table) in file.iter().filter_map(|(name, value)| Some((name, value.as_table()?))) {
        let Some(command) = commands.iter().find(|command| command.get_name() == name) else {
            let known = commands.iter().map(|command| command.get_name());
            return Err(fail(format!("[{name}] is not a command with options; {}", instead(name, known))));
        };
        for (key, value) in table {
            let Some(arg) = option(command, key) else {
                return Err(fail(format!("{key} is not an option of {name}; {}", instead(key, options(command)))));
            };
            set(command, arg, words(key, arg, value).map_err(fail)?);
        }
    }
    Ok(defaults)
}

/// The names of a command's options.
fn options(command: &Command) -> impl Iterator<Item = &str> {
    command.get_arguments().filter_map(Arg::get_long)
}

/// The option of that name.
fn option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let is_it = |arg: &&Arg| {
        arg.get_long().into_iter().chain(arg.get_all_aliases().unwrap_or_default()).any(|known| known == name)
    };
    command.get_arguments().find(is_it)
}

/// The words that set an option to a value.
fn words(key: &str, arg: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let word = match value {
        Value::Boolean(set) if !arg.get_action().takes_values() => {
            return Ok(if *set { vec![format!("--{key}")] } else { Vec::new() });
        }
        _ if !arg.get_action().takes_values() => return Err(format!("{key} is {value}, expected true or false")),
        Value::String(text) => text.clone(),
        Value::Integer(_) | Value::Float(_) => value.to_string(),
        Value::Array(values) => {
            let each = values.iter().map(|value| words(key, arg, value));
            return Ok(each.collect::<Result<Vec<_>, _>>()?.concat());
        }
        _ => return Err(format!("{key} is {value}, expected a text or a number")),
    };
    Ok(vec![format!("--{key}={word}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Vec<String>, String> {
        let defaults = check(Path::new("config.toml"), &command(), &text.parse().unwrap());
        let said = |(command, _, words): Setting| format!("{command} {}", words.join(" "));
        defaults.map(|all| all.into_iter().map(said).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_option_of_one_command_wins_over_that_of_all() {
        let set = checked("device = 'cpu'\n[generate]\ndevice = 'vulkan'\nsteps = 30\njson = true\ncfg = 2.5").unwrap();
        assert!(set.contains(&"validate --device=cpu".into()) && !set.contains(&"generate --device=cpu".into()));
        let wanted = ["generate --device=vulkan", "generate --steps=30", "generate --json", "generate --cfg=2.5"];
        assert!(wanted.iter().all(|wanted| set.iter().any(|set| set == wanted)), "{set:?}");
    }

    #[test]
    fn what_is_not_an_option_is_named_with_what_was_meant() {
        let wrong = |text: &str| checked(text).unwrap_err();
        assert!(wrong("[generate]\nstesp = 1").contains("config.toml: stesp is not an option of generate"));
        assert!(wrong("[generate]\nstesp = 1").contains("steps"));
        assert!(wrong("[generat]\nsteps = 1").contains("[generat] is not a command"));
        assert!(wrong("shade = 1").contains("shade is not an option of any command"));
        assert!(wrong("[generate]\njson = 3").contains("json is 3, expected true or false"));
        assert!(wrong("[generate]\nsteps = 1979-05-27").contains("expected a text or a number"));
    }
}
