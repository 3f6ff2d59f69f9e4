//! Variations of a picture (Ramesh et al. 2022; diffusers' `StableUnCLIPImg2ImgPipeline`): CLIP's embedding of the
//! picture, with some noise, conditions the UNet in the place of a class.

use super::picture::{Batch, Decided, Reading, Show, Shown, Use};
use crate::error::{Error, Field, Remedy, Result};
use crate::image::Preprocessor;
use crate::models::clip_vision::{Config, Normalizer};
use crate::models::config::NetworkConfig;
use crate::models::unet;
use crate::ops::Op;
use crate::ops::timestep_embedding::{TimestepEmbedding, frequencies};
use crate::rng::Generator;
use crate::samplers;
use crate::systems::denoise::Start;
use crate::systems::encode::Encoder;
use crate::systems::kit::{Kit, Phase};
use crate::systems::part::Part;
use crate::systems::request::Request;
use crate::systems::settings::Settings;
use crate::tensor::{Tensor, Weights};
use crate::weights::Model;

/// The folders of the encoder and of what its embeddings are normalised with.
const ENCODER: &str = "image_encoder";
const NORMALIZER: &str = "image_normalizer";

/// What reads the picture that is varied.
pub(super) struct Reader {
    preprocessor: Preprocessor,
    encoder: Config,
    /// Of the noise that embeddings get.
    schedule: samplers::Config,
}

/// A picture's embedding, and what is done to it.
struct Varied {
    /// Of unit variance: noise is added to this.
    normalised: Vec<f32>,
    /// Mean and deviation of embeddings.
    normal: [Vec<f32>; 2],
    /// What embedding and noise are multiplied by.
    mix: (f32, f32),
    /// The noise level, as sines and cosines.
    level: Vec<f32>,
}

impl Reader {
    /// Reads what belongs to the encoder.
    ///
    /// # Errors
    /// If a file is missing, asks for something that is not built, or they do not fit each other.
    pub fn open(model: &Model, unet: &unet::Config) -> Result<Self> {
        let read = |path: &str| Ok::<_, Error>((model.text(path)?, model.path(path).display().to_string()));
        let (text, place) = read("image_encoder/config.json")?;
        let encoder = Config::from_json(&text, &place)?;
        let (text, of_normalizer) = read("image_normalizer/config.json")?;
        let normalizer = Normalizer::from_json(&text, &of_normalizer)?;
        let (wide, width) = (encoder.projection, unet.class_width.unwrap_or(0));
        if normalizer.width != wide || width != 2 * wide {
            let what = format!(
                "projection_dim is {wide}, but image_normalizer's embedding_dim {}, and the UNet takes {width}, not \
                 twice that",
                normalizer.width
            );
            return Err(Error::config(place, what));
        }
        let (text, place) = read("feature_extractor/preprocessor_config.json")?;
        let preprocessor = Preprocessor::from_json(&text, &place)?;
        let (text, place) = read("image_noising_scheduler/scheduler_config.json")?;
        let schedule = samplers::Config::from_json(&text, &place)?;
        frequencies(wide, 0.0).map_err(|error| error.at(NORMALIZER))?;
        Ok(Self { preprocessor, encoder, schedule })
    }

    /// The encoder.
    fn part(&self) -> Result<Part> {
        let (graph, wanted) = (self.encoder.graph(ENCODER, 1)?, self.encoder.wanted(ENCODER)?);
        Ok(Part { what: "image encoder".into(), component: ENCODER.into(), graph, wanted, added: None, times: 1 })
    }

    async fn varied(&self, kit: &mut Kit<'_>) -> Result<Varied> {
        let request = kit.request;
        let picture = request.init_image.as_ref().ok_or_else(|| Error::usage("is missing").of(Field::InitImage))?;
        let pixels = self.preprocessor.apply(picture).map_err(|error| error.at("the picture"))?;
        let mut outputs = kit.once(self.part()?, &[("pixel_values", &pixels)], "the picture").await?;
        kit.mark(Phase::Text, "encoding the picture");
        let embeds = outputs.remove("image_embeds");
        let embeds = embeds.ok_or_else(|| Error::shape("the image encoder gives no image_embeds"))?.data;
        let weights = kit.models.model.weights(NORMALIZER)?;
        let tensor = |name: &str| match weights.get(name) {
            Some(raw) if raw.shape.len() == embeds.len() => Ok(raw.to_f32()),
            _ => {
                let what = format!("{name} should be there, with {} numbers; download it again", embeds.len());
                Err(Error::weights(weights.place(), what))
            }
        };
        let [mean, deviation] = Normalizer::TENSORS.map(tensor);
        let (mean, deviation) = (mean?, deviation?);
        let normal = mean.iter().zip(&deviation);
        let normalised = embeds.iter().zip(normal).map(|(v, (mean, deviation))| (v - mean) / deviation).collect();
        let level = request.noise_level.unwrap_or(0);
        let mix = self.schedule.noise_level(level)?;
        let table = frequencies(embeds.len(), 0.0)?;
        let sinusoids = TimestepEmbedding { flip_sin_to_cos: true };
        let level = sinusoids.reference(&[&Tensor::new([1], vec![level as f32]), &table], &[1, embeds.len()].into());
        Ok(Varied { normalised, normal: [mean, deviation], mix, level: level.data })
    }
}

impl Use for Reader {
    fn decide(&self, request: &Request, _: usize, _: bool) -> Result<Decided> {
        if request.init_image.is_none() {
            let error = Error::usage("this model draws variations of a picture");
            return Err(error.remedies([Remedy::Give(Field::InitImage)]));
        }
        self.schedule.noise_level(request.noise_level.unwrap_or(0))?;
        Ok(Decided::default())
    }

    fn parts(&self, _: Encoder<'_>, _: &Settings) -> Result<Vec<Part>> {
        Ok(vec![self.part()?])
    }

    fn read<'a, 's: 'a>(&'s self, kit: &'a mut Kit<'_>, _: Encoder<'s>) -> Reading<'a, 's> {
        Box::pin(async move {
            let varied = self.varied(kit).await?;
            let show: Show<'s> = Box::new(move |Batch { noise, first, rows, .. }| {
                let classes = Some(varied.noised(noise, rows));
                (Start::Noise(first).into(), Shown { classes, ..Shown::default() })
            });
            Ok(Some(show))
        })
    }
}

impl Varied {
    /// The embedding with each generator's own noise, and the noise level, under the last of `rows` texts; without the
    /// text there is no picture either: `[rows * generators, 2 * width]`.
    fn noised(&self, generators: &mut [Generator], rows: usize) -> Tensor {
        let (width, (signal, sigma)) = (self.normalised.len(), self.mix);
        let [mean, deviation] = &self.normal;
        let row = |generator: &mut Generator| {
            let noise = generator.normal(width);
            let noised = self.normalised.iter().zip(noise).map(|(v, noise)| signal * v + sigma * noise);
            let back = noised.zip(mean.iter().zip(deviation)).map(|(v, (mean, deviation))| v * deviation + mean);
            back.chain(self.level.iter().copied()).collect::<Vec<_>>()
        };
        let mut data = vec![0.0; (rows - 1) * generators.len() * 2 * width];
        data.extend(generators.iter_mut().flat_map(row));
        Tensor::new([rows * generators.len(), 2 * width], data)
    }
}
