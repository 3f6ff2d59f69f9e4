//! Stable Diffusion 1, 2 and XL (Rombach et al. 2022, Podell et al. 2023): noise in a VAE's latents becomes a picture
//! under the guidance of texts; diffusers' `StableDiffusionPipeline` and `StableDiffusionXLPipeline`. Another model's
//! steps may end it (XL's refiner). A kind is a row of [`variant`]; what it does with the request's picture is a file:
//! it may [`start`] from that, vary it ([`unclip`]), [`edit`] or [`enlarge`] it.

mod control;
mod edit;
mod enlarge;
mod given;
mod picture;
mod repaint;
mod stage;
mod start;
mod text;
mod unclip;
pub mod variant;
mod versions;

use std::sync::{Arc, Mutex};

use picture::{Batch, Shown, Use};
use serde_json::Value;
use stage::{Drawn, Stage};
pub use text::Conditioning;
use variant::Variant;

use super::cut::{Cut, joined};
use super::decode::{self, Decoder};
use super::denoise::Start;
use super::encode::Encoder;
use super::guidance::Guidance;
use super::hires;
use super::kit::Kit;
use super::noise::First;
use super::part::{Models, Part};
use super::request::{HiresMode, Request};
use super::rest::Rest;
use super::settings::{Own, Settings};
use super::start::MOST_AT_ONCE;
use super::system::{Drawing, System};
use crate::conditioning::{ClipText, Options};
use crate::error::{Error, Result};
use crate::models::autoencoder::Autoencoder;
use crate::models::config::{FORWARD, NetworkConfig};
use crate::models::ports::Changes;
use crate::models::{controlnet, unet};
use crate::network::Executor;
use crate::samplers;
use crate::tensor::Shape;
use crate::weights::Model;

/// A model of the family: its configurations read and understood.
pub struct StableDiffusion {
    variant: &'static Variant,
    unet: unet::Config,
    vae: Autoencoder,
    schedule: samplers::Config,
    controls: Vec<controlnet::Config>,
    /// What becomes of the request's picture.
    picture: Box<dyn Use>,
    /// What goes on with the latents after a part of the steps.
    refiner: Option<Box<StableDiffusion>>,
    /// The encoders of the last call, and its options.
    encoders: Mutex<Option<(Options, Arc<Vec<ClipText>>)>>,
}

/// A model's UNet; the model's index may say whether it takes an aesthetic score.
///
/// # Errors
/// If a file cannot be read, or asks for something that is not built.
pub fn unet_of(model: &Model) -> Result<unet::Config> {
    let path = "unet/config.json";
    let mut unet = unet::Config::from_json(&model.text(path)?, &model.path(path).display().to_string())?;
    if let (Some(added), Some(scored)) = (unet.text_time, index_flag(model, "requires_aesthetics_score")?) {
        let key = "requires_aesthetics_score";
        let what = format!("{key} is {scored}, which leaves the UNet's projection_class_embeddings_input_dim no text");
        let fail = || Error::config(model.path("model_index.json").display(), what);
        unet.text_time = Some(added.scored(scored).ok_or_else(fail)?);
    }
    Ok(unet)
}

/// `model_index.json`; null if there is none.
fn index(model: &Model) -> Result<Value> {
    let path = "model_index.json";
    if model.has(path) { model.json(path) } else { Ok(Value::Null) }
}

/// Whether a model's `model_index.json` says yes or no to this.
fn index_flag(model: &Model, key: &str) -> Result<Option<bool>> {
    Ok(index(model)?[key].as_bool())
}

impl StableDiffusion {
    /// # Errors
    /// If a file of the model is missing, asks for something that is not built, or they do not fit each other.
    pub fn open(models: &Models, variant: &'static Variant) -> Result<Self> {
        let model = &models.model;
        let read = |path: &str| Ok::<_, Error>((model.text(path)?, model.path(path).display().to_string()));
        let unet = unet_of(model)?;
        let (text, vae_place) = read("vae/config.json")?;
        let vae = Autoencoder::from_json(&text, &vae_place)?;
        let vae = if let Some(scaling) = variant.scaling { vae.with_scaling(scaling) } else { vae };
        let (text, schedule_place) = read("scheduler/scheduler_config.json")?;
        let schedule = samplers::Config::from_json(&text, &schedule_place)?;
        let misfit = |what| Error::config(model.path("unet/config.json").display(), what);
        variant.check(&unet, vae.latent_channels()).map_err(misfit)?;
        let factor = vae.factor();
        let controls =
            models.controls.iter().map(|control| control::open(control, &unet, factor)).collect::<Result<_>>()?;
        let picture = (variant.picture)(model, &unet)?;
        let (refiner, encoders) = (None, Mutex::new(None));
        let own = Self { variant, unet, vae, schedule, controls, picture, refiner, encoders };
        let refiner = models.refiner.as_deref().map(|refiner| own.open_refiner(refiner)).transpose()?;
        Ok(Self { refiner: refiner.map(Box::new), ..own })
    }

    /// By the text, and as the kind has it: not where a network is given the guidance that it was distilled with.
    fn guidance(&self, request: &Request, settings: &Settings) -> Guidance {
        match settings.guidance {
            scale if (scale > 1.0 || settings.is_guided()) && self.unet.guidance_width.is_none() => {
                self.picture.guidance(request, scale).rescaled(settings.guidance_rescale)
            }
            _ => Guidance::none(),
        }
    }

    /// Height and width of the latents.
    fn size(&self, settings: &Settings) -> [usize; 2] {
        [settings.height, settings.width].map(|side| side / self.vae.factor())
    }

    /// Whether the VAE overflows f16.
    fn vae_in_f32(&self) -> bool {
        self.variant.upcasts && self.vae.force_upcast()
    }

    fn encoder(&self) -> Encoder<'_> {
        Encoder { vae: &self.vae, component: "vae", in_f32: self.vae_in_f32() }
    }

    /// The UNet with its ControlNets, cut for a number of pictures at once, each drawn for texts of so many tokens in
    /// so many versions, of latents of this height and width: all of a picture's, or a part.
    fn cut(
        &self,
        executor: &Executor,
        (request, settings): (&Request, &Settings),
        [tokens, versions]: [usize; 2],
        pictures: usize,
        [height, width]: [usize; 2],
    ) -> Result<Cut> {
        let steps = settings.sampler(&self.schedule)?.timesteps().len();
        let more = (self.variant.beside)(self.vae.latent_channels());
        let whole = |rows| {
            let graph = self.unet.controlled_graph(&self.controls, rows, height, width, tokens)?;
            if more == 0 { Ok(graph) } else { joined(graph, more) }
        };
        let own = self.unet.ports(FORWARD).into_iter().map(|port| (port.name.to_string(), port.changes));
        let images = (0..self.controls.len()).map(|index| (controlnet::image_input(index), Changes::Picture));
        let inputs: Vec<_> = own.chain(images).collect();
        // Vectors in the place of classes are each picture's own.
        let sizes = [pictures, steps, if self.unet.class_width.is_some() { pictures } else { 1 }, versions];
        let cut = Cut::timed(["UNet", "unet"], &whole, &inputs, sizes, self.guidance(request, settings))?;
        if [height, width] == self.size(settings) && !self.picture.holds(request) {
            return cut.sampled(executor, &|| settings.sampler(&self.schedule));
        }
        Ok(cut)
    }

    /// Prompt and picture to embeddings, noise to latents, latents to pixels: of all pictures at once or, where those
    /// do not fit, of as many as do.
    async fn drawn<'k>(&self, kit: &mut Kit<'k>) -> Result<()> {
        let mut stages = Vec::new();
        for stage in self.stages(kit.models, kit.request, kit.settings)? {
            if let Some(warning) = samplers::warning(&stage.settings.sampler, &stage.system.schedule)? {
                kit.warn(warning);
            }
            let first = stages.first().map(|first: &Stage<'_, '_, Conditioning>| first.text.clone());
            stages.push(stage.conditioned(kit, first.as_ref()).await?);
        }
        let picture = self.picture.read(kit, self.encoder()).await?;
        let rows = self.guidance(kit.request, kit.settings).rows;
        let mut decoder = Decoder::new(&self.vae, "vae", self.vae_in_f32());
        let mut rest = Rest::new(kit.request.batch);
        if picture.is_some() {
            rest.at_most(MOST_AT_ONCE);
        }
        if (self.variant.beside)(self.vae.latent_channels()) > 0 && self.controls.is_empty() {
            // What the UNet sees of the picture keeps the windows together.
            rest.or_in_windows(self.size(kit.settings));
        }
        while let Some((range, part)) = rest.next_part() {
            let mut noise = kit.noise(range.clone());
            let [height, width] = self.size(kit.settings);
            let state = Shape::from([range.len(), height, width, self.unet.out_channels]);
            let first = First::of(kit.request, &state, &range)?;
            let (begun, shown) = match &picture {
                None => (Start::Noise(first).into(), Shown::default()),
                Some(show) => show(Batch { noise: &mut noise, first, state: &state, rows }),
            };
            let drawn = Drawn { range, part, noise, begun, shown: &shown };
            let latents = match self.run(kit, &stages, drawn, &mut decoder, &mut rest.windows).await {
                Err(error) => {
                    rest.halve_for(kit, error)?;
                    continue;
                }
                Ok(latents) => latents,
            };
            rest.made();
            // Each part to its pixels before the next begins, so that the least is lost if none follows.
            kit.add_state(&latents)?;
            decoder.decode(kit, &latents).await?;
        }
        Ok(())
    }
}

impl System for StableDiffusion {
    fn settings(&self, models: &Models, request: &Request) -> Result<Settings> {
        let factor = self.vae.factor();
        let decided = self.picture.decide(request, factor, self.refiner.is_some())?;
        let own = Own {
            model: &models.model,
            size: self.unet.sample_size.map(|size| size.map(|side| side * factor)),
            of_picture: decided.size,
            factor,
            steps: self.variant.steps,
            portion: decided.portion,
            guidance: self.variant.guidance,
            sampler: None,
            schedule: &self.schedule,
        };
        let settings = Settings::of(request, &own)?;
        if let Some((refiner, refining)) = self.refining(request, &settings)? {
            refining.sampler(&refiner.schedule)?;
        }
        if let Some(again) = hires::settings(request, &settings, factor)? {
            again.sampler(&self.schedule)?;
        }
        let guidance = self.guidance(request, &settings);
        settings.under(&guidance)
    }

    fn parts(&self, models: &Models, executor: &Executor, request: &Request, settings: &Settings) -> Result<Vec<Part>> {
        let (mut parts, mut cuts) = (Vec::new(), Vec::new());
        let mut last = self.size(settings);
        for stage in self.stages(models, request, settings)? {
            let named = |part| stage.models.named(part);
            let size = stage.system.size(&stage.settings);
            let cut =
                stage.system.cut(executor, (request, &stage.settings), stage.text.sizes(), request.batch, size)?;
            if stage.again && request.hires.unwrap_or_default().mode == HiresMode::Lanczos {
                cuts.push(decode::part(&self.vae, "vae", last, request.batch)?);
                let encoder = self.encoder().part([stage.settings.height, stage.settings.width])?;
                cuts.push(Part { times: request.batch, ..encoder });
            }
            last = size;
            cuts.extend(cut.parts().into_iter().map(named));
            parts.extend(stage.text.parts.into_iter().map(named));
        }
        parts.extend(self.picture.parts(self.encoder(), settings)?);
        let decoder = decode::part(&self.vae, "vae", last, request.batch)?;
        Ok(parts.into_iter().chain(cuts).chain([decoder]).collect())
    }

    fn draw<'a, 'k: 'a>(&'a self, kit: &'a mut Kit<'k>) -> Drawing<'a> {
        Box::pin(self.drawn(kit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::plan::{Storage, session_bytes};
    use crate::lab::published::SD15;
    use crate::systems::denoise::sampling;
    use crate::systems::start::Shares;
    use crate::tensor::DType;

    const F16: Storage = Storage { act: DType::F16, weight: DType::F16 };

    /// Stable Diffusion 1.5; everything else is diffusers' default.
    fn sd15(controls: &[&str]) -> StableDiffusion {
        let control = |text: &&str| controlnet::Config::from_json(text, "controlnet").unwrap();
        StableDiffusion {
            variant: &variant::SD,
            unet: unet::Config::from_json(r#"{"cross_attention_dim": 768}"#, "unet").unwrap(),
            vae: Autoencoder::from_json(crate::lab::published::VAE, "vae").unwrap(),
            schedule: samplers::Config::from_json("{}", "scheduler").unwrap(),
            controls: controls.iter().map(control).collect(),
            picture: Box::new(start::SdEdit { shares: Shares::SD, needed: false }),
            refiner: None,
            encoders: Mutex::new(None),
        }
    }

    /// The parts of its UNet for a picture of 512 x 512 with guidance.
    fn cut(controls: &[&str]) -> Cut {
        sd15(controls).cut(&Executor::Cpu, (&Request::default(), &Settings::square(512)), [77, 1], 1, [64, 64]).unwrap()
    }

    #[test]
    fn a_step_of_sd15_takes_at_most_340_dispatches() {
        let Cut { step, pictures, guidance, .. } = cut(&[]);
        let nodes = sampling(step, 3, pictures, guidance.rows).unwrap().fused().nodes;
        assert!(nodes.len() <= 340, "{}", nodes.len());
    }

    #[test]
    fn a_controlnet_is_counted_in_what_a_step_takes_and_its_picture_is_made_small_once() {
        let (alone, guided) = (cut(&[]), cut(&[r#"{"cross_attention_dim": 768}"#]));
        let [alone_bytes, bytes] = [&alone, &guided].map(|parts| session_bytes(&parts.step.clone().fused(), F16));
        // Two bytes for each of its 361 million parameters, less those of the other parts.
        assert!((640_000_000..740_000_000).contains(&(bytes - alone_bytes)), "{}", bytes - alone_bytes);
        assert!(alone.picture.nodes.is_empty());
        assert_eq!(guided.picture.outputs.len(), 1);
        assert!(guided.step.nodes.iter().all(|node| !node.name.contains("controlnet_cond_embedding")));
    }

    #[test]
    fn sd15_at_512_takes_2_6_gb_with_everything_resident_and_its_decoder_under_0_7() {
        let Cut { text, time, step, .. } = cut(&[]);
        let networks = SD15.networks(64, 2).unwrap();
        let [encoder, _, decoder] = &networks[..] else { panic!("SD 1.5 has three networks") };
        let [text, time, step] = [text, time, step].map(|part| session_bytes(&part.fused(), F16));
        let [encoder, decoder] = [encoder, decoder].map(|graph| session_bytes(graph, F16));
        assert!(decoder < 700_000_000, "{decoder}");
        let all = text + time + step + encoder + decoder;
        assert!(all < 2_600_000_000, "{text} + {time} + {step} + {encoder} + {decoder} = {all}");
    }
}
