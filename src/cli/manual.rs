//! `ornstein completions` and `ornstein man`: what shells and readers need to know of the command line, from the same
//! definitions.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, print};
use crate::error::{Error, Result, instead};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell that is to complete
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ornstein", &mut script);
        print(&script)
    }
}

#[derive(Debug, Args)]
pub(super) struct Manual {
    /// The command whose page is printed [default: that of all]
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
    /// Write every page into this folder instead, as `man` looks for them: `.../share/man/man1`
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    folder: Option<PathBuf>,
}

impl Manual {
    pub(super) fn run(self) -> Result<()> {
        if let Some(folder) = &self.folder {
            let written =
                std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
            return written.map_err(|error| Error::file(folder, error.to_string()));
        }
        let mut cli = Cli::command();
        cli.build();
        let page = match &self.command {
            None => cli,
            Some(name) => {
                let names = cli.get_subcommands().map(|command| command.get_name().to_string()).collect::<Vec<_>>();
                let wrong = || {
                    let known = instead(name, names.iter().map(String::as_str));
                    Error::usage(format!("{name:?} is not a command; {known}"))
                };
                cli.find_subcommand(name).cloned().ok_or_else(wrong)?
            }
        };
        let mut text = Vec::new();
        Man::new(page).render(&mut text).map_err(|error| Error::usage(error.to_string()))?;
        print(&text)
    }
}
