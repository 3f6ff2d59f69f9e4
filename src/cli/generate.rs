//! `ornstein generate`

mod prompt;

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{DeviceArgs, ModelArg, ShadersArg, print, print_json, warn};
use crate::conditioning::Syntax;
use crate::error::{Error, Result, ten};
use crate::image::{Parameters, encode_png};
use crate::network::Executor;
use crate::pipeline::{Event, Pictures, Pipeline, Request};
use crate::rng;
use crate::tensor::Tensor;
use crate::weights::{check_writable, read_tensors, write_atomically, write_tensors};

#[derive(Debug, Args)]
pub(super) struct Generate {
    /// What to draw; `-` reads it from stdin
    #[arg(default_value = "")]
    prompt: String,
    /// What not to draw
    #[arg(short, long, value_name = "TEXT")]
    negative: Option<String>,
    #[command(flatten)]
    prompts: prompt::PromptArgs,
    #[command(flatten)]
    model: ModelArg,
    /// A folder with another autoencoder for this model: a VAE, or a tiny one (TAESD)
    #[arg(long, value_name = "FOLDER")]
    vae: Option<PathBuf>,
    /// The picture's file; `-` writes the PNG to stdout [default: ornstein-<seed>.png]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Pixels, a multiple of the VAE's factor [default: the model's]
    #[arg(short = 'W', long, value_name = "PIXELS")]
    width: Option<usize>,
    /// Pixels, a multiple of the VAE's factor [default: the model's]
    #[arg(short = 'H', long, value_name = "PIXELS")]
    height: Option<usize>,
    /// Denoising steps [default: 25]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// How closely to follow the prompt; 1 or less skips the unconditional pass [default: 7.5, SDXL 5, built-in model 4]
    #[arg(long, visible_alias = "cfg-scale", value_name = "F", allow_negative_numbers = true)]
    guidance: Option<f32>,
    /// One seed gives one picture, on every device and in diffusers [default: random, printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[arg(long, value_name = "NAME", help = super::sampler_help("[default: the model's]"))]
    sampler: Option<String>,
    /// Whose noise a seed gives: PyTorch's on the CPU or on CUDA
    #[arg(long, value_name = "RNG", default_value = "cpu")]
    rng: Rng,
    /// Number of pictures, seeds counting up, written to <output>-<seed>.png
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// A safetensors file whose tensor `latents` is used instead of seeded noise
    #[arg(long, value_name = "FILE")]
    init_latents: Option<PathBuf>,
    /// Where to write the last step's latents, as tensor `latents` of a safetensors file
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Look for overflow in every node at every step, not only once an output is infinite: slower, else the same picture
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    shaders: ShadersArg,
    /// One JSON document on stdout instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rng {
    /// diffusers' pictures with a generator on the CPU
    Cpu,
    /// AUTOMATIC1111's as it comes, and diffusers' pictures with a generator on CUDA
    Cuda,
}

impl Rng {
    fn source(self) -> rng::Source {
        match self {
            Self::Cpu => rng::Source::Cpu,
            Self::Cuda => rng::Source::Cuda,
        }
    }
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        let to_stdout = self.output.as_deref().is_some_and(is_stdout);
        if to_stdout && self.json {
            return Err(Error::usage("--output - and --json both write to stdout: name a file for the picture"));
        }
        if to_stdout && self.batch > 1 {
            return Err(Error::usage("--output - holds one picture: name a file for --batch"));
        }
        if self.save_latents.as_deref().is_some_and(is_stdout) {
            return Err(Error::usage("--save-latents writes to a file, not to stdout: name one"));
        }
        // 32 bits are enough to be different every time, and short enough to be typed again.
        let seed = self.seed.unwrap_or_else(random_seed);
        let request = self.request(seed)?;
        let sources = self.shaders.open()?;
        let mut pipeline = Pipeline::open(self.model.open()?)?;
        if let Some(folder) = &self.vae {
            pipeline = pipeline.with_vae(folder)?;
        }
        pipeline.settings(&request)?;
        let paths = self.paths(seed);
        if let Some(latents) = self.save_latents.as_ref().filter(|path| paths.contains(path)) {
            let what = format!("--save-latents and the picture are both {}: name two files", latents.display());
            return Err(Error::usage(what));
        }
        for path in paths.iter().chain(&self.save_latents).filter(|path| !is_stdout(path)) {
            check_writable(path)?;
        }
        let executor = self.device.open(sources)?;
        let pictures = generate(&pipeline, &executor, &request)?;
        if let Some(path) = &self.save_latents {
            write_tensors(path, &[("latents", &pictures.latents)])?;
        }
        for (index, (pixels, path)) in pictures.pixels.iter().zip(&paths).enumerate() {
            let png = png(&pipeline, &request, &pictures, pixels, seed.wrapping_add(index as u64))?;
            if to_stdout {
                print(&png)?;
            } else {
                write_atomically(path, &png)?;
            }
        }
        self.report(&paths, seed, &pictures, &executor)
    }

    fn request(&self, seed: u64) -> Result<Request> {
        let init_latents = self.init_latents.as_deref().map(read_latents).transpose()?;
        Ok(Request {
            prompt: if self.prompt == "-" { read_stdin()? } else { self.prompt.clone() },
            negative: self.negative.clone(),
            conditioning: self.prompts.options()?,
            width: self.width,
            height: self.height,
            steps: self.steps,
            guidance: self.guidance,
            sampler: self.sampler.clone(),
            seed,
            rng: self.rng.source(),
            batch: self.batch,
            init_latents,
            check: self.check,
        })
    }

    /// One path per picture: `<stem>-<seed>.png` each for several, or without `--output`.
    fn paths(&self, seed: u64) -> Vec<PathBuf> {
        let given = self.output.clone();
        if let (1, Some(path)) = (self.batch, given.clone()) {
            return vec![path];
        }
        let path = given.unwrap_or_else(|| PathBuf::from("ornstein.png"));
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let seeds = (0..self.batch as u64).map(|i| seed.wrapping_add(i));
        seeds.map(|seed| path.with_file_name(format!("{stem}-{seed}.png"))).collect()
    }

    fn report(&self, paths: &[PathBuf], seed: u64, pictures: &Pictures, executor: &Executor) -> Result<()> {
        let settings = &pictures.settings;
        let seeds = || (0..).map(|i| seed.wrapping_add(i));
        if self.json {
            let images: Vec<_> = paths
                .iter()
                .zip(seeds())
                .map(|(path, seed)| {
                    let (width, height) = (settings.width, settings.height);
                    serde_json::json!({ "path": path, "seed": seed, "width": width, "height": height })
                })
                .collect();
            return print_json(&serde_json::json!({
                "images": images,
                "device": executor.name(),
                "dtype": executor.dtype().to_string(),
                "seconds": pictures.seconds,
                "peak_device_bytes": pictures.peak_device_bytes,
            }));
        }
        for (path, seed) in paths.iter().zip(seeds()).filter(|(path, _)| !is_stdout(path)) {
            let seconds = pictures.seconds.total;
            print(format!("{}  seed {seed}, {seconds:.1} s on {}\n", path.display(), executor.name()).as_bytes())?;
        }
        Ok(())
    }
}

/// Runs the pipeline with a progress bar on a terminal, until done or Ctrl-C.
fn generate(pipeline: &Pipeline, executor: &Executor, request: &Request) -> Result<Pictures> {
    let interrupt = Interrupt::watch()?;
    let bar = ProgressBar::new(1).with_style(
        ProgressStyle::with_template("{bar:32} {pos}/{len} steps, {msg}, {eta} left")
            .unwrap_or(ProgressStyle::default_bar()),
    );
    let mut tell = |event: Event<'_>| match event {
        Event::Warning(text) => bar.suspend(|| warn(text)),
        Event::Step(done, all) => {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("{:.2} s a step", bar.elapsed().as_secs_f64() / done as f64));
        }
    };
    let pictures = pollster::block_on(pipeline.generate(executor, request, &interrupt.pressed, &mut tell));
    bar.finish_and_clear();
    interrupt.ignore_from_now_on();
    pictures
}

/// Ctrl-C and its siblings (SIGTERM, SIGHUP): a flag that the pipeline looks at between submissions.
struct Interrupt {
    pressed: Arc<AtomicBool>,
    /// Whether the pictures are there, and only remain to be written.
    done: Arc<Mutex<bool>>,
}

impl Interrupt {
    /// How long the pipeline has to look at the flag. One submission can take minutes on the CPU.
    const GRACE: Duration = Duration::from_secs(1);

    fn watch() -> Result<Self> {
        let interrupt = Self { pressed: Arc::default(), done: Arc::default() };
        let (pressed, done) = (Arc::clone(&interrupt.pressed), Arc::clone(&interrupt.done));
        let handler = ctrlc::set_handler(move || {
            pressed.store(true, Ordering::Relaxed);
            std::thread::sleep(Self::GRACE);
            // Held until the end of the process, so that no writing begins meanwhile.
            let done = done.lock().unwrap_or_else(|e| e.into_inner());
            if !*done {
                warn(&Error::Interrupted.to_string());
                std::process::exit(1);
            }
        });
        handler.map_err(|e| Error::device(format!("Ctrl-C cannot be handled: {e}")))?;
        Ok(interrupt)
    }

    fn ignore_from_now_on(&self) {
        *self.done.lock().unwrap_or_else(|e| e.into_inner()) = true;
    }
}

fn png(pipeline: &Pipeline, request: &Request, pictures: &Pictures, pixels: &[u8], seed: u64) -> Result<Vec<u8>> {
    let settings = &pictures.settings;
    let parameters = Parameters {
        prompt: &request.prompt,
        negative: request.negative.as_deref().unwrap_or_default(),
        steps: settings.steps,
        sampler: &settings.sampler,
        guidance: settings.guidance,
        seed,
        width: settings.width,
        height: settings.height,
        model: &pipeline.model().name(),
        clip_skip: request.conditioning.clip_skip,
        emphasis: request.conditioning.syntax == Syntax::Weighted,
        rng: request.rng.automatic1111_name(),
    };
    encode_png(settings.width, settings.height, pixels, &parameters.to_string())
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

fn read_stdin() -> Result<String> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        warn("reading the prompt from the terminal, until Ctrl-D");
    }
    let mut text = String::new();
    stdin.read_to_string(&mut text).map_err(|e| Error::file("stdin", format!("is no text in UTF-8: {e}")))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_string())
}

/// The standard library seeds its hash maps from the system's entropy: a number from there, without another crate.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) >> 32
}
