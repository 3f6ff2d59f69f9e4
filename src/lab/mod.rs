//! The kernel lab: is every kernel right on the device at hand?

pub mod validate;
