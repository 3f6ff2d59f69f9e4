//! From a prompt to a picture:
//!
//! prompt -> tokenizer -> ids -> text encoder -> embeddings
//!        -> seeded noise * sigma -> [ unet -> guidance -> sampler step ] x steps -> latents -> vae -> pixels

mod denoise;
mod denoiser;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::conditioning::{self, Conditioning, Encoder, Texts, condition};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::to_rgb8;
use crate::models::autoencoder::Autoencoder;
use crate::models::unet;
use crate::network::{Executor, Network, Outputs};
use crate::rng;
use crate::samplers;
use crate::tensor::{Shape, Tensor};
use crate::weights::{ComponentWeights, Model};
use denoise::{Picture, guide, scaled, start_latents, step};
use denoiser::{Denoiser, Parts};

/// What to draw. Absent values are the model's defaults.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub prompt: String,
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
    /// Seed of the first picture; the others count up.
    pub seed: u64,
    /// Which generator the noise is of: the latents', and a stochastic sampler's, which goes on drawing from it.
    pub rng: rng::Source,
    /// Number of pictures, at least 1.
    pub batch: usize,
    /// `[batch, channels, height, width]` in latent pixels, unit variance: used instead of seeded noise.
    pub init_latents: Option<Tensor>,
    /// Whether every node's output is looked at, as [`Network::checked`] tells: slower, the same picture.
    pub check: bool,
}

/// A request with every default filled in.
#[derive(Debug, Clone)]
pub struct Settings {
    pub width: usize,
    pub height: usize,
    pub steps: usize,
    pub guidance: f32,
    pub sampler: String,
}

/// What happens on the way, for whoever shows it.
#[derive(Debug)]
pub enum Event<'a> {
    Warning(&'a str),
    /// This many of so many steps are done.
    Step(usize, usize),
}

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

/// The pictures and what they cost.
#[derive(Debug)]
pub struct Pictures {
    /// RGB, 8 bits each, row by row; one per seed.
    pub pixels: Vec<Vec<u8>>,
    /// After the last step, before the VAE's scaling is undone: `[batch, channels, height, width]`.
    pub latents: Tensor,
    pub settings: Settings,
    pub seconds: Seconds,
    /// The most device memory that any one network held; they are loaded one after the other.
    pub peak_device_bytes: u64,
}

/// A model opened for making pictures: its configurations read and understood.
pub struct Pipeline {
    model: Model,
    unet: unet::Config,
    vae: Autoencoder,
    /// The folder of the autoencoder, where it is not the model's own.
    vae_folder: Option<PathBuf>,
    schedule: samplers::Config,
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
        Self { model, unet, vae, vae_folder: None, schedule }.checked()
    }

    /// The same with the autoencoder of another folder (its `config.json` and weights): another full one, or a tiny one.
    ///
    /// # Errors
    /// If a file is missing, asks for something that is not built, or its latents are not the UNet's.
    pub fn with_vae(self, folder: &Path) -> Result<Self> {
        let config = folder.join("config.json");
        let text = std::fs::read_to_string(&config)
            .map_err(|error| Error::file(&config, format!("cannot be read: {error}; give a folder of a VAE alone")))?;
        let vae = Autoencoder::from_json(&text, &config.display().to_string())?;
        Self { vae, vae_folder: Some(folder.to_path_buf()), ..self }.checked()
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
        };
        if !settings.guidance.is_finite() {
            return Err(Error::usage(format!("--guidance {} is not a number", settings.guidance)));
        }
        if request.batch == 0 {
            return Err(Error::usage("--batch 0 makes no picture: at least 1"));
        }
        check_size(settings.width, settings.height, request.batch)?;
        samplers::sampler(&settings.sampler, &self.schedule, settings.steps)?;
        Ok(settings)
    }

    /// Makes the pictures. `cancel` is looked at between submissions.
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
        let start = Instant::now();
        let settings = self.settings(request)?;
        let (seconds, check) = (Seconds::default(), request.check);
        let mut run = Run { pipeline: self, executor, check, cancel, tell, seconds, peak_device_bytes: 0 };
        let conditioning = run.condition(request, &settings).await?;
        let latents = run.denoise(request, &settings, conditioning).await?;
        let pixels = run.decode(&latents).await?;
        let (mut seconds, peak_device_bytes) = (run.seconds, run.peak_device_bytes);
        seconds.total = start.elapsed().as_secs_f64();
        Ok(Pictures { pixels, latents, settings, seconds, peak_device_bytes })
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

/// One call of [`Pipeline::generate`]. Networks are loaded one after the other, and each is gone before the next.
struct Run<'a> {
    pipeline: &'a Pipeline,
    executor: &'a Executor,
    check: bool,
    cancel: &'a AtomicBool,
    tell: &'a mut dyn FnMut(Event<'_>),
    seconds: Seconds,
    peak_device_bytes: u64,
}

impl Run<'_> {
    /// A network of the model, or a part of it, whose file should hold `wanted`; the time is added to `load`.
    async fn load(
        &mut self,
        executor: &Executor,
        graph: Graph,
        component: &str,
        wanted: &[(String, Shape)],
    ) -> Result<Network> {
        let start = Instant::now();
        let weights = match &self.pipeline.vae_folder {
            Some(folder) if component == "vae" => ComponentWeights::in_folder(folder, component)?,
            _ => self.pipeline.model.weights(component)?,
        };
        let tell = &mut |text: &str| (self.tell)(Event::Warning(text));
        let network = Network::load(executor, graph, wanted, weights, tell).await?;
        self.seconds.load += start.elapsed().as_secs_f64();
        Ok(network.checked(self.check))
    }

    /// One pass of a network; what it tells is said to happen at `place`. Its memory is added to the peak.
    async fn pass(&mut self, network: &mut Network, inputs: &[(&str, &Tensor)], place: &str) -> Result<Outputs> {
        let tell = &mut |text: &str| (self.tell)(Event::Warning(&format!("{place}: {text}")));
        let outputs = network.run(inputs, tell).await?;
        self.peak_device_bytes = self.peak_device_bytes.max(network.device_bytes());
        Ok(outputs)
    }

    /// Loads a part of the UNet for one pass.
    async fn once(
        &mut self,
        graph: Graph,
        wanted: &[(String, Shape)],
        inputs: &[(&str, &Tensor)],
        place: &str,
    ) -> Result<Outputs> {
        if graph.nodes.is_empty() {
            return Ok(Outputs::new());
        }
        let mut network = self.load(self.executor, graph, "unet", wanted).await?;
        self.pass(&mut network, inputs, place).await
    }

    fn stop_if_cancelled(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Prompt to embeddings: the unconditional ones first, unless guidance needs none.
    async fn condition(&mut self, request: &Request, settings: &Settings) -> Result<Conditioning> {
        let (model, unet) = (&self.pipeline.model, &self.pipeline.unet);
        let negative = request.negative.as_deref();
        let both = [negative.unwrap_or(""), &request.prompt];
        let texts = if settings.guided() { &both[..] } else { &both[1..] };
        let start = Instant::now();
        let tell = &mut |text: &str| (self.tell)(Event::Warning(text));
        let options = &request.conditioning;
        let mut encoders =
            Encoder::load_all(model, unet, self.executor, texts.len(), options, self.check, tell).await?;
        self.seconds.load += start.elapsed().as_secs_f64();
        let start = Instant::now();
        let texts = Texts { texts, negative_absent: settings.guided() && negative.is_none() };
        let conditioning = condition(model, unet, &mut encoders, &texts, tell).await?;
        self.seconds.text = start.elapsed().as_secs_f64();
        self.peak_device_bytes = self.peak_device_bytes.max(conditioning.device_bytes);
        if conditioning.dropped > 0 {
            let warning = format!("the prompt is too long: its last {} tokens were left out", conditioning.dropped);
            (self.tell)(Event::Warning(&warning));
        }
        self.stop_if_cancelled()?;
        Ok(conditioning)
    }

    /// Noise to latents.
    async fn denoise(&mut self, request: &Request, settings: &Settings, conditioning: Conditioning) -> Result<Tensor> {
        let Pipeline { unet, vae, schedule, .. } = self.pipeline;
        let batch = request.batch;
        let factor = vae.factor();
        let size = [settings.height / factor, settings.width / factor];
        let mut pictures = Vec::with_capacity(batch);
        for index in 0..batch {
            let sampler = samplers::sampler(&settings.sampler, schedule, settings.steps)?;
            pictures.push(Picture { sampler, noise: request.rng.seeded(request.seed.wrapping_add(index as u64)) });
        }
        let timesteps = pictures[0].sampler.timesteps().to_vec();
        let &[texts, tokens, _] = conditioning.context.shape.dims() else {
            return Err(Error::shape(format!("a text encoder gave {}", conditioning.context.shape)));
        };
        let parts = Parts::of(unet, size, batch, [texts, tokens], timesteps.len())?;
        let (height, width) = (settings.height as f32, settings.width as f32);
        let sizes = [height, width, 0.0, 0.0, height, width];
        let (start, loaded) = (Instant::now(), self.seconds.load);
        let mut denoiser = Denoiser::load(self, parts, &conditioning, sizes, &timesteps, batch).await?;
        // Only now: a picture that no memory holds has been refused.
        let mut latents = start_latents(request, [batch, unet.in_channels, size[0], size[1]].into(), &mut pictures)?;
        for index in 0..timesteps.len() {
            let sample = scaled(&latents, pictures[0].sampler.input_scale(index), texts)?;
            let output = denoiser.run(self, index, &sample).await?.to_channels_first()?;
            let output = if settings.guided() { guide(&output.data, settings.guidance) } else { output.data };
            step(&mut pictures, index, &output, &mut latents.data);
            (self.tell)(Event::Step(index + 1, timesteps.len()));
            self.stop_if_cancelled()?;
        }
        self.seconds.denoise = start.elapsed().as_secs_f64() - (self.seconds.load - loaded);
        Ok(latents)
    }

    /// Latents to pixels, one picture at a time: the VAE's activations are the largest of all.
    async fn decode(&mut self, latents: &Tensor) -> Result<Vec<Vec<u8>>> {
        let [batch, _, height, width] = latents.shape.image()?;
        let vae = &self.pipeline.vae;
        let mut executor = self.executor.clone();
        // SDXL's decoder overflows f16; its configuration says so.
        if vae.force_upcast() && self.pipeline.unet.is_sdxl() {
            executor = executor.in_f32();
        }
        let z = latents.to_channels_last()?;
        let mut network = self.load(&executor, vae.decoder(1, height, width)?, "vae", &vae.wanted()?).await?;
        let mut pixels = Vec::with_capacity(batch);
        for picture in z.data.chunks_exact(z.data.len() / batch) {
            let start = Instant::now();
            let z = Tensor::new([1, height, width, vae.latent_channels()], vae.unscale(picture));
            let place = format!("picture {}", pixels.len() + 1);
            pixels.push(to_rgb8(&sample_of(self.pass(&mut network, &[("z", &z)], &place).await?)?));
            self.seconds.decode += start.elapsed().as_secs_f64();
            self.stop_if_cancelled()?;
        }
        Ok(pixels)
    }
}

/// The output of a UNet and of a VAE's decoder.
fn sample_of(mut outputs: Outputs) -> Result<Tensor> {
    outputs.remove("sample").ok_or_else(|| Error::shape("the network has no output sample"))
}

impl Settings {
    /// Whether the unconditional pass is needed.
    pub fn guided(&self) -> bool {
        self.guidance > 1.0
    }
}
