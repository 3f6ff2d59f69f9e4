//! One call of [`Pipeline::generate`](super::Pipeline::generate), from texts to pixels.

use std::sync::atomic::{AtomicBool, Ordering};

use web_time::Instant;

use super::control::Control;
use super::denoise::Rest;
use super::kept::{Kept, Resident, made_for};
use super::{Event, Keep, Made, Pictures, Pipeline, Request, Seconds, Settings, Span};
use crate::conditioning::{Conditioning, Encoder, Texts, condition};
use crate::error::{Error, Message, Result};
use crate::graph::Graph;
use crate::image::{Picture, to_rgb8};
use crate::models::controlnet::{image_input, scale_input};
use crate::network::{Executor, Network, Outputs};
use crate::samplers;
use crate::tensor::{Shape, Tensor};
use crate::weights::{Bundle, Changes, ComponentWeights};

pub(super) struct Run<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) executor: &'a Executor,
    /// Where networks go that are not needed any more; without it they are let go.
    kept: Option<&'a mut Kept>,
    pub(super) request: &'a Request,
    /// Of the request's LoRA files.
    changes: Changes,
    pub(super) settings: Settings,
    cancel: &'a AtomicBool,
    tell: &'a mut dyn FnMut(Event<'_>),
    begun: Instant,
    /// The end of the last span.
    marked: Instant,
    seconds: Seconds,
    spans: Vec<Span>,
    peak_device_bytes: u64,
    /// Since the device cannot hold the decoder.
    decodes_on_cpu: bool,
}

/// Which part of [`Seconds`] a span belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    Load,
    Text,
    Denoise,
    Decode,
}

/// A network of the model, or a part of it.
pub(super) struct Wanted<'a> {
    /// What it is for, which spans and kept networks are called by.
    pub what: &'static str,
    pub component: &'static str,
    pub graph: Graph,
    /// What its file should hold.
    pub parameters: &'a [(String, Shape)],
}

impl<'a> Run<'a> {
    /// # Errors
    /// If the request makes no sense for this model.
    pub fn new(
        pipeline: &'a Pipeline,
        executor: &'a Executor,
        kept: Option<&'a mut Kept>,
        request: &'a Request,
        cancel: &'a AtomicBool,
        tell: &'a mut dyn FnMut(Event<'_>),
    ) -> Result<Self> {
        let begun = Instant::now();
        let settings = pipeline.settings(request)?;
        let changes = pipeline.changes(request)?;
        let (seconds, spans) = (Seconds::default(), Vec::new());
        Ok(Self {
            pipeline,
            executor,
            kept,
            request,
            changes,
            settings,
            cancel,
            tell,
            begun,
            marked: begun,
            seconds,
            spans,
            peak_device_bytes: 0,
            decodes_on_cpu: false,
        })
    }

    /// Every part of the batch from noise to pixels, before the next begins, so that the least is lost if none follows.
    ///
    /// # Errors
    /// As [`Pipeline::generate_each`](super::Pipeline::generate_each).
    pub async fn pictures(mut self, keep: &mut Keep<'_>) -> Result<Pictures> {
        if let Some(warning) = samplers::warning(&self.settings.sampler, &self.pipeline.schedule)? {
            self.warn(&warning);
        }
        let conditioning = self.condition().await?;
        let mut rest = Rest::new(self.request.batch);
        let (mut latents, mut pictures) = (Tensor::zeros([0]), Vec::with_capacity(self.request.batch));
        while let Some(part) = self.denoise(&conditioning, &mut rest).await? {
            latents.data.extend_from_slice(&part.data);
            latents.shape = part.shape.with_batch(pictures.len() + part.shape.batch());
            if rest.next_part().is_none() {
                self.hand(Made::Latents(&latents), keep)?;
            }
            self.decode(&part, &mut pictures, keep).await?;
        }
        let Self { mut seconds, spans, settings, peak_device_bytes, .. } = self;
        seconds.total = self.begun.elapsed().as_secs_f64();
        Ok(Pictures { pictures, latents, settings, seconds, peak_device_bytes, spans })
    }

    /// Hands out what is made. The time that it takes to keep it is none of this run's.
    fn hand(&mut self, made: Made<'_>, keep: &mut Keep<'_>) -> Result<()> {
        let start = Instant::now();
        keep(made)?;
        let taken = start.elapsed();
        self.begun += taken;
        self.marked += taken;
        self.stop_if_cancelled()
    }

    /// Ends a span here: the time since the last one ended went into `what`.
    pub fn mark(&mut self, phase: Phase, what: &str) {
        let now = Instant::now();
        let seconds = (now - self.marked).as_secs_f64();
        self.marked = now;
        // It happened while weights were read, so it is a part of this time.
        let merging = self.changes.take_time().as_secs_f64();
        *match phase {
            Phase::Load => &mut self.seconds.load,
            Phase::Text => &mut self.seconds.text,
            Phase::Denoise => &mut self.seconds.denoise,
            Phase::Decode => &mut self.seconds.decode,
        } += seconds;
        if merging > 0.0 {
            self.span("merging LoRAs", merging);
        }
        self.span(what, seconds - merging);
    }

    fn span(&mut self, what: &str, seconds: f64) {
        match self.spans.iter_mut().find(|span| span.what == what) {
            Some(span) => span.seconds += seconds,
            None => self.spans.push(Span { what: what.to_string(), seconds }),
        }
    }

    /// A network, kept or loaded.
    pub async fn load(&mut self, executor: &Executor, wanted: Wanted<'_>) -> Result<Resident> {
        let Wanted { what, component, graph, parameters } = wanted;
        let made_for = made_for(&graph, executor, &self.changes.files(component));
        let kept = self.kept.as_mut().and_then(|kept| kept.take(what, &made_for));
        let network = match kept {
            Some(network) => network,
            None => {
                let weights = match &self.pipeline.vae_folder {
                    Some(folder) if component == "vae" => ComponentWeights::in_folder(folder, component)?,
                    _ => self.pipeline.model.weights(component)?,
                };
                let weights = self.changes.merged(component, weights);
                let controls = if component == "unet" { self.pipeline.control_weights()? } else { Vec::new() };
                let weights = Bundle::new(weights, controls);
                let tell = &mut |text: &Message| (self.tell)(Event::Warning(text));
                Network::load(executor, graph, parameters, weights, tell).await?
            }
        };
        self.mark(Phase::Load, &format!("loading the {what}"));
        Ok(Resident { made_for, network: network.checked(self.request.check) })
    }

    /// Lets go of a network, or keeps it.
    pub fn release(&mut self, what: &'static str, network: Resident) {
        if let Some(kept) = &mut self.kept {
            kept.put(what, network);
        }
    }

    /// One pass of a network; what it tells is said to happen at `place`.
    pub async fn pass(&mut self, network: &mut Network, inputs: &[(&str, &Tensor)], place: &str) -> Result<Outputs> {
        let tell = &mut |text: &Message| (self.tell)(Event::Warning(&text.clone().on(place)));
        let outputs = network.run(inputs, tell).await?;
        self.holds(network.device_bytes());
        Ok(outputs)
    }

    /// Loads a network for one pass.
    pub async fn once(&mut self, wanted: Wanted<'_>, inputs: &[(&str, &Tensor)], place: &str) -> Result<Outputs> {
        if wanted.graph.nodes.is_empty() {
            return Ok(Outputs::new());
        }
        let what = wanted.what;
        let mut network = self.load(self.executor, wanted).await?;
        let outputs = self.pass(&mut network.network, inputs, place).await?;
        self.release(what, network);
        Ok(outputs)
    }

    /// So much device memory is held now, beside what is kept.
    pub fn holds(&mut self, bytes: u64) {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.device_bytes());
        self.peak_device_bytes = self.peak_device_bytes.max(kept + bytes);
    }

    /// What the ControlNets see, by the names of their inputs, at the picture's size.
    pub fn control_images(&self) -> Vec<(String, Tensor)> {
        let Settings { width, height, .. } = self.settings;
        let image = |(index, control): (usize, &Control)| (image_input(index), control.image.to_tensor(width, height));
        self.request.controls.iter().enumerate().map(image).collect()
    }

    /// For each ControlNet the name of its scale's input, and the scale at each of so many evaluations of the UNet.
    pub fn control_scales(&self, evaluations: usize) -> Vec<(String, Vec<f32>)> {
        let scales = |control: &Control| (0..evaluations).map(|at| control.scale_at(at, evaluations)).collect();
        let named = |(index, control)| (scale_input(index), scales(control));
        self.request.controls.iter().enumerate().map(named).collect()
    }

    pub fn warn(&mut self, text: &Message) {
        (self.tell)(Event::Warning(text));
    }

    /// So many of all steps are done.
    ///
    /// # Errors
    /// If the run is cancelled.
    pub fn told_step(&mut self, done: usize, steps: usize) -> Result<()> {
        self.mark(Phase::Denoise, "steps");
        (self.tell)(Event::Step(done, steps));
        self.stop_if_cancelled()
    }

    /// What a network that was distilled with guidance is told of it.
    pub fn guidance_embedding(&self) -> Option<Vec<f32>> {
        self.pipeline.unet.guidance_embedding(self.settings.guidance)
    }

    fn stop_if_cancelled(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Prompt to embeddings: the unconditional ones first, unless guidance needs none.
    async fn condition(&mut self) -> Result<Conditioning> {
        let (model, unet, request) = (&self.pipeline.model, &self.pipeline.unet, self.request);
        let (negative, guided) = (request.negative.as_deref(), self.pipeline.guided(&self.settings));
        let both = [negative.unwrap_or(""), &request.prompt];
        let texts = if guided { &both[..] } else { &both[1..] };
        let loras = ["text_encoder", "text_encoder_2"].map(|component| self.changes.files(component)).join("; ");
        let made_for = (texts.len(), request.check, request.conditioning.clone(), loras);
        let kept = self.kept.as_mut().and_then(|kept| kept.take_encoders(&made_for));
        let tell = &mut |text: &Message| (self.tell)(Event::Warning(text));
        let mut encoders = match kept {
            Some(encoders) => encoders,
            None => {
                let (executor, options, changes) = (self.executor, &request.conditioning, &self.changes);
                let loaded = Encoder::load_all(model, changes, unet, executor, texts.len(), options, tell).await?;
                loaded.into_iter().map(|encoder| encoder.checked(request.check)).collect()
            }
        };
        self.mark(Phase::Load, "loading the text encoders");
        let texts = Texts { texts, negative_absent: guided && negative.is_none() };
        let tell = &mut |text: &Message| (self.tell)(Event::Warning(text));
        let conditioning = condition(model, unet, &mut encoders, &texts, tell).await?;
        self.holds(conditioning.device_bytes);
        if let Some(kept) = &mut self.kept {
            kept.put_encoders(made_for, encoders);
        }
        self.mark(Phase::Text, "encoding the prompt");
        if conditioning.dropped > 0 {
            let warning = format!("the prompt is too long: its last {} tokens were left out", conditioning.dropped);
            (self.tell)(Event::Warning(&Message::from(warning)));
        }
        self.stop_if_cancelled()?;
        Ok(conditioning)
    }

    /// Noise to latents: of all pictures that are left or, where there is no room for that, of as many as there is room
    /// for. `None` if all are made.
    async fn denoise(&mut self, conditioning: &Conditioning, rest: &mut Rest) -> Result<Option<Tensor>> {
        while let Some((range, part)) = rest.next_part() {
            match self.part(conditioning, range.clone(), part).await {
                Ok(made) => {
                    rest.made();
                    return Ok(Some(made));
                }
                Err(Error::TooLarge(why)) if rest.halve() => {
                    let (count, at_once) = (range.len(), rest.at_once);
                    self.warn(&why.on(format!("{count} pictures at once do not fit, so {at_once} are made at a time")));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Latents to pixels. What all the steps made is not lost to a device that cannot hold the decoder: the CPU decodes.
    async fn decode(&mut self, latents: &Tensor, pictures: &mut Vec<Picture>, keep: &mut Keep<'_>) -> Result<()> {
        let first = pictures.len();
        if !self.decodes_on_cpu {
            let mut executor = self.executor.clone();
            // SDXL's decoder overflows f16; its configuration says so.
            if self.pipeline.vae.force_upcast() && self.pipeline.unet.is_sdxl() {
                executor = executor.in_f32();
            }
            match (self.decode_on(&executor, latents, first, pictures, keep).await, &executor) {
                (Err(Error::TooLarge(why)), Executor::Gpu(..)) => {
                    self.warn(&why.on("the VAE's decoder runs on the CPU"));
                    self.decodes_on_cpu = true;
                }
                (decoded, _) => return decoded,
            }
        }
        self.decode_on(&Executor::Cpu, latents, first, pictures, keep).await
    }

    /// One picture at a time: the VAE's activations are the largest of all. `first` is the place of the first one in
    /// the batch; those that `pictures` has are not made again.
    async fn decode_on(
        &mut self,
        executor: &Executor,
        latents: &Tensor,
        first: usize,
        pictures: &mut Vec<Picture>,
        keep: &mut Keep<'_>,
    ) -> Result<()> {
        let [batch, _, height, width] = latents.shape.image()?;
        let vae = &self.pipeline.vae;
        let z = latents.to_channels_last()?;
        let (graph, parameters) = (vae.decoder(1, height, width)?, vae.wanted()?);
        let wanted = Wanted { what: "VAE's decoder", component: "vae", graph, parameters: &parameters };
        let what = wanted.what;
        let mut network = self.load(executor, wanted).await?;
        for latents in z.data.chunks_exact(z.data.len() / batch).skip(pictures.len() - first) {
            let z = Tensor::new([1, height, width, vae.latent_channels()], vae.unscale(latents));
            let (index, Settings { width, height, .. }) = (pictures.len(), self.settings.clone());
            let place = format!("picture {}", index + 1);
            let rgb = to_rgb8(&sample_of(self.pass(&mut network.network, &[("z", &z)], &place).await?)?);
            let parameters = Some(self.pipeline.parameters(self.request, &self.settings, index));
            let picture = Picture { width, height, rgb, parameters };
            self.mark(Phase::Decode, "decoding");
            self.hand(Made::Picture(index, &picture), keep)?;
            pictures.push(picture);
        }
        self.release(what, network);
        Ok(())
    }
}

/// The output of a VAE's decoder.
fn sample_of(mut outputs: Outputs) -> Result<Tensor> {
    outputs.remove("sample").ok_or_else(|| Error::shape("the network has no output sample"))
}
