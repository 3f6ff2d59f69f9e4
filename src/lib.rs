//! Stable Diffusion on any GPU, in hand-written WGSL.

pub mod caps;
pub mod error;
pub mod gpu;
pub mod graph;
pub mod image;
pub mod models;
pub mod ops;
pub mod pack;
pub mod rng;
pub mod samplers;
pub mod tensor;
pub mod tokenizer;
pub mod weights;
