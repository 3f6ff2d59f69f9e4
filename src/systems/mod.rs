//! Systems: what a model as a whole does, prompt to picture.

pub mod families;
