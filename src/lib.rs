//! Stable Diffusion for any GPU, in hand-written WGSL.
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//!
//! use ornstein::{Device, Model, Request, Studio};
//!
//! # fn main() -> ornstein::error::Result<()> {
//! let studio = Studio::open(Model::builtin())?;
//! let request = Request { prompt: "a red circle on a blue background".into(), steps: Some(4), ..Request::default() };
//! let never = AtomicBool::new(false);
//! let drawn = pollster::block_on(studio.generate(&Device::Cpu, &request, &never, &mut |_| {}))?;
//! assert!(drawn.pictures[0].to_png()?.starts_with(b"\x89PNG"));
//! # Ok(())
//! # }
//! ```
//!
//! [`Studio`] is a model opened for making pictures, [`Request`] what to draw, [`Device`] where, [`Picture`] what
//! comes of it; `examples/` has more: many pictures with one loaded model, and one network alone.
//!
//! Data flows one way:
//!
//! ```text
//! prompt -> tokenizer -> ids -> text encoder -> embeddings
//!        -> seeded noise * sigma -> [ unet -> guidance -> sampler step ] x steps -> latents -> vae -> pixels -> PNG
//! ```
//!
//! [`systems::stable_diffusion`] reads as that sentence. Each network is used the same way:
//! `models::X::graph(&config)` gives a [`graph::Graph`], and [`network::Network`] runs it, on a device through
//! [`gpu::Session`] or on the CPU through [`graph::interpret::Interpreter`].
//!
//! The modules are floors, and imports go down only (`kernels-tests/floors.rs` holds them to it):
//!
//! | floor | modules | |
//! |---|---|---|
//! | 5 | `cli` (and `main`) | may print, read arguments, block |
//! | 4 | `systems`, `conditioning`, `components`, `forward`, `inspect`, `network`, `lab` | know models, samplers and devices |
//! | 3 | `gpu`, `models`, `weights`, `tokenizer`, `samplers`, `image` | siblings, blind to each other |
//! | 2 | `graph` | nodes, fusion, memory plan, CPU executor |
//! | 1 | `ops` | one file per op |
//! | 0 | `tensor`, `pack`, `caps`, `host`, `cache`, `files`, `prompt`, `rng`, `error` | plain data |
//!
//! Where to start: [`systems`] for the whole, [`ops`] for a kernel, `shaders/` for its WGSL, [`samplers`] for an
//! algorithm, [`models`] for a network.

pub use image::Picture;
pub use network::Executor as Device;
pub use systems::{Request, Studio};
pub use weights::Model;

pub mod cache;
pub mod caps;
#[cfg(not(target_arch = "wasm32"))]
pub mod cli;
pub mod components;
pub mod conditioning;
pub mod error;
pub mod files;
pub mod forward;
pub mod gpu;
pub mod graph;
pub mod host;
pub mod image;
pub mod inspect;
pub mod lab;
pub mod models;
pub mod network;
pub mod ops;
pub mod pack;
pub mod prompt;
pub mod rng;
pub mod samplers;
pub mod systems;
pub mod tensor;
pub mod tokenizer;
pub mod weights;
