//! The one error type. A message names the file, node or option, what is wrong with it, and what to do about it.

use std::fmt::Display;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong on the way from a prompt to a picture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request makes no sense whatever the files hold: an unknown sampler, a width of 0. Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read, written or understood.
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    /// A configuration asks for something that is not built, or contradicts itself.
    #[error("{place}: {what}")]
    Config { place: String, what: String },
    /// Tensors that are missing, extra, misshapen or not finite.
    #[error("{place}: {what}")]
    Weights { place: String, what: String },
    /// A node's inputs do not fit its op.
    #[error("{node}: {what}")]
    Shape { node: String, what: String },
    /// No such device, a limit of it exceeded, or a failure on it.
    #[error("{0}")]
    Device(String),
    /// More than the memory of the device or the machine holds at once, or than a limit of the device: fewer pictures at a
    /// time or smaller ones may do.
    #[error("{0}")]
    TooLarge(String),
    /// A device computes something wrong. What it was asked to do can be done in another type or elsewhere.
    #[error("{0}")]
    WrongKernel(String),
    /// A computation produced infinities or NaN.
    #[error("{0}")]
    NotFinite(String),
    /// Stopped by Ctrl-C, or another signal that ends programs.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    pub fn usage(what: impl Display) -> Self {
        Self::Usage(what.to_string())
    }

    pub fn file(path: impl AsRef<Path>, what: impl Display) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), what: what.to_string() }
    }

    pub fn config(place: impl Display, what: impl Display) -> Self {
        Self::Config { place: place.to_string(), what: what.to_string() }
    }

    pub fn weights(place: impl Display, what: impl Display) -> Self {
        Self::Weights { place: place.to_string(), what: what.to_string() }
    }

    /// A shape error before the node is known; [`Error::at`] names it.
    pub fn shape(what: impl Display) -> Self {
        Self::Shape { node: String::new(), what: what.to_string() }
    }

    pub fn device(what: impl Display) -> Self {
        Self::Device(what.to_string())
    }

    /// Puts a place before what a device said.
    pub fn on(self, place: impl Display) -> Self {
        match self {
            Self::Device(what) => Self::Device(format!("{place}: {what}")),
            Self::TooLarge(what) => Self::TooLarge(format!("{place}: {what}")),
            other => other,
        }
    }

    /// Names the node of a shape error that an op raised without knowing its own name.
    pub fn at(self, name: &str) -> Self {
        match self {
            Self::Shape { node, what } if node.is_empty() => Self::Shape { node: name.to_string(), what },
            other => other,
        }
    }
}

/// Ten entries of a list, then how many more there are.
pub fn ten<T: Display>(entries: &[T]) -> String {
    let mut text = entries.iter().take(10).map(T::to_string).collect::<Vec<_>>().join(", ");
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
    fn the_innermost_node_keeps_its_name() {
        let error = Error::shape("bad").at("unet.conv_in").at("unet");
        assert_eq!(error.to_string(), "unet.conv_in: bad");
    }
}
