//! What is asked of a system and what comes of it, as plain values.

use crate::conditioning;
use crate::error::{Error, Field, Message, Remedy, Result};
use crate::image::Picture;
use crate::rng;
use crate::samplers::{self, Portion, Sampler};
use crate::tensor::Tensor;
use crate::weights::{Lora, Model};

/// What to draw. Absent values are the model's defaults.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to draw.
    pub prompt: String,
    /// The prompt as the picture's parameters show it, if not as it is: with tags for LoRA files.
    pub shown_prompt: Option<String>,
    /// `None` is not the same as empty: SDXL then leaves its unconditional embedding zero.
    pub negative: Option<String>,
    /// How both are read and encoded.
    pub conditioning: conditioning::Options,
    /// Pixels, a multiple of the autoencoder's factor.
    pub width: Option<usize>,
    /// Pixels, a multiple of the autoencoder's factor.
    pub height: Option<usize>,
    /// Denoising steps, at least 1.
    pub steps: Option<usize>,
    /// How closely to follow the prompt; 1 or less skips the unconditional pass.
    pub guidance: Option<f32>,
    /// One of [`samplers::names`](crate::samplers::names).
    pub sampler: Option<String>,
    /// [`samplers::Config::with_spacing`](crate::samplers::Config::with_spacing)
    pub spacing: Option<String>,
    /// [`samplers::Config::with_prediction`](crate::samplers::Config::with_prediction)
    pub prediction: Option<String>,
    /// [`samplers::Config::with_eta`](crate::samplers::Config::with_eta)
    pub eta: Option<f64>,
    /// Which of the classes that a network knows is drawn, from 0.
    pub class: Option<usize>,
    /// A picture that the system starts from or works on.
    pub init_image: Option<Picture>,
    /// Which share of the noise the picture that is started from gets, from 0 to 1: 1 leaves nothing of it.
    pub strength: Option<f64>,
    /// How closely to keep to the given picture; 1 or less skips the pass without it.
    pub image_guidance: Option<f32>,
    /// The training step whose noise the given picture gets.
    pub noise_level: Option<usize>,
    /// Which share of the noise is gone when the refiner takes over, from 0 to 1.
    pub refiner_start: Option<f64>,
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
    /// One for each of [`Studio::with_controls`](super::Studio::with_controls), in the same order.
    pub controls: Vec<Control>,
    /// Whether every node's output is checked, as [`Network::checked`](crate::network::Network::checked) tells:
    /// slower, the same picture.
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
            class: None,
            init_image: None,
            strength: None,
            image_guidance: None,
            noise_level: None,
            refiner_start: None,
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

impl Request {
    /// The fields that are set, of those that not every system takes.
    pub fn given(&self) -> impl Iterator<Item = Field> {
        [
            (Field::Prompt, !self.prompt.is_empty()),
            (Field::Negative, self.negative.is_some()),
            (Field::Width, self.width.is_some()),
            (Field::Height, self.height.is_some()),
            (Field::Steps, self.steps.is_some()),
            (Field::Guidance, self.guidance.is_some()),
            (Field::Sampler, self.sampler.is_some()),
            (Field::Spacing, self.spacing.is_some()),
            (Field::Prediction, self.prediction.is_some()),
            (Field::Eta, self.eta.is_some()),
            (Field::Class, self.class.is_some()),
            (Field::InitImage, self.init_image.is_some()),
            (Field::Strength, self.strength.is_some()),
            (Field::ImageGuidance, self.image_guidance.is_some()),
            (Field::NoiseLevel, self.noise_level.is_some()),
            (Field::RefinerStart, self.refiner_start.is_some()),
            (Field::ClipSkip, self.conditioning.clip_skip.is_some()),
            (Field::Lora, !self.loras.is_empty()),
            (Field::Control, !self.controls.is_empty()),
            (Field::InitLatents, self.init_latents.is_some()),
        ]
        .into_iter()
        .filter_map(|(field, is_set)| is_set.then_some(field))
    }
}

/// How one ControlNet guides a request's pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// What it is shown, for all pictures and all texts the same.
    pub image: Picture,
    /// What its residuals are multiplied by; 1 is what it was trained for.
    pub scale: f32,
    /// The part of the steps in which it guides, from 0 to 1 (diffusers' `control_guidance_start` and `_end`).
    pub start: f64,
    /// Where that part ends.
    pub end: f64,
}

impl Control {
    /// Its scale at evaluation `index` of `evaluations`: 0 outside the part that it guides, as in diffusers.
    pub(super) fn scale_at(&self, index: usize, evaluations: usize) -> f32 {
        let share = |index: usize| index as f64 / evaluations as f64;
        if share(index) < self.start || share(index + 1) > self.end { 0.0 } else { self.scale }
    }

    fn check(&self) -> Result<()> {
        let Self { scale, start, end, .. } = self;
        if !scale.is_finite() {
            return Err(Error::usage(format!("{scale} is not a number")).of(Field::ControlScale));
        }
        if !(0.0 <= *start && start < end && *end <= 1.0) {
            let what = format!("{start}, up to {end}: expected 0 <= start < end <= 1");
            let ends = [Field::ControlStart, Field::ControlEnd].map(Remedy::Other);
            return Err(Error::usage(what).of(Field::ControlStart).remedies(ends));
        }
        Ok(())
    }
}

/// A request with every default filled in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Which of them are done.
    pub portion: Portion,
    /// [`Request::guidance`]
    pub guidance: f32,
    /// [`Request::sampler`]
    pub sampler: String,
    /// [`Request::spacing`]; the model's own without it.
    pub spacing: Option<String>,
    /// [`Request::prediction`]; the model's own without it.
    pub prediction: Option<String>,
    /// [`Request::eta`]; the sampler's own without it.
    pub eta: Option<f64>,
}

/// What a model and its system say where a request says nothing.
pub struct Own<'a> {
    /// The model, whose entry in the manifest comes first.
    pub model: &'a Model,
    /// Height and width that its network was trained on, in pixels.
    pub size: Option<[usize; 2]>,
    /// Whether the request's picture decides the size where the request does not: [`Request::init_image`].
    pub as_picture: bool,
    /// Pixels to a pixel of the state: sizes are multiples of it.
    pub factor: usize,
    /// [`Settings::steps`]
    pub steps: usize,
    /// [`Settings::portion`]
    pub portion: Portion,
    /// [`Settings::guidance`]
    pub guidance: f32,
    /// [`Settings::sampler`]; the schedule's own without it.
    pub sampler: Option<&'static str>,
    /// The model's.
    pub schedule: &'a samplers::Config,
}

impl Settings {
    /// Fills in a request's defaults.
    ///
    /// # Errors
    /// If a size is missing or not a multiple, or as [`Settings::sampler`].
    pub fn of(request: &Request, own: &Own<'_>) -> Result<Self> {
        let defaults = own.model.entry().map(|entry| entry.defaults.clone()).unwrap_or_default();
        let whole = |side: usize| side / own.factor * own.factor;
        let picture = request.init_image.as_ref().filter(|_| own.as_picture);
        let picture = picture.map(|picture| [picture.width, picture.height].map(whole));
        let size = picture.or(defaults.size).or(own.size.map(|[height, width]| [width, height]));
        let side = |given: Option<usize>, own_side: Option<usize>, field| {
            let missing = || Error::usage("this model has no size of its own").remedies([Remedy::Give(field)]);
            let pixels = given.or(own_side).ok_or_else(missing)?;
            if pixels == 0 || pixels % own.factor != 0 {
                let nearest = (pixels / own.factor).max(1) * own.factor;
                let what = format!("{pixels} is not a positive multiple of {}", own.factor);
                return Err(Error::usage(what).of(field).remedies([Remedy::set(field, nearest)]));
            }
            Ok(pixels)
        };
        let sampler = match request.sampler.as_deref().or(defaults.sampler.as_deref()).or(own.sampler) {
            Some(name) => name,
            None => own.schedule.default_sampler()?,
        };
        let settings = Self {
            width: side(request.width, size.map(|[width, _]| width), Field::Width)?,
            height: side(request.height, size.map(|[_, height]| height), Field::Height)?,
            steps: request.steps.or(defaults.steps).unwrap_or(own.steps),
            portion: own.portion,
            guidance: request.guidance.or(defaults.guidance).unwrap_or(own.guidance),
            sampler: sampler.into(),
            spacing: request.spacing.clone(),
            prediction: request.prediction.clone(),
            eta: request.eta,
        };
        settings.sampler(own.schedule)?;
        Ok(settings)
    }

    /// One picture's sampler, of a model with this schedule.
    ///
    /// # Errors
    /// As [`samplers::portion`].
    pub fn sampler(&self, schedule: &samplers::Config) -> Result<Sampler> {
        let schedule = schedule.clone().with_spacing(self.spacing.as_deref());
        let schedule = schedule.with_prediction(self.prediction.as_deref()).with_eta(self.eta)?;
        samplers::portion(&self.sampler, &schedule, self.steps, self.portion)
    }
}

/// What happens while pictures are made.
#[derive(Debug)]
pub enum Event<'a> {
    /// What a user should know.
    Warning(&'a Message),
    /// This many of all steps are done.
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

/// Checks what is the same for every system; `networks` is the number of ControlNets.
///
/// # Errors
/// If they do not.
pub(super) fn check(request: &Request, settings: &Settings, networks: usize) -> Result<()> {
    if !settings.guidance.is_finite() {
        return Err(Error::usage(format!("{} is not a number", settings.guidance)).of(Field::Guidance));
    }
    if let Some(guidance) = request.image_guidance.filter(|guidance| !guidance.is_finite()) {
        return Err(Error::usage(format!("{guidance} is not a number")).of(Field::ImageGuidance));
    }
    check_size(settings.width, settings.height, request.batch)?;
    let images = request.controls.len();
    if networks != images {
        return Err(Error::usage(format!("{networks} ControlNets and {images} pictures for them: give one for each")));
    }
    request.controls.iter().try_for_each(Control::check)
}

/// Refuses what no machine holds, so that later sizes in bytes can be computed at all; whether a smaller one fits is
/// for the executor to say.
fn check_size(width: usize, height: usize, batch: usize) -> Result<()> {
    const MOST_PICTURES: usize = 1 << 16;
    const MOST_PIXELS: u128 = 1 << 36;
    if batch == 0 {
        return Err(Error::usage("0 makes no picture: at least 1").of(Field::Batch));
    }
    if batch > MOST_PICTURES {
        return Err(Error::usage(format!("{batch} is more than {MOST_PICTURES}"))
            .of(Field::Batch)
            .remedies([Remedy::Less(Field::Batch), Remedy::Other(Field::Seed)]));
    }
    let pixels = [width, height, batch].iter().try_fold(1u128, |product, n| product.checked_mul(*n as u128));
    if pixels.is_none_or(|pixels| pixels > MOST_PIXELS) {
        return Err(Error::usage(format!("{width}x{height} pixels fit no machine"))
            .remedies([Field::Width, Field::Height, Field::Batch].map(Remedy::Less)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(start: f64, end: f64) -> Control {
        let image = Picture { width: 1, height: 1, rgb: vec![0; 3], parameters: None };
        Control { image, scale: 0.5, start, end }
    }

    #[test]
    fn a_control_guides_in_its_part_of_the_steps() {
        let scales = |start, end| (0..4).map(|at| control(start, end).scale_at(at, 4)).collect::<Vec<_>>();
        assert_eq!(scales(0.0, 1.0), [0.5; 4]);
        assert_eq!(scales(0.25, 1.0), [0.0, 0.5, 0.5, 0.5]);
        assert_eq!(scales(0.0, 0.5), [0.5, 0.5, 0.0, 0.0]);
        assert_eq!(scales(0.3, 0.9), [0.0, 0.0, 0.5, 0.0]);
    }

    #[test]
    fn a_part_of_no_steps_is_refused() {
        for (start, end) in [(0.5, 0.5), (0.7, 0.2), (-0.1, 1.0), (0.0, 1.1), (f64::NAN, 1.0)] {
            let error = control(start, end).check().unwrap_err().to_string();
            assert!(error.contains("control start") && error.contains("expected 0 <= start"), "{error}");
        }
        assert!(Control { scale: f32::NAN, ..control(0.0, 1.0) }.check().is_err());
    }

    #[test]
    fn a_picture_without_a_network_is_refused() {
        let settings = Settings {
            width: 8,
            height: 8,
            steps: 1,
            portion: Portion::Whole,
            guidance: 1.0,
            sampler: String::new(),
            spacing: None,
            prediction: None,
            eta: None,
        };
        let request = Request { controls: vec![control(0.0, 1.0)], ..Request::default() };
        let error = check(&request, &settings, 0).unwrap_err().to_string();
        assert_eq!(error, "0 ControlNets and 1 pictures for them: give one for each");
    }
}
