//! `ornstein generate`

mod control;
mod lora;
mod output;
mod parts;
mod progress;
mod prompt;
mod prompts;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use clap::builder::TypedValueParser;

use super::sigmas::SigmasArg;
use super::{DeviceArgs, ModelArg, ShadersArg, one_of, print, print_json, tell, value, warn};
use crate::error::{Error, Result, ten};
use crate::files::{DATA, identity, read};
use crate::image::{Format, Picture, decode};
use crate::network::Executor;
use crate::rng::NoiseSource;
use crate::samplers::SPACINGS;
use crate::systems::{Made, Pictures, Request, Seconds, Studio};
use crate::tensor::Tensor;
use crate::weights::{Model, check_writable, read_tensors, write_atomically, write_tensors};
use output::{Names, check_format, is_stdout};
use prompts::Prompts;

#[derive(Debug, Args)]
pub(super) struct Generate {
    /// What to draw; `-` reads it from stdin
    #[arg(default_value = "")]
    prompt: String,
    /// What follows a prompt without quotes
    #[arg(hide = true)]
    more: Vec<String>,
    /// The same as an option, as other programs have it
    #[arg(short, long = "prompt", value_name = "TEXT", conflicts_with = "prompt")]
    prompt_option: Option<String>,
    /// What not to draw
    #[arg(short, long, visible_alias = "negative-prompt", value_name = "TEXT")]
    negative: Option<String>,
    #[command(flatten)]
    reading: prompt::PromptArgs,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    loras: lora::PromptLoraArgs,
    #[command(flatten)]
    parts: parts::PartArgs,
    #[command(flatten)]
    control: control::ControlArgs,
    /// The picture's file, NAME.png, .jpg or .webp; `-` writes a PNG to stdout [default: ornstein-<seed>.png, with a
    /// number behind it if that is there]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Pixels, a multiple of the VAE's factor [default: the model's]
    #[arg(short = 'W', long, value_name = "PIXELS")]
    width: Option<usize>,
    /// Pixels, a multiple of the VAE's factor [default: the model's]
    #[arg(short = 'H', long, value_name = "PIXELS")]
    height: Option<usize>,
    /// Denoising steps [default: the model's, 25 for most]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// How closely to follow the prompt; 1 or less skips the unconditional pass, but of euler-cfg++ [default: 7.5, SDXL
    /// 5, built-in model 4, euler-cfg++ 1]
    #[arg(long, visible_aliases = ["cfg-scale", "cfg"], value_name = "F", allow_negative_numbers = true)]
    guidance: Option<f32>,
    /// How far the spread of values goes back to what it is without guidance, from 0 to 1; models that start from pure
    /// noise want 0.7 [default: 0]
    #[arg(long, visible_alias = "cfg-rescale", value_name = "F", allow_negative_numbers = true)]
    guidance_rescale: Option<f32>,
    /// One seed gives one picture, on every device and in diffusers [default: -1, a random one, printed]
    #[arg(short, long, value_name = "N", default_value = "-1", hide_default_value = true, value_parser = seed)]
    #[arg(allow_negative_numbers = true)]
    seed: u64,
    #[arg(long, value_name = "NAME", help = super::sampler_help("[default: the model's]"))]
    sampler: Option<String>,
    #[command(flatten)]
    schedule: SigmasArg,
    /// How steps are spread over the training steps; distilled models want `trailing` [default: the model's]
    #[arg(long, value_name = "HOW", value_parser = SPACINGS)]
    #[arg(conflicts_with = "schedule")]
    spacing: Option<String>,
    /// What the network predicts, for a file that says it wrongly or not at all [default: as `models inspect` tells]
    #[arg(long, value_name = "WHAT", value_parser = ["epsilon", "v", "sample"])]
    prediction: Option<String>,
    /// For ddim and tcd: how much of the noise of a step is fresh, from 0 to 1 [default: 0]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    eta: Option<f64>,
    /// For models that draw classes: which, from 0
    #[arg(long, value_name = "N")]
    class: Option<usize>,
    /// For models that work on a picture: a PNG, JPEG or WebP to start from
    #[arg(long, value_name = "FILE")]
    init_image: Option<PathBuf>,
    /// How much of that picture is drawn anew, from 0 to 1 [default: the model's]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    strength: Option<f64>,
    /// How closely to keep to that picture, for models that are taught to edit one [default: the model's]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    image_guidance: Option<f32>,
    /// How much noise that picture gets, as a training step, for models that take it [default: the model's]
    #[arg(long, value_name = "N")]
    noise_level: Option<usize>,
    /// Another model that finishes the picture: SDXL's refiner
    #[arg(long, value_name = "MODEL")]
    refiner: Option<OsString>,
    /// Which share of the noise is gone when the refiner takes over, from 0 to 1 [default: 0.8]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    refiner_start: Option<f64>,
    /// Whose noise a seed gives: PyTorch's on the CPU or on CUDA
    #[arg(long, value_name = "RNG", default_value = "cpu", value_parser = noise_sources())]
    rng: NoiseSource,
    /// Draw every line of this file, or of stdin by `-`, with the networks loaded once: <output>-<number>-<seed>.png
    ///
    /// Empty lines and those that begin with `#` are left out, and not counted; `\#` begins a prompt with that sign.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "prompt_option", "save_latents"])]
    prompts: Option<PathBuf>,
    /// Number of pictures, seeds counting up, written to <output>-<seed>.png; in parts if memory cannot hold them all
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// A safetensors file whose tensor `latents` is used instead of seeded noise
    #[arg(long, value_name = "FILE")]
    init_latents: Option<PathBuf>,
    /// Where to write the last step's latents, as tensor `latents` of a safetensors file
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Look for overflow in every node at every step, not only once an output is infinite: slower, else the same
    /// picture
    #[arg(long)]
    check: bool,
    /// Tell on stderr where the time went
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    shaders: ShadersArg,
    /// One JSON document on stdout instead of text
    #[arg(long)]
    json: bool,
}

fn noise_sources() -> impl TypedValueParser<Value = NoiseSource> {
    let cpu = value("cpu", "diffusers' pictures with a generator on the CPU");
    let cuda = value("cuda", "AUTOMATIC1111's as it comes, and diffusers' pictures with a generator on CUDA");
    one_of([(cpu, NoiseSource::Cpu), (cuda, NoiseSource::Cuda)])
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        if !self.more.is_empty() {
            let all = format!("{} {}", self.prompt, self.more.join(" "));
            return Err(Error::usage(format!("the prompt is one argument; put it in quotes: {all:?}")));
        }
        self.output.as_deref().map_or(Ok(()), check_format)?;
        let to_stdout = self.output.as_deref().is_some_and(is_stdout);
        if to_stdout && self.json {
            return Err(Error::usage("--output - and --json both write to stdout: name a file for the picture"));
        }
        if to_stdout && (self.batch > 1 || self.prompts.is_some()) {
            return Err(Error::usage("--output - holds one picture: name a file for --batch and --prompts"));
        }
        if self.save_latents.as_deref().is_some_and(is_stdout) {
            return Err(Error::usage("--save-latents writes to a file, not to stdout: name one"));
        }
        let (seed, prompt) = (self.seed, self.prompt_option.as_ref().unwrap_or(&self.prompt));
        let prompts = self.prompts.as_deref().map_or_else(|| Prompts::one(prompt), Prompts::of_file)?;
        let mut request = self.request(seed)?;
        let sources = self.shaders.open()?;
        let mut studio = Studio::open(self.parts.open(self.model.open()?)?)?;
        studio = studio.with_controls(self.control.models()?)?;
        if let Some(refiner) = &self.refiner {
            studio = studio.with_refiner(Model::resolve(Some(refiner))?)?;
        }
        let mut loras = self.loras.open()?;
        // First: a path for each picture of an absurd batch would fill the memory.
        studio.settings(&request)?;
        if loras.check(prompts.iter().map(|(_, prompt)| prompt), &mut request, &studio)? {
            warn("<lora:..> in a plain prompt is text: use --lora, or --prompt-syntax weighted");
        }
        self.check_outputs(seed, &prompts)?;
        let executor = self.device.open(sources)?;
        // The networks of one prompt make room for each other; those of several stay.
        let mut loaded = (prompts.count() > 1).then(|| studio.load(&executor));
        let (images, seconds) = (Vec::new(), Seconds::default());
        let mut done = Done { executor: &executor, json: self.json, images, seconds, peak: 0 };
        let mut job = Job { request, names: self.names(seed, None) };
        for (number, prompt) in prompts.iter() {
            loras.add_to(prompt, &mut job.request)?;
            job.names = self.names(seed, number.as_deref());
            let begun = Instant::now();
            let mut keep = |made: Made<'_>| match (made, &self.save_latents) {
                (Made::Latents(latents), Some(path)) => write_tensors(path, &[("latents", latents)]),
                (Made::Latents(_), None) => Ok(()),
                (Made::Picture(index, picture), _) => done.picture(&job, index, picture, begun),
            };
            let pictures = progress::shown(&mut keep, |pressed, tell, keep| match &mut loaded {
                Some(loaded) => pollster::block_on(loaded.generate_each(&job.request, pressed, tell, keep)),
                None => pollster::block_on(studio.generate_each(&executor, &job.request, pressed, tell, keep)),
            })?;
            if self.verbose {
                tell_spans(&pictures);
            }
            done.add(&pictures);
        }
        if self.json { done.print_json() } else { Ok(()) }
    }

    /// So that an hour's work is not lost to a mistyped folder.
    ///
    /// # Errors
    /// If a file cannot be written, or the latents would be written to the picture's.
    fn check_outputs(&self, seed: u64, prompts: &Prompts) -> Result<()> {
        let first = prompts.iter().next().and_then(|(number, _)| number);
        let names = self.names(seed, first.as_deref());
        names.check()?;
        let Some(path) = &self.save_latents else { return Ok(()) };
        if names.as_asked().is_some_and(|picture| identity(picture) == identity(path)) {
            let what = format!("--save-latents and the picture are both {}: name two files", path.display());
            return Err(Error::usage(what));
        }
        check_writable(path)
    }

    /// All but the prompt.
    fn request(&self, seed: u64) -> Result<Request> {
        let init_latents = self.init_latents.as_deref().map(read_latents).transpose()?;
        let (sigmas, spacing) = self.schedule.read()?;
        Ok(Request {
            negative: self.negative.clone(),
            conditioning: self.reading.options()?,
            width: self.width,
            height: self.height,
            steps: self.steps,
            guidance: self.guidance,
            guidance_rescale: self.guidance_rescale,
            sampler: self.sampler.clone(),
            spacing: self.spacing.clone().or(spacing.map(String::from)),
            sigmas,
            prediction: self.prediction.clone(),
            eta: self.eta,
            class: self.class,
            init_image: self.init_image.as_deref().map(read_picture).transpose()?,
            strength: self.strength,
            image_guidance: self.image_guidance,
            noise_level: self.noise_level,
            refiner_start: self.refiner_start,
            seed,
            rng: self.rng,
            batch: self.batch,
            init_latents,
            controls: self.control.controls()?,
            check: self.check,
            ..Request::default()
        })
    }

    fn names(&self, seed: u64, line: Option<&str>) -> Names {
        Names::new(self.output.as_deref(), self.batch, seed, line)
    }
}

/// One call of the studio, and where its pictures go.
struct Job {
    request: Request,
    names: Names,
}

/// What was drawn so far.
struct Done<'a> {
    executor: &'a Executor,
    json: bool,
    images: Vec<serde_json::Value>,
    seconds: Seconds,
    peak: u64,
}

impl Done<'_> {
    /// Writes a picture of a job that has `begun` then, and reports it.
    fn picture(&mut self, job: &Job, index: usize, picture: &Picture, begun: Instant) -> Result<()> {
        let path = job.names.path(index);
        let file = picture.to_file(Format::of(&path).unwrap_or(Format::Png))?;
        if is_stdout(&path) {
            return print(&file);
        }
        write_atomically(&path, &file)?;
        let (path, seed) = (path.display().to_string(), job.request.seed.wrapping_add(index as u64));
        if self.json {
            let Picture { width, height, .. } = picture;
            let prompt = job.request.shown_prompt.as_ref().unwrap_or(&job.request.prompt);
            self.images.push(serde_json::json!({
                "path": path, "seed": seed, "width": width, "height": height, "prompt": prompt,
            }));
            return Ok(());
        }
        let (seconds, executor) = (begun.elapsed().as_secs_f64(), self.executor.name());
        print(format!("{path}  seed {seed}, {seconds:.1} s on {executor}\n").as_bytes())
    }

    fn add(&mut self, pictures: &Pictures) {
        self.seconds += pictures.seconds;
        self.peak = self.peak.max(pictures.peak_device_bytes);
    }

    fn print_json(&self) -> Result<()> {
        print_json(&serde_json::json!({
            "images": self.images,
            "device": self.executor.name(),
            "dtype": self.executor.dtype().to_string(),
            "seconds": self.seconds,
            "peak_device_bytes": self.peak,
        }))
    }
}

/// Where a call's wall-clock time went.
fn tell_spans(pictures: &Pictures) {
    let line = |seconds: f64, what: &str| tell(&format!("{seconds:8.3} s  {what}"));
    pictures.spans.iter().for_each(|span| line(span.seconds, &span.what));
    let memory = match pictures.peak_device_bytes >> 20 {
        0 => String::new(),
        most => format!(", {most} MiB of device memory at most"),
    };
    line(pictures.seconds.total, &format!("in all{memory}"));
}

fn read_picture(path: &Path) -> Result<Picture> {
    decode(&path.display().to_string(), &read(path, DATA)?)
}

fn read_latents(path: &Path) -> Result<Tensor> {
    let mut tensors = read_tensors(path)?;
    let names: Vec<_> = tensors.keys().cloned().collect();
    let found = tensors.remove("latents").map(|(_, tensor)| tensor);
    let latents = found.ok_or_else(|| Error::file(path, format!("holds no tensor latents, only {}", ten(&names))))?;
    match latents.first_not_finite() {
        None => Ok(latents),
        Some(index) => Err(Error::file(path, format!("latents is not finite at element {index}"))),
    }
}

/// A seed, or -1 for a random one.
fn seed(text: &str) -> Result<u64, String> {
    // 32 bits are enough to be different every time, and short enough to be typed again.
    if text == "-1" { Ok(random_seed()) } else { text.parse().map_err(|error| format!("{error}; -1 is a random one")) }
}

/// The standard library seeds its hash maps from the system's entropy: a number from there, without another crate.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) >> 32
}
