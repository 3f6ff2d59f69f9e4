//! The one error type. A message names the file, node or field, what is wrong with it, and what to do about it.
//!
//! Floor 0: may import floor 0.

mod remedy;
mod similar;

use std::fmt::{self, Display};
use std::path::Path;

pub use remedy::{Field, Message, Name, Remedy};
pub use similar::{did_you_mean, instead};

/// Is told what a user should know.
pub type Warn<'a> = dyn FnMut(&Message) + Send + 'a;

/// Is told, in one line, what is being done or was found.
pub type Tell<'a> = dyn FnMut(&str) + Send + 'a;

/// What is said while a network is put where it runs.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// What a user should know.
    Warning(&'a Message),
    /// The device is shown the cases of a kernel that it has not run before.
    Checking(Checking<'a>),
    /// All that were to be checked of the network are.
    Checked,
}

impl<'a> Notice<'a> {
    /// What a user should know, where nobody watches the rest.
    pub fn warning(self) -> Option<&'a Message> {
        match self {
            Self::Warning(text) => Some(text),
            Self::Checking(_) | Self::Checked => None,
        }
    }
}

/// A kernel that is being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checking<'a> {
    /// Its number among those of its network, from 1.
    pub nth: usize,
    /// How many of the network are checked, as far as is known now: a wrong one is followed by another.
    pub all: usize,
    /// Its op.
    pub op: &'a str,
}

/// Is told what is said while a network is put where it runs.
pub type Notify<'a> = dyn FnMut(Notice<'_>) + Send + 'a;

/// What may fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong on the way from a prompt to a picture.
#[derive(Debug)]
pub enum Error {
    /// The request makes no sense whatever the files hold: an unknown sampler, a width of 0. Exit status 2.
    Usage(Message),
    /// A file cannot be read, written or understood.
    File(Message),
    /// A configuration asks for something that is not built, or contradicts itself.
    Config(Message),
    /// A kernel's text is not valid, or not what its launch takes it for.
    Shader(Message),
    /// Tensors that are missing, extra, misshapen or not finite.
    Weights(Message),
    /// A node's inputs do not fit its op.
    Shape(Message),
    /// No such device, a limit of it exceeded, or a failure on it.
    Device(Message),
    /// More than the memory of the device or the machine holds at once, or than a limit of the device: fewer pictures
    /// at a time or smaller ones may do.
    TooLarge(Message),
    /// A device computes something wrong. What it was asked to do can be done in another type or elsewhere.
    WrongKernel(Message),
    /// A computation produced infinities or NaN.
    NotFinite(Message),
    /// Stopped by Ctrl-C, or another signal that ends programs.
    Interrupted,
}

impl Error {
    /// A request that makes no sense.
    pub fn usage(what: impl Display) -> Self {
        Self::Usage(what.to_string().into())
    }

    /// What is wrong with a file.
    pub fn file(path: impl AsRef<Path>, what: impl Display) -> Self {
        let path = path.as_ref();
        // An empty place would be none.
        let path = if path.as_os_str().is_empty() { Path::new("\"\"") } else { path };
        Self::File(Message::at(path.display(), what))
    }

    /// What is wrong with a configuration, at a place in it.
    pub fn config(place: impl Display, what: impl Display) -> Self {
        Self::Config(Message::at(place, what))
    }

    /// What is wrong with a kernel's text, at a file or a place in it.
    pub fn shader(place: impl Display, what: impl Display) -> Self {
        Self::Shader(Message::at(place, what))
    }

    /// What is wrong with tensors, at a file or a key.
    pub fn weights(place: impl Display, what: impl Display) -> Self {
        Self::Weights(Message::at(place, what))
    }

    /// A shape error before the node is known; [`Error::at`] names it.
    pub fn shape(what: impl Display) -> Self {
        Self::Shape(what.to_string().into())
    }

    /// What a device cannot do, or failed to do.
    pub fn device(what: impl Display) -> Self {
        Self::Device(what.to_string().into())
    }

    /// More than fits.
    pub fn too_large(what: impl Display) -> Self {
        Self::TooLarge(what.to_string().into())
    }

    /// Infinities or NaN.
    pub fn not_finite(what: impl Display) -> Self {
        Self::NotFinite(what.to_string().into())
    }

    /// Puts a place before it.
    pub fn on(self, place: impl Display) -> Self {
        self.with(|what| what.on(place))
    }

    /// Names the node of a shape error that an op raised without knowing its own name.
    pub fn at(self, name: &str) -> Self {
        match self {
            Self::Shape(what) if what.place.is_empty() => Self::Shape(what.on(name)),
            other => other,
        }
    }

    /// Names the field whose value the text begins with.
    pub fn of(self, field: Field) -> Self {
        self.with(|what| what.of(field))
    }

    /// Adds what may help.
    pub fn remedies(self, remedies: impl IntoIterator<Item = Remedy>) -> Self {
        self.with(|what| what.remedies(remedies))
    }

    /// Shows the line of a text in which it is wrong, at this byte of it.
    pub fn showing(self, line: &str, at: usize) -> Self {
        self.with(|what| what.showing(line, at))
    }

    fn with(mut self, change: impl FnOnce(Message) -> Message) -> Self {
        let what = match &mut self {
            Self::Usage(what) | Self::File(what) | Self::Config(what) | Self::Weights(what) | Self::Shape(what) => what,
            Self::Shader(what)
            | Self::Device(what)
            | Self::TooLarge(what)
            | Self::WrongKernel(what)
            | Self::NotFinite(what) => what,
            Self::Interrupted => return self,
        };
        *what = change(std::mem::take(what));
        self
    }

    fn message(&self) -> Option<&Message> {
        match self {
            Self::Usage(what) | Self::File(what) | Self::Config(what) | Self::Weights(what) | Self::Shape(what) => what,
            Self::Shader(what)
            | Self::Device(what)
            | Self::TooLarge(what)
            | Self::WrongKernel(what)
            | Self::NotFinite(what) => what,
            Self::Interrupted => return None,
        }
        .into()
    }

    /// The message in one line, with fields named as `name` does.
    pub fn said(&self, name: Name) -> String {
        self.message().map_or("interrupted".into(), |what| what.said(name))
    }

    /// [`Message::excerpt`]
    pub fn excerpt(&self) -> &[String] {
        self.message().map_or(&[], |what| &what.excerpt)
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.said(|field| field.word().into()))
    }
}

impl std::error::Error for Error {}

/// Bytes of the longest message.
const LONGEST: usize = 1900;

/// One line of what may hold names, paths and texts from files.
pub fn message(text: impl Display) -> String {
    shown(&text.to_string(), LONGEST)
}

/// A name or a value from a file, as part of a message.
pub fn short(text: impl Display) -> String {
    shown(&text.to_string(), 120)
}

/// A text without its middle where it has more than `most` bytes, and without what makes a terminal do anything but
/// show it: white space is a space, other control characters and those that turn the direction of writing are escaped.
fn shown(text: &str, most: usize) -> String {
    let turns =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => clean.push(' '),
            c if c.is_control() || turns(c) => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    if clean.len() <= most {
        return clean;
    }
    let end = most / 3;
    let (start, end) = (clean.floor_char_boundary(most - end - 4), clean.ceil_char_boundary(clean.len() - end));
    format!("{} .. {}", &clean[..start], &clean[end..])
}

/// How many there are of something: its noun takes an s, or es behind an s.
pub fn counted(n: usize, noun: &str) -> String {
    let ending = match n {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{n} {noun}{ending}")
}

/// The same with its verb.
pub fn are(n: usize, noun: &str) -> String {
    format!("{} {}", counted(n, noun), if n == 1 { "is" } else { "are" })
}

/// Ten entries of a list, then how many more there are. They are shortened where they would fill a message.
pub fn ten<T: Display>(entries: &[T]) -> String {
    let mut shown: Vec<_> = entries.iter().take(10).map(T::to_string).collect();
    if shown.iter().map(String::len).sum::<usize>() > LONGEST * 3 / 4 {
        shown.iter_mut().for_each(|entry| *entry = short(&*entry));
    }
    let mut text = shown.join(", ");
    if entries.len() > 10 {
        text += &format!(" and {} more", entries.len() - 10);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_shows_ten_and_counts_the_rest() {
        let entries: Vec<_> = (0..13).collect();
        assert_eq!(ten(&entries), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more");
    }

    #[test]
    fn one_thing_is_not_several() {
        assert_eq!([0, 1, 2].map(|n| are(n, "row")), ["0 rows are", "1 row is", "2 rows are"]);
        assert_eq!([1, 2].map(|n| counted(n, "class")), ["1 class", "2 classes"]);
    }

    #[test]
    fn long_entries_leave_room_for_each_other() {
        let text = ten(&["x".repeat(5000), "y".repeat(5000)]);
        assert!(text.len() < 300 && text.starts_with("xxx") && text.ends_with("yyy"), "{text}");
        // Two names and their shapes are not cut.
        assert_eq!(ten(&["x".repeat(300), "y".repeat(300)]).len(), 602);
    }

    #[test]
    fn a_message_shows_the_start_and_the_end_of_what_is_long() {
        let text = Error::file("x".repeat(4000), "é".repeat(4000) + "; do this").to_string();
        assert!(text.len() < 2000 && text.starts_with("xxx") && text.ends_with("é; do this"), "{text}");
        assert!(Error::usage("\u{1b}".repeat(4000)).to_string().len() < 2000);
    }

    #[test]
    fn a_message_does_nothing_to_a_terminal() {
        let text = Error::config("a\u{1b}[31m\nb\u{9b}", "c\u{202e}d\0").to_string();
        assert_eq!(text, r"a\u{1b}[31m b\u{9b}: c\u{202e}d\u{0}");
        assert_eq!(Error::usage("größer 🎨").to_string(), "größer 🎨");
    }

    #[test]
    fn a_file_without_a_name_is_named() {
        assert_eq!(Error::file("", "is not there").to_string(), "\"\": is not there");
    }

    #[test]
    fn the_innermost_node_keeps_its_name() {
        let error = Error::shape("bad").at("unet.conv_in").at("unet");
        assert_eq!(error.to_string(), "unet.conv_in: bad");
    }
}
