//! What every system is built from: it loads, runs, keeps and releases networks, hands out pictures, reports progress
//! and warnings, checks for cancellation, and measures where the time goes.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use web_time::Instant;

use super::kept::{Kept, Resident};
use super::made::{Event, Keep, Made, Pictures, Seconds, Span, Tell};
use super::parameters::{Names, parameters};
use super::part::{Models, Part};
use super::request::Request;
use super::settings::Settings;
use crate::error::{Error, Message, Notice, Result};
use crate::image::{Patch, Picture, to_rgb8};
use crate::network::{Executor, Network, Outputs};
use crate::rng::Generator;
use crate::tensor::Tensor;
use crate::weights::{Changes, Model};

/// One call of a system, from the request to its pictures.
pub struct Kit<'a> {
    /// What is drawn with.
    pub models: &'a Models,
    /// Where networks run.
    pub executor: &'a Executor,
    /// What is drawn.
    pub request: &'a Request,
    /// The same with every default filled in.
    pub settings: &'a Settings,
    /// Of the request's LoRA files.
    changes: Changes,
    /// Where networks go that are not needed any more; without it they are let go.
    kept: Option<&'a mut Kept>,
    cancel: &'a AtomicBool,
    tell: &'a mut Tell<'a>,
    keep: &'a mut Keep<'a>,
    begun: Instant,
    /// The end of the last span.
    marked: Instant,
    /// Seconds since then in which kernels were checked.
    checking: f64,
    seconds: Seconds,
    spans: Vec<Span>,
    peak_device_bytes: u64,
    state: Tensor,
    pictures: Vec<Picture>,
    /// The picture that those which are drawn are a part of.
    pub(super) patch: Option<Patch>,
}

/// The caller's side: how to cancel, where events go, and where pictures go.
pub(super) struct Caller<'a, 'b> {
    pub cancel: &'a AtomicBool,
    pub tell: &'a mut Tell<'b>,
    pub keep: &'a mut Keep<'b>,
}

/// Which part of [`Seconds`] a span belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Phase {
    /// [`Seconds::load`]
    Load,
    /// [`Seconds::text`]
    Text,
    /// [`Seconds::denoise`]
    Denoise,
    /// [`Seconds::decode`]
    Decode,
}

impl<'a> Kit<'a> {
    /// # Errors
    /// If the request's LoRA files do not fit the model.
    pub(super) fn new(
        begun: Instant,
        models: &'a Models,
        executor: &'a Executor,
        (request, settings): (&'a Request, &'a Settings),
        kept: Option<&'a mut Kept>,
        caller: Caller<'a, '_>,
    ) -> Result<Self> {
        let changes = Changes::of(&models.model, &request.loras)?;
        let Caller { cancel, tell, keep } = caller;
        Ok(Self {
            models,
            executor,
            request,
            settings,
            changes,
            kept,
            cancel,
            tell,
            keep,
            begun,
            marked: begun,
            checking: 0.0,
            seconds: Seconds::default(),
            spans: Vec::new(),
            peak_device_bytes: 0,
            state: Tensor::zeros([0]),
            pictures: Vec::with_capacity(request.batch),
            patch: None,
        })
    }

    /// All that was made.
    pub(super) fn done(self) -> Pictures {
        let Self { mut seconds, spans, peak_device_bytes, state, pictures, .. } = self;
        seconds.total = self.begun.elapsed().as_secs_f64();
        Pictures { pictures, latents: state, settings: self.settings.clone(), seconds, peak_device_bytes, spans }
    }

    /// Tells something that a user should know.
    pub fn warn(&mut self, text: impl Into<Message>) {
        (self.tell)(Event::Warning(&text.into()));
    }

    /// Reports that this many of all steps are done.
    pub fn steps_done(&mut self, done: usize, steps: usize) {
        (self.tell)(Event::Step(done, steps));
    }

    /// Reports that the next picture is being decoded.
    pub fn decodes(&mut self) {
        let next = self.made() + 1;
        (self.tell)(Event::Decoding(next, self.request.batch));
    }

    /// The network of the steps was evaluated once.
    ///
    /// # Errors
    /// If the call is cancelled.
    pub fn evaluated(&mut self) -> Result<()> {
        self.mark(Phase::Denoise, "steps");
        self.stop_if_cancelled()
    }

    /// # Errors
    /// If the call is cancelled.
    pub fn stop_if_cancelled(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Ends a span here: the time since the last one ended went into `what`.
    pub fn mark(&mut self, phase: Phase, what: &str) {
        let now = Instant::now();
        let seconds = (now - self.marked).as_secs_f64();
        self.marked = now;
        // It happened while weights were read, so it is a part of this time.
        let merging = self.changes.take_time().as_secs_f64();
        let checking = std::mem::take(&mut self.checking);
        *match phase {
            Phase::Load => &mut self.seconds.load,
            Phase::Text => &mut self.seconds.text,
            Phase::Denoise => &mut self.seconds.denoise,
            Phase::Decode => &mut self.seconds.decode,
        } += seconds;
        for (part, seconds) in [("merging LoRAs", merging), ("checking kernels that are new to the device", checking)] {
            if seconds > 0.0 {
                self.span(part, seconds);
            }
        }
        self.span(what, seconds - merging - checking);
    }

    fn span(&mut self, what: &str, seconds: f64) {
        match self.spans.iter_mut().find(|span| span.what == what) {
            Some(span) => span.seconds += seconds,
            None => self.spans.push(Span { what: what.to_string(), seconds }),
        }
    }

    /// A network, kept or loaded.
    ///
    /// # Errors
    /// As [`Network::load`], and if its weights cannot be read.
    pub(super) async fn load(&mut self, executor: &Executor, part: Part) -> Result<Resident> {
        let none = Changes::default();
        let part = self.models.named(part);
        // LoRA files are for the model, not for its refiner.
        let changes = if self.models.role.is_empty() { &self.changes } else { &none };
        let made_for = part.made_for(executor, changes);
        let kept = self.kept.as_mut().and_then(|kept| kept.take(&part.what, &made_for));
        let network = match kept {
            Some(network) => network,
            None => {
                let weights = part.weights(self.models, changes)?;
                (self.tell)(Event::Loading(&part.what));
                let mut begun = None;
                let tell = &mut |notice: Notice<'_>| {
                    (self.tell)(match notice {
                        Notice::Warning(text) => Event::Warning(text),
                        Notice::Checking(kernel) => {
                            begun.get_or_insert_with(Instant::now);
                            Event::Checking(kernel)
                        }
                        Notice::Checked => {
                            self.checking += begun.take().map_or(0.0, |begun| begun.elapsed().as_secs_f64());
                            Event::Loading(&part.what)
                        }
                    });
                };
                Network::load(executor, part.graph, &part.wanted, weights, tell).await?
            }
        };
        self.mark(Phase::Load, &format!("loading the {}", part.what));
        Ok(Resident { what: part.what, made_for, network: network.checked(self.request.check) })
    }

    /// Lets go of a network, or keeps it.
    pub(super) fn release(&mut self, network: Resident) {
        if let Some(kept) = &mut self.kept {
            kept.put(network);
        }
    }

    /// One pass of a network; what it tells is said to happen at `place`.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub(super) async fn pass(
        &mut self,
        network: &mut Resident,
        inputs: &[(&str, &Tensor)],
        place: &str,
    ) -> Result<Outputs> {
        let tell = &mut |text: &Message| (self.tell)(Event::Warning(&text.clone().on(place)));
        let outputs = network.network.run(inputs, tell).await?;
        self.holds(network.network.device_bytes());
        Ok(outputs)
    }

    /// Loads a network for one pass. One without nodes has no outputs.
    ///
    /// # Errors
    /// If it cannot be loaded or run.
    pub(super) async fn once(&mut self, part: Part, inputs: &[(&str, &Tensor)], place: &str) -> Result<Outputs> {
        self.once_on(self.executor, part, inputs, place).await
    }

    /// The same on this executor.
    ///
    /// # Errors
    /// As [`Kit::once`].
    pub(super) async fn once_on(
        &mut self,
        executor: &Executor,
        part: Part,
        inputs: &[(&str, &Tensor)],
        place: &str,
    ) -> Result<Outputs> {
        if part.graph.nodes.is_empty() {
            return Ok(Outputs::new());
        }
        let mut network = self.load(executor, part).await?;
        let outputs = self.pass(&mut network, inputs, place).await?;
        self.release(network);
        Ok(outputs)
    }

    /// This much device memory is held now, next to what is kept.
    pub fn holds(&mut self, bytes: u64) {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.device_bytes());
        self.peak_device_bytes = self.peak_device_bytes.max(kept + bytes);
    }

    /// Takes the state after the last step of the batch's next pictures, channels last, and hands out the whole
    /// batch's once it is whole.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn add_state(&mut self, state: &Tensor) -> Result<()> {
        let part = if state.shape.rank() == 4 { state.to_channels_first()? } else { state.clone() };
        let before = if self.state.shape.is_empty() { 0 } else { self.state.shape.batch() };
        self.state.data.extend_from_slice(&part.data);
        self.state.shape = part.shape.with_batch(before + part.shape.batch());
        if self.state.shape.batch() < self.request.batch {
            return Ok(());
        }
        let start = Instant::now();
        let kept = (self.keep)(Made::Latents(&self.state));
        self.not_counted(start, kept)
    }

    /// The generators of these pictures of the batch.
    pub fn noise(&self, range: Range<usize>) -> Vec<Generator> {
        range.map(|index| self.request.rng.seeded(self.request.seed_of(index))).collect()
    }

    /// How many pictures are made.
    pub fn made(&self) -> usize {
        self.pictures.len()
    }

    /// Height and width of the pictures that are drawn.
    pub fn size(&self) -> [usize; 2] {
        [self.settings.height, self.settings.width]
    }

    /// Takes the batch's next picture, `[1, H, W, 3]` from -1 to 1, and hands it out, or the one that it is a part of.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn add_picture(&mut self, pixels: &Tensor) -> Result<()> {
        let [_, height, width, _] = pixels.shape.image()?;
        let index = self.pictures.len();
        let controls: Vec<_> = self.models.controls.iter().map(Model::name).collect();
        let refiner = self.models.refiner.as_ref().map(|refiner| refiner.model.name());
        let names = Names { model: self.models.model.name(), controls, refiner };
        let parameters = Some(parameters(self.request, self.settings, index, &names));
        let drawn = Picture { width, height, rgb: to_rgb8(pixels), parameters };
        let picture = match &self.patch {
            Some(patch) => patch.put(&drawn),
            None => drawn,
        };
        self.mark(Phase::Decode, "decoding");
        let start = Instant::now();
        let kept = (self.keep)(Made::Picture(index, &picture));
        self.pictures.push(picture);
        self.not_counted(start, kept)
    }

    /// The time since `start`, in which something was kept, is not a part of this call's.
    fn not_counted(&mut self, start: Instant, kept: Result<()>) -> Result<()> {
        kept?;
        let taken = start.elapsed();
        self.begun += taken;
        self.marked += taken;
        self.stop_if_cancelled()
    }
}
