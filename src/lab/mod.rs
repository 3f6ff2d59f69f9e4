//! The kernel lab: whether a device's kernels are right, and how fast they are.

pub mod bench;
pub mod ceilings;
pub mod peers;
pub mod predict;
pub mod published;
pub mod report;
pub mod suite;
pub mod validate;
