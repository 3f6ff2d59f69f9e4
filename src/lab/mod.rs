//! The kernel lab: how fast a device's kernels are.

pub mod bench;
pub mod ceilings;
pub mod report;
pub mod suite;
