//! Stable Diffusion on any GPU, in hand-written WGSL.
//!
//! Data flows one way:
//!
//! ```text
//! prompt -> tokenizer -> ids -> text encoder -> embeddings
//!        -> seeded noise * sigma -> [ unet -> guidance -> sampler step ] x steps -> latents -> vae -> pixels -> PNG
//! ```
//!
//! [`pipeline`] reads as that sentence. Each network is used the same way: `models::X::graph(&config)` gives a
//! [`graph::Graph`], and [`network::Network`] runs it, on a device through [`gpu::Session`] or on the CPU through
//! [`graph::interpret::Interpreter`].
//!
//! The modules are floors, and imports go down only (`kernels-tests/floors.rs` holds them to it):
//!
//! | floor | modules | |
//! |---|---|---|
//! | 5 | `cli` (and `main`) | may print, read arguments, block |
//! | 4 | `pipeline`, `conditioning`, `components`, `forward`, `inspect`, `network`, `lab` | know models, samplers and devices |
//! | 3 | `gpu`, `models`, `weights`, `tokenizer`, `samplers`, `image` | siblings, blind to each other |
//! | 2 | `graph` | nodes, fusion, memory plan, CPU executor |
//! | 1 | `ops` | one file per op |
//! | 0 | `tensor`, `pack`, `caps`, `host`, `cache`, `files`, `prompt`, `rng`, `error` | plain data |
//!
//! Where to start: [`pipeline`] for the whole, [`ops`] for a kernel, `shaders/` for its WGSL, [`samplers`] for an
//! algorithm, [`models`] for a network.

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
pub mod pipeline;
pub mod prompt;
pub mod rng;
pub mod samplers;
pub mod tensor;
pub mod tokenizer;
pub mod weights;
