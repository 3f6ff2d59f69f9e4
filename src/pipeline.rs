//! From a prompt to a picture:
//!
//! prompt -> tokenizer -> ids -> text encoder -> embeddings
//!        -> seeded noise * sigma -> [ unet -> guidance -> sampler step ] x steps -> latents -> vae -> pixels

mod control;
mod denoise;
mod denoiser;
mod kept;
mod run;
mod steps;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::conditioning::{self, Syntax};
use crate::error::{Error, Result};
use crate::files::read_text;
use crate::image::{ControlParameters, Parameters, Picture};
use crate::models::autoencoder::Autoencoder;
use crate::models::unet;
use crate::network::Executor;
use crate::rng;
use crate::samplers::{self, Sampler};
use crate::tensor::Tensor;
use crate::weights::{Changes, Lora, Model};
pub use control::Control;
use control::ControlNet;
use kept::Kept;
use run::Run;

/// What to draw. Absent values are the model's defaults.
#[derive(Debug, Clone)]
pub struct Request {
    pub prompt: String,
    /// The prompt as the picture's parameters show it, if not as it is: with tags for LoRA files.
    pub shown_prompt: Option<String>,
    /// `None` is not the same as empty: SDXL then leaves its unconditional embedding zero.
    pub negative: Option<String>,
    /// How both are read and encoded.
    pub conditioning: conditioning::Options,
    /// Pixels.
    pub width: Option<usize>,
    pub height: Option<usize>,
    pub steps: Option<usize>,
    pub guidance: Option<f32>,
    pub sampler: Option<String>,
    /// [`samplers::Config::with_spacing`]
    pub spacing: Option<String>,
    /// [`samplers::Config::with_prediction`]
    pub prediction: Option<String>,
    /// [`samplers::Config::with_eta`]
    pub eta: Option<f64>,
    /// Seed of the first picture; the others count up.
    pub seed: u64,
    /// Which generator the noise is of: the latents', and a stochastic sampler's, which goes on drawing from it.
    pub rng: rng::NoiseSource,
    /// Number of pictures, at least 1.
    pub batch: usize,
    /// Files whose changes are added to the weights.
    pub loras: Vec<Lora>,
    /// `[batch, channels, height, width]` in latent pixels, unit variance: used instead of seeded noise.
    pub init_latents: Option<Tensor>,
    /// One for each of [`Pipeline::with_controls`], in the same order.
    pub controls: Vec<Control>,
    /// Whether every node's output is looked at, as [`Network::checked`] tells: slower, the same picture.
    pub check: bool,
}

impl Default for Request {
    /// One picture without a prompt, by the model's defaults.
    fn default() -> Self {
        Self {
            prompt: String::new(),
            shown_prompt: None,
            negative: None,
            conditioning: conditioning::Options::default(),
            width: None,
            height: None,
            steps: None,
            guidance: None,
            sampler: None,
            spacing: None,
            prediction: None,
            eta: None,
            seed: 0,
            rng: rng::NoiseSource::default(),
            batch: 1,
            loras: Vec::new(),
            init_latents: None,
            controls: Vec::new(),
            check: false,
        }
    }
}

/// A request with every default filled in.
#[derive(Debug, Clone)]
pub struct Settings {
    pub width: usize,
    pub height: usize,
    pub steps: usize,
    pub guidance: f32,
    pub sampler: String,
    pub spacing: Option<String>,
    pub prediction: Option<String>,
    pub eta: Option<f64>,
}

/// What happens on the way, for whoever shows it.
#[derive(Debug)]
pub enum Event<'a> {
    Warning(&'a str),
    /// This many of so many steps are done.
    Step(usize, usize),
}

/// What a call has made, for a caller that keeps it at once.
#[derive(Debug)]
pub enum Made<'a> {
    /// [`Pictures::latents`], before the last of them are decoded.
    Latents(&'a Tensor),
    /// The picture of this place in the batch, as in [`Pictures::pictures`].
    Picture(usize, &'a Picture),
}

/// Keeps what is made.
pub type Keep<'a> = dyn FnMut(Made<'_>) -> Result<()> + 'a;

/// Wall-clock seconds of each part.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Seconds {
    /// Reading and uploading weights, planning, compiling kernels: of all networks.
    pub load: f64,
    pub text: f64,
    pub denoise: f64,
    pub decode: f64,
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
    /// After the last step, before the VAE's scaling is undone: `[batch, channels, height, width]`.
    pub latents: Tensor,
    pub settings: Settings,
    pub seconds: Seconds,
    /// The most device memory that was held at one time.
    pub peak_device_bytes: u64,
    /// Where the wall-clock time went, in order: `seconds.total` together.
    pub spans: Vec<Span>,
}

/// A part of a picture's making.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Span {
    pub what: String,
    /// Wall-clock time.
    pub seconds: f64,
}

/// A model opened for making pictures: its configurations read and understood.
pub struct Pipeline {
    model: Model,
    unet: unet::Config,
    vae: Autoencoder,
    /// The folder of the autoencoder, where it is not the model's own.
    vae_folder: Option<PathBuf>,
    schedule: samplers::Config,
    controls: Vec<ControlNet>,
}

impl Pipeline {
    /// # Errors
    /// If a file of the model is missing or asks for something that is not built.
    pub fn open(model: Model) -> Result<Self> {
        let place = |path: &str| model.path(path).display().to_string();
        let unet = unet::Config::from_json(&model.text("unet/config.json")?, &place("unet/config.json"))?;
        let vae = Autoencoder::from_json(&model.text("vae/config.json")?, &place("vae/config.json"))?;
        let path = "scheduler/scheduler_config.json";
        let schedule = samplers::Config::from_json(&model.text(path)?, &place(path))?;
        Self { model, unet, vae, vae_folder: None, schedule, controls: Vec::new() }.checked()
    }

    /// The same with the autoencoder of another folder (its `config.json` and weights): another full one, or a tiny one.
    ///
    /// # Errors
    /// If a file is missing, asks for something that is not built, or its latents are not the UNet's.
    pub fn with_vae(self, folder: &Path) -> Result<Self> {
        let config = folder.join("config.json");
        if !config.exists() {
            return Err(Error::file(&config, "is not there; give a folder of a VAE alone"));
        }
        let vae = Autoencoder::from_json(&read_text(&config)?, &config.display().to_string())?;
        Self { vae, vae_folder: Some(folder.to_path_buf()), ..self }.checked()
    }

    /// The same guided by these ControlNets, whose residuals add up.
    ///
    /// # Errors
    /// If one is no ControlNet, asks for something that is not built, or is for another UNet.
    pub fn with_controls(self, models: Vec<Model>) -> Result<Self> {
        let factor = self.vae.factor();
        let open = |model| ControlNet::open(model, &self.unet, factor);
        let controls = models.into_iter().map(open).collect::<Result<_>>()?;
        Ok(Self { controls, ..self })
    }

    /// What messages and pictures call the ControlNets.
    pub fn control_names(&self) -> impl Iterator<Item = String> {
        self.controls.iter().map(|control| control.model.name())
    }

    fn checked(self) -> Result<Self> {
        let (unet, channels) = (&self.unet, self.vae.latent_channels());
        if [unet.in_channels, unet.out_channels] == [channels; 2] {
            return Ok(self);
        }
        Err(Error::config(
            self.model.path("unet/config.json").display(),
            format!(
                "in_channels {} and out_channels {} do not fit the VAE's {channels} latent channels: inpainting and \
                 upscaling models are not supported",
                unet.in_channels, unet.out_channels
            ),
        ))
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Fills in the defaults: the model's own, then Stable Diffusion's.
    ///
    /// # Errors
    /// If the request makes no sense for this model.
    pub fn settings(&self, request: &Request) -> Result<Settings> {
        let defaults = self.model.entry().map(|entry| entry.defaults.clone()).unwrap_or_default();
        let factor = self.vae.factor();
        let own = defaults.size.or(self.unet.sample_size.map(|[height, width]| [width * factor, height * factor]));
        let side = |given: Option<usize>, own: Option<usize>, name: &str| {
            let pixels = given.or(own);
            let pixels =
                pixels.ok_or_else(|| Error::usage(format!("this model has no size of its own: give --{name}")))?;
            if pixels == 0 || pixels % factor != 0 {
                let nearest = (pixels / factor).max(1) * factor;
                return Err(Error::usage(format!(
                    "--{name} {pixels} is not a positive multiple of {factor}: try {nearest}"
                )));
            }
            Ok(pixels)
        };
        let sampler = match request.sampler.clone().or(defaults.sampler) {
            Some(name) => name,
            None => self.schedule.default_sampler()?.to_string(),
        };
        let guidance = request.guidance.or(defaults.guidance);
        let settings = Settings {
            width: side(request.width, own.map(|[width, _]| width), "width")?,
            height: side(request.height, own.map(|[_, height]| height), "height")?,
            steps: request.steps.or(defaults.steps).unwrap_or(25),
            guidance: guidance.unwrap_or(if self.unet.is_sdxl() { 5.0 } else { 7.5 }),
            sampler,
            spacing: request.spacing.clone(),
            prediction: request.prediction.clone(),
            eta: request.eta,
        };
        if !settings.guidance.is_finite() {
            return Err(Error::usage(format!("--guidance {} is not a number", settings.guidance)));
        }
        if request.batch == 0 {
            return Err(Error::usage("--batch 0 makes no picture: at least 1"));
        }
        check_size(settings.width, settings.height, request.batch)?;
        control::check(&self.controls, &request.controls)?;
        self.sampler(&settings)?;
        Ok(settings)
    }

    /// What made the picture of this place in the batch, for its text chunk.
    fn parameters(&self, request: &Request, settings: &Settings, index: usize) -> String {
        let control = |(model, Control { scale, start, end, .. }): (String, &Control)| ControlParameters {
            model,
            scale: *scale,
            start: *start,
            end: *end,
        };
        let parameters = Parameters {
            prompt: request.shown_prompt.as_ref().unwrap_or(&request.prompt),
            negative: request.negative.as_deref().unwrap_or_default(),
            steps: settings.steps,
            sampler: samplers::web_ui_name(&settings.sampler),
            guidance: settings.guidance,
            spacing: settings.spacing.as_deref(),
            prediction: settings.prediction.as_deref(),
            eta: settings.eta,
            seed: request.seed.wrapping_add(index as u64),
            width: settings.width,
            height: settings.height,
            model: &self.model.name(),
            clip_skip: request.conditioning.clip_skip,
            emphasis: request.conditioning.syntax == Syntax::Weighted,
            rng: request.rng.automatic1111_name(),
            controls: self.control_names().zip(&request.controls).map(control).collect(),
        };
        parameters.to_string()
    }

    fn sampler(&self, settings: &Settings) -> Result<Box<dyn Sampler>> {
        let schedule = self.schedule.clone().with_spacing(settings.spacing.as_deref());
        let schedule = schedule.with_prediction(settings.prediction.as_deref()).with_eta(settings.eta)?;
        samplers::sampler(&settings.sampler, &schedule, settings.steps)
    }

    /// Whether the unconditional pass is needed: not by a network that is told the guidance it was distilled with.
    fn guided(&self, settings: &Settings) -> bool {
        settings.guidance > 1.0 && self.unet.guidance_width.is_none()
    }

    /// What the request's LoRA files change in this model.
    ///
    /// # Errors
    /// As [`Changes::of`].
    pub fn changes(&self, request: &Request) -> Result<Changes> {
        Changes::of(&self.model, &request.loras)
    }

    /// The same pipeline on an executor, where its networks stay from one picture to the next.
    pub fn load<'a>(&'a self, executor: &'a Executor) -> Loaded<'a> {
        Loaded { pipeline: self, executor, kept: Kept::default() }
    }

    /// Makes the pictures, with the networks loaded one after the other, each gone before the next. `cancel` is looked at
    /// between submissions.
    ///
    /// # Errors
    /// If the request, the weights or the device do not allow it, or a node's output is not finite even in f32.
    pub async fn generate(
        &self,
        executor: &Executor,
        request: &Request,
        cancel: &AtomicBool,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Pictures> {
        self.generate_each(executor, request, cancel, tell, &mut |_| Ok(())).await
    }

    /// The same, which hands out the latents and each picture as soon as they are made.
    ///
    /// # Errors
    /// As there, and those of `keep`, after which nothing more is made.
    pub async fn generate_each(
        &self,
        executor: &Executor,
        request: &Request,
        cancel: &AtomicBool,
        tell: &mut dyn FnMut(Event<'_>),
        keep: &mut Keep<'_>,
    ) -> Result<Pictures> {
        Run::new(self, executor, None, request, cancel, tell)?.pictures(keep).await
    }
}

/// A pipeline that keeps its networks in memory, all of them at once. A picture of another size than the last, or with
/// another number of texts, loads again what depends on that.
pub struct Loaded<'a> {
    pipeline: &'a Pipeline,
    executor: &'a Executor,
    kept: Kept,
}

impl Loaded<'_> {
    /// [`Pipeline::generate`] with the networks of the last call.
    ///
    /// # Errors
    /// As there.
    pub async fn generate(
        &mut self,
        request: &Request,
        cancel: &AtomicBool,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Pictures> {
        self.generate_each(request, cancel, tell, &mut |_| Ok(())).await
    }

    /// [`Pipeline::generate_each`] with the networks of the last call.
    ///
    /// # Errors
    /// As there.
    pub async fn generate_each(
        &mut self,
        request: &Request,
        cancel: &AtomicBool,
        tell: &mut dyn FnMut(Event<'_>),
        keep: &mut Keep<'_>,
    ) -> Result<Pictures> {
        let run = Run::new(self.pipeline, self.executor, Some(&mut self.kept), request, cancel, tell)?;
        run.pictures(keep).await
    }
}

/// Refuses what no machine holds, so that later sizes in bytes can be computed at all; whether a smaller one fits is for
/// the executor to say.
fn check_size(width: usize, height: usize, batch: usize) -> Result<()> {
    const MOST_PICTURES: usize = 1 << 16;
    const MOST_PIXELS: u128 = 1 << 36;
    if batch > MOST_PICTURES {
        return Err(Error::usage(format!(
            "--batch {batch} is more than {MOST_PICTURES}: run again with another --seed"
        )));
    }
    let pixels = [width, height, batch].iter().try_fold(1u128, |product, n| product.checked_mul(*n as u128));
    if pixels.is_none_or(|pixels| pixels > MOST_PIXELS) {
        return Err(Error::usage(format!(
            "{width}x{height} pixels fit no machine: give a smaller --width, --height or --batch"
        )));
    }
    Ok(())
}
