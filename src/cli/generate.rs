//! `ornstein generate`

mod control;
mod lora;
mod parts;
mod progress;
mod prompt;
mod prompts;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use clap::builder::TypedValueParser;

use super::{DeviceArgs, ModelArg, ShadersArg, one_of, print, print_json, tell, value, warn};
use crate::error::{Error, Result, ten};
use crate::files::{DATA, identity, read};
use crate::image::{Picture, decode_png};
use crate::network::Executor;
use crate::rng::NoiseSource;
use crate::samplers::SPACINGS;
use crate::systems::{Made, Pictures, Request, Seconds, Studio};
use crate::tensor::Tensor;
use crate::weights::{Model, check_writable, read_tensors, write_atomically, write_tensors};
use prompts::Prompts;

#[derive(Debug, Args)]
pub(super) struct Generate {
    /// What to draw; `-` reads it from stdin
    #[arg(default_value = "")]
    prompt: String,
    /// What not to draw
    #[arg(short, long, value_name = "TEXT")]
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
    /// The picture's file; `-` writes the PNG to stdout [default: ornstein-<seed>.png]
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
    /// How closely to follow the prompt; 1 or less skips the unconditional pass [default: 7.5, SDXL 5, built-in model
    /// 4]
    #[arg(long, visible_alias = "cfg-scale", value_name = "F", allow_negative_numbers = true)]
    guidance: Option<f32>,
    /// One seed gives one picture, on every device and in diffusers [default: random, printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[arg(long, value_name = "NAME", help = super::sampler_help("[default: the model's]"))]
    sampler: Option<String>,
    /// How steps are spread over the training steps; distilled models want `trailing` [default: the model's]
    #[arg(long, value_name = "HOW", value_parser = SPACINGS)]
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
    /// For models that work on a picture: a PNG to start from
    #[arg(long, value_name = "PNG")]
    init_image: Option<PathBuf>,
    /// How much of that picture is drawn anew, from 0 to 1 [default: the model's]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    strength: Option<f64>,
    /// How closely to keep to that picture, for models that are taught to edit one [default: the model's]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    image_guidance: Option<f32>,
    /// How much noise that picture gets, as a training step, for models that are told it [default: the model's]
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "save_latents"])]
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
        // 32 bits are enough to be different every time, and short enough to be typed again.
        let seed = self.seed.unwrap_or_else(random_seed);
        let prompts = self.prompts.as_deref().map_or_else(|| Prompts::one(&self.prompt), Prompts::of_file)?;
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
        let mut job = Job { request, paths: Vec::new() };
        for (number, prompt) in prompts.iter() {
            loras.add_to(prompt, &mut job.request)?;
            job.paths = self.paths(seed, number.as_deref());
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

    /// So that an hour's work is not lost to a mistyped folder. The pictures of all prompts go into one, under names
    /// that differ by the prompts' numbers.
    ///
    /// # Errors
    /// If a file cannot be written, or something else would be written to it too.
    fn check_outputs(&self, seed: u64, prompts: &Prompts) -> Result<()> {
        let first = prompts.iter().next().and_then(|(number, _)| number);
        let paths = self.paths(seed, first.as_deref());
        let mut files = HashSet::new();
        for path in paths.iter().filter(|path| !is_stdout(path)) {
            if !files.insert(identity(path)) {
                let what = format!("{} is the file of another picture too: remove it, or name others", path.display());
                return Err(Error::usage(what));
            }
            check_writable(path)?;
        }
        let Some(path) = &self.save_latents else { return Ok(()) };
        if files.contains(&identity(path)) {
            let what = format!("--save-latents and the picture are both {}: name two files", path.display());
            return Err(Error::usage(what));
        }
        check_writable(path)
    }

    /// All but the prompt.
    fn request(&self, seed: u64) -> Result<Request> {
        let init_latents = self.init_latents.as_deref().map(read_latents).transpose()?;
        Ok(Request {
            negative: self.negative.clone(),
            conditioning: self.reading.options()?,
            width: self.width,
            height: self.height,
            steps: self.steps,
            guidance: self.guidance,
            sampler: self.sampler.clone(),
            spacing: self.spacing.clone(),
            prediction: self.prediction.clone(),
            eta: self.eta,
            class: self.class,
            init_image: self.init_image.as_deref().map(read_png).transpose()?,
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

    /// One path per picture: `<stem>-<seed>.png` each for several, or without `--output`; `line` goes before the seed.
    fn paths(&self, seed: u64, line: Option<&str>) -> Vec<PathBuf> {
        let given = self.output.clone();
        if let (1, Some(path), None) = (self.batch, given.clone(), line) {
            return vec![path];
        }
        let path = given.unwrap_or_else(|| PathBuf::from("ornstein.png"));
        let mut stem = path.file_stem().unwrap_or_default().to_os_string();
        if let Some(line) = line {
            stem.push(format!("-{line}"));
        }
        let named = |seed: u64| {
            let mut name = stem.clone();
            name.push(format!("-{seed}.png"));
            path.with_file_name(name)
        };
        (0..self.batch as u64).map(|i| named(seed.wrapping_add(i))).collect()
    }
}

/// One call of the studio, and where its pictures go.
struct Job {
    request: Request,
    paths: Vec<PathBuf>,
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
        let (path, png) = (&job.paths[index], picture.to_png()?);
        if is_stdout(path) {
            return print(&png);
        }
        write_atomically(path, &png)?;
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
    let most = pictures.peak_device_bytes >> 20;
    line(pictures.seconds.total, &format!("in all, {most} MiB of device memory at most"));
}

fn read_png(path: &Path) -> Result<Picture> {
    decode_png(&path.display().to_string(), &read(path, DATA)?)
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

/// Whether this is standard output, which then holds nothing but the picture.
fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

/// The standard library seeds its hash maps from the system's entropy: a number from there, without another crate.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) >> 32
}
