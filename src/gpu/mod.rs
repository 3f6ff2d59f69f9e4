//! The only floor that names wgpu and naga: adapters, shader translation, kernels, and sessions that run a graph.
//!
//! Floor 3: may import `graph`, `ops` and floor 0.

pub mod adapter;
pub mod admission;
pub mod check;
pub mod context;
pub mod device;
pub mod kernels;
mod lanes;
pub mod ledger;
pub mod memory;
mod notes;
mod opening;
mod pipelines;
pub mod session;
pub mod shader;
pub mod showing;
pub mod statistics;
mod store;
pub mod timer;
mod transfer;
pub mod tune;
pub mod verdicts;

pub use device::Gpu;
pub use session::Session;
pub use timer::{Clock, Timer};
pub use transfer::Transfer;
