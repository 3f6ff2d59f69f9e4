//! What is drawn with, once every default is filled in, as plain values.

use super::guidance::Guidance;
use super::noise;
use super::request::{Control, Request};
use crate::error::{Error, Field, Remedy, Result, counted};
use crate::samplers::{self, Portion, SPACINGS, Sampler, Sigmas};
use crate::weights::Model;

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
    /// [`Request::guidance_rescale`]
    pub guidance_rescale: Option<f32>,
    /// What [`samplers::names`] calls [`Request::sampler`].
    pub sampler: String,
    /// [`Request::sigmas`], or what the sampler's name says of them; the model's own without it.
    pub sigmas: Option<Sigmas>,
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
    /// Those that the request's picture decides, where it does.
    pub of_picture: Option<[usize; 2]>,
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
        let size = own.of_picture.or(defaults.size.map(|[width, height]| [height, width])).or(own.size);
        let side = |given: Option<usize>, own_side: Option<usize>, field| {
            let missing = || Error::usage("this model has no size of its own").remedies([Remedy::Give(field)]);
            let pixels = given.or(own_side).ok_or_else(missing)?;
            if pixels == 0 || pixels % own.factor != 0 {
                let nearest = match pixels {
                    0 => own_side.unwrap_or(own.factor),
                    _ => (pixels / own.factor + usize::from(pixels % own.factor * 2 >= own.factor)).max(1) * own.factor,
                };
                let what = format!("{pixels} is not a positive multiple of {}", own.factor);
                return Err(Error::usage(what).of(field).remedies([Remedy::set(field, nearest)]));
            }
            Ok(pixels)
        };
        let sampler = match request.sampler.as_deref().or(defaults.sampler.as_deref()).or(own.sampler) {
            Some(name) => name,
            None => own.schedule.default_sampler()?,
        };
        let (sampler, of_name) = sampler_called(sampler)?;
        let mut sigmas = match (&request.sigmas, of_name) {
            (Some(given), Some(named)) if *given != named => {
                let what = format!("{} contradicts the sampler's name, which says {}", given.name(), named.name());
                return Err(Error::usage(what).of(Field::Schedule));
            }
            (given, named) => given.clone().or(named),
        };
        if let Some(Sigmas::AlignYourSteps { .. }) = sigmas {
            sigmas = Some(Sigmas::AlignYourSteps { xl: own.model.has("text_encoder_2") });
        }
        let listed = match &sigmas {
            Some(Sigmas::Listed(sigmas)) => Some(sigmas.len()),
            _ => None,
        };
        let settings = Self {
            width: side(request.width, size.map(|[_, width]| width), Field::Width)?,
            height: side(request.height, size.map(|[height, _]| height), Field::Height)?,
            steps: request.steps.or(listed).or(defaults.steps).unwrap_or(own.steps),
            portion: own.portion,
            guidance: request
                .guidance
                .or(samplers::own_guidance(sampler))
                .or(defaults.guidance)
                .unwrap_or(own.guidance),
            guidance_rescale: request.guidance_rescale,
            sampler: sampler.into(),
            sigmas,
            spacing: request.spacing.clone(),
            prediction: request.prediction.clone(),
            eta: request.eta,
        };
        settings.sampler(own.schedule)?;
        Ok(settings)
    }

    /// Whether the sampler needs the prediction without a text, however weak the guidance is.
    pub fn is_guided(&self) -> bool {
        samplers::own_guidance(&self.sampler).is_some()
    }

    /// The same settings, if pictures have the rows that the sampler needs.
    ///
    /// # Errors
    /// If it steps from the prediction without a text, and none is made.
    pub fn under(self, guidance: &Guidance) -> Result<Self> {
        if guidance.rows > 1 || !self.is_guided() {
            return Ok(self);
        }
        let what = format!("{} steps from the prediction without a text, which is not made here", self.sampler);
        Err(Error::usage(what).of(Field::Sampler).remedies([Remedy::Other(Field::Sampler)]))
    }

    /// One picture's sampler, of a model with this schedule.
    ///
    /// # Errors
    /// As [`samplers::portion`].
    pub fn sampler(&self, schedule: &samplers::Config) -> Result<Sampler> {
        let schedule = schedule.clone().with_spacing(self.spacing.as_deref()).with_sigmas(self.sigmas.clone());
        let schedule = schedule.with_prediction(self.prediction.as_deref()).with_eta(self.eta)?;
        samplers::portion(&self.sampler, &schedule, self.steps, self.portion)
    }
}

/// [`samplers::called`], which says of a schedule's name what it is.
///
/// # Errors
/// As there.
pub fn sampler_called(name: &str) -> Result<(&'static str, Option<Sigmas>)> {
    samplers::called(name).map_err(|error| {
        let is_schedule = Sigmas::called(name).is_some() || SPACINGS.contains(&&*name.to_lowercase());
        let other = || {
            Error::usage(format!("{name} is a schedule"))
                .of(Field::Sampler)
                .remedies([Remedy::set(Field::Schedule, name)])
        };
        if is_schedule { other() } else { error }
    })
}

#[cfg(test)]
impl Settings {
    /// Of a picture of this height and width, as Stable Diffusion 1 has them.
    pub fn square(side: usize) -> Self {
        Self {
            width: side,
            height: side,
            steps: 25,
            portion: Portion::Whole,
            guidance: 7.5,
            guidance_rescale: None,
            sampler: "ddim".into(),
            sigmas: None,
            spacing: None,
            prediction: None,
            eta: None,
        }
    }
}

/// Checks what is the same for every system; `networks` is the number of ControlNets.
///
/// # Errors
/// If they do not.
pub(super) fn check(request: &Request, settings: &Settings, networks: usize) -> Result<()> {
    if !settings.guidance.is_finite() {
        return Err(Error::usage(format!("{} is not a finite number", settings.guidance)).of(Field::Guidance));
    }
    if let Some(share) = settings.guidance_rescale.filter(|share| !(0.0..=1.0).contains(share)) {
        return Err(Error::usage(format!("{share} does not lie from 0 to 1")).of(Field::GuidanceRescale));
    }
    if let Some(guidance) = request.image_guidance.filter(|guidance| !guidance.is_finite()) {
        return Err(Error::usage(format!("{guidance} is not a finite number")).of(Field::ImageGuidance));
    }
    check_size(settings.width, settings.height, request.batch)?;
    noise::check(request)?;
    let images = request.controls.len();
    if networks != images {
        let [networks, images] = [(networks, "ControlNet"), (images, "picture")].map(|(n, what)| counted(n, what));
        return Err(Error::usage(format!("{networks} and {images} for them: give one for each")));
    }
    request.controls.iter().try_for_each(Control::check)
}

/// Refuses what no machine holds, so that later sizes in bytes can be computed at all; whether a smaller one fits is
/// for the executor to say.
pub(super) fn check_size(width: usize, height: usize, batch: usize) -> Result<()> {
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
    use crate::image::Picture;

    #[test]
    fn a_picture_without_a_network_is_refused() {
        let settings = Settings::square(8);
        let image = Picture { width: 1, height: 1, rgb: vec![0; 3], parameters: None };
        let control = Control { image, scale: 0.5, start: 0.0, end: 1.0 };
        let request = Request { controls: vec![control], ..Request::default() };
        let error = check(&request, &settings, 0).unwrap_err().to_string();
        assert_eq!(error, "0 ControlNets and 1 picture for them: give one for each");
    }
}
