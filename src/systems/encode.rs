//! A picture to latents.

use super::kit::{Kit, Phase};
use super::noise::noise_of;
use super::part::Part;
use crate::error::{Error, Result};
use crate::image::{Mask, Picture};
use crate::models::autoencoder::Autoencoder;
use crate::models::config::{ENCODER, NetworkConfig};
use crate::network::Executor;
use crate::rng::Generator;
use crate::tensor::Tensor;

/// What a VAE's encoder is called.
const NAME: &str = "VAE's encoder";

/// The encoder of a VAE.
#[derive(Clone, Copy)]
pub struct Encoder<'a> {
    /// Its network.
    pub vae: &'a Autoencoder,
    /// The folder of its weights.
    pub component: &'static str,
    /// Whether it overflows f16.
    pub in_f32: bool,
}

impl Encoder<'_> {
    /// The part that encodes one picture of this height and width.
    ///
    /// # Errors
    /// If the autoencoder has no encoder for it.
    pub fn part(self, [height, width]: [usize; 2]) -> Result<Part> {
        let component = self.component;
        let (graph, wanted) = (self.vae.encoder(component, 1, height, width)?, self.vae.wanted(component)?);
        Ok(Part { what: NAME.into(), component: component.into(), graph, wanted, added: None, times: 1 })
    }

    /// A picture whose sides are multiples of the autoencoder's factor, where a device cannot hold that on the CPU.
    ///
    /// # Errors
    /// If the encoder cannot be loaded or run on the CPU either.
    pub async fn encode(self, kit: &mut Kit<'_>, picture: &Picture) -> Result<Encoded> {
        self.encode_pixels(kit, pixels(picture)).await
    }

    /// The same of what a mask leaves of it: where it is drawn anew, it is as grey as nothing.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub async fn encode_masked(self, kit: &mut Kit<'_>, picture: &Picture, mask: &Mask) -> Result<Encoded> {
        let mut sample = pixels(picture);
        let drawn = sample.data.chunks_exact_mut(3).zip(&mask.grey).filter(|(_, value)| **value > 0);
        drawn.for_each(|(pixel, _)| pixel.fill(0.0));
        self.encode_pixels(kit, sample).await
    }

    async fn encode_pixels(self, kit: &mut Kit<'_>, sample: Tensor) -> Result<Encoded> {
        let [_, height, width, _] = sample.shape.image()?;
        let inputs = [("sample", &sample)];
        let executor = if self.in_f32 { kit.executor.in_f32() } else { kit.executor.clone() };
        let part = self.part([height, width])?;
        let outputs = match kit.once_on(&executor, part.clone(), &inputs, "the picture").await {
            Err(Error::TooLarge(why)) if !matches!(executor, Executor::Cpu) => {
                kit.warn(why.on(format!("the {NAME} runs on the CPU")));
                kit.once_on(&Executor::Cpu, part, &inputs, "the picture").await?
            }
            outputs => outputs?,
        };
        kit.mark(Phase::Text, "encoding the picture");
        let mut outputs = self.vae.finish(ENCODER, &Default::default(), outputs.into_iter().collect())?;
        let mean = outputs.remove("mean").or_else(|| outputs.remove("latents"));
        let mean = mean.ok_or_else(|| Error::shape(format!("the {NAME} gives no latents")))?;
        let deviation = outputs.remove("logvar").map(|logvar| logvar.data.iter().map(|v| (0.5 * v).exp()).collect());
        Ok(Encoded { mean, deviation })
    }
}

/// A picture as autoencoders see it: `[1, height, width, 3]` from -1 to 1.
pub(super) fn pixels(picture: &Picture) -> Tensor {
    let mut sample = picture.to_tensor(picture.width, picture.height);
    sample.data.iter_mut().for_each(|v| *v = 2.0 * *v - 1.0);
    sample
}

/// The latents of one picture `[1, h, w, C]`, which are a distribution unless the autoencoder is a tiny one.
pub struct Encoded {
    /// The most likely.
    pub mean: Tensor,
    deviation: Option<Vec<f32>>,
}

impl Encoded {
    /// These latents and no others.
    pub fn exactly(mean: Tensor) -> Self {
        Self { mean, deviation: None }
    }

    /// One sample for each generator, scaled as samplers take them: `[generators, h, w, C]`.
    pub fn drawn(&self, vae: Option<&Autoencoder>, generators: &mut [Generator]) -> Tensor {
        let shape = self.mean.shape.with_batch(generators.len());
        let mut latents = self.mean.data.repeat(generators.len());
        if let Some(deviation) = &self.deviation {
            let noise = noise_of(generators, &shape).data;
            let added = noise.iter().zip(deviation.iter().cycle()).map(|(noise, deviation)| noise * deviation);
            latents.iter_mut().zip(added).for_each(|(latent, added)| *latent += added);
        }
        Tensor::new(shape, vae.map_or(latents.clone(), |vae| vae.scale(&latents)))
    }

    /// Draws as much as one more sample for each generator takes.
    pub fn pass_over(&self, generators: &mut [Generator]) {
        if self.deviation.is_some() {
            noise_of(generators, &self.mean.shape.with_batch(generators.len()));
        }
    }
}
