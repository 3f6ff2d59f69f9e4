//! Latent diffusion (Rombach et al. 2021): noise in an autoencoder's latents becomes a picture, under nothing, a text,
//! or a small picture that it enlarges; diffusers' `LDMPipeline`, `LDMTextToImagePipeline`,
//! `LDMSuperResolutionPipeline`.

mod condition;
mod unet;

use std::ops::Range;

use super::canvas;
use super::cut::{Cut, Given};
use super::decode::{self, Decoder};
use super::denoise::{Loop, Start};
use super::encode::Encoder;
use super::guidance::Guidance;
use super::kit::Kit;
use super::noise::First;
use super::part::{Models, Part};
use super::request::Request;
use super::rest::Rest;
use super::settings::{Own, Settings};
use super::start::{MOST_AT_ONCE, Original, Shares};
use super::system::{Drawing, System};
use crate::conditioning::ldm_bert::LdmBertText;
use crate::error::{Error, Result};
use crate::models::autoencoder::Autoencoder;
use crate::network::Executor;
use crate::samplers::{self, Portion};
use crate::tensor::{Shape, Tensor};
use condition::Condition;
use unet::Unet;

/// What the pictures are drawn under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    /// Nothing (`LDMPipeline`).
    Nothing,
    /// A text, with an empty one for guidance (`LDMTextToImagePipeline`).
    Text,
    /// A picture of the latents' size, which is joined to them (`LDMSuperResolutionPipeline`).
    Picture,
}

/// In what diffusers' classes differ.
#[derive(Debug)]
pub struct Kind {
    /// What the pictures are drawn under.
    pub under: Under,
    /// diffusers' number of denoising steps.
    pub steps: usize,
}

/// The folder of the autoencoder, of either class.
const VAE: &str = "vqvae";

/// A model of one of the three: its configurations read and understood.
pub struct LatentDiffusion {
    kind: &'static Kind,
    unet: Unet,
    vae: Autoencoder,
    schedule: samplers::Config,
    text: Option<LdmBertText>,
}

impl LatentDiffusion {
    /// # Errors
    /// If a file of the model is missing, asks for something that is not built, or they do not fit each other.
    pub fn open(models: &Models, kind: &'static Kind) -> Result<Self> {
        let model = &models.model;
        let read = |path: &str| Ok::<_, Error>((model.text(path)?, model.path(path).display().to_string()));
        let (text, place) = read("vqvae/config.json")?;
        let mut vae = Autoencoder::from_json(&text, &place)?;
        if kind.under == Under::Picture {
            // This pipeline, and it alone, was trained on latents as they are.
            vae = vae.unscaled();
        }
        let (text, place) = read("unet/config.json")?;
        let unet = Unet::from_json(&text, &place, kind.under)?;
        unet.check_latents(vae.latent_channels(), &place)?;
        let (text, schedule_place) = read("scheduler/scheduler_config.json")?;
        let schedule = samplers::Config::from_json(&text, &schedule_place)?;
        let text = if kind.under == Under::Text { Some(LdmBertText::open(model)?) } else { None };
        if let (Unet::Text(unet), Some(text)) = (&unet, &text)
            && unet.cross_attention_dim != text.width()
        {
            let [wanted, width] = [unet.cross_attention_dim, text.width()];
            return Err(Error::config(
                place,
                format!("cross_attention_dim is {wanted}, but the text encoder gives {width}"),
            ));
        }
        Ok(Self { kind, unet, vae, schedule, text })
    }

    /// diffusers guides by any other number than 1, and so also away from the text.
    fn guidance(&self, settings: &Settings) -> Guidance {
        match self.kind.under {
            Under::Text if settings.guidance != 1.0 || settings.is_guided() => {
                Guidance::by_text(settings.guidance).rescaled(settings.guidance_rescale)
            }
            _ => Guidance::none(),
        }
    }

    fn encoder(&self) -> Encoder<'_> {
        Encoder { vae: &self.vae, component: VAE, in_f32: false }
    }

    /// Height and width of the latents.
    fn size(&self, settings: &Settings) -> [usize; 2] {
        [settings.height, settings.width].map(|side| side / self.vae.factor())
    }

    /// The UNet cut for a number of pictures at once.
    fn cut(&self, executor: &Executor, (request, settings): (&Request, &Settings), pictures: usize) -> Result<Cut> {
        let size = self.size(settings);
        let steps = settings.sampler(&self.schedule)?.timesteps().len();
        let tokens = self.text.as_ref().map_or(0, LdmBertText::tokens);
        let whole = |rows| self.unet.graph(rows, size, tokens);
        let cut = Cut::of(["UNet", "unet"], &whole, &self.unet.inputs(), [pictures, steps], self.guidance(settings))?;
        if canvas::is_masked(request) { Ok(cut) } else { cut.sampled(executor, &|| settings.sampler(&self.schedule)) }
    }

    /// The latents of these pictures, which are part number `part` of `parts`: channels last.
    async fn latents(
        &self,
        kit: &mut Kit<'_>,
        (condition, original): (&Condition, Option<&Original<'_>>),
        range: Range<usize>,
        (part, parts): (usize, usize),
    ) -> Result<Tensor> {
        let settings = kit.settings;
        let [height, width] = self.size(settings);
        let sampler = || settings.sampler(&self.schedule);
        let first = sampler()?;
        let (steps, rows) = (first.steps(), self.guidance(settings).rows);
        let times: Vec<_> = first.timesteps().iter().flat_map(|time| std::iter::repeat_n(*time, rows)).collect();
        let state = Shape::from([range.len(), height, width, self.vae.latent_channels()]);
        let (mut noise, begins) = (kit.noise(range.clone()), First::of(kit.request, &state, &range)?);
        let begun = match original {
            None => Start::Noise(begins).into(),
            Some(original) => original.begin(&mut noise, begins, &state),
        };
        let denoise = Loop {
            cut: self.cut(kit.executor, (kit.request, settings), range.len())?,
            given: Given {
                time: vec![("timestep", Tensor::new([times.len()], times))],
                ..condition.given(range.len(), &first)
            },
            sampler: &sampler,
            begun,
            state,
            windows: None,
            noise,
            told: (part * steps, parts * steps),
        };
        denoise.run(kit).await
    }

    async fn drawn(&self, kit: &mut Kit<'_>) -> Result<()> {
        if let Some(warning) = samplers::warning(&kit.settings.sampler, &self.schedule)? {
            kit.warn(warning);
        }
        let condition = self.condition(kit).await?;
        let original = Original::read(kit, Some(self.encoder())).await?;
        let mut decoder = Decoder::new(&self.vae, VAE, false);
        let mut rest = Rest::new(kit.request.batch);
        if original.is_some() {
            rest.at_most(MOST_AT_ONCE);
        }
        while let Some((range, part)) = rest.next_part() {
            let latents = match self.latents(kit, (&condition, original.as_ref()), range, part).await {
                Err(error) => {
                    rest.halve_for(kit, error)?;
                    continue;
                }
                Ok(latents) => latents,
            };
            rest.made();
            kit.add_state(&latents)?;
            decoder.decode(kit, &latents).await?;
        }
        Ok(())
    }
}

impl System for LatentDiffusion {
    fn settings(&self, models: &Models, request: &Request) -> Result<Settings> {
        let factor = self.vae.factor();
        let (latents, of_picture, portion) = match self.kind.under {
            Under::Picture => (Some(condition::picture_size(request)?), None, Portion::Whole),
            _ => (self.unet.sample_size(), canvas::size(request, factor)?, Shares::SD.portion(request)?),
        };
        let own = Own {
            model: &models.model,
            size: latents.map(|size| size.map(|side| side * factor)),
            of_picture,
            factor,
            steps: self.kind.steps,
            portion,
            guidance: 1.0,
            sampler: None,
            schedule: &self.schedule,
        };
        let settings = Settings::of(request, &own)?;
        let guidance = self.guidance(&settings);
        settings.under(&guidance)
    }

    fn parts(&self, _: &Models, executor: &Executor, request: &Request, settings: &Settings) -> Result<Vec<Part>> {
        let text = self.text_part(request, settings)?.map(|(part, _)| part);
        let starts = matches!(settings.portion, Portion::Last(_));
        let encoder = starts.then(|| self.encoder().part([settings.height, settings.width])).transpose()?;
        let cut = self.cut(executor, (request, settings), request.batch)?;
        let decoder = decode::part(&self.vae, VAE, self.size(settings), request.batch)?;
        Ok(text.into_iter().chain(encoder).chain(cut.parts()).chain([decoder]).collect())
    }

    fn draw<'a, 'k: 'a>(&'a self, kit: &'a mut Kit<'k>) -> Drawing<'a> {
        Box::pin(self.drawn(kit))
    }
}
