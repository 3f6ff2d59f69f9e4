//! What comes of a request while it is drawn and in the end, as plain values.

use super::settings::Settings;
use crate::error::{Checking, Message, Result};
use crate::image::Picture;
use crate::tensor::Tensor;

/// What happens while pictures are made.
#[derive(Debug)]
pub enum Event<'a> {
    /// What a user should know.
    Warning(&'a Message),
    /// The network of this name is being loaded.
    Loading(&'a str),
    /// To load it, this kernel is checked on the device, for the first time there.
    Checking(Checking<'a>),
    /// This many of all steps are done; 0 before the first, and the same number again where others go on.
    Step(usize, usize),
    /// The picture of this number, from 1, of all is being decoded.
    Decoding(usize, usize),
}

/// What a call has made, for a caller that keeps it at once.
#[derive(Debug)]
pub enum Made<'a> {
    /// [`Pictures::latents`], before the last of them are decoded.
    Latents(&'a Tensor),
    /// The picture of this place in the batch, as in [`Pictures::pictures`].
    Picture(usize, &'a Picture),
}

/// Shows what happens.
pub type Tell<'a> = dyn FnMut(Event<'_>) + Send + 'a;
/// Keeps what is made.
pub type Keep<'a> = dyn FnMut(Made<'_>) -> Result<()> + Send + 'a;

/// Wall-clock seconds of each part.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Seconds {
    /// Reading and uploading weights, planning, compiling kernels: of all networks.
    pub load: f64,
    /// Encoding the prompt.
    pub text: f64,
    /// All steps.
    pub denoise: f64,
    /// Latents to pixels.
    pub decode: f64,
    /// From the call to its end, less what keeping the pictures took.
    pub total: f64,
}

impl std::ops::AddAssign for Seconds {
    fn add_assign(&mut self, other: Self) {
        self.load += other.load;
        self.text += other.text;
        self.denoise += other.denoise;
        self.decode += other.decode;
        self.total += other.total;
    }
}

/// The pictures and what they cost.
#[derive(Debug)]
pub struct Pictures {
    /// One per seed, with its parameters.
    pub pictures: Vec<Picture>,
    /// After the last step, before the VAE's scaling is undone, as files hold them:
    /// `[batch, channels, height, width]`.
    pub latents: Tensor,
    /// What they were made with.
    pub settings: Settings,
    /// How long it took.
    pub seconds: Seconds,
    /// The most device memory that was held at one time.
    pub peak_device_bytes: u64,
    /// Where the wall-clock time went, in order: `seconds.total` together.
    pub spans: Vec<Span>,
}

/// A part of a picture's making.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Span {
    /// What was done.
    pub what: String,
    /// Wall-clock time.
    pub seconds: f64,
}
