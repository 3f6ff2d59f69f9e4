//! The only floor that names wgpu and naga: adapters, shader translation, kernels, and sessions that run a graph.

pub mod admission;
pub mod device;
pub mod kernels;
pub mod memory;
pub mod session;
pub mod shader;
pub mod timer;

pub use device::Gpu;
pub use session::Session;
pub use timer::{Clock, Timer};
