//! The command line: one file per subcommand, with its options, printing, and nothing else.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use strsim::damerau_levenshtein;

use crate::error::{Error, Message, Result, message};
use crate::gpu::adapter::Choice;
use crate::gpu::shader::Sources;
use crate::lab::report::About;
use crate::network::Executor;
use crate::tensor::DType;
use crate::weights::{Model, unwritable};
use flag::flag;

mod bench;
mod convert;
mod defaults;
mod devices;
mod flag;
mod forward;
mod generate;
mod interrupt;
mod link;
mod lora;
mod manual;
mod models;
mod schedule;
mod shader;
mod sigmas;
mod systems;
mod table;
mod tokenize;
mod validate;

/// Stable Diffusion for any GPU, in hand-written WGSL.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = defaults::help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make pictures from a prompt
    #[command(alias = "draw")]
    Generate(Box<generate::Generate>),
    /// Run one network once on tensors from a file
    Forward(forward::Forward),
    /// Print the token ids of a text as a JSON list
    Tokenize(tokenize::Tokenize),
    /// Print the timesteps and sigmas that a sampler uses
    Schedule(schedule::Schedule),
    Bench(bench::BenchArgs),
    /// List the adapters and what they can do
    Devices(devices::Devices),
    /// List what kinds of models draw, what each takes, and a command for it
    Systems(systems::Systems),
    /// Tell what models there are, what a file is, and whether it is whole
    Models(models::Models),
    /// Write a model anew with smaller weights
    Convert(convert::Convert),
    /// Print a shader as a driver will see it
    Shader(shader::Shader),
    /// Check every kernel, or every node of a model, on a device against the CPU
    Validate(validate::Validate),
    /// Print what makes a shell complete this command line
    Completions(manual::Completions),
    /// Print the manual as a page for `man`
    Man(manual::Manual),
}

/// Which device, and how it stores activations.
#[derive(Debug, Args)]
struct DeviceArgs {
    /// `auto` (the best hardware adapter, or the CPU), `cpu`, a number from `ornstein devices`, a backend (`vulkan`,
    /// `metal`, `dx12`, `gl`) or a part of an adapter's name
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Type of activations on a GPU; the CPU computes in f32
    #[arg(long, default_value = "auto", value_parser = dtypes())]
    dtype: DTypeArg,
}

/// `None` is `auto`. An alias, since clap takes a plain `Option` for an argument that may be missing.
type DTypeArg = Option<DType>;

fn dtypes() -> impl TypedValueParser<Value = DTypeArg> {
    let auto = value("auto", "f16 where the adapter has it");
    one_of([(auto, None), ("f16".into(), Some(DType::F16)), ("f32".into(), Some(DType::F32))])
}

/// One of these, by its name.
fn one_of<T: Clone + Send + Sync + 'static>(
    values: impl IntoIterator<Item = (PossibleValue, T)>,
) -> impl TypedValueParser<Value = T> {
    let values: Vec<_> = values.into_iter().collect();
    let names = PossibleValuesParser::new(values.iter().map(|(name, _)| name.clone()));
    let find = move |name: String| values.iter().find(|(known, _)| known.get_name() == name).map(|(_, it)| it.clone());
    // The parser lets no other name through.
    names.try_map(move |name| find(name).ok_or("unknown"))
}

/// A progress bar on stderr.
fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

/// A value and what help says of it.
fn value(name: &'static str, help: &'static str) -> PossibleValue {
    PossibleValue::new(name).help(help)
}

impl DeviceArgs {
    /// Opens the device, and says so on stderr where `auto` had to take the CPU.
    fn open(&self, sources: Sources) -> Result<Executor> {
        let choice = Choice::from(self.device.as_str());
        let executor = self.open_as(&choice, sources)?;
        if choice == Choice::Auto && matches!(executor, Executor::Cpu) {
            warn(
                "no hardware GPU can be used: computing on the CPU, as `--device cpu` does without this line; \
                 `ornstein devices` lists what was found",
            );
        }
        Ok(executor)
    }

    /// Opens the device of that choice, and says on stderr what is wrong with it.
    fn open_as(&self, choice: &Choice, sources: Sources) -> Result<Executor> {
        let tell = &mut |text: &Message| warn(&text.said(flag));
        pollster::block_on(Executor::open(choice, self.dtype, sources, tell))
    }
}

/// Which kernels.
#[derive(Debug, Args)]
struct ShadersArg {
    /// A folder whose WGSL files (NAME.wgsl, cores/NAME.wgsl, shared/NAME.wgsl, lab/NAME.wgsl) are used before the
    /// built-in ones of the same names: edit a kernel and run it, without a build
    #[arg(long, value_name = "FOLDER")]
    shaders: Option<PathBuf>,
}

impl ShadersArg {
    fn open(&self) -> Result<Sources> {
        self.shaders.as_deref().map_or_else(|| Ok(Sources::default()), Sources::with_folder)
    }
}

/// Which model.
#[derive(Debug, Args)]
struct ModelArg {
    /// A .safetensors or .gguf checkpoint, a diffusers folder, or a name from `ornstein models list` [default:
    /// the built-in model]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<OsString>,
    /// Which weights a folder is read with that has several: `fp16` of NAME.fp16.safetensors [default: those without
    /// a variant, else fp16]
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
}

impl ModelArg {
    fn open(&self) -> Result<Model> {
        let model = Model::resolve(self.model.as_deref())?;
        match &self.variant {
            Some(variant) => model.with_variant(variant),
            None => Ok(model),
        }
    }
}

/// Parses the arguments, runs the command, prints the error if there is one.
pub fn run() -> ExitCode {
    let words = match defaults::added_to(std::env::args_os().collect()) {
        Ok(words) => words,
        Err(error) => return fail(&error, ""),
    };
    // What is wrong may be a default.
    let added = words.len() > std::env::args_os().count();
    let path = defaults::path().filter(|_| added);
    let besides = path.map_or(String::new(), |path| format!(" (with the defaults of {})", path.display()));
    let cli = match parse(command(), &words) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &besides),
    };
    let result = interrupt::watch().and_then(|()| match cli.command {
        Command::Generate(command) => command.run(words),
        Command::Forward(command) => command.run(),
        Command::Tokenize(command) => command.run(),
        Command::Schedule(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Devices(command) => command.run(),
        Command::Systems(command) => command.run(),
        Command::Models(command) => command.run(),
        Command::Convert(command) => command.run(),
        Command::Shader(command) => command.run(),
        Command::Validate(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => interrupt::end(),
        Err(error) => fail(&error, &besides),
    }
}

/// Says what went wrong, and what is to be said of the options besides.
fn fail(error: &Error, besides: &str) -> ExitCode {
    let is_usage = matches!(error, Error::Usage(_));
    warn(&(error.said(flag) + if is_usage { besides } else { "" }));
    error.excerpt().iter().for_each(|line| tell(&format!("    {line}")));
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// The command line, of which a negative number is every option's value, for the option to refuse.
fn command() -> clap::Command {
    let taken = |arg: clap::Arg| {
        let takes = arg.get_action().takes_values() && !arg.is_positional();
        arg.allow_negative_numbers(takes)
    };
    Cli::command().mut_subcommands(|command| command.mut_args(taken))
}

/// What these words say.
fn parse(mut command: clap::Command, words: &[OsString]) -> Result<Cli, clap::Error> {
    let mut matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// What `--help` says of a sampler.
fn sampler_help(default: &str) -> String {
    let names = crate::samplers::names().collect::<Vec<_>>().join(", ");
    let others = "; other programs' names are taken too, with Karras or Exponential behind them";
    format!("The denoising algorithm: {names}{others} {default}").trim_end().to_string()
}

/// Letters by which an option may differ from one that is there, to be taken for it.
const MOST_SLIPS: usize = 2;

/// What parsers of numbers say, and what is said instead.
const PLAINER: [(&str, &str); 5] = [
    ("invalid digit found in string", "expected a whole number, 0 or more"),
    ("cannot parse integer from empty string", "expected a whole number, 0 or more"),
    ("number too large to fit in target type", "that number is too large"),
    ("invalid float literal", "expected a number"),
    ("cannot parse float from empty string", "expected a number"),
];

/// What clap says of the arguments: help as it is, an error in one line.
fn refuse(error: &clap::Error, besides: &str) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    warn(&(one_line(error) + besides));
    ExitCode::from(2)
}

/// The error in one line, without what misleads.
fn one_line(error: &clap::Error) -> String {
    let text = PLAINER.iter().fold(error.render().to_string(), |text, (old, new)| text.replace(old, new));
    let word = |kind| error.get(kind).map_or(String::new(), ContextValue::to_string);
    let distance = damerau_levenshtein(&word(ContextKind::InvalidArg), &word(ContextKind::SuggestedArg));
    let paragraphs = text.trim().split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    // What differs by more than a slip of the finger is another option, and the advice to take it misleads.
    let misleads = |part: &String| part.starts_with("tip:") && distance > MOST_SLIPS;
    let mut parts: Vec<_> = paragraphs.filter(|part| !part.starts_with("Usage:") && !misleads(part)).collect();
    if error.kind() == ErrorKind::ArgumentConflict {
        parts.insert(1, "leave one of them out".into());
    }
    parts.join("; ").trim_start_matches("error: ").into()
}

/// One line on stderr that something is wrong.
fn warn(text: &str) {
    tell(&format!("ornstein: {text}"));
}

/// One line on stderr.
fn tell(text: &str) {
    // A closed stderr is no reason to stop.
    drop(writeln!(std::io::stderr(), "{}", message(text)));
}

/// Writes to stdout. A reader that went away (`ornstein devices | head -1`) is not an error.
fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritable(Path::new("stdout"), &error)),
        _ => Ok(()),
    }
}

/// Which program makes a report now, and by which command.
fn about() -> About {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| quoted(&word.to_string_lossy())).collect();
    let date = httpdate::fmt_http_date(SystemTime::now());
    About { version: env!("CARGO_PKG_VERSION"), date, command: format!("ornstein {}", words.join(" ")) }
}

/// A word as a shell takes it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,+=@".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// A size as download pages count.
fn megabytes(bytes: u64) -> String {
    match bytes as f64 / 1e6 {
        size if size < 0.1 => format!("{:.1} kB", size * 1e3),
        size if size < 10.0 => format!("{size:.1} MB"),
        size if size < 1000.0 => format!("{size:.0} MB"),
        size => format!("{:.1} GB", size / 1e3),
    }
}

/// A JSON document on stdout.
fn print_json(value: &serde_json::Value) -> Result<()> {
    print(format!("{value:#}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_the_unit_in_which_it_is_read() {
        let sizes = [812, 42_590, 2_882_598, 999_400_000, 5_214_604_494];
        assert_eq!(sizes.map(megabytes), ["0.8 kB", "42.6 kB", "2.9 MB", "999 MB", "5.2 GB"]);
    }

    #[test]
    fn a_word_with_spaces_survives_the_shell() {
        assert_eq!(quoted("llvmpipe"), "llvmpipe");
        assert_eq!(quoted("GeForce RTX"), "'GeForce RTX'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
