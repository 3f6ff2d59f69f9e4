//! Models at the files' border: folders in the diffusers layout, checkpoints in one file, safetensors and GGUF, what
//! is written, and which models are known.
//!
//! [`Model`] finds a model (a folder, a [`Checkpoint`], a name from `weights-manifest.toml`, or the one inside the
//! binary) and gives its configurations as text and each component's tensors as [`ComponentWeights`]. What a
//! checkpoint's networks are called and which configurations they imply is in the [`family::Families`] that it is
//! given. [`check`] compares tensors with what a network wants. [`Changes`] are those of LoRA files to a model's
//! tensors. [`read_tensors`] and [`write_tensors`] carry single tensors in and out; [`write_atomically`] is how every
//! output file is written.
//!
//! Floor 3: may import `graph`, `ops` and floor 0.

mod builtin;
mod bundle;
mod check;
pub mod checkpoint;
mod component;
mod convert;
mod extended;
pub mod family;
#[cfg(not(target_arch = "wasm32"))]
pub mod fetch;
mod file;
mod files;
mod format;
mod hub;
mod lora;
pub mod manifest;
mod model;
mod names;
mod output;
mod synthetic;
mod tensors;
mod view;
pub mod vocabulary;

pub use bundle::Bundle;
pub use check::check;
pub use checkpoint::Checkpoint;
pub use component::ComponentWeights;
pub use convert::{Encoding, convert};
pub use extended::Extended;
pub use lora::{Changes, Lora, LoraFile, Merged};
pub use model::Model;
pub use output::{check_writable, unwritable, write_atomically};
pub use synthetic::Synthetic;
pub use tensors::{read_tensors, write_tensors};

use crate::files::unreadable;
