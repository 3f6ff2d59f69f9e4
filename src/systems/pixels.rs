//! Diffusion in pixel space (Ho et al. 2020, Song et al. 2021; diffusers' `DDPMPipeline`, `DDIMPipeline`): noise
//! becomes a picture, without a prompt; a network that knows classes is given one.

use std::ops::Range;

use super::canvas;
use super::cut::{Cut, Given};
use super::denoise::{Loop, Start};
use super::guidance::Guidance;
use super::kit::Kit;
use super::noise::First;
use super::part::{Models, Part};
use super::request::Request;
use super::rest::Rest;
use super::settings::{Own, Settings};
use super::start::{MOST_AT_ONCE, Original, Shares};
use super::system::{Drawing, System};
use crate::error::{Error, Field, Remedy, Result};
use crate::models::config::{FORWARD, NetworkConfig};
use crate::models::unet2d::Config;
use crate::network::Executor;
use crate::samplers;
use crate::tensor::{Shape, Tensor};

/// What diffusers' classes differ in.
#[derive(Debug)]
pub struct Defaults {
    /// Denoising steps.
    pub steps: usize,
    /// The sampler, if not the one of the model's schedule.
    pub sampler: Option<&'static str>,
}

/// A model that draws in pixels.
pub struct Pixels {
    unet: Config,
    schedule: samplers::Config,
    defaults: &'static Defaults,
}

impl Pixels {
    /// # Errors
    /// If a file of the model is missing or asks for something that is not built, or its network does not draw
    /// colours.
    pub fn open(models: &Models, defaults: &'static Defaults) -> Result<Self> {
        let model = &models.model;
        let place = |path: &str| model.path(path).display().to_string();
        let [path, schedule] = ["unet/config.json", "scheduler/scheduler_config.json"];
        let unet = Config::from_json(&model.text(path)?, &place(path))?;
        let schedule = samplers::Config::from_json(&model.text(schedule)?, &place(schedule))?;
        let channels = [unet.in_channels, unet.out_channels];
        if channels != [3; 2] {
            let what = format!("in_channels and out_channels are {channels:?}, supported: red, green and blue");
            return Err(Error::config(place(path), what));
        }
        Ok(Self { unet, schedule, defaults })
    }

    fn cut(&self, executor: &Executor, (request, settings): (&Request, &Settings), pictures: usize) -> Result<Cut> {
        let Settings { height, width, .. } = *settings;
        let steps = settings.sampler(&self.schedule)?.timesteps().len();
        let inputs: Vec<_> =
            self.unet.ports(FORWARD).into_iter().map(|port| (port.name.to_string(), port.changes)).collect();
        let whole = |rows| self.unet.graph(rows, height, width);
        let cut = Cut::of(["UNet", "unet"], &whole, &inputs, [pictures, steps], Guidance::none())?;
        if canvas::is_masked(request) { Ok(cut) } else { cut.sampled(executor, &|| settings.sampler(&self.schedule)) }
    }

    /// The class that is drawn, if the network knows any.
    fn class(&self, request: &Request) -> Result<Option<usize>> {
        match (request.class, self.unet.classes) {
            (None, None) => Ok(None),
            (Some(class), Some(classes)) if class < classes => Ok(Some(class)),
            (Some(class), Some(classes)) => {
                Err(Error::usage(format!("{class}, but the model knows 0 to {}", classes - 1)).of(Field::Class))
            }
            (Some(_), None) => Err(Error::usage("is for models that know classes")
                .of(Field::Class)
                .remedies([Remedy::Without(Field::Class)])),
            (None, Some(classes)) => {
                let what = format!("this model draws one of the classes 0 to {}", classes - 1);
                Err(Error::usage(what).remedies([Remedy::Give(Field::Class)]))
            }
        }
    }

    async fn drawn(&self, kit: &mut Kit<'_>) -> Result<()> {
        let (request, settings) = (kit.request, kit.settings);
        if let Some(warning) = samplers::warning(&settings.sampler, &self.schedule)? {
            kit.warn(warning);
        }
        let class = self.class(request)?;
        let original = Original::read(kit, None).await?;
        let mut rest = Rest::new(request.batch);
        if original.is_some() {
            rest.at_most(MOST_AT_ONCE);
        }
        while let Some((range, part)) = rest.next_part() {
            let pixels = match self.pixels(kit, (class, original.as_ref()), range, part).await {
                Err(error) => {
                    rest.halve_for(kit, error)?;
                    continue;
                }
                Ok(pixels) => pixels,
            };
            rest.made();
            kit.add_state(&pixels)?;
            let one = pixels.shape.with_batch(1);
            for picture in pixels.data.chunks_exact(one.len()) {
                kit.add_picture(&Tensor::new(one.clone(), picture.to_vec()))?;
            }
        }
        Ok(())
    }

    /// The pixels of these pictures, which are part number `part` of `parts`.
    async fn pixels(
        &self,
        kit: &mut Kit<'_>,
        (class, original): (Option<usize>, Option<&Original<'_>>),
        range: Range<usize>,
        (part, parts): (usize, usize),
    ) -> Result<Tensor> {
        let settings = kit.settings;
        let sampler = settings.sampler(&self.schedule)?;
        let (steps, timesteps) = (sampler.steps(), sampler.timesteps().to_vec());
        let count = timesteps.len();
        let mut time = vec![("timestep", Tensor::new([count], timesteps))];
        time.extend(class.map(|class| ("class_labels", Tensor::new([count], vec![class as f32; count]))));
        let state = Shape::from([range.len(), settings.height, settings.width, self.unet.in_channels]);
        let (mut noise, first) = (kit.noise(range.clone()), First::of(kit.request, &state, &range)?);
        let begun = match original {
            None => Start::Noise(first).into(),
            Some(original) => original.begin(&mut noise, first, &state),
        };
        let denoise = Loop {
            cut: self.cut(kit.executor, (kit.request, settings), range.len())?,
            given: Given { time, ..Given::default() },
            sampler: &|| settings.sampler(&self.schedule),
            begun,
            state,
            windows: None,
            noise,
            told: (part * steps, parts * steps),
        };
        denoise.run(kit).await
    }
}

impl System for Pixels {
    fn settings(&self, models: &Models, request: &Request) -> Result<Settings> {
        let own = Own {
            model: &models.model,
            size: self.unet.sample_size,
            of_picture: canvas::size(request, 1)?,
            factor: 1,
            steps: self.defaults.steps,
            portion: Shares::SD.portion(request)?,
            guidance: 1.0,
            sampler: self.defaults.sampler,
            schedule: &self.schedule,
        };
        let settings = Settings::of(request, &own)?.under(&Guidance::none())?;
        self.class(request)?;
        Ok(settings)
    }

    fn parts(&self, _: &Models, executor: &Executor, request: &Request, settings: &Settings) -> Result<Vec<Part>> {
        Ok(self.cut(executor, (request, settings), request.batch)?.parts())
    }

    fn draw<'a, 'k: 'a>(&'a self, kit: &'a mut Kit<'k>) -> Drawing<'a> {
        Box::pin(self.drawn(kit))
    }
}
