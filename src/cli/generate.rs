//! `ornstein generate`

mod control;
mod done;
mod each;
mod editing;
mod from;
mod grid;
mod lora;
mod output;
mod parts;
mod progress;
mod prompt;
mod prompts;
mod work;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use clap::builder::TypedValueParser;

use super::sigmas::SigmasArg;
use super::{DeviceArgs, ModelArg, ShadersArg, one_of, tell, value, warn};
use crate::conditioning::Syntax;
use crate::error::{Error, Field, Result, ten};
use crate::files::{DATA, identity, read};
use crate::image::{Format, Picture, decode};
use crate::prompt::choices::choices;
use crate::rng::NoiseSource;
use crate::samplers::SPACINGS;
use crate::systems::families::misplaced;
use crate::systems::{Loras, Made, Pictures, Request, Seconds, Settings, Studio};
use crate::tensor::Tensor;
use crate::weights::{Model, check_writable, read_tensors, write_tensors};
use done::{Done, Job};
use grid::Grid;
use output::{Names, check_format, is_stdout};
use prompts::{Line, Prompts};
use work::Work;

#[derive(Debug, Args)]
pub(super) struct Generate {
    /// What to draw; `-` reads it from stdin
    prompt: Option<String>,
    /// What follows a prompt without quotes
    #[arg(hide = true)]
    more: Vec<String>,
    /// The same as an option, as other programs have it
    #[arg(short, long = "prompt", value_name = "TEXT", conflicts_with = "prompt")]
    prompt_option: Option<String>,
    /// What not to draw
    #[arg(short, long, visible_alias = "negative-prompt", value_name = "TEXT")]
    negative: Option<String>,
    /// Draw as this picture was drawn, by the parameters in its file (this program's, or AUTOMATIC1111's web UI's);
    /// other options replace them
    #[arg(long, value_name = "FILE", conflicts_with = "prompts")]
    from: Option<PathBuf>,
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
    #[command(flatten)]
    editing: editing::EditingArgs,
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
    /// Options behind a prompt are its own: `a red circle --seed 5 --steps 30`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "prompt_option", "save_latents"])]
    prompts: Option<PathBuf>,
    #[command(flatten)]
    grid: grid::GridArgs,
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
    /// The whole command line.
    #[arg(skip)]
    words: Vec<OsString>,
}

fn noise_sources() -> impl TypedValueParser<Value = NoiseSource> {
    let cpu = value("cpu", "diffusers' pictures with a generator on the CPU");
    let cuda = value("cuda", "AUTOMATIC1111's as it comes, and diffusers' pictures with a generator on CUDA");
    one_of([(cpu, NoiseSource::Cpu), (cuda, NoiseSource::Cuda)])
}

impl Generate {
    /// Draws what these words say, which it is parsed from.
    pub(super) fn run(self, words: Vec<OsString>) -> Result<()> {
        let own = Self { words, ..self };
        match own.from.clone() {
            Some(path) => own.like(&path)?.drawn(),
            None => own.drawn(),
        }
    }

    fn drawn(&self) -> Result<()> {
        if !self.more.is_empty() {
            let all = format!("{} {}", self.prompt.as_deref().unwrap_or_default(), self.more.join(" "));
            return Err(Error::usage(format!("the prompt is one argument; put it in quotes: {all:?}")));
        }
        let work = self.work()?;
        self.check_stdout(&work)?;
        let request = self.request()?;
        let sources = self.shaders.open()?;
        let mut studio = Studio::open(self.parts.open(self.model.open()?)?)?;
        studio = studio.with_controls(self.control.models()?)?;
        if let Some(refiner) = &self.refiner {
            studio = studio.with_refiner(Model::resolve(Some(refiner))?)?;
        }
        let mut loras = self.loras.open()?;
        let request = self.check(request, &work, &studio, &mut loras)?;
        let is_said = self.prompt.is_some() || self.prompt_option.is_some() || self.prompts.is_some();
        if !is_said && work.lines().all(|line| line.prompt.is_empty()) && studio.row().is_prompted() {
            warn("no prompt is given, so what is drawn is left to chance; give one in quotes");
        }
        let executor = self.device.open(sources)?;
        // The networks of one prompt make room for each other; those of several stay.
        let mut loaded = (work.count() > 1).then(|| studio.load(&executor));
        let (images, seconds) = (Vec::new(), Seconds::default());
        let mut done = Done { executor: &executor, json: self.json, images, seconds, peak: 0, places: Vec::new() };
        let mut job = Job { names: self.names(&request, None), request, grid: work.grid().is_some() };
        let begun_all = Instant::now();
        for line in work.lines() {
            if !line.options.is_empty() {
                job.request = self.with(&line.options)?.request()?;
            }
            loras.add_to(&line.prompt, &mut job.request)?;
            job.names = self.names(&job.request, line.number.as_deref());
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
            if !line.options.is_empty() {
                job.request = self.request()?;
            }
        }
        if let Some(grid) = work.grid() {
            let sheet = grid.sheet(&done.places);
            let request = self.request()?;
            job = Job { names: self.names(&request, None), request, grid: false };
            done.picture(&job, 0, &sheet, begun_all)?;
        }
        if self.json { done.print_json() } else { Ok(()) }
    }

    /// What is drawn.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    fn work(&self) -> Result<Work> {
        let given = self.prompt_option.as_deref().or(self.prompt.as_deref());
        let (prompt, syntax) = (given.unwrap_or_default(), self.reading.syntax());
        if let Some(grid) = self.grid.read()? {
            if self.batch > 1 {
                return Err(Error::usage("--grid has one picture in each place: leave out --batch"));
            }
            let prompts = Prompts::one(prompt, syntax)?;
            let line = prompts.iter().next().filter(|_| prompts.count() == 1);
            let one = line.ok_or_else(|| Error::usage("--grid has one picture in each place: choose for {a|b}"))?;
            return Ok(Work::Grid(grid.lines(&one.prompt), grid));
        }
        let of_file = |file| Prompts::of_file(file, syntax);
        Ok(Work::Prompts(self.prompts.as_deref().map_or_else(|| Prompts::one(prompt, syntax), of_file)?))
    }

    /// Checks all that is drawn, so that an hour's work is not lost to what comes last: the request, with the files of
    /// the last prompt without options of its own.
    ///
    /// # Errors
    /// If something of it makes no sense for the model, or a file cannot be written.
    fn check(&self, mut request: Request, work: &Work, studio: &Studio, loras: &mut Loras) -> Result<Request> {
        // First: a path for each picture of an absurd batch would fill the memory.
        let places = work.grid().map_or([1, 1], Grid::places);
        if work.lines().any(|line| line.options.is_empty()) {
            self.check_size(&request, &studio.settings(&request)?, places)?;
        }
        self.check_outputs(&request, work)?;
        let plain = work.lines().filter(|line| line.options.is_empty()).map(|line| line.prompt);
        let mut are_text = loras.check(plain, &mut request, studio)?;
        for line in work.lines().filter(|line| !line.options.is_empty()) {
            let check = |loras: &mut Loras| {
                let mut request = self.with(&line.options)?.request()?;
                self.check_size(&request, &studio.settings(&request)?, places)?;
                loras.check([line.prompt.clone()].into_iter(), &mut request, studio)
            };
            are_text |= check(loras).map_err(|error| match &line.number {
                Some(number) => error.on(format!("prompt {number}")),
                None => error,
            })?;
        }
        let has_choices = |line: Line| choices(&line.prompt).is_none_or(|all| all.len() > 1);
        if request.conditioning.syntax == Syntax::Plain && work.lines().any(has_choices) {
            warn("{a|b} in a plain prompt is text: --prompt-syntax weighted draws each of its choices");
        }
        if are_text {
            warn("<lora:..> in a plain prompt is text: use --lora, or --prompt-syntax weighted");
        }
        Ok(request)
    }

    /// # Errors
    /// If the file's format does not hold so many pixels, of so many pictures across and down.
    fn check_size(&self, request: &Request, settings: &Settings, places: [usize; 2]) -> Result<()> {
        let Some((path, format)) = self.output.as_deref().and_then(|path| Some((path, Format::of(path)?))) else {
            return Ok(());
        };
        let scale = request.hires.map_or(1.0, |hires| hires.scale);
        let drawn = [settings.width, settings.height].map(|side| (side as f64 * scale) as usize);
        let [width, height] = [0, 1].map(|axis| drawn[axis].saturating_mul(places[axis]));
        if width.max(height) <= format.most() {
            return Ok(());
        }
        let (most, png) = (format.most(), path.with_extension("png"));
        let what =
            format!("--output {}: {width}x{height} pixels, and {format:?} holds {most} to a side", path.display());
        Err(Error::usage(format!("{what}: name it {}", png.display())))
    }

    /// # Errors
    /// If standard output would hold more than one thing, or what it cannot.
    fn check_stdout(&self, work: &Work) -> Result<()> {
        self.output.as_deref().map_or(Ok(()), check_format)?;
        let to_stdout = self.output.as_deref().is_some_and(is_stdout);
        if to_stdout && self.json {
            return Err(Error::usage("--output - and --json both write to stdout: name a file for the picture"));
        }
        let several = work.grid().is_none() && (work.count() > 1 || self.prompts.is_some());
        if to_stdout && (self.batch > 1 || several) {
            return Err(Error::usage("--output - holds one picture: name a file for --batch and --prompts"));
        }
        if self.save_latents.as_deref().is_some_and(is_stdout) {
            return Err(Error::usage("--save-latents writes to a file, not to stdout: name one"));
        }
        if self.save_latents.is_some() && work.count() > 1 {
            return Err(Error::usage("--save-latents holds one prompt's: leave out the choices {a|b}"));
        }
        Ok(())
    }

    /// # Errors
    /// If a file cannot be written, or the latents would be written to the picture's.
    fn check_outputs(&self, request: &Request, work: &Work) -> Result<()> {
        let first = work.lines().next().and_then(|line| line.number);
        let names = self.names(request, first.as_deref());
        names.check()?;
        let Some(path) = &self.save_latents else { return Ok(()) };
        if names.as_asked().is_some_and(|picture| identity(picture) == identity(path)) {
            let what = format!("--save-latents and the picture are both {}: name two files", path.display());
            return Err(Error::usage(what));
        }
        check_writable(path)
    }

    /// All but the prompt.
    fn request(&self) -> Result<Request> {
        let init_latents = self.init_latents.as_deref().map(read_latents).transpose()?;
        let (sigmas, spacing) = self.schedule.read()?;
        self.editing.added_to(Request {
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
            seed: self.seed,
            rng: self.rng,
            batch: self.batch,
            init_latents,
            controls: self.control.controls()?,
            check: self.check,
            ..Request::default()
        })
    }

    fn names(&self, request: &Request, line: Option<&str>) -> Names {
        let seeds = (request.seed, request.variation.map(|variation| variation.seed));
        Names::new(self.output.as_deref(), self.batch, seeds, line)
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
    latents(path).map_err(|error| misplaced(path, Field::InitLatents, error))
}

fn latents(path: &Path) -> Result<Tensor> {
    let mut tensors = read_tensors(path)?;
    let names: Vec<_> = tensors.keys().cloned().collect();
    let found = tensors.remove("latents").map(|(_, tensor)| tensor);
    let latents = found.ok_or_else(|| {
        Error::file(path, format!("holds {}: expected one tensor, `latents`, as --save-latents writes it", ten(&names)))
    })?;
    match latents.first_not_finite() {
        None => Ok(latents),
        Some(index) => {
            let place = latents.shape.place(index);
            Err(Error::file(path, format!("latents is not finite at element {place}")))
        }
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
