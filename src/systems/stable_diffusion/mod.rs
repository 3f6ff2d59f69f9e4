//! Stable Diffusion 1, 2 and XL (Rombach et al. 2022, Podell et al. 2023): noise in a VAE's latents becomes a picture
//! under the guidance of texts; diffusers' `StableDiffusionPipeline` and `StableDiffusionXLPipeline`. Two kinds work on
//! a picture, which their UNets see next to the latents ([`beside`]).

mod beside;
mod control;
mod text;
pub mod variant;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use beside::Noising;
use serde_json::Value;
pub use text::Conditioning;
use variant::{Uses, Variant};

use super::cut::{Cut, Given, joined};
use super::decode::{self, Decoder};
use super::denoise::{Loop, given_state};
use super::encode;
use super::guidance::Guidance;
use super::kit::{Kit, Rest};
use super::part::{Models, Part};
use super::request::{Own, Request, Settings};
use super::system::{Drawing, System};
use crate::conditioning::{ClipText, Options};
use crate::error::{Error, Result};
use crate::models::autoencoder::Autoencoder;
use crate::models::config::{FORWARD, NetworkConfig};
use crate::models::ports::Changes;
use crate::models::{controlnet, unet};
use crate::network::Executor;
use crate::samplers;
use crate::tensor::{Shape, Tensor};
use crate::weights::Model;

/// The `scaling_factor` of an upscaler's VAE, whatever its file says.
const UPSCALER_SCALING: f32 = 0.08333;

/// A model of the family: its configurations read and understood.
pub struct StableDiffusion {
    variant: &'static Variant,
    unet: unet::Config,
    vae: Autoencoder,
    schedule: samplers::Config,
    controls: Vec<controlnet::Config>,
    /// Of an upscaler's picture.
    noising: Option<Noising>,
    /// The encoders of the last call, and its options.
    encoders: Mutex<Option<(Options, Arc<Vec<ClipText>>)>>,
}

impl StableDiffusion {
    /// # Errors
    /// If a file of the model is missing, asks for something that is not built, or they do not fit each other.
    pub fn open(models: &Models, variant: &'static Variant) -> Result<Self> {
        let model = &models.model;
        let read = |path: &str| Ok::<_, Error>((model.text(path)?, model.path(path).display().to_string()));
        let (text, place) = read("unet/config.json")?;
        let unet = unet::Config::from_json(&text, &place)?;
        let (text, vae_place) = read("vae/config.json")?;
        let vae = Autoencoder::from_json(&text, &vae_place)?;
        // As diffusers does, since the first files do not say it.
        let vae = if variant.picture == Uses::ToEnlarge { vae.with_scaling(UPSCALER_SCALING) } else { vae };
        let (text, schedule_place) = read("scheduler/scheduler_config.json")?;
        let schedule = samplers::Config::from_json(&text, &schedule_place)?;
        beside::check(&unet, &vae, variant).map_err(|what| Error::config(place, what))?;
        let noising = (variant.picture == Uses::ToEnlarge).then(|| Noising::open(model, &unet)).transpose()?;
        let factor = vae.factor();
        let controls =
            models.controls.iter().map(|control| control::open(control, &unet, factor)).collect::<Result<_>>()?;
        Ok(Self { variant, unet, vae, schedule, controls, noising, encoders: Mutex::new(None) })
    }

    /// Whether the unconditional pass is needed: not by a network that is told the guidance it was distilled with.
    fn guided(&self, request: &Request, settings: &Settings) -> bool {
        let by_picture = self.variant.picture != Uses::ToEdit || beside::image_guidance(request) >= 1.0;
        settings.guidance > 1.0 && self.unet.guidance_width.is_none() && by_picture
    }

    /// By the text and, of a picture that is edited, by that: nothing, the picture, the picture and the text.
    fn guidance(&self, request: &Request, settings: &Settings) -> Guidance {
        match self.variant.picture {
            _ if !self.guided(request, settings) => Guidance::none(),
            Uses::ToEdit => {
                Guidance { rows: 3, terms: vec![(beside::image_guidance(request), 1, 0), (settings.guidance, 2, 1)] }
            }
            _ => Guidance::by_text(settings.guidance),
        }
    }

    /// Whether the VAE overflows f16.
    fn upcasts(&self) -> bool {
        self.variant.upcasts && self.vae.force_upcast()
    }

    /// Height and width of the latents.
    fn size(&self, settings: &Settings) -> [usize; 2] {
        [settings.height, settings.width].map(|side| side / self.vae.factor())
    }

    /// The UNet with its ControlNets, cut for a number of pictures at once, each drawn for texts of the shape `[texts,
    /// tokens, channels]`.
    fn cut(
        &self,
        executor: &Executor,
        (request, settings): (&Request, &Settings),
        text: &Shape,
        pictures: usize,
    ) -> Result<Cut> {
        let [height, width] = self.size(settings);
        let tokens = text.rows() / text.batch();
        let steps = settings.sampler(&self.schedule)?.timesteps().len();
        let more = self.variant.picture.channels(self.vae.latent_channels());
        let whole = |rows| {
            let graph = self.unet.controlled_graph(&self.controls, rows, height, width, tokens)?;
            if more == 0 { Ok(graph) } else { joined(graph, more) }
        };
        let own = self.unet.ports(FORWARD).into_iter().map(|port| (port.name.to_string(), port.changes));
        let images = (0..self.controls.len()).map(|index| (controlnet::image_input(index), Changes::Picture));
        let inputs: Vec<_> = own.chain(images).collect();
        let cut = Cut::of(["UNet", "unet"], &whole, &inputs, [pictures, steps], self.guidance(request, settings))?;
        cut.sampled(executor, &|| settings.sampler(&self.schedule))
    }

    /// What the UNet's parts are given.
    ///
    /// # Errors
    /// If the request's noise level is more than the model knows.
    fn given(&self, request: &Request, settings: &Settings, text: &Conditioning, timesteps: &[f32]) -> Result<Given> {
        let texts = text.context.shape.batch();
        let rows = texts * timesteps.len();
        let each = |row: &[f32], count: usize| Tensor::new([count, row.len()], row.repeat(count));
        let times = timesteps.iter().flat_map(|time| std::iter::repeat_n(*time, texts)).collect();
        let mut time = vec![("timestep", Tensor::new([rows], times))];
        if let Some(pooled) = &text.pooled {
            let all = Tensor::new([rows, pooled.shape.channels()], pooled.data.repeat(timesteps.len()));
            let (height, width) = (settings.height as f32, settings.width as f32);
            // The original size, the crop's corner, and the size that is wanted.
            let sizes: [f32; unet::TIME_IDS] = [height, width, 0.0, 0.0, height, width];
            time.extend([("text_embeds", all), ("time_ids", each(&sizes, rows))]);
        }
        if let Some(embedding) = self.unet.guidance_embedding(settings.guidance) {
            time.push(("timestep_cond", each(&embedding, rows)));
        }
        if let (Some(noising), Some(_)) = (&self.noising, self.unet.classes) {
            time.push(("class_labels", Tensor::new([rows], vec![noising.level(request)? as f32; rows])));
        }
        Ok(Given {
            picture: control::images(request, settings),
            text: vec![("encoder_hidden_states", text.context.clone())],
            time,
            beside: None,
            step: control::scales(request, timesteps.len()),
        })
    }

    /// The latents of these pictures, which are part number `part` of `parts`: channels last.
    async fn latents(
        &self,
        kit: &mut Kit<'_>,
        (text, seen): (&Conditioning, Option<&Tensor>),
        range: Range<usize>,
        (part, parts): (usize, usize),
    ) -> Result<Tensor> {
        let (request, settings) = (kit.request, kit.settings);
        let [height, width] = self.size(settings);
        let sampler = || settings.sampler(&self.schedule);
        let first = sampler()?;
        let steps = first.timesteps().len();
        let state = Shape::from([range.len(), height, width, self.unet.out_channels]);
        let mut noise = kit.noise(range.clone());
        let beside = self.beside(request, seen, &mut noise, text.context.shape.batch())?;
        let denoise = Loop {
            cut: self.cut(kit.executor, (request, settings), &text.context.shape, range.len())?,
            given: Given { beside, ..self.given(request, settings, text, first.timesteps())? },
            sampler: &sampler,
            start: given_state(request, &state, &range)?,
            state,
            noise,
            told: (part * steps, parts * steps),
        };
        denoise.run(kit).await
    }

    /// Prompt to embeddings, noise to latents, latents to pixels: of all pictures at once or, where those do not fit,
    /// of as many as do.
    async fn drawn(&self, kit: &mut Kit<'_>) -> Result<()> {
        if let Some(warning) = samplers::warning(&kit.settings.sampler, &self.schedule)? {
            kit.warn(warning);
        }
        let texts = self.texts(kit.models, kit.request, kit.settings)?;
        let text = self.condition(kit, texts).await?;
        let seen = self.look(kit).await?;
        let mut decoder = Decoder::new(&self.vae, self.upcasts());
        let mut rest = Rest::new(kit.request.batch);
        while let Some((range, part)) = rest.next_part() {
            let latents = match self.latents(kit, (&text, seen.as_ref()), range, part).await {
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

/// `model_index.json`; null if there is none.
fn index(model: &Model) -> Result<Value> {
    let path = "model_index.json";
    if model.has(path) { model.json(path) } else { Ok(Value::Null) }
}

impl System for StableDiffusion {
    fn settings(&self, models: &Models, request: &Request) -> Result<Settings> {
        let factor = self.vae.factor();
        let own = Own {
            model: &models.model,
            size: self.size_by_seen(request)?.or(self.unet.sample_size.map(|size| size.map(|side| side * factor))),
            factor,
            steps: self.variant.steps,
            guidance: self.variant.guidance,
            sampler: None,
            schedule: &self.schedule,
        };
        if let Some(noising) = &self.noising {
            noising.level(request)?;
        }
        Settings::of(request, &own)
    }

    fn parts(&self, models: &Models, executor: &Executor, request: &Request, settings: &Settings) -> Result<Vec<Part>> {
        let texts = self.texts(models, request, settings)?;
        let size = [settings.height, settings.width];
        let encoder = (self.variant.picture == Uses::ToEdit).then(|| encode::part(&self.vae, size)).transpose()?;
        let cut = self.cut(executor, (request, settings), &texts.shape(), request.batch)?;
        let decoder = decode::part(&self.vae, self.size(settings), request.batch)?;
        Ok(texts.parts.into_iter().chain(encoder).chain(cut.parts()).chain([decoder]).collect())
    }

    fn draw<'a, 'k: 'a>(&'a self, kit: &'a mut Kit<'k>) -> Drawing<'a> {
        Box::pin(self.drawn(kit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::plan::{Storage, session_bytes};
    use crate::lab::suite::SD15;
    use crate::systems::denoise::sampling;
    use crate::tensor::DType;

    const F16: Storage = Storage { act: DType::F16, weight: DType::F16 };

    /// Stable Diffusion 1.5; everything else is diffusers' default.
    fn sd15(controls: &[&str]) -> StableDiffusion {
        let control = |text: &&str| controlnet::Config::from_json(text, "controlnet").unwrap();
        StableDiffusion {
            variant: &variant::SD,
            unet: unet::Config::from_json(r#"{"cross_attention_dim": 768}"#, "unet").unwrap(),
            vae: Autoencoder::from_json(crate::lab::suite::VAE, "vae").unwrap(),
            schedule: samplers::Config::from_json("{}", "scheduler").unwrap(),
            controls: controls.iter().map(control).collect(),
            noising: None,
            encoders: Mutex::new(None),
        }
    }

    fn settings(side: usize) -> Settings {
        let (sampler, guidance) = ("ddim".into(), 7.5);
        Settings { width: side, height: side, steps: 25, guidance, sampler, spacing: None, prediction: None, eta: None }
    }

    /// The parts of its UNet for a picture of 512 x 512 with guidance.
    fn cut(controls: &[&str]) -> Cut {
        sd15(controls).cut(&Executor::Cpu, (&Request::default(), &settings(512)), &[2, 77, 768].into(), 1).unwrap()
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
