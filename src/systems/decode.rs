//! Latents to pictures, one at a time.

use super::kit::Kit;
use super::part::Part;
use crate::error::{Error, Result};
use crate::models::autoencoder::Autoencoder;
use crate::models::config::NetworkConfig;
use crate::network::Executor;
use crate::tensor::Tensor;

/// What a VAE's decoder is called.
const NAME: &str = "VAE's decoder";

/// The part that decodes latents of this size, one picture at a time, by the weights of the folder `component`.
///
/// # Errors
/// If the autoencoder has no decoder for them.
pub fn part(vae: &Autoencoder, component: &str, [height, width]: [usize; 2], pictures: usize) -> Result<Part> {
    let (graph, wanted) = (vae.decoder(component, 1, height, width)?, vae.wanted(component)?);
    Ok(Part { what: NAME.into(), component: component.into(), graph, wanted, added: None, times: pictures })
}

/// The decoder of a system's latents.
pub struct Decoder<'a> {
    /// Its network.
    pub vae: &'a Autoencoder,
    /// The folder of its weights.
    pub component: &'static str,
    /// Whether it overflows f16.
    pub in_f32: bool,
    /// Since the device cannot hold it.
    on_cpu: bool,
}

impl<'a> Decoder<'a> {
    /// One that has not decoded anything.
    pub fn new(vae: &'a Autoencoder, component: &'static str, in_f32: bool) -> Self {
        Self { vae, component, in_f32, on_cpu: false }
    }

    /// Latents `[pictures, height, width, channels]` to the kit's next pictures. What all the steps made is not lost
    /// to a device that cannot hold the decoder: the CPU decodes.
    ///
    /// # Errors
    /// If the decoder cannot be loaded or run on the CPU either, or a picture cannot be kept.
    pub async fn decode(&mut self, kit: &mut Kit<'_>, latents: &Tensor) -> Result<()> {
        let first = kit.made();
        if !self.on_cpu {
            let executor = if self.in_f32 { kit.executor.in_f32() } else { kit.executor.clone() };
            match (self.decode_on(kit, &executor, latents, first).await, &executor) {
                (Err(Error::TooLarge(why)), Executor::Gpu(..)) => {
                    kit.warn(why.on(format!("the {NAME} runs on the CPU")));
                    self.on_cpu = true;
                }
                (decoded, _) => return decoded,
            }
        }
        self.decode_on(kit, &Executor::Cpu, latents, first).await
    }

    /// One picture at a time: the decoder's activations are the largest of all. `first` is the place of the first one
    /// in the batch; those that are made are not made again.
    async fn decode_on(&self, kit: &mut Kit<'_>, executor: &Executor, latents: &Tensor, first: usize) -> Result<()> {
        let [batch, height, width, channels] = latents.shape.image()?;
        let mut network = kit.load(executor, part(self.vae, self.component, [height, width], batch)?).await?;
        for latents in latents.data.chunks_exact(latents.data.len() / batch).skip(kit.made() - first) {
            let z = Tensor::new([1, height, width, channels], self.vae.unscale(latents));
            let place = format!("picture {}", kit.made() + 1);
            let mut outputs = kit.pass(&mut network, &[("z", &z)], &place).await?;
            let sample = outputs.remove("sample");
            kit.add_picture(&sample.ok_or_else(|| Error::shape(format!("the {NAME} has no output sample")))?)?;
        }
        kit.release(network);
        Ok(())
    }
}
