//! What every system offers.

use std::pin::Pin;

use super::kit::Kit;
use super::part::{Models, Part};
use super::request::Request;
use super::settings::Settings;
use crate::error::Result;
use crate::network::Executor;

/// A drawing under way, which can move between threads.
pub type Drawing<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// What a model as a whole does, from a request to pictures: its configurations read and understood.
pub trait System: Send + Sync {
    /// Fills in a request's defaults: the model's own, then the system's.
    ///
    /// # Errors
    /// If the request makes no sense for this model.
    fn settings(&self, models: &Models, request: &Request) -> Result<Settings>;

    /// Every network that drawing will load, in that order, for all pictures at once.
    ///
    /// # Errors
    /// If a network cannot be built, or the prompt cannot be tokenized.
    fn parts(&self, models: &Models, executor: &Executor, request: &Request, settings: &Settings) -> Result<Vec<Part>>;

    /// Draws the kit's request.
    ///
    /// The future fails if the weights or the device do not allow it, or a node's output is not finite even in f32.
    fn draw<'a, 'k: 'a>(&'a self, kit: &'a mut Kit<'k>) -> Drawing<'a>;
}
