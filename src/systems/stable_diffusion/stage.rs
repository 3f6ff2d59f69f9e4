//! The stages of a picture: the model's own steps, and then those of its refiner, if it has one (diffusers' "ensemble
//! of expert denoisers", `denoising_end` and `denoising_start`).

use std::ops::Range;

use super::picture::Shown;
use super::text::{Conditioning, Texts};
use super::variant::{REFINER, SDXL};
use super::versions::Clock;
use super::{StableDiffusion, unet_of};
use crate::error::{Error, Field, Result};
use crate::rng::Generator;
use crate::samplers::{Portion, Sampler};
use crate::systems::decode::Decoder;
use crate::systems::denoise::{Begun, Loop, Start};
use crate::systems::families::misplaced;
use crate::systems::hires;
use crate::systems::kit::Kit;
use crate::systems::noise::First;
use crate::systems::part::Models;
use crate::systems::request::Request;
use crate::systems::settings::Settings;
use crate::systems::windows::Windows;
use crate::tensor::{Shape, Tensor};

/// One model's steps.
pub(super) struct Stage<'s, 'm, T> {
    pub system: &'s StableDiffusion,
    pub models: &'m Models,
    pub settings: Settings,
    /// The texts, or what they became.
    pub text: T,
    /// How many they are.
    pub steps: usize,
    /// Whether it starts from what is drawn before, enlarged.
    pub again: bool,
}

impl StableDiffusion {
    /// Opens what goes on with this model's latents.
    ///
    /// # Errors
    /// If it is of another family, as [`StableDiffusion::open`], or its latents are others.
    pub(super) fn open_refiner(&self, models: &Models) -> Result<Self> {
        let place = || models.model.path("");
        let other = || {
            let what = "is not of Stable Diffusion XL: give its refiner, or another of its family";
            Error::file(place(), what)
        };
        if models.model.components().iter().all(|name| name != "unet") {
            return Err(misplaced(&place(), Field::Refiner, other()));
        }
        let unet = unet_of(&models.model)?;
        let fitting = [&REFINER, &SDXL].into_iter().find(|variant| (variant.fits)(&unet));
        let variant = fitting.ok_or_else(other)?;
        let refiner = Self::open(models, variant)?;
        let [own, wanted] = [&refiner, self].map(|system| (system.unet.in_channels, system.vae.factor()));
        if own == wanted {
            return Ok(refiner);
        }
        let what = format!("its latents (channels, pixels to one) are {own:?}, the model's {wanted:?}");
        Err(Error::config(place().display(), what))
    }

    /// The refiner, if there is one, and its settings: the rest of the steps, by the request's sampler or its own.
    ///
    /// # Errors
    /// If its schedule is of a sampler that is not built.
    pub(super) fn refining(&self, request: &Request, settings: &Settings) -> Result<Option<(&Self, Settings)>> {
        let (Some(refiner), Portion::Before(share)) = (self.refiner.as_deref(), settings.portion) else {
            return Ok(None);
        };
        let (sampler, sigmas) = match &request.sampler {
            Some(_) => (settings.sampler.clone(), settings.sigmas.clone()),
            None => (refiner.schedule.default_sampler()?.into(), request.sigmas.clone()),
        };
        let portion = Portion::From(share);
        Ok(Some((refiner, Settings { portion, sampler, sigmas, prediction: None, ..settings.clone() })))
    }

    /// The stages, in order, with their texts.
    ///
    /// # Errors
    /// If a tokenizer or an encoder's configuration is missing or does not fit, or a stage has no step.
    pub(super) fn stages<'s, 'm>(
        &'s self,
        models: &'m Models,
        request: &Request,
        settings: &Settings,
    ) -> Result<Vec<Stage<'s, 'm, Texts>>> {
        let mut all = vec![(self, models, settings.clone())];
        if let (Some((refiner, settings)), Some(models)) = (self.refining(request, settings)?, &models.refiner) {
            all.push((refiner, models, settings));
        }
        let sampler = |(system, _, settings): &(&Self, _, Settings)| settings.sampler(&system.schedule);
        let samplers = all.iter().map(sampler).collect::<Result<Vec<_>>>()?;
        let (mut done, steps) = (0, samplers.iter().map(Sampler::steps).sum());
        let stage = |((system, models, settings), sampler): ((&'s Self, &'m Models, Settings), Sampler)| {
            let text = system.texts(models, request, &settings, &Clock::of(&sampler, done, steps))?;
            done += sampler.steps();
            Ok(Stage { system, models, settings, text, steps: sampler.steps(), again: false })
        };
        let mut stages = all.into_iter().zip(samplers).map(stage).collect::<Result<Vec<_>>>()?;
        if let Some(settings) = hires::settings(request, settings, self.vae.factor())? {
            let sampler = settings.sampler(&self.schedule)?;
            // A prompt that changes does so anew.
            let mut text = self.texts(models, request, &settings, &Clock::of(&sampler, 0, sampler.steps()))?;
            if text.sizes() == [stages[0].text.sizes()[0], 1] && stages[0].text.sizes()[1] == 1 {
                text.parts.clear();
            }
            stages.push(Stage { system: self, models, settings, text, steps: sampler.steps(), again: true });
        }
        Ok(stages)
    }
}

impl<'s, 'k> Stage<'s, 'k, Texts> {
    /// Texts to embeddings, unless they are those of the first stage.
    ///
    /// # Errors
    /// If an encoder cannot be loaded or run.
    pub async fn conditioned(
        self,
        kit: &mut Kit<'k>,
        first: Option<&Conditioning>,
    ) -> Result<Stage<'s, 'k, Conditioning>> {
        let Self { system, models, settings, text, steps, again } = self;
        if let (true, Some(first)) = (text.parts.is_empty(), first) {
            let text = Conditioning { versions: text.versions, ..first.clone() };
            return Ok(Stage { system, models, settings, text, steps, again });
        }
        let own = std::mem::replace(&mut kit.models, models);
        let text = system.condition(kit, text).await;
        kit.models = own;
        Ok(Stage { system, models, settings, text: text?, steps, again })
    }
}

impl<'k> Stage<'_, 'k, Conditioning> {
    /// The latents after its steps, channels last, and the generators as they are then. `told` is how many steps are
    /// done before, and how many there are in all.
    ///
    /// # Errors
    /// If the UNet cannot be loaded or run, or the call is cancelled.
    pub async fn run(
        &self,
        kit: &mut Kit<'k>,
        begun: Begun,
        shown: &Shown,
        noise: Vec<Generator>,
        told: (usize, usize),
        windows: Option<&mut Windows>,
    ) -> Result<(Tensor, Vec<Generator>)> {
        let Self { system, settings, text, .. } = self;
        let sampler = || settings.sampler(&system.schedule);
        let [height, width] = system.size(settings);
        let size = windows.as_ref().map_or([height, width], |windows| windows.size);
        let denoise = Loop {
            cut: system.cut(kit.executor, (kit.request, settings), text.sizes(), noise.len(), size)?,
            given: system.given(kit.request, settings, text, sampler()?.timesteps(), shown)?,
            sampler: &sampler,
            begun,
            windows,
            state: Shape::from([noise.len(), height, width, system.unet.out_channels]),
            noise,
            told,
        };
        let own = std::mem::replace(&mut kit.models, self.models);
        let made = denoise.run_on(kit).await;
        kit.models = own;
        made
    }
}

/// Some of a request's pictures.
pub(super) struct Drawn<'a> {
    /// Which of the batch they are.
    pub range: Range<usize>,
    /// The number of this part of them, and how many parts there are.
    pub part: (usize, usize),
    pub noise: Vec<Generator>,
    pub begun: Begun,
    pub shown: &'a Shown,
}

impl StableDiffusion {
    /// The latents that all stages make of these pictures. A second run of larger ones may need the `decoder`.
    ///
    /// # Errors
    /// As [`Stage::run`], or if what is enlarged cannot be decoded or encoded.
    pub(super) async fn run<'k>(
        &self,
        kit: &mut Kit<'k>,
        stages: &[Stage<'_, 'k, Conditioning>],
        Drawn { range, part: (part, parts), mut noise, mut begun, mut shown }: Drawn<'_>,
        decoder: &mut Decoder<'_>,
        windows: &mut Option<Windows>,
    ) -> Result<Tensor> {
        let none = Shown::default();
        let steps: usize = stages.iter().map(|stage| stage.steps).sum();
        let mut done = part * steps;
        for stage in stages {
            if let (Start::State(state), true) = (&begun.start, stage.again) {
                noise = kit.noise(range.clone());
                let Settings { width, height, .. } = stage.settings;
                let (mode, coders) = (kit.request.hires.unwrap_or_default().mode, (&mut *decoder, self.encoder()));
                let state = hires::enlarged(kit, coders, state, mode, [height, width], &mut noise).await?;
                begun = Start::Noised(state, First::seeded(kit.request, &range)).into();
                shown = &none;
            }
            let told = (done, parts * steps);
            let (state, rest) = stage.run(kit, begun, shown, noise, told, windows.as_mut()).await?;
            (begun, noise) = (Start::State(state).into(), rest);
            done += stage.steps;
        }
        match begun.start {
            Start::State(state) => Ok(state),
            _ => Err(Error::shape("there is no stage")),
        }
    }
}
