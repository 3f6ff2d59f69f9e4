//! How the command line names the fields of a request: by its flags.

use crate::error::Field;

/// The flag that sets this field, or what stands for it where it has none.
pub(super) fn flag(field: Field) -> String {
    match field {
        Field::Prompt => "PROMPT".into(),
        _ => format!("--{}", field.word().replace(' ', "-")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_field_has_a_flag() {
        let cli = Cli::command();
        let flags: Vec<_> = cli.get_subcommands().flat_map(|command| command.get_arguments()).collect();
        let is_there = |field: Field| match flag(field).strip_prefix("--") {
            Some(long) => flags.iter().any(|arg| arg.get_long() == Some(long)),
            None => flags.iter().any(|arg| arg.is_positional() && arg.get_id() == field.word()),
        };
        let missing: Vec<_> = Field::ALL.iter().filter(|field| !is_there(**field)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
